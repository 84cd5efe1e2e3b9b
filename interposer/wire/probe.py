"""Which era an upstream speaks: what we say first, and what its answer means (MCP 2026-07-28, versioning; stdio).

The modern question comes first. An answer that is not modern, silence and an early exit all mean *legacy*, and no
verdict hangs on one error code; but what was modern once does not become legacy quietly, and a server that calls our
own question wrong is a fault and not a verdict. Pure: the caller owns the pipe and the clock.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from interposer.errors import UNSUPPORTED_PROTOCOL_VERSION, UpstreamFault
from interposer.model import Era, Json, JsonObject

from . import jsonrpc
from .jsonrpc import Response
from .mcp import LEGACY_VERSIONS, META_SERVER_INFO, MISSING_CAPABILITY, MODERN_VERSIONS, modern_envelope

HEADER_MISMATCH = -32020


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an upstream is."""

    era: Era
    version: str
    capabilities: JsonObject = field(default_factory=dict)
    server_info: JsonObject = field(default_factory=dict)
    instructions: str = ""


class Probe:
    """One upstream's opening, across at most one restart of its process.

    Send `begin()`, then report what happens to the request `awaiting`; each report returns the next bytes to send.
    Over when `verdict` is there. Raises `UpstreamFault` when there is nothing left to try.
    """

    def __init__(self, ids: Iterator[int], name: str, release: str, *, known: Era | None = None) -> None:
        """`known`: the era this upstream was seen to speak before."""
        self._ids = ids
        self._name = name
        self._release = release
        self._known = known
        self._initializing = known is Era.LEGACY
        self._discoveries = 0
        self._reprobed = False
        self._respawned = False
        self.awaiting = 0
        self.verdict: Verdict | None = None

    @property
    def may_be_silent(self) -> bool:
        """Whether no answer is an answer: `server/discover` to a server that nobody has heard before."""
        return not self._initializing and self._known is None

    def begin(self) -> bytes:
        """The first bytes on a fresh pipe."""
        return self._initialize() if self._initializing else self._discover(MODERN_VERSIONS[0])

    def answered(self, response: Response) -> bytes:
        """The request `awaiting` was answered."""
        if self._initializing:
            return self._initialize_answered(response)
        return self._discover_answered(response)

    def timed_out(self) -> bytes:
        """No answer to `server/discover` came in time: some servers drop what they do not know."""
        return self._fall_back("did not answer server/discover")

    def exited(self) -> bool:
        """The process ended before its answer. True: start it again and `begin()`."""
        if self._respawned or not self._discoveries:
            return False
        self._respawned = True
        self._fall_back("exited at server/discover")
        return True

    def _discover(self, version: str) -> bytes:
        self._initializing = False
        self._discoveries += 1
        self.awaiting = next(self._ids)
        envelope = modern_envelope(version, self._name, self._release)
        return jsonrpc.request(self.awaiting, "server/discover", {"_meta": envelope})

    def _initialize(self) -> bytes:
        self._initializing = True
        self.awaiting = next(self._ids)
        params: JsonObject = {
            "protocolVersion": LEGACY_VERSIONS[0],
            "capabilities": {},
            "clientInfo": {"name": self._name, "version": self._release},
        }
        return jsonrpc.request(self.awaiting, "initialize", params)

    def _fall_back(self, why: str) -> bytes:
        if self._known is Era.MODERN:
            raise UpstreamFault(f"the upstream was modern before and now {why}")
        if self._reprobed:
            raise UpstreamFault(f"the upstream refused initialize and then {why}")
        return self._initialize()

    def _discover_answered(self, response: Response) -> bytes:
        if response.error is not None:
            return self._discover_refused(response.error)
        result = response.result or {}
        versions, capabilities = result.get("supportedVersions"), result.get("capabilities")
        if not _texts(versions) or not isinstance(capabilities, dict):
            return self._fall_back("gave no valid answer to server/discover")
        version = _first(MODERN_VERSIONS, versions)
        if version is None:
            return self._settle_for_legacy(versions)
        meta = result.get("_meta")
        info = meta.get(META_SERVER_INFO) if isinstance(meta, dict) else None
        self.verdict = Verdict(Era.MODERN, version, capabilities, _object(info), _text(result.get("instructions")))
        return b""

    def _discover_refused(self, error: JsonObject) -> bytes:
        code = error["code"]
        if code in (HEADER_MISMATCH, MISSING_CAPABILITY):
            raise UpstreamFault(f"the upstream calls our server/discover wrong (code {code})")
        supported = _supported(error) if code == UNSUPPORTED_PROTOCOL_VERSION else None
        if not supported:
            return self._fall_back("refused server/discover")
        version = _first(MODERN_VERSIONS, supported)
        if version is None:
            return self._settle_for_legacy(supported)
        if self._discoveries > 1:
            raise UpstreamFault(f"the upstream says that it serves {version} and refuses it")
        return self._discover(version)

    def _settle_for_legacy(self, versions: Json) -> bytes:
        if _first(LEGACY_VERSIONS, versions) is None:
            raise UpstreamFault("the upstream serves no version of MCP that we speak")
        return self._fall_back("offers legacy versions only")

    def _initialize_answered(self, response: Response) -> bytes:
        if response.error is not None:
            return self._initialize_refused(response.error)
        result = response.result or {}
        version, capabilities = result.get("protocolVersion"), result.get("capabilities", {})
        if version not in LEGACY_VERSIONS or not isinstance(capabilities, dict):
            raise UpstreamFault("the upstream answered initialize with a version that we do not speak")
        info, instructions = _object(result.get("serverInfo")), _text(result.get("instructions"))
        self.verdict = Verdict(Era.LEGACY, version, capabilities, info, instructions)
        return jsonrpc.notification("notifications/initialized", {})

    def _initialize_refused(self, error: JsonObject) -> bytes:
        """A slow server that locked itself modern at our first question says -32022 now."""
        if error["code"] != UNSUPPORTED_PROTOCOL_VERSION or self._reprobed:
            raise UpstreamFault(f"the upstream refused initialize (code {error['code']})")
        version = _first(MODERN_VERSIONS, _supported(error) or [])
        if version is None:
            raise UpstreamFault("the upstream serves no version of MCP that we speak")
        self._reprobed = True
        return self._discover(version)


def _first(ours: tuple[str, ...], theirs: Json) -> str | None:
    return next((version for version in ours if version in theirs), None)


def _supported(error: JsonObject) -> list[str] | None:
    details = error.get("data")
    supported = details.get("supported") if isinstance(details, dict) else None
    return supported if _texts(supported) else None


def _texts(value: Json) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, str) for item in value)


def _object(value: Json) -> JsonObject:
    return value if isinstance(value, dict) else {}


def _text(value: Json) -> str:
    return value if isinstance(value, str) else ""
