"""The opening of an upstream: what is said, and what its answers mean."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest

from interposer.errors import UpstreamFault
from interposer.model import Era
from interposer.wire.jsonrpc import Response
from interposer.wire.mcp import LEGACY_VERSIONS, META_SERVER_INFO, MODERN_VERSIONS
from interposer.wire.probe import Probe, Verdict

MODERN = MODERN_VERSIONS[0]
DISCOVERED = {"supportedVersions": ["2030-01-01", MODERN], "capabilities": {"tools": {}}, "instructions": "i"}
INITIALIZED = {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "serverInfo": {"name": "n"}}


class Conversation:
    """A probe and what it said, in order."""

    def __init__(self, known: Era | None = None) -> None:
        self.probe = Probe(itertools.count(1), "interposer", "1", known=known)
        self.said: list[str] = []
        self.hear(self.probe.begin())

    def hear(self, line: bytes) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(line) if line else {"method": ""}
        if line:
            self.said.append(message["method"])
        return message

    def result(self, result: dict[str, Any]) -> dict[str, Any]:
        return self.hear(self.probe.answered(Response(self.probe.awaiting, result, None)))

    def error(self, code: int, **data: Any) -> dict[str, Any]:
        error = {"code": code, "message": "m", "data": data}
        return self.hear(self.probe.answered(Response(self.probe.awaiting, None, error)))

    @property
    def verdict(self) -> Verdict:
        assert self.probe.verdict is not None
        return self.probe.verdict


def test_a_valid_discovery_is_modern() -> None:
    """One question, and the newest version that both speak."""
    talk = Conversation()
    talk.result({**DISCOVERED, "_meta": {META_SERVER_INFO: {"name": "n"}}})
    assert talk.verdict == Verdict(Era.MODERN, MODERN, {"tools": {}}, {"name": "n"}, "i")
    assert talk.said == ["server/discover"]


@pytest.mark.parametrize("code", [-32601, -32602, -32600, -32000, -32002, -32022, 0])
def test_any_other_error_means_legacy(code: int) -> None:
    """No verdict hangs on one error code."""
    talk = Conversation()
    opening = talk.error(code)
    assert opening["params"]["protocolVersion"] == LEGACY_VERSIONS[0]
    assert opening["params"]["capabilities"] == {}
    talk.result(INITIALIZED)
    assert talk.verdict == Verdict(Era.LEGACY, "2025-06-18", {"tools": {}}, {"name": "n"}, "")
    assert talk.said == ["server/discover", "initialize", "notifications/initialized"]


@pytest.mark.parametrize(
    "result",
    [{}, {"supportedVersions": []}, {"supportedVersions": [1], "capabilities": {}}, {"supportedVersions": [MODERN]}],
)
def test_an_answer_that_is_no_discovery_means_legacy(result: dict[str, Any]) -> None:
    """A server that answers anything at all is not modern for it."""
    talk = Conversation()
    assert talk.result(result)["method"] == "initialize"


@pytest.mark.parametrize("versions", [["2025-11-25"], ["2025-11-25", "2024-11-05"]])
def test_a_server_of_legacy_versions_only_is_legacy(versions: list[str]) -> None:
    """Whether it says so in its discovery or in -32022."""
    talk = Conversation()
    assert talk.result({**DISCOVERED, "supportedVersions": versions})["method"] == "initialize"
    talk = Conversation()
    assert talk.error(-32022, supported=versions)["method"] == "initialize"


def test_a_version_that_is_named_is_tried_once() -> None:
    """-32022 with a version that we speak: once more, and not twice."""
    talk = Conversation()
    again = talk.error(-32022, supported=[MODERN])
    assert again["method"] == "server/discover"
    with pytest.raises(UpstreamFault):
        talk.error(-32022, supported=[MODERN])


def test_a_server_of_unknown_versions_is_a_fault() -> None:
    """Nothing is guessed where no version is shared."""
    with pytest.raises(UpstreamFault):
        Conversation().error(-32022, supported=["2031-01-01"])
    with pytest.raises(UpstreamFault):
        Conversation().result({**DISCOVERED, "supportedVersions": ["2031-01-01"]})
    talk = Conversation(Era.LEGACY)
    with pytest.raises(UpstreamFault):
        talk.result({**INITIALIZED, "protocolVersion": "2031-01-01"})


@pytest.mark.parametrize("code", [-32020, -32021])
def test_our_own_mistake_is_loud(code: int) -> None:
    """A server that calls our question wrong is not taken for an old one."""
    with pytest.raises(UpstreamFault):
        Conversation().error(code)


def test_silence_means_legacy_on_the_same_pipe() -> None:
    """Some servers drop what they do not know."""
    talk = Conversation()
    asked = [talk.probe.may_be_silent]
    assert talk.hear(talk.probe.timed_out())["method"] == "initialize"
    asked.append(talk.probe.may_be_silent)
    assert asked == [True, False]
    talk.result(INITIALIZED)
    assert talk.verdict.era is Era.LEGACY


def test_a_slow_modern_server_is_asked_again() -> None:
    """It locked itself at our first question, so it refuses `initialize` and names its version."""
    talk = Conversation()
    talk.hear(talk.probe.timed_out())
    talk.error(-32022, supported=[MODERN])
    talk.result(DISCOVERED)
    assert talk.verdict.era is Era.MODERN
    assert talk.said == ["server/discover", "initialize", "server/discover"]


def test_the_two_questions_do_not_alternate_for_ever() -> None:
    """A server that refuses both, each with a pointer to the other, is a fault."""
    talk = Conversation()
    talk.hear(talk.probe.timed_out())
    talk.error(-32022, supported=[MODERN])
    with pytest.raises(UpstreamFault):
        talk.error(-32601)


def test_a_server_that_exits_at_the_question_is_started_again_once() -> None:
    """The second process hears `initialize` first; if that ends too, there is nothing left to try."""
    talk = Conversation()
    assert talk.probe.exited()
    assert talk.hear(talk.probe.begin())["method"] == "initialize"
    assert not talk.probe.exited()
    talk.result(INITIALIZED)
    assert talk.verdict.era is Era.LEGACY


def test_a_known_legacy_server_is_not_probed_again() -> None:
    """After a restart the era is known."""
    talk = Conversation(Era.LEGACY)
    assert talk.said == ["initialize"]
    assert not talk.probe.exited()


def test_a_modern_server_does_not_become_legacy_quietly() -> None:
    """A downgrade is an alarm and not a fall-back."""
    for fall in ("timed_out", "exited"):
        talk = Conversation(Era.MODERN)
        with pytest.raises(UpstreamFault, match="modern before"):
            getattr(talk.probe, fall)()
    talk = Conversation(Era.MODERN)
    with pytest.raises(UpstreamFault, match="modern before"):
        talk.error(-32601)


def test_every_question_has_an_id_of_its_own() -> None:
    """Late answers to earlier questions cannot be taken for the present one."""
    talk = Conversation()
    first = talk.probe.awaiting
    talk.probe.timed_out()
    assert talk.probe.awaiting != first
