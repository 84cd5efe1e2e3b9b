"""MCP's two families: what opens a dialogue, and what changes when a message crosses from one to the other."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interposer.errors import BadMessage
from interposer.model import Era, JsonObject
from interposer.wire import mcp
from interposer.wire.jsonrpc import Request

ENVELOPE = mcp.modern_envelope("2026-07-28", "agent", "1")
OPENING = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "agent"}}
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def request(method: str, /, **params: Any) -> Request:
    return Request(1, method, params)


def code(dialogue: mcp.Dialogue, method: str, /, **params: Any) -> int:
    with pytest.raises(BadMessage) as refused:
        dialogue.admit(request(method, **params))
    assert refused.value.id == 1
    return refused.value.code


def opened(method: str, /, **params: Any) -> mcp.Dialogue:
    dialogue = mcp.Dialogue()
    dialogue.admit(request(method, **params))
    return dialogue


def test_first_request_decides_the_era() -> None:
    """`initialize` is legacy, an envelope is modern, a probe or a ping alone is neither."""
    assert opened("initialize", **OPENING).era is Era.LEGACY
    assert opened("tools/list", _meta=ENVELOPE).era is Era.MODERN
    assert opened("server/discover", _meta=ENVELOPE).era is None
    assert opened("ping").era is None


def test_what_the_client_claims_is_remembered_and_cut() -> None:
    """Name and capabilities are kept; a name of a wrong type is none."""
    dialogue = opened("initialize", **{**OPENING, "clientInfo": {"name": "x" * 500}})
    assert dialogue.client == "x" * 128
    assert opened("initialize", **{**OPENING, "clientInfo": {"name": 5}}).client == ""
    assert opened("tools/list", _meta=ENVELOPE).client == "agent"


@pytest.mark.parametrize(
    "params",
    [{}, {"protocolVersion": 5}, {**OPENING, "capabilities": []}, {**OPENING, "clientInfo": "me"}, {"_meta": []}],
)
def test_malformed_initialize_opens_nothing(params: JsonObject) -> None:
    """-32602, and the dialogue is as open as before."""
    dialogue = mcp.Dialogue()
    assert code(dialogue, "initialize", **params) == -32602
    assert dialogue.era is None


@pytest.mark.parametrize("missing", [mcp.META_VERSION, mcp.META_CLIENT_CAPABILITIES])
def test_half_an_envelope_names_what_is_missing(missing: str) -> None:
    """On a modern dialogue each request carries the whole envelope."""
    dialogue = opened("tools/list", _meta=ENVELOPE)
    half = {key: value for key, value in ENVELOPE.items() if key != missing}
    with pytest.raises(BadMessage, match=missing) as refused:
        dialogue.admit(request("tools/list", _meta=half))
    assert refused.value.code == -32602


@pytest.mark.parametrize("wrong", [5, None, ["2026-07-28"]])
def test_version_of_a_wrong_type_is_refused(wrong: Any) -> None:
    """A version is a string, in both eras of a dialogue."""
    meta = {**ENVELOPE, mcp.META_VERSION: wrong}
    assert code(mcp.Dialogue(), "tools/list", _meta=meta) == -32602
    assert code(opened("initialize", **OPENING), "tools/list", _meta=meta) == -32600


def test_era_cannot_be_turned() -> None:
    """An enveloped request on legacy is -32600, `initialize` on modern -32022, and neither changes anything."""
    legacy, modern = opened("initialize", **OPENING), opened("tools/list", _meta=ENVELOPE)
    assert code(legacy, "tools/list", _meta=ENVELOPE) == -32600
    assert code(modern, "initialize", **OPENING) == -32022
    assert code(modern, "initialize", **OPENING, _meta=ENVELOPE) == -32601
    assert (legacy.era, modern.era) == (Era.LEGACY, Era.MODERN)


@given(method=st.sampled_from(["initialize", "ping", "tools/list", "server/discover"]), params=json_values)
def test_any_params_are_admitted_or_refused(method: str, params: Any) -> None:
    """Whatever the parameters are: a request is let through, or `BadMessage` is raised, and nothing else."""
    dialogue = mcp.Dialogue()
    codes = []
    try:
        dialogue.admit(Request(1, method, params if isinstance(params, dict) else {"_meta": params}))
    except BadMessage as refused:
        codes.append(refused.code)
    assert codes in ([], [-32600], [-32601], [-32602], [-32022])
    assert not codes or dialogue.era is None


def test_discovery_and_refusal_name_the_same_versions() -> None:
    """`supportedVersions` is what -32022 lists (2026-07-28, versioning)."""
    face = mcp.ServerFace("interposer", "0")
    assert face.discovered()["supportedVersions"] == mcp.WrongVersion(1, "x").data["supported"]
    assert "instructions" not in face.discovered()
    assert mcp.ServerFace("interposer", "0", "Care.").initialized("2025-11-25")["instructions"] == "Care."


def test_stamp_keeps_what_is_there() -> None:
    """Every modern result says that it is complete and who answered; other `_meta` stays."""
    stamped = mcp.ServerFace("interposer", "0").stamped({"content": [], "_meta": {"vendor/x": 1}})
    assert stamped["resultType"] == "complete"
    assert stamped["_meta"] == {"vendor/x": 1, mcp.META_SERVER_INFO: {"name": "interposer", "version": "0"}}


def test_array_schema_is_wrapped_for_legacy_callers_with_its_references() -> None:
    """Legacy clients want an object at the root: the schema moves inside, and so do its local references."""
    inner = {
        "type": "array",
        "items": {"$ref": "#/$defs/item"},
        "$defs": {"item": {"anyOf": [{"$ref": "#"}, {"$ref": "#named"}, {"const": {"$ref": 5}}]}},
    }
    definition = {"name": "x", "outputSchema": inner, "odd": 1}
    shown = mcp.legacy_definition(definition)
    moved = shown["outputSchema"]["properties"]["result"]
    assert shown["outputSchema"]["required"] == ["result"]
    assert moved["items"] == {"$ref": "#/properties/result/$defs/item"}
    assert moved["$defs"]["item"]["anyOf"][:2] == [{"$ref": "#/properties/result"}, {"$ref": "#named"}]
    assert shown["odd"] == 1
    result = {"content": [], "structuredContent": [1], "resultType": "complete", "ttlMs": 1}
    assert mcp.legacy_result(result, wrap=True) == {"content": [], "structuredContent": {"result": [1]}}


def test_object_schema_is_left_alone() -> None:
    """What legacy clients can read is what they get."""
    definition = {"name": "x", "outputSchema": {"type": "object"}}
    assert mcp.legacy_definition(definition) is definition
    assert not mcp.wrapped({"name": "x"})
    assert mcp.legacy_result({"structuredContent": {"a": 1}}, wrap=False) == {"structuredContent": {"a": 1}}


def test_own_envelope_declares_no_capability() -> None:
    """We offer upstreams nothing of our callers' capabilities, since we relay none."""
    assert ENVELOPE[mcp.META_CLIENT_CAPABILITIES] == {}
