"""Keys that must not verify anything never do, and a set of keys is read or refused."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from interposer.errors import UNKNOWN_KEY, Unauthenticated
from interposer.identity.keys import MAX_BYTES, MAX_KEYS, BadKeys, KeySet, read_keys
from interposer.identity.refusals import ALGORITHM
from tests.identity.signing import b64, dumps, ec_key, jwk, key_set, number, rsa_key, unb64

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
MEMBERS = ["kty", "kid", "n", "e", "crv", "x", "y", "use", "key_ops", "alg", "d"]


def n_of(name: str) -> int:
    return rsa_key(name).public_key().public_numbers().n


def off_the_curve() -> str:
    y = ec_key("ec-1").public_key().public_numbers().y
    return b64((y ^ 1).to_bytes(32, "big"))


DROPPED: dict[str, Any] = {
    "for encryption": lambda: jwk("rsa-1", use="enc"),
    "use is a list": lambda: jwk("rsa-1", use=["sig"]),
    "use in upper case": lambda: jwk("rsa-1", use="SIG"),
    "key_ops to encrypt": lambda: jwk("rsa-1", key_ops=["encrypt"]),
    "key_ops to sign": lambda: jwk("rsa-1", key_ops=["sign"]),
    "key_ops empty": lambda: jwk("rsa-1", key_ops=[]),
    "key_ops a text": lambda: jwk("rsa-1", key_ops="verify"),
    "alg of another kind": lambda: jwk("rsa-1", alg="ES256"),
    "alg for encryption": lambda: jwk("rsa-1", alg="RSA-OAEP"),
    "alg for a secret": lambda: jwk("rsa-1", alg="HS256"),
    "alg none": lambda: jwk("rsa-1", alg="none"),
    "alg a list": lambda: jwk("rsa-1", alg=["RS256"]),
    "alg of another curve": lambda: jwk("ec-1", alg="ES384"),
    "kid a number": lambda: jwk("rsa-1", kid=1),
    "kid empty": lambda: jwk("rsa-1", kid=""),
    "kid with a control character": lambda: jwk("rsa-1", kid="rsa-1\n"),
    "kid too long": lambda: jwk("rsa-1", kid="k" * 257),
    "kid null": lambda: {**jwk("rsa-1"), "kid": None},
    "a secret": lambda: {"kty": "oct", "kid": "o", "k": b64(b"x" * 32)},
    "with its private exponent": lambda: jwk("rsa-1", d="AQAB"),
    "with a prime": lambda: jwk("rsa-1", p="AQAB"),
    "EC with its private key": lambda: jwk("ec-1", d=b64(b"x" * 32)),
    "unknown kty": lambda: {"kty": "AKP", "kid": "a"},
    "kty in lower case": lambda: jwk("rsa-1", kty="rsa"),
    "kty gone": lambda: jwk("rsa-1", kty=None),
    "kty a list": lambda: jwk("rsa-1", kty=["RSA"]),
    "1024 bits": lambda: jwk("rsa-1024"),
    "2047 bits": lambda: jwk("rsa-1", n=number(2**2046 + 1)),
    "16384 bits": lambda: jwk("rsa-1", n=number(2**16383 + 1)),
    "even modulus": lambda: jwk("rsa-1", n=number(n_of("rsa-1") + 1)),
    "exponent 1": lambda: jwk("rsa-1", e="AQ"),
    "exponent even": lambda: jwk("rsa-1", e="AQAA"),
    "exponent huge": lambda: jwk("rsa-1", e=number(2**64 + 1)),
    "n gone": lambda: jwk("rsa-1", n=None),
    "n empty": lambda: jwk("rsa-1", n=""),
    "n a number": lambda: jwk("rsa-1", n=65537),
    "n with leading zeros": lambda: jwk("rsa-1", n=b64(b"\0" + n_of("rsa-1").to_bytes(256, "big"))),
    "e with leading zeros": lambda: jwk("rsa-1", e=b64(b"\0\1\0\1")),
    "n with padding": lambda: jwk("rsa-1", n=jwk("rsa-1")["n"] + "=="),
    "n with white space": lambda: jwk("rsa-1", n=jwk("rsa-1")["n"] + "\n"),
    "n in plain base64": lambda: jwk("rsa-1", n="+/" + jwk("rsa-1")["n"][2:]),
    "n with bits left over": lambda: jwk("rsa-1", n=jwk("rsa-1")["n"][:-1] + "B"),
    "not on the curve": lambda: jwk("ec-1", y=off_the_curve()),
    "on another curve": lambda: jwk("ec-384", crv="P-256"),
    "at infinity": lambda: jwk("ec-1", x=b64(bytes(32)), y=b64(bytes(32))),
    "secp256k1": lambda: jwk("k1-1"),
    "secp256k1 as P-256": lambda: jwk("k1-1", crv="P-256"),
    "short coordinate": lambda: jwk("ec-1", x=b64(unb64(jwk("ec-1")["x"])[1:])),
    "long coordinate": lambda: jwk("ec-1", x=b64(b"\0" + unb64(jwk("ec-1")["x"]))),
    "curve gone": lambda: jwk("ec-1", crv=None),
    "curve a list": lambda: jwk("ec-1", crv=["P-256"]),
    "X25519": lambda: jwk("ed-1", crv="X25519"),
    "Ed25519 too short": lambda: jwk("ed-1", x=b64(b"x" * 31)),
    "a text": lambda: "rsa-1",
    "null": lambda: None,
    "a list": lambda: [jwk("rsa-1")],
}


@pytest.mark.parametrize("name", DROPPED)
def test_unfit_key_is_dropped_and_the_others_stay(name: str) -> None:
    """One bad key is left out, with the reason for operators, and costs the issuer's other keys nothing."""
    found = key_set(jwk("rsa-2"), DROPPED[name]())
    assert [key.kid for key in found.keys] == ["rsa-2"]
    assert len(found.dropped) == 1
    assert found.dropped[0].startswith("key 2: ")


@pytest.mark.parametrize(
    ("made", "algorithms"),
    [
        (lambda: jwk("rsa-1"), {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}),
        (lambda: jwk("rsa-1", use="sig", alg="PS256"), {"PS256"}),
        (lambda: jwk("rsa-1", e="Aw"), {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}),
        (lambda: jwk("rsa-1", key_ops=["verify"], x5c=["ignored"], x5t="ignored", unknown=1, alg="RS512"), {"RS512"}),
        (lambda: jwk("ec-1"), {"ES256"}),
        (lambda: jwk("ec-384", alg="ES384"), {"ES384"}),
        (lambda: jwk("ec-521"), {"ES512"}),
        (lambda: jwk("ed-1"), {"EdDSA"}),
    ],
)
def test_key_is_for_the_algorithms_that_fit_it(made: Any, algorithms: set[str]) -> None:
    """Type, curve and the key's own `alg` say what it verifies; certificates beside it are ignored."""
    (key,) = key_set(made()).keys
    assert key.algorithms == algorithms


def test_kid_that_two_keys_have_is_nobodys() -> None:
    """Both are dropped, even where one of them could not be used anyway."""
    for other in (jwk("rsa-2", kid="rsa-1"), jwk("rsa-1"), {"kty": "oct", "kid": "rsa-1"}, {"kid": "rsa-1"}):
        found = key_set(jwk("rsa-1"), other, jwk("ec-1"))
        assert [key.kid for key in found.keys] == ["ec-1"]


def test_key_is_found_by_its_exact_id_and_for_its_algorithm() -> None:
    """An unknown kid is told apart, because fresh keys may help; a known one for another algorithm is not."""
    found = key_set(jwk("rsa-1", alg="RS256"), jwk("ec-1"))
    assert found.find("rsa-1", "RS256").kid == "rsa-1"
    for kid, algorithm, why in (
        ("rsa-2", "RS256", UNKNOWN_KEY),
        ("rsa-1", "PS256", ALGORITHM),
        (None, "RS256", UNKNOWN_KEY),
    ):
        with pytest.raises(Unauthenticated) as refused:
            found.find(kid, algorithm)
        assert refused.value.why == why


WHOLLY_BAD = {
    "nothing": b"",
    "a page": b"<html>",
    "a list": b"[]",
    "no keys": b"{}",
    "null": b"null",
    "keys an object": b'{"keys":{}}',
    "keys null": b'{"keys":null}',
    "keys twice": b'{"keys":[],"keys":[]}',
    "NaN": b'{"keys":[NaN]}',
    "a number too small": b'{"keys":[1e-9999999999999999999999]}',
    "not UTF-8": b"\xff\xfe",
    "too large": b'{"keys":[]' + b" " * MAX_BYTES + b"}",
    "too many": dumps({"keys": [{}] * (MAX_KEYS + 1)}),
    "too deep": b'{"keys":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
}


@pytest.mark.parametrize("name", WHOLLY_BAD)
def test_what_is_no_key_set_is_refused_whole(name: str) -> None:
    """A page, a half or a poisoned answer is no set, so whoever holds an older one can keep it."""
    with pytest.raises(BadKeys):
        read_keys(WHOLLY_BAD[name])


def test_empty_set_is_a_set() -> None:
    """An issuer that has withdrawn every key has said so: nothing verifies any more."""
    assert read_keys(b'{"keys":[]}') == KeySet(())


@settings(max_examples=120, deadline=None)
@given(st.binary() | JSON.map(dumps) | st.lists(JSON).map(lambda keys: dumps({"keys": keys})))
@example(b'{"keys":[{"kty":"RSA","n":"AA","e":"AA"}]}')
def test_any_bytes_are_a_key_set_or_bad_keys(raw: bytes) -> None:
    """Whatever an issuer's address answers, nothing but BadKeys is raised."""
    with suppress(BadKeys):
        assert isinstance(read_keys(raw), KeySet)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from(["rsa-1", "ec-1", "ec-521", "ed-1"]),
    st.dictionaries(st.sampled_from(MEMBERS), JSON | st.binary(min_size=1, max_size=600).map(b64), max_size=3),
)
def test_any_member_of_a_key_is_taken_or_dropped(name: str, members: dict[str, Any]) -> None:
    """Whatever stands in a key, the set is read, and the key is either usable or said to be dropped."""
    found = read_keys(json.dumps({"keys": [{**jwk(name), **members}]}).encode())
    assert len(found.keys) + len(found.dropped) == 1
