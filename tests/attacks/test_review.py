"""Holes that a review found, each as the attack that it allowed."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from interposer import settings as chosen
from interposer.arguments import Arguments
from interposer.ballot import intact
from interposer.errors import InvalidArguments, RecordFault, Unavailable, UpstreamFault
from interposer.masking.engine import Engine
from interposer.model import Failed, InDoubt, Intent, JsonObject, Kind, Outcome, Principal, Progress
from interposer.ports import Secret
from interposer.records.reader import RecordReader
from interposer.records.sqlite import SqliteRecordStore
from interposer.replies import result_of
from interposer.upstreams.memory import MemoryUpstream
from tests.fakes.house import OPERATOR, SlowStore, definition, echo, echoing, indoors, rules

DEADLINE_S = 10


async def test_errors_about_arguments_do_not_quote_what_the_definition_hides() -> None:
    """A credential or address in a schema is masked in the list, and does not come back in the words of a refusal."""
    credential = "tok-" + "Zq81mmPd02kfLL7x"
    schema = {
        "type": "object",
        "properties": {"x": {"const": credential}, "y": {"enum": ["alice@example.com"]}},
        "required": ["y"],
    }
    masker = Engine()
    masker.guard(Secret(credential))
    upstream = MemoryUpstream("fake", {"echo": (definition(inputSchema=schema), echo)})
    async with indoors(upstreams=[upstream], masker=masker) as broker:
        with pytest.raises(InvalidArguments) as refused:
            await broker.invoke({"x": "1", "y": "2"})
        payloads = b"".join(row.payload or b"" for row in broker.store.records)
    for hidden in (credential, "alice@example.com"):
        assert hidden not in refused.value.public
        assert hidden.encode() not in payloads


@pytest.mark.parametrize("call", [{"items": [{"n": n} for n in range(3001)], "x": 1}, {"items": list(range(400_000))}])
def test_arguments_that_do_not_fit_are_refused_in_bounded_time(call: JsonObject) -> None:
    """One agent cannot stop the broker by being wrong at length."""
    schema = {"properties": {"items": {"type": "array", "uniqueItems": True, "items": {"type": "object"}}, "x": False}}
    began = time.process_time()
    with pytest.raises(InvalidArguments):
        Arguments(schema).check(call)
    assert time.process_time() - began < 3


async def test_a_call_cancelled_in_the_same_breath_leaves_nothing_behind() -> None:
    """Request and cancellation in one read: no flight is left, and the conversation goes on."""
    async with indoors() as broker:
        agent = broker.join()
        await agent.initialize()
        session = broker.sessions[0]
        for id in range(100, 400):
            pair = (
                f'{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"echo","arguments":{{}}}}}}\n'
                f'{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{id}}}}}\n'
            )
            session.received(pair.encode())
            await anyio.lowlevel.checkpoint()
        with anyio.fail_after(DEADLINE_S):
            assert (await agent.request("ping"))["result"] == {}
            while session._flights:
                await anyio.lowlevel.checkpoint()
        begun = [row.invocation for row in broker.rows(Kind.INTENDED)]
        ended = {row.invocation for row in broker.store.records if row.kind in (Kind.ANSWERED, Kind.IN_DOUBT)}
        assert set(begun) <= ended


async def test_no_yes_follows_a_caller_that_left_while_it_was_asked() -> None:
    """A call that is cancelled while its question is being written is withdrawn, with its question."""
    store = SlowStore(Kind.ASKED)
    async with indoors(rules("ask *"), store=store) as broker:
        agent = broker.join()
        await agent.initialize()
        session = broker.sessions[0]
        session.received(
            b'{"jsonrpc":"2.0","id":9,"method":"tools/call","params":{"name":"echo","arguments":{"text":"x"}}}\n'
        )
        with anyio.move_on_after(1):
            await store.reached.wait()
        session.received(b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":9}}\n')
        store.go.set()
        with anyio.fail_after(DEADLINE_S):
            while session._flights:
                await anyio.lowlevel.checkpoint()
        assert "withdrawn" in broker.kinds()
        assert await broker.desk.pending() == []


async def test_one_definition_that_cannot_be_shown_takes_no_other_with_it() -> None:
    """A schema that masking breaks is withheld; the list and the other skills are as they were."""
    odd = definition(
        outputSchema={"type": "object", "properties": {"n": {"type": "number", "maximum": 4012888888881881}}}
    )
    upstream = MemoryUpstream("fake", {"odd": (odd, echo), "echo": (definition(), echo)})
    async with indoors(upstreams=[upstream]) as broker:
        await broker.catalogue.refresh()
        assert [offer.skill.name for offer in broker.catalogue.offers()] == ["echo"]
        assert ("fake", "odd") in [(upstream, name) for upstream, name, _ in broker.catalogue.withheld()]
        broker.decree(rules("allow fake.*"))
        assert (await broker.invoke()).masked.value["content"]


async def test_nobody_takes_the_name_of_another_upstreams_skill() -> None:
    """A skill that is named like a prefixed one of another upstream gets a prefix of its own."""
    upstreams = [echoing("a"), echoing("b"), MemoryUpstream("c", {"a__echo": (definition(), echo)})]
    async with indoors(upstreams=upstreams) as broker:
        await broker.catalogue.refresh()
        names = {offer.skill.exposed: offer.skill.id for offer in broker.catalogue.offers()}
    assert names == {"a__echo": "a.echo", "b__echo": "b.echo", "c__a__echo": "c.a__echo"}


async def test_an_error_that_may_not_be_shown_is_not_called_not_executed() -> None:
    """Where an upstream did answer, nobody is told that nothing was run."""

    async def fails(arguments: JsonObject) -> Outcome:
        return Failed("the upstream refused", {"code": -32603, "message": "after the effect"})

    store = SlowStore(Kind.FAILED)
    async with indoors(upstreams=[MemoryUpstream("fake", {"echo": (definition(), fails)})], store=store) as broker:
        store.go.set()
        carried = await broker.invoke()
    text = result_of(replace(carried, withheld="could not be recorded"))["content"][0]["text"]
    assert "unknown" in text
    assert "not run" not in text


async def test_leaving_early_does_not_keep_a_session_clean() -> None:
    """A session that heard of untrusted text is labelled, even if its agent cancels the call that brought it."""
    policy = rules("allow *") + "obligations:\n  - {skills: ['*'], labels: [untrusted]}\n"
    reached = anyio.Event()

    async def waits(arguments: JsonObject) -> Outcome:
        reached.set()
        await anyio.sleep_forever()
        return InDoubt("never")

    async with indoors(policy, [MemoryUpstream("fake", {"echo": (definition(), waits)})]) as broker:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(broker.invoke)
            await reached.wait()
            tasks.cancel_scope.cancel()
        assert broker.facts.facts("s_1").labels == {"untrusted"}


class Down:
    """An upstream that cannot be had."""

    name = "down"

    def serves(self, principal: Principal) -> bool:
        return True

    async def skills(self) -> list[JsonObject]:
        raise UpstreamFault("cannot start")

    async def call(self, intent: Intent, on_progress: Callable[[Progress], None] | None) -> Outcome:
        return Failed("cannot start")

    def on_change(self, changed: Callable[[], None]) -> None:
        """Nothing ever changes."""

    async def aclose(self) -> None:
        """Nothing is open."""


async def test_a_service_that_is_down_is_not_called_unknown() -> None:
    """While an upstream was never heard of, names that it may have are unavailable, hidden ones too."""
    async with indoors(rules("deny fake.echo"), [echoing(), Down()]) as broker:
        for name in ("echo", "nosuch"):
            with pytest.raises(Unavailable):
                await broker.invoke(name=name)


async def test_a_question_that_was_edited_is_neither_shown_nor_answered(tmp_path: Path) -> None:
    """What a human sees is what the digest was made of, or nothing; and the record says that it was edited."""
    async with indoors(rules("ask *")) as broker:
        with pytest.raises(Exception, match="is open"):
            await broker.invoke({"text": "pay 99"})
        (asked,) = await broker.desk.pending()
        assert intact(asked)
        edited = replace(asked, canonical=asked.canonical.replace(b"99", b"41"))
        assert not intact(edited)
        broker.store._questions[asked.id] = edited
        with pytest.raises(RecordFault):
            await broker.desk.get(asked.id)
        with pytest.raises(RecordFault):
            await broker.desk.vote(asked.id, OPERATOR, True)
    store = SqliteRecordStore.open(tmp_path / "record.db")
    opened = next(row for row in broker.store.records if row.kind is Kind.QUESTION_OPENED)
    await store.open_question(asked, opened)
    await store.aclose()
    for change in ("UPDATE questions SET canonical = CAST('{}' AS BLOB)", "DELETE FROM questions"):
        with sqlite3.connect(tmp_path / "record.db") as db:
            db.execute(change)
        db.close()
        with RecordReader(tmp_path / "record.db") as reader:
            found = reader.verify().found
        assert found is not None
        assert found.what in ("question_edited", "question_missing")


def test_a_command_does_not_replace_the_policy_of_the_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--config` with a command keeps everything but the upstreams; one that is missing is an error."""
    config = tmp_path / "c.yaml"
    config.write_text("version: 1\npolicy: deny.yaml\ncallers: [{uid: 7, subject: ann}]\n")
    found = chosen.settings(str(config), None, ["true"])
    assert found.policy == str(tmp_path / "deny.yaml")
    assert found.config.callers
    assert list(found.upstreams) == ["true"]
    monkeypatch.setenv("INTERPOSER_CONFIG", str(tmp_path / "missing.yaml"))
    with pytest.raises(Exception, match="no such file"):
        chosen.settings(None, None, ["true"])


async def test_an_open_folder_that_holds_other_things_is_not_taken_over(tmp_path: Path) -> None:
    """A shared folder named as the home is refused, and keeps its permissions."""
    from interposer.state import claim

    (tmp_path / "somebody.txt").write_text("else")
    tmp_path.chmod(0o777)
    with pytest.raises(Exception, match="holds other things"):
        claim(tmp_path, several=False)
    assert tmp_path.stat().st_mode & 0o777 == 0o777


async def test_progress_beyond_all_numbers_is_no_progress() -> None:
    """An integer that is no float costs the upstream's other answers nothing."""
    from interposer.upstreams.link import _number

    assert _number(10**400) is None
    assert _number(12) == 12
