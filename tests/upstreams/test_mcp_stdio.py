"""Calls over a child process: many at once, each ended in one of three ways, none sent twice."""

from __future__ import annotations

import json
from pathlib import Path

import anyio
import pytest

from interposer.errors import UpstreamFault
from interposer.model import Answered, Era, Failed, InDoubt, Outcome, Progress
from interposer.ports import Secret
from interposer.upstreams.server import Credential, Limits
from tests.upstreams.rig import QUICK, intent, running, text


@pytest.mark.parametrize(
    ("era", "found"),
    [
        ("legacy", Era.LEGACY),
        ("modern", Era.MODERN),
        ("dual", Era.MODERN),
        ("silent", Era.LEGACY),
        ("exits", Era.LEGACY),
    ],
)
async def test_a_skill_answers_whatever_its_server_speaks(era: str, found: Era) -> None:
    """The era is found out, and answers look the same in both: no field of the hop is left, unknown ones are kept."""
    async with running("--era", era) as rig:
        with anyio.fail_after(20):
            outcome = await rig.call("echo", {"text": "grüße"})
        assert isinstance(outcome, Answered)
        assert outcome.result.pop("_meta", {"kept": True}) == {"kept": True}
        assert outcome.result == {"content": [{"type": "text", "text": "grüße"}]}
        verdict = rig.upstream.verdict
        assert verdict is not None
        assert verdict.era is found


async def test_a_batching_version_is_understood() -> None:
    """An upstream may settle on the oldest revision."""
    async with running("--version", "2024-11-05") as rig:
        assert text(await rig.call("echo", {"text": "x"})) == "x"


async def test_a_silent_server_is_not_told_of_cancellations_before_its_introduction() -> None:
    """The probe that nobody answers is simply forgotten."""
    async with running("--era", "silent", limits=Limits(probe_s=0.1)) as rig:
        assert (await rig.about())["cancelled"] == []


async def test_an_unknown_version_is_a_failed_start() -> None:
    """A revision that nobody here speaks is not guessed at."""
    async with running("--version", "1999-01-01") as rig:
        outcome = await rig.call("echo")
        assert isinstance(outcome, Failed)
        assert outcome.reason.startswith("not executed")


async def test_requests_to_a_modern_server_carry_the_envelope_and_no_capability() -> None:
    """MCP 2026-07-28: version and capabilities on every request, and we declare none."""
    async with running("--era", "modern") as rig:
        meta = (await rig.about())["meta"]
        assert meta["io.modelcontextprotocol/protocolVersion"] == "2026-07-28"
        assert meta["io.modelcontextprotocol/clientCapabilities"] == {}


async def test_sixteen_slow_calls_take_as_long_as_one() -> None:
    """Calls do not wait for each other, and each gets its own answer."""
    async with running() as rig:
        await rig.call("echo")
        answers: dict[int, str] = {}

        async def one(number: int) -> None:
            answers[number] = text(await rig.call("slow", {"ms": 300, "text": str(number)}))

        with anyio.fail_after(2.5):
            async with anyio.create_task_group() as tasks:
                for number in range(16):
                    tasks.start_soon(one, number)
        assert answers == {number: str(number) for number in range(16)}


async def test_an_error_of_the_skill_is_a_failure_with_its_code() -> None:
    """A JSON-RPC error means that the request was refused; its object is kept for the answer."""
    async with running() as rig:
        outcome = await rig.call("boom")
        assert isinstance(outcome, Failed)
        assert outcome.error == {"code": -32050, "message": "boom", "data": {"why": "asked to"}}


async def test_a_deadline_leaves_the_outcome_in_doubt_and_tells_the_upstream() -> None:
    """Progress does not extend it, the upstream hears of it, and the late answer is reported and dropped."""
    async with running() as rig:
        await rig.call("echo")
        with anyio.fail_after(2):
            outcome = await rig.call("slow", {"ms": 400}, timeout_s=0.1, id="i-late")
        assert outcome == InDoubt("the upstream did not answer before the deadline")
        await rig.until_told("late")
        assert rig.told("late") == ["i-late"]
        assert len((await rig.about())["cancelled"]) == 1


async def test_a_cancelled_call_is_cancelled_upstream() -> None:
    """Whoever hangs up, the upstream is told, and what it answers all the same is reported."""
    async with running() as rig:
        await rig.call("echo")
        with anyio.move_on_after(0.05):
            await rig.call("slow", {"ms": 300}, id="i-gone")
        await rig.until_told("late")
        assert rig.told("late") == ["i-gone"]
        assert len((await rig.about())["cancelled"]) == 1


async def test_progress_reaches_the_caller_and_only_grows() -> None:
    """Values that fall or repeat, and tokens that are not ours, are dropped."""
    async with running() as rig:
        seen: list[Progress] = []
        steps = {"values": [1, 1, 3, 2, 3.5, -4, 9]}
        await rig.upstream.call(intent("steps", steps), seen.append)
        assert [progress.progress for progress in seen] == [1, 3, 3.5, 9]
        assert seen[0] == Progress("at 1", 1, 10)
        await rig.call("steps", {"values": [1]})
        assert len(seen) == 4


async def test_a_death_in_mid_call_is_in_doubt_and_the_next_call_finds_a_new_process() -> None:
    """What was sent may have happened; nothing is sent again; the skills may have changed."""
    async with running() as rig:
        changes: list[int] = []
        rig.upstream.on_change(lambda: changes.append(1))
        before = (await rig.about())["pid"]
        assert isinstance(await rig.call("die"), InDoubt)
        assert (await rig.about())["pid"] != before
        assert rig.told("restart")
        assert rig.log == ["dying now"]
        with anyio.fail_after(5):
            while not changes:
                await anyio.sleep(0.01)


async def test_every_received_call_was_sent_once(tmp_path: Path) -> None:
    """The upstream's own truth has one line per call, deaths included."""
    async with running(truth=tmp_path / "truth") as rig:
        for name in ("echo", "die", "echo", "boom"):
            await rig.call(name)
        lines = [json.loads(line)["name"] for line in (tmp_path / "truth").read_text().splitlines()]
        assert lines == ["echo", "die", "echo", "boom"]


async def test_a_server_that_keeps_dying_is_left_alone() -> None:
    """After five deaths in a minute calls fail at once, unsent."""
    async with running(limits=Limits(backoff_s=(0.01, 0.02), deaths=3)) as rig:
        for _ in range(4):
            await rig.call("die")
        await rig.until_told("quarantine")
        with anyio.fail_after(1):
            outcome = await rig.call("echo")
        assert isinstance(outcome, Failed)
        assert "not executed" in outcome.reason


@pytest.mark.parametrize(
    "argv", [("/nonexistent/command",), ("/bin/false",), ("/bin/sh", "-c", "echo why >&2; exit 1")]
)
async def test_a_command_that_cannot_serve_is_said_at_once(argv: tuple[str, ...]) -> None:
    """Nobody waits for a start-up time-out where the process has ended."""
    async with running(argv=argv) as rig:
        with anyio.fail_after(5), pytest.raises(UpstreamFault, match="could not be started"):
            await rig.upstream.skills()
        assert isinstance(await rig.call("echo"), Failed)


async def test_a_server_that_never_answers_is_given_up_in_time() -> None:
    """The wait for a start is bounded."""
    limits = Limits(start_s=0.3, probe_s=0.1, close_s=0.1)
    async with running(argv=("/bin/sleep", "60"), limits=limits) as rig:
        with anyio.fail_after(5):
            outcome = await rig.call("echo")
        assert isinstance(outcome, Failed)


async def test_an_answer_beyond_the_calls_limit_is_withheld() -> None:
    """It did run, so the outcome is in doubt; the process goes on serving."""
    async with running() as rig:
        outcome = await rig.call("big", {"bytes": 200_000}, limit=100_000)
        assert isinstance(outcome, InDoubt)
        assert "more bytes" in outcome.reason
        assert text(await rig.call("big", {"bytes": 90_000}, limit=100_000)) == "B" * 90_000
        assert not rig.told("restart")


async def test_requests_for_input_are_not_relayed() -> None:
    """We declared no such capability, so the call ends in doubt with a notice."""
    async with running("--era", "modern") as rig:
        assert await rig.call("ask") == InDoubt("the upstream asked for input we do not relay")
        assert rig.told("upstream_request")


async def test_skills_come_from_all_pages_with_every_field() -> None:
    """Definitions are passed on as they are; those that cannot be judged are left out with a notice."""
    async with running("--pages", "3", "--broken-tools") as rig:
        skills = await rig.upstream.skills()
        assert [skill["name"] for skill in skills] == ["skill_0", "skill_1", "skill_2"]
        assert skills[0]["annotations"]["x"] == [1.5]
        assert len(rig.told("definition")) == 9


@pytest.mark.parametrize("options", [("--cyclic",), ("--pages", "100000")])
async def test_an_endless_list_of_skills_ends(options: tuple[str, ...]) -> None:
    """Cyclic cursors and endless pages are cut off."""
    async with running(*options) as rig:
        assert len(await rig.upstream.skills()) <= 1400
        assert rig.told("pages")


@pytest.mark.parametrize("era", ["legacy", "modern"])
async def test_a_changed_list_is_reported_once(era: str) -> None:
    """`list_changed` reaches the catalogue in both eras, and a storm of it does not become a storm of ours."""
    async with running("--era", era) as rig:
        changes: list[int] = []
        rig.upstream.on_change(lambda: changes.append(1))
        for _ in range(50):
            await rig.call("change")
        with anyio.fail_after(5):
            while not changes:
                await anyio.sleep(0.01)
        assert len(changes) == 1


async def test_the_environment_is_an_allow_list(monkeypatch: pytest.MonkeyPatch) -> None:
    """A child gets what it is given, and nothing that the broker happens to have."""
    monkeypatch.setenv("BROKER_OWN", "x")
    monkeypatch.setenv("PASS_ME", "y")
    monkeypatch.setenv("LC_TIME", "C")
    async with running(variables={"SET": "z"}, inherit=("PASS_ME",)) as rig:
        environ = (await rig.about())["environ"]
        assert "BROKER_OWN" not in environ
        assert (environ["PASS_ME"], environ["SET"], environ["LC_TIME"]) == ("y", "z", "C")
        assert "PATH" in environ


class OneSecret:
    """A `Secrets` with one credential that changes at every reading."""

    def __init__(self) -> None:
        self.readings = 0

    async def reveal(self, name: str) -> Secret:
        self.readings += 1
        return Secret(f"{name}-{self.readings}")

    def stamp(self, name: str) -> None:
        return None


async def test_the_credential_is_read_for_each_process_and_guarded_first() -> None:
    """It is in the child's environment only, and the masker knows it before the child does."""
    secrets = OneSecret()
    async with running(credential=Credential("API_KEY", "fake", secrets)) as rig:
        assert secrets.readings == 0
        first = (await rig.about())["environ"]["API_KEY"]
        await rig.call("die")
        second = (await rig.about())["environ"]["API_KEY"]
        assert (first, second) == ("fake-2", "fake-3") or (first, second) == ("fake-1", "fake-2")
        assert [secret.reveal() for secret in rig.guarded][-1] == second


async def test_stderr_is_masked_before_it_is_logged() -> None:
    """What a skill says to its operator goes through the masker as well."""
    async with running(mask=lambda line: line.replace("dying", "[REDACTED]")) as rig:
        await rig.call("die")
        await rig.until_told("restart")
        assert rig.log == ["[REDACTED] now"]


async def test_stderr_cannot_drive_a_terminal() -> None:
    """Escape sequences are logged by their code points."""
    async with running(argv=("/bin/sh", "-c", r"printf '\033[2Jgone\n' >&2")) as rig:
        assert isinstance(await rig.call("echo"), Failed)
        assert set(rig.log) == {r"\x1b[2Jgone"}


async def test_a_closed_upstream_fails_calls_unsent() -> None:
    """After `aclose` nothing starts again."""
    async with running() as rig:
        await rig.call("echo")
        await rig.upstream.aclose()
        assert isinstance(await rig.call("echo"), Failed)
        with pytest.raises(UpstreamFault):
            await rig.upstream.skills()


async def test_closing_leaves_calls_in_flight_in_doubt() -> None:
    """Nobody waits for ever."""
    async with running(limits=QUICK) as rig:
        await rig.call("echo")
        outcomes: list[Outcome] = []

        async def one() -> None:
            outcomes.append(await rig.call("slow", {"ms": 60_000}))

        with anyio.fail_after(8):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(one)
                await rig.call("echo")  # one pipe, in order: the slow call has gone out before this one
                await rig.upstream.aclose()
        assert isinstance(outcomes[0], InDoubt)
