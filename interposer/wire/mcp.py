"""MCP as both its families speak it: versions, eras, envelopes, and results carried from one era to the other.

*Legacy* is `initialize` and a connection with state (2024-11-05 to 2025-11-25). *Modern* is 2026-07-28: no handshake,
every request carries its version and capabilities in `_meta`. Which of the two a peer speaks is decided by what it
sends, once per connection, and cannot be turned afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from interposer.errors import (
    INVALID_PARAMS,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    UNSUPPORTED_PROTOCOL_VERSION,
    BadMessage,
)
from interposer.model import Era, Json, JsonObject

from .jsonrpc import Request

LEGACY_VERSIONS = ("2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05")
"""Newest first."""
MODERN_VERSIONS = ("2026-07-28",)

PREFIX = "io.modelcontextprotocol/"
META_VERSION = PREFIX + "protocolVersion"
META_CLIENT_INFO = PREFIX + "clientInfo"
META_CLIENT_CAPABILITIES = PREFIX + "clientCapabilities"
META_LOG_LEVEL = PREFIX + "logLevel"
META_SERVER_INFO = PREFIX + "serverInfo"
META_SUBSCRIPTION = PREFIX + "subscriptionId"
OWN_PREFIX = "interposer/"
META_DECISION = OWN_PREFIX + "decision"
META_PENDING = OWN_PREFIX + "pending"
META_TOKEN = OWN_PREFIX + "token"
"""In a request: the bearer token that speaks for this request alone."""
TOKEN_NOTIFICATION = "notifications/interposer/token"  # noqa: S105 - a method's name
"""From a peer: `params.token` is the bearer token of this connection from now on."""

BATCHING_VERSION = "2025-03-26"
_LEGACY_ONLY = frozenset({"initialize", "ping", "logging/setLevel", "resources/subscribe", "resources/unsubscribe"})
_MODERN_ONLY = frozenset({"server/discover", "subscriptions/listen", "tasks/get", "tasks/update", "tasks/cancel"})
MISSING_CAPABILITY = -32021
"""The request does not declare what its answer needs (2026-07-28)."""
_CACHE_HINTS = ("resultType", "ttlMs", "cacheScope")


class WrongVersion(BadMessage):
    """-32022: a revision we do not serve (2026-07-28, versioning); `data` goes into the error."""

    def __init__(self, id: int | str, requested: Json) -> None:
        super().__init__(UNSUPPORTED_PROTOCOL_VERSION, "Unsupported protocol version", id=id)
        self.data: JsonObject = {"supported": list(MODERN_VERSIONS)}
        if isinstance(requested, str):
            self.data["requested"] = requested[:64]


@dataclass(frozen=True, slots=True)
class Peer:
    """Who sent one request, by its own account: for the shape of answers, never for who may do what."""

    era: Era
    version: str
    client: str
    capabilities: JsonObject


@dataclass(slots=True)
class Dialogue:
    """What one peer speaks, learned from its requests. `admit` is asked before anything else is done with one."""

    era: Era | None = None
    version: str = ""
    client: str = ""
    """The name that the client claims."""
    capabilities: JsonObject = field(default_factory=dict)

    @property
    def peer(self) -> Peer:
        """As of the request that was admitted last."""
        return Peer(self.era or Era.LEGACY, self.version, self.client, self.capabilities)

    @property
    def batches(self) -> bool:
        """Only 2025-03-26 has JSON-RPC batches."""
        return self.version == BATCHING_VERSION

    def admit(self, request: Request) -> None:
        """Let the request through, or raise `BadMessage` with the code that this peer's era demands."""
        meta = request.params.get("_meta")
        if meta is not None and not isinstance(meta, dict):
            raise BadMessage(INVALID_PARAMS, "_meta must be an object", id=request.id)
        if self.era is None:
            self._open(request, meta or {})
        elif self.era is Era.LEGACY:
            self._legacy(request, meta or {})
        else:
            self._modern(request, meta or {})

    def _open(self, request: Request, meta: JsonObject) -> None:
        if META_VERSION in meta or request.method in _MODERN_ONLY:
            self._modern(request, meta)
            # A probe alone leaves the era open: a client whose probe timed out may still say `initialize`.
            if request.method != "server/discover":
                self.era = Era.MODERN
        else:
            self._legacy(request, meta)

    def _legacy(self, request: Request, meta: JsonObject) -> None:
        if META_VERSION in meta and request.method != "initialize":
            raise BadMessage(INVALID_REQUEST, "This connection was opened with initialize", id=request.id)
        if request.method == "initialize":
            if self.era is not None:
                raise BadMessage(INVALID_REQUEST, "initialize was already answered", id=request.id)
            self._initialize(request)
        elif request.method in _MODERN_ONLY:
            raise BadMessage(METHOD_NOT_FOUND, "Method not found", id=request.id)
        elif self.era is None and request.method != "ping":
            raise BadMessage(INVALID_REQUEST, "initialize must come first", id=request.id)

    def _initialize(self, request: Request) -> None:
        params = request.params
        wanted, capabilities, client = (params.get(k) for k in ("protocolVersion", "capabilities", "clientInfo"))
        if not isinstance(wanted, str):
            raise BadMessage(INVALID_PARAMS, "initialize needs a protocolVersion", id=request.id)
        if not isinstance(capabilities, dict | None) or not isinstance(client, dict | None):
            raise BadMessage(INVALID_PARAMS, "capabilities and clientInfo must be objects", id=request.id)
        self.era = Era.LEGACY
        self.version = wanted if wanted in LEGACY_VERSIONS else LEGACY_VERSIONS[0]
        self._learn(client, capabilities)

    def _modern(self, request: Request, meta: JsonObject) -> None:
        if request.method == "initialize" and META_VERSION not in meta:
            raise WrongVersion(request.id, request.params.get("protocolVersion"))
        missing = [key for key in (META_VERSION, META_CLIENT_CAPABILITIES) if key not in meta]
        if missing:
            raise BadMessage(INVALID_PARAMS, f"_meta lacks {', '.join(missing)}", id=request.id)
        version, capabilities, client = (
            meta.get(k) for k in (META_VERSION, META_CLIENT_CAPABILITIES, META_CLIENT_INFO)
        )
        if not isinstance(version, str):
            raise BadMessage(INVALID_PARAMS, f"{META_VERSION} must be a string", id=request.id)
        if version not in MODERN_VERSIONS:
            raise WrongVersion(request.id, version)
        if not isinstance(capabilities, dict) or not isinstance(client, dict | None):
            raise BadMessage(INVALID_PARAMS, f"{META_CLIENT_CAPABILITIES} must be an object", id=request.id)
        if request.method in _LEGACY_ONLY:
            raise BadMessage(METHOD_NOT_FOUND, "Method not found", id=request.id)
        self.version = version
        self._learn(client, capabilities)

    def _learn(self, client: JsonObject | None, capabilities: JsonObject | None) -> None:
        name = (client or {}).get("name")
        self.client = name[:128] if isinstance(name, str) else ""
        self.capabilities = capabilities or {}


@dataclass(frozen=True, slots=True)
class ServerFace:
    """What the broker says of itself."""

    name: str
    version: str
    instructions: str = ""

    @property
    def info(self) -> JsonObject:
        return {"name": self.name, "version": self.version}

    def initialized(self, version: str) -> JsonObject:
        """InitializeResult (2025-11-25, lifecycle)."""
        said: JsonObject = {
            "protocolVersion": version,
            "capabilities": {"tools": {"listChanged": True}},
            "serverInfo": self.info,
        }
        return {**said, "instructions": self.instructions} if self.instructions else said

    def discovered(self, extensions: Sequence[str] = ()) -> JsonObject:
        """DiscoverResult (2026-07-28); the same versions as in -32022. `extensions` are offered beyond the core."""
        offered: JsonObject = {"tools": {"listChanged": True}}
        if extensions:
            offered["extensions"] = {name: {} for name in extensions}
        said: JsonObject = {
            "supportedVersions": list(MODERN_VERSIONS),
            "capabilities": offered,
            "ttlMs": 0,
            "cacheScope": "private",
        }
        return {**said, "instructions": self.instructions} if self.instructions else said

    def stamped(self, result: JsonObject, kind: str = "complete") -> JsonObject:
        """A result as 2026-07-28 wants it: `resultType` on every one, and who answered."""
        meta = result.get("_meta")
        stamp = {META_SERVER_INFO: self.info}
        return {
            **result,
            "resultType": kind,
            "_meta": {**meta, **stamp} if isinstance(meta, dict) else stamp,
        }


def wrapped(definition: JsonObject) -> bool:
    """Whether legacy callers need this skill's structured results inside an object (outputSchema root, 2025-06-18)."""
    schema = definition.get("outputSchema")
    return isinstance(schema, dict) and schema.get("type") != "object"


def legacy_definition(definition: JsonObject) -> JsonObject:
    """A tool as legacy callers may see it: an outputSchema whose root is an object."""
    if not wrapped(definition):
        return definition
    inner = _moved(definition["outputSchema"])
    schema = {"type": "object", "properties": {"result": inner}, "required": ["result"]}
    return {**definition, "outputSchema": schema}


def _moved(schema: Json) -> Json:
    """The schema with its local references pointing to where it now stands."""
    if isinstance(schema, dict):
        return {
            key: _reference(value) if key in ("$ref", "$dynamicRef") and isinstance(value, str) else _moved(value)
            for key, value in schema.items()
        }
    if isinstance(schema, list):
        return [_moved(item) for item in schema]
    return schema


def _reference(target: str) -> str:
    if target == "#":
        return "#/properties/result"
    return "#/properties/result" + target[1:] if target.startswith("#/") else target


def legacy_result(result: JsonObject, *, wrap: bool) -> JsonObject:
    """A tool's result for a legacy caller: no modern fields, structured content in an object."""
    kept = {key: value for key, value in result.items() if key not in _CACHE_HINTS}
    if wrap and "structuredContent" in kept:
        kept["structuredContent"] = {"result": kept["structuredContent"]}
    return kept


def without_reserved(meta: Mapping[str, Json]) -> JsonObject:
    """`_meta` of the other side without the protocol's own keys and without keys that speak for the broker."""
    return {key: value for key, value in meta.items() if not key.startswith((PREFIX, OWN_PREFIX))}


def neutral_result(result: JsonObject) -> JsonObject:
    """An upstream's result with what belongs to its hop taken off; unknown fields stay."""
    kept = {key: value for key, value in result.items() if key not in _CACHE_HINTS}
    meta = kept.get("_meta")
    if isinstance(meta, dict):
        left = without_reserved(meta)
        if left:
            kept["_meta"] = left
        else:
            del kept["_meta"]
    return kept


def modern_envelope(version: str, name: str, release: str) -> JsonObject:
    """The `_meta` of our own requests to a modern upstream: we declare no capabilities, since we relay none."""
    return {
        META_VERSION: version,
        META_CLIENT_CAPABILITIES: {},
        META_CLIENT_INFO: {"name": name, "version": release},
    }
