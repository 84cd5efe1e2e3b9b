"""Every byte string is one message or one refusal."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interposer.errors import BadMessage
from interposer.wire import jsonrpc
from interposer.wire.framing import LineFramer
from interposer.wire.jsonrpc import Notification, Request, Response

CORPUS = Path(__file__).parents[2] / "../shared/corpora/hostile_frames.jsonl.gz"
PARSE, INVALID, PARAMS = -32700, -32600, -32602


def refusal(frame: bytes) -> BadMessage:
    with pytest.raises(BadMessage) as caught:
        jsonrpc.parse(frame)
    return caught.value


def code_of(read: Callable[[bytes], object], frame: bytes) -> int:
    try:
        read(frame)
    except BadMessage as refused:
        return refused.code
    return 0


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (b'{"jsonrpc":"2.0","id":1,"method":"ping"}', Request(1, "ping", {})),
        (b'{"jsonrpc":"2.0","id":"","method":"ping","params":{"a":1}}', Request("", "ping", {"a": 1})),
        (b'{"method":"x","jsonrpc":"2.0"}', Notification("x", {})),
        (b'{"jsonrpc":"2.0","id":0,"method":"x","trace":1}', Request(0, "x", {})),
        (b'{"jsonrpc":"2.0","id":-9223372036854775809,"method":"x"}', Request(-(2**63) - 1, "x", {})),
        (b'{"jsonrpc":"2.0","id":"1","result":{"a":[]}}', Response("1", {"a": []}, None)),
        (
            b'{"jsonrpc":"2.0","id":1,"error":{"code":-1,"message":"m","data":2}}',
            Response(1, None, {"code": -1, "message": "m", "data": 2}),
        ),
    ],
)
def test_a_message_is_read_as_it_was_written(frame: bytes, message: jsonrpc.Message) -> None:
    """Requests, notifications and responses keep ids, params and results."""
    parsed = jsonrpc.parse(frame)
    assert parsed == message
    assert type(getattr(parsed, "id", None)) is type(getattr(message, "id", None))


@pytest.mark.parametrize(
    ("frame", "code", "id"),
    [
        (b"", PARSE, None),
        (b"{", PARSE, None),
        (b'{"jsonrpc":"2.0","id":NaN,"method":"x"}', PARSE, None),
        (b'{"jsonrpc":"2.0","id":1,"id":2,"method":"x"}', PARSE, None),
        (b"\xef\xbb\xbf{}", PARSE, None),
        (b"[" * 100_000, PARSE, None),
        (b'{"jsonrpc":"2.0","id":' + b"9" * 100_000 + b',"method":"x"}', PARSE, None),
        (b"[]", INVALID, None),
        (b'[{"jsonrpc":"2.0","id":1,"method":"x"}]', INVALID, None),
        (b"null", INVALID, None),
        (b'"x"', INVALID, None),
        (b"{}", INVALID, None),
        (b'{"id":1,"method":"x"}', INVALID, 1),
        (b'{"jsonrpc":2.0,"id":1,"method":"x"}', INVALID, 1),
        (b'{"jsonrpc":"2.0","id":null,"method":"x"}', INVALID, None),
        (b'{"jsonrpc":"2.0","id":true,"method":"x"}', INVALID, None),
        (b'{"jsonrpc":"2.0","id":1.0,"method":"x"}', INVALID, None),
        (b'{"jsonrpc":"2.0","id":1.10,"method":"x"}', INVALID, None),
        (b'{"jsonrpc":"2.0","id":[],"method":"x"}', INVALID, None),
        (b'{"jsonrpc":"2.0","id":"%b","method":"x"}' % (b"i" * 257), INVALID, None),
        (b'{"jsonrpc":"2.0","id":"a\\u009b","method":"x"}', INVALID, None),
        (b'{"jsonrpc":"2.0","id":1}', INVALID, 1),
        (b'{"jsonrpc":"2.0","id":1,"method":null}', INVALID, 1),
        (b'{"jsonrpc":"2.0","id":1,"method":"%b"}' % (b"m" * 257), INVALID, 1),
        (b'{"jsonrpc":"2.0","id":1,"method":"x","Method":"y"}', INVALID, 1),
        (b'{"jsonrpc":"2.0","id":1,"method":"x","param\xc5\xbf":{}}', INVALID, 1),
        (b'{"jsonrpc":"2.0","id":1,"method":"x","result":{}}', INVALID, 1),
        (b'{"jsonrpc":"2.0","id":1,"method":"x","params":[]}', PARAMS, 1),
        (b'{"jsonrpc":"2.0","id":1,"method":"x","params":null}', PARAMS, 1),
        (b'{"jsonrpc":"2.0","id":1,"result":{},"error":{"code":1,"message":""}}', INVALID, 1),
        (b'{"jsonrpc":"2.0","id":1,"result":[]}', INVALID, 1),
        (b'{"jsonrpc":"2.0","id":1,"error":{"code":"1","message":""}}', INVALID, 1),
        (b'{"jsonrpc":"2.0","id":null,"error":{"code":1,"message":""}}', INVALID, None),
    ],
)
def test_what_is_no_message_is_refused_with_its_code(frame: bytes, code: int, id: int | None) -> None:
    """The refusal carries the JSON-RPC code, and the id where the message had a usable one."""
    refused = refusal(frame)
    assert (refused.code, refused.id) == (code, id)


@given(st.one_of(st.binary(), st.text().map(str.encode)))
def test_any_bytes_are_a_message_or_a_refusal(frame: bytes) -> None:
    """Nothing but `BadMessage` comes out of the parser."""
    for read in (jsonrpc.parse, jsonrpc.parse_batch):
        assert code_of(read, frame) in (0, PARSE, INVALID, PARAMS)


_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.integers(-999, 999).map(lambda n: n / 4) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
_names = st.sampled_from(["jsonrpc", "id", "method", "params", "result", "error", "ID", "x"])


@given(st.dictionaries(_names, st.just("2.0") | _json))
def test_any_object_is_a_message_or_a_refusal(value: dict[str, Any]) -> None:
    """Wrong types in the envelope are refused, whatever their combination."""
    frame = json.dumps(value).encode()
    assert code_of(jsonrpc.parse, frame) in (0, PARSE, INVALID, PARAMS)


_ids = st.integers(-(2**70), 2**70) | st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=256)
_objects = st.dictionaries(st.text(), _json, max_size=3)


@given(id=_ids, method=st.text(max_size=256), params=_objects)
def test_what_is_written_reads_the_same(id: int | str, method: str, params: dict[str, Any]) -> None:
    """An encoder's line is one line, and its message comes back."""
    lines = [
        (jsonrpc.request(id, method, params), Request(id, method, params)),
        (jsonrpc.notification(method, params), Notification(method, params)),
        (jsonrpc.result(id, params), Response(id, params, None)),
        (jsonrpc.error(id, -1, method, params), Response(id, None, {"code": -1, "message": method, "data": params})),
    ]
    for line, message in lines:
        assert line.endswith(b"\n")
        assert line.count(b"\n") == 1
        [frame] = LineFramer().feed(line)
        assert isinstance(frame, bytes)
        assert jsonrpc.parse(frame) == message


def test_a_call_is_built_around_the_bytes_that_were_decided_on() -> None:
    """Canonical arguments go out byte for byte, the numbers' digits with them."""
    arguments = b'{"n":9007199254740993,"x":1.10}'
    line = jsonrpc.splice_call(7, 'a"b', arguments, {"progressToken": 7})
    assert b'"arguments":' + arguments + b"," in line
    parsed = jsonrpc.parse(line[:-1])
    assert isinstance(parsed, Request)
    assert parsed.params["name"] == 'a"b'
    assert parsed.params["_meta"] == {"progressToken": 7}
    assert b"_meta" not in jsonrpc.splice_call(7, "a", b"{}", None)


def test_an_error_without_a_known_id_says_null() -> None:
    """JSON-RPC 2.0 §5: the id of an unreadable request is null; absent data is absent."""
    assert jsonrpc.error(None, -32700, "x") == b'{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"x"}}\n'


def test_the_elements_of_a_batch_are_judged_one_by_one() -> None:
    """A bad element spoils only itself, and initialize is refused inside of a batch."""
    frame = (
        b'[1,{"jsonrpc":"2.0","id":1,"method":"a"},{"jsonrpc":"2.0","method":"b"},'
        b'{"jsonrpc":"2.0","id":2,"method":"initialize"},{"jsonrpc":"2.0","id":3,"method":"c","params":[]}]'
    )
    first, call, notice, opening, wrong = jsonrpc.parse_batch(frame)
    assert isinstance(first, BadMessage)
    assert first.code == INVALID
    assert call == Request(1, "a", {})
    assert notice == Notification("b", {})
    assert isinstance(opening, BadMessage)
    assert (opening.code, opening.id) == (INVALID, 2)
    assert isinstance(wrong, BadMessage)
    assert (wrong.code, wrong.id) == (PARAMS, 3)
    assert jsonrpc.batch([b"1\n", b"2\n"]) == b"[1,2]\n"


@pytest.mark.parametrize("frame", [b"[]", b"[1,2,3]"])
def test_an_empty_or_overlong_batch_is_refused_as_a_whole(frame: bytes) -> None:
    """JSON-RPC 2.0 §6, and our bound on the number of messages."""
    with pytest.raises(BadMessage) as caught:
        jsonrpc.parse_batch(frame, limit=2)
    assert caught.value.code == INVALID


def test_one_message_outside_of_a_batch_is_a_batch_of_one() -> None:
    """A 2025-03-26 peer may always send single messages, initialize included."""
    assert jsonrpc.parse_batch(b'{"jsonrpc":"2.0","id":2,"method":"initialize"}') == [Request(2, "initialize", {})]


def _hostile(direction: str) -> list[dict[str, Any]]:
    if not CORPUS.exists():
        return []
    with gzip.open(CORPUS) as file:
        rows = [json.loads(line) for line in file]
    return [row for row in rows if row["transport"] == "stdio" and row["direction"] == direction]


def _bytes(row: dict[str, Any]) -> bytes:
    if "raw_b64" in row:
        return base64.b64decode(row["raw_b64"])
    gen = row["gen"]
    part = {key: base64.b64decode(gen[key]) for key in ("prefix", "unit", "suffix")}
    count: int = gen["count"]
    return part["prefix"] + part["unit"] * count + part["suffix"]


PARSE_LEVEL = {"framing", "syntax", "duplicate", "unicode", "number", "depth", "envelope", "control"}


def test_hostile_frames_of_callers_are_answered_as_the_corpus_says() -> None:
    """What is decided by framing and parsing alone is decided as the corpus wants it."""
    rows = [row for row in _hostile("client") if row["cat"] in PARSE_LEVEL]
    if not rows:
        pytest.skip("needs shared/corpora/hostile_frames.jsonl.gz beside the project")
    wrong = []
    for row in rows:
        raw = _bytes(row)
        messages: list[Any] = []
        for frame in LineFramer().feed(raw):
            try:
                messages.append(jsonrpc.parse(frame) if isinstance(frame, bytes) else "oversize")
            except BadMessage as refused:
                messages.append(refused)
        refusals = [m for m in messages if isinstance(m, BadMessage)]
        match row["expect"]:
            case "result":
                ok = len(messages) == 1 and isinstance(messages[0], Request)
            case "ignored":
                ok = not refusals and not any(isinstance(m, Request) for m in messages)
            case "error" if refusals:
                ok = all(refused.code in row["codes"] for refused in refusals)
            case "error":
                # The session's: an unknown method, or params that the method does not take.
                later = {-32601, -32602, "any"}
                ok = messages == ["oversize"] or (bool(later & set(row.get("codes", ["any"]))) and len(messages) == 1)
            case "one_result_one_error":
                ok = len(messages) == 2 and len(refusals) == 1 and refusals[0].code in row["codes"]
            case _:
                ok = True
        if not ok:
            wrong.append((row["id"], row["name"], messages))
    assert not wrong
