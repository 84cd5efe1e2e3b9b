"""One spelling for a token, and nothing in its header that steers us."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interposer.errors import Unauthenticated
from interposer.identity.refusals import ALGORITHM, HEADER, MALFORMED
from interposer.identity.token import check_repeated, read_header, read_object, take_apart, unbase64url
from tests.identity.signing import HEADER as GOOD
from tests.identity.signing import dumps, token


@given(st.binary(min_size=1))
def test_base64url_goes_there_and_back(raw: bytes) -> None:
    """Any bytes have one spelling, and it is read as them."""
    assert unbase64url(base64.urlsafe_b64encode(raw).rstrip(b"=").decode()) == raw


@given(st.text(alphabet="ABCDQTgwxyz019-_", min_size=1, max_size=9) | st.text(max_size=9))
def test_only_the_canonical_spelling_is_read(text: str) -> None:
    """What is read is what writing it again gives; all else is refused with ValueError."""
    try:
        raw = unbase64url(text)
    except ValueError:
        return
    assert base64.urlsafe_b64encode(raw).rstrip(b"=").decode() == text


def test_parts_are_what_was_signed() -> None:
    """The signed bytes are the text up to the second dot."""
    made = token()
    parts = take_apart(made, 8192)
    assert parts.signed == made.rpartition(".")[0].encode()
    assert parts.header == dumps(GOOD)
    assert "agent-7" not in repr(parts)


@pytest.mark.parametrize("made", [None, 1, b"a.b.c", ["a.b.c"]])
def test_what_is_no_text_is_no_token(made: object) -> None:
    """A caller that hands over something else is refused like one with a bad token."""
    with pytest.raises(Unauthenticated) as refused:
        take_apart(made, 8192)  # type: ignore[arg-type]
    assert refused.value.why == MALFORMED


@pytest.mark.parametrize(
    "raw", [b"", b"[]", b"1", b'"x"', b"{}{}", b"\xff", b'{"a":1,"a":1}', b'{"a":1e-99999999999999999999}']
)
def test_only_an_object_in_strict_json_is_read(raw: bytes) -> None:
    """Header and payload are one object, each member once."""
    with pytest.raises(Unauthenticated) as refused:
        read_object(raw, "payload")
    assert refused.value.why == MALFORMED
    assert "payload" in str(refused.value)


def test_white_space_in_json_is_allowed() -> None:
    """RFC 7519 §3 lets the JSON be laid out; only base64url has one spelling."""
    assert read_header(b'\r\n{ "typ" : "JWT",\n "alg" : "RS256" }\t').algorithm == "RS256"


def test_header_says_algorithm_and_key() -> None:
    """A header is reduced to the two things it may choose."""
    found = read_header(dumps({**GOOD, "sub": "x"}))
    assert (found.algorithm, found.kid, found.repeated) == ("RS256", "rsa-1", {"sub": "x"})
    assert read_header(b'{"alg":"RS256"}').kid is None


@pytest.mark.parametrize("member", ["jwk", "jku", "x5u", "x5c", "crit", "b64", "enc", "zip", "cty", "p2s", "iv", "tag"])
@pytest.mark.parametrize("value", [None, "", [], {}, False])
def test_member_that_would_steer_us_is_refused_whatever_it_says(member: str, value: object) -> None:
    """It is refused for being there, so no value can be read leniently."""
    with pytest.raises(Unauthenticated) as refused:
        read_header(dumps({**GOOD, member: value}))
    assert refused.value.why == HEADER


def test_missing_algorithm_is_refused() -> None:
    """A header without alg chooses nothing, and nothing is guessed."""
    with pytest.raises(Unauthenticated) as refused:
        read_header(b"{}")
    assert refused.value.why == ALGORITHM


def test_repeated_claims_must_be_there_and_the_same() -> None:
    """RFC 7519 §5.3: a header that tells another story than the claims is refused, 1 and true being different."""
    header = read_header(dumps({**GOOD, "sub": 1}))
    check_repeated(header, {"sub": 1})
    for claims in ({"sub": True}, {"sub": "1"}, {}):
        with pytest.raises(Unauthenticated) as refused:
            check_repeated(header, claims)
        assert refused.value.why == HEADER
