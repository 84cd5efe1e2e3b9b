"""`interposer sessions` and `interposer record`: the record on the command line."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import anyio
import pytest
from click.testing import CliRunner, Result

from interposer.cli.record import record as record_group
from interposer.cli.sessions import sessions as sessions_group
from interposer.model import Kind, Principal, Record
from interposer.records.sqlite import SqliteRecordStore

ALICE = Principal("local", "alice")
NASTY = "\x1b]0;title\x07\u202eevil\x9b"


def rows(session: str) -> list[Record]:
    def row(kind: Kind, at: float, payload: bytes | None = None, **fields: object) -> Record:
        return Record(kind, session, 1_800_000_000 + at, payload=payload, **fields)  # type: ignore[arg-type]

    call = {"invocation": f"i-{session}", "skill": "crm.get", "principal": ALICE, "effect": "allow", "rules": ("r1",)}
    nasty = json.dumps({"result": {"text": NASTY, "amount": 0.1}}, ensure_ascii=False).encode()
    return [
        row(Kind.SESSION_OPENED, 0, code="stdio"),
        row(Kind.SESSION_OPENED, 0.1, b'{"client":{"name":"demo-agent","version":"1"}}', code="introduced"),
        row(Kind.INTENDED, 1, b'{"arguments":{"id":"c-1"}}', **call),
        row(Kind.ANSWERED, 1.5, nasty, **call),
        row(Kind.REFUSED, 2, b'{"said":"Unknown."}', skill=f"crm.{NASTY}", code="unknown_skill", principal=ALICE),
        row(Kind.SESSION_CLOSED, 3),
    ]


def write(path: Path, *sessions: str) -> None:
    async def writing() -> None:
        store = SqliteRecordStore.open(path)
        for session in sessions:
            for each in rows(session):
                await store.append(each)
        await store.aclose()

    anyio.run(writing)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("INTERPOSER_HOME", str(tmp_path))
    write(tmp_path / "record.db", "s_aaa1", "s_aab2")
    write(tmp_path / "slots" / "2" / "record.db", "s_bbb3")
    return tmp_path


def sessions(*arguments: str) -> Result:
    return CliRunner().invoke(sessions_group, arguments)


def record(*arguments: str) -> Result:
    return CliRunner().invoke(record_group, arguments)


def test_sessions_of_all_records_of_a_home_are_listed(home: Path) -> None:
    """The broker's own record and those of its slots, with client and caller."""
    listed = json.loads(sessions("list", "--json").stdout)
    assert [each["id"] for each in listed] == ["s_aaa1", "s_aab2", "s_bbb3"]
    assert listed[0] | {"record": ""} == {
        "id": "s_aaa1",
        "client": "demo-agent",
        "principals": ["local:alice"],
        "opened_at": 1_800_000_000.0,
        "last_at": 1_800_000_003.0,
        "open": False,
        "forwarded": 1,
        "answered": 1,
        "failed": 0,
        "in_doubt": 0,
        "refused": 1,
        "ticketed": 0,
        "withdrawn": 0,
        "rows": [1, 6],
        "record": "",
    }
    plain = sessions("list").stdout.splitlines()
    assert plain[0].split() == ["SESSION", "OPENED", "CLIENT", "WHO", "SENT", "REFUSED", "IN", "DOUBT", "STATE"]
    assert len(plain) == 4


def test_a_session_is_shown_by_an_unambiguous_beginning_of_its_id(home: Path) -> None:
    """A prefix will do; one that fits two sessions, or none, is a usage error that says so."""
    assert json.loads(sessions("show", "s_b", "--json").stdout)["id"] == "s_bbb3"
    assert "s_aaa1" in sessions("show", "s_aaa1").stdout
    for id, said in (("s_aa", "fits 2 sessions: s_aaa1, s_aab2"), ("nope", "no session nope")):
        result = sessions("show", id)
        assert (result.exit_code, result.stdout) == (2, "")
        assert said in result.stderr


def test_a_replay_tells_what_the_agent_saw(home: Path) -> None:
    """In order, with the decision; with --json one object per line."""
    told = sessions("replay", "s_aaa1").stdout
    assert told.index("connected over stdio") < told.index("calls crm.get: allow by r1") < told.index("session over")
    assert 'with {"id":"c-1"}' in told
    steps = [json.loads(line) for line in sessions("replay", "s_aaa1", "--json").stdout.splitlines()]
    assert [step["kind"] for step in steps] == [each.kind.value for each in rows("s_aaa1")]
    assert steps[3]["saw"]["amount"] == 0.1


def test_a_replay_can_keep_time(home: Path) -> None:
    """At high speed the same is told."""
    assert sessions("replay", "s_aaa1", "--speed", "1000").stdout == sessions("replay", "s_aaa1").stdout


@pytest.mark.parametrize(
    "command", [("list",), ("show", "s_aaa1"), ("replay", "s_aaa1"), ("replay", "s_aaa1", "--json")]
)
def test_stored_text_cannot_speak_to_the_terminal(home: Path, command: tuple[str, ...]) -> None:
    """Whatever a skill answered, only printable ASCII comes out."""
    out = sessions(*command).stdout
    assert out.isascii()
    assert all(char.isprintable() or char == "\n" for char in out)
    if command[0] == "replay":
        assert "\\u202e" in out


def test_an_untouched_record_verifies(home: Path) -> None:
    """Exit code 0, the number of rows and the head of each record."""
    result = record("verify")
    assert result.exit_code == 0
    assert result.stdout.count("rows, all as they were written") == 2
    answers = [json.loads(line) for line in record("verify", "--json").stdout.splitlines()]
    assert [(answer["ok"], answer["rows"]) for answer in answers] == [(True, 12), (True, 6)]
    assert all(len(answer["head"]) == 64 for answer in answers)


def test_the_first_row_that_differs_is_named(home: Path) -> None:
    """Exit code 1, and which row it is."""
    path = home / "record.db"
    with sqlite3.connect(path) as db:
        db.execute("UPDATE events SET skill = 'crm.other' WHERE seq = 4")
    db.close()
    result = record("verify", "--record", str(path))
    assert result.exit_code == 1
    assert "BROKEN at row 4" in result.stdout
    answer = json.loads(record("verify", "--json").stdout)
    assert (answer["ok"], answer["break"]["row"], answer["break"]["what"]) == (False, 4, "edited")


def test_a_running_brokers_record_can_be_read_and_verified(tmp_path: Path) -> None:
    """Beside the writer, from the log that is not yet in the database file."""
    path = tmp_path / "record.db"

    async def beside() -> None:
        store = SqliteRecordStore.open(path)
        for each in rows("s_live")[:-1]:
            await store.append(each)
        result = await anyio.to_thread.run_sync(lambda: record("verify", "--record", str(path)))
        assert (result.exit_code, "5 rows" in result.stdout) == (0, True)
        listed = await anyio.to_thread.run_sync(lambda: sessions("list", "--record", str(path), "--json"))
        assert json.loads(listed.stdout)[0]["open"] is True
        assert store.healthy()
        await store.append(rows("s_live")[-1])
        await store.aclose()

    anyio.run(beside)


def test_a_copy_that_nobody_may_write_beside_can_be_verified(home: Path, tmp_path: Path) -> None:
    """An auditor's copy, alone in its folder."""
    folder = tmp_path / "copy"
    folder.mkdir()
    (folder / "copy.db").write_bytes((home / "record.db").read_bytes())
    folder.chmod(0o500)
    result = record("verify", "--record", str(folder / "copy.db"))
    folder.chmod(0o700)
    assert result.exit_code == 0


@pytest.mark.parametrize("content", [None, b"no database at all, only text" * 100, b""])
def test_what_is_no_record_is_said(tmp_path: Path, content: bytes | None) -> None:
    """Neither a stack trace nor a yes."""
    path = tmp_path / "odd.db"
    if content is not None:
        path.write_bytes(content)
    result = record("verify", "--record", str(path))
    assert result.exit_code == (2 if content is None else 5)
    assert str(path) in result.stderr


def test_no_record_at_all_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty home: what to do about it."""
    monkeypatch.setenv("INTERPOSER_HOME", str(tmp_path / "empty"))
    result = sessions("list")
    assert result.exit_code == 2
    assert "start a broker, or name one with --record" in result.stderr


def test_every_help_ends_with_an_example() -> None:
    """Each command shows how it is used."""
    for group in (sessions_group, record_group):
        for name in ([], *([name] for name in group.commands)):
            out = CliRunner().invoke(group, [*name, "--help"]).stdout
            assert out.rstrip().splitlines()[-1].strip().startswith("interposer ")


def test_a_session_shows_the_grants_it_got_and_used(tmp_path: Path) -> None:
    """A grant for any session is shown where it was asked for and where it carried a call, and in no other session."""
    path = tmp_path / "record.db"

    async def writing() -> None:
        store = SqliteRecordStore.open(path)

        async def row(kind: Kind, session: str, **fields: object) -> None:
            await store.append(Record(kind, session, 1_800_000_000.0, **fields))  # type: ignore[arg-type]

        for session in ("s_1", "s_2", "s_3"):
            await row(Kind.SESSION_OPENED, session)
        await row(Kind.QUESTION_OPENED, "s_1", question="q_1")
        await row(Kind.GRANT_GIVEN, "", question="g_1", code="q_1", skill="crm.get", payload=b'{"uses":5}')
        await row(Kind.GRANT_USED, "s_2", question="g_1", code="q_1", invocation="i1", skill="crm.get")
        await row(Kind.INTENDED, "s_2", question="q_1", invocation="i1", skill="crm.get")
        await row(Kind.GRANT_REVOKED, "", question="g_1", code="revoked")
        await store.aclose()

    anyio.run(writing)
    kinds = {}
    for session in ("s_1", "s_2", "s_3"):
        shown = json.loads(sessions("show", session, "--record", str(path), "--json").stdout)
        kinds[session] = [step["kind"] for step in shown["steps"]]
    assert kinds == {
        "s_1": ["session_opened", "question_opened", "grant_given", "grant_revoked"],
        "s_2": ["session_opened", "grant_given", "grant_used", "intended", "grant_revoked"],
        "s_3": ["session_opened"],
    }
    told = sessions("replay", "s_2", "--record", str(path)).stdout
    assert "grant g_1" in told
    assert "calls: 5" in told
    assert told.index("a use of a standing grant") < told.index("; sent")
