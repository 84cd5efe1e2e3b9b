"""Replay: what the agent saw, from the record alone."""

from __future__ import annotations

import sys

from interposer.chain import Link
from interposer.model import JsonObject, Kind, Principal, Record
from interposer.records.row import Sealer
from interposer.replay import name_of, story

ALICE = Principal("local", "alice")
ROOT = Principal("operator", "root")


def linked(*records: Record) -> tuple[list[Link], dict[str, JsonObject]]:
    sealer = Sealer(b"k" * 32)
    subjects: dict[str, JsonObject] = {
        sealer.pseudonym(who): {"issuer": who.issuer, "subject": who.subject} for who in (ALICE, ROOT)
    }
    return [sealer.seal(record, 1.0) for record in records], subjects


def row(kind: Kind, payload: bytes | None = None, who: Principal = ALICE, **fields: str) -> Record:
    return Record(kind, "s1", 1.0, "i1", "crm.get", who, "allow", ("r1",), payload=payload, **fields)  # type: ignore[arg-type]


def test_a_call_is_told_with_its_decision_and_its_answer() -> None:
    """Arguments, rule, result and what was masked, in order."""
    steps = story(
        *linked(
            row(Kind.INTENDED, b'{"arguments":{"id":"c-1"}}'),
            row(Kind.ANSWERED, b'{"result":{"content":[]},"masked":{"ssn":2}}'),
        )
    )
    assert [step.text for step in steps] == ["calls crm.get: allow by r1; sent", "crm.get answered"]
    assert steps[0].arguments == {"id": "c-1"}
    assert (steps[1].saw, steps[1].masked, steps[1].principal) == ({"content": []}, {"ssn": 2}, "local:alice")


def test_an_approval_is_told_with_the_person_and_the_reason() -> None:
    """Who was asked, who said what, and why."""
    steps = story(
        *linked(row(Kind.VOTED, b'{"reason":"customer called"}', ROOT, code="yes"), row(Kind.GRANTED, who=ROOT))
    )
    assert [(step.text, step.note) for step in steps] == [
        ("operator:root says yes", "customer called"),
        ("approved by operator:root", ""),
    ]


def test_a_standing_grant_is_told_with_what_it_is_good_for() -> None:
    """What was put on the table, what was given, and each use before the call that it carried."""
    proposal = b'{"digest":"v","arguments":{"amount":7},"grant":{"for_s":600.0,"uses":3,"session":true,"schema":""}}'
    steps = story(
        *linked(
            row(Kind.AMENDED, proposal, ROOT),
            row(Kind.GRANT_GIVEN, b'{"commitment":"c","uses":null,"session":"","schema_sha256":"s"}', ROOT),
            row(Kind.GRANT_USED),
            row(Kind.INTENDED, b'{"arguments":{"amount":7}}'),
            row(Kind.GRANT_SPENT),
            row(Kind.GRANT_REVOKED, b'{"reason":"enough"}', ROOT),
        )
    )
    assert [(step.text, step.note) for step in steps] == [
        ("operator:root puts something else on the table", "calls: 3, for 600 s, of this session"),
        ("operator:root gives a standing grant for crm.get", "any number of calls, whose arguments match a schema"),
        ("a use of a standing grant for crm.get", ""),
        ("calls crm.get: allow by r1; sent", ""),
        ("the standing grant is used up", ""),
        ("the standing grant is taken back by operator:root", "enough"),
    ]
    assert steps[0].arguments == {"amount": 7}


def test_a_refusal_is_told_with_what_the_agent_was_told() -> None:
    """The text that went back."""
    (step,) = story(*linked(row(Kind.REFUSED, b'{"said":"Policy does not allow this call."}', code="denied")))
    assert step.saw == "Policy does not allow this call."
    assert "nothing was executed" in step.text


def test_what_is_not_there_is_said() -> None:
    """Erased payloads, erased names, cut payloads and rows that cannot be read are told as what they are."""
    links, subjects = linked(
        row(Kind.ANSWERED, b'{"result":1}'), row(Kind.INTENDED, b'{"capped":true,"size":9,"head":"x"}')
    )
    links[0] = links[0]._replace(salt=None, payload=None)
    first, second = story(links, {})
    assert (first.note, first.saw) == ("erased", None)
    assert first.principal.startswith("erased:")
    assert (second.arguments, second.note) == ("x", "9 bytes, of which the first are kept; SHA-256 None")
    (odd,) = story([links[0]._replace(payload=b"{", row=links[0].row._replace(rules="{"))], subjects)
    assert (odd.note, odd.rules) == ("the stored payload is not JSON", ())


def test_every_kind_can_be_told() -> None:
    """No row of the record is without words."""
    steps = story(*linked(*[row(kind, code="c") for kind in Kind]))
    assert all(step.text for step in steps)
    assert all(step.as_json()["kind"] == kind.value for step, kind in zip(steps, Kind, strict=True))


def test_nobody_has_no_name() -> None:
    """A row without a principal names nobody."""
    assert name_of("", {}) == ""


def test_replay_loads_nothing_that_could_reach_an_upstream() -> None:
    """Offline by construction: neither replay nor the reader imports a network module."""
    import subprocess

    code = (
        "import sys, interposer.replay, interposer.records.reader;"
        "print([m for m in ('socket', 'asyncio', 'anyio', 'ssl', 'http') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
