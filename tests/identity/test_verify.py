"""A token is its issuer's word about who asks, or it is refused with a reason that says nothing of it."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from interposer.errors import EXPIRED, UNKNOWN_KEY, Unauthenticated
from interposer.identity.refusals import ALGORITHM, CLAIM, MALFORMED, TIME, WHYS
from interposer.identity.trust import ALGORITHMS, Identity, Trust
from interposer.identity.verify import issuer_of, verify
from tests.identity.hostile import DROP, Vector, changed_by
from tests.identity.hostile_claims import CLAIMED, ENCODING
from tests.identity.hostile_headers import ALG, CONFUSION, HEADER_KEY, HEADERS, KID, SIGNATURES
from tests.identity.signing import (
    CLAIMS,
    HEADER,
    NOW,
    TRUST,
    dumps,
    jwk,
    key_set,
    keys,
    raw_token,
    token,
)
from tests.identity.signing import (
    ISSUER as ISS,
)

VECTORS: list[Vector] = [*ALG, *CONFUSION, *HEADER_KEY, *SIGNATURES, *KID, *HEADERS, *ENCODING, *CLAIMED]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
MEMBERS = ["alg", "typ", "kid", "crit", "x5t", "iss", "sub", "cty", "jku", "b64"]
NAMES = [*CLAIMS, "sid", "azp", "scope", "client_id", "_claim_names", "realm_access", "typ", "cnf", "nonce"]


def judged(made: str, *, trust: Trust = TRUST, now: float = NOW) -> Identity | Unauthenticated:
    """What becomes of a token; any other exception, and any other reason, is a failure of the test."""
    try:
        return verify(made, keys(), trust, now)
    except Unauthenticated as refusal:
        return dict.fromkeys(WHYS, refusal)[refusal.why]


def why(made: str, *, trust: Trust = TRUST, now: float = NOW) -> str:
    found = judged(made, trust=trust, now=now)
    assert isinstance(found, Unauthenticated), found
    return found.why


def accepted(made: str, *, trust: Trust = TRUST, now: float = NOW) -> Identity:
    found = judged(made, trust=trust, now=now)
    assert isinstance(found, Identity), (found.why, str(found))
    return found


@pytest.mark.parametrize("vector", VECTORS, ids=lambda v: v.id)
def test_hostile_token_is_refused_for_its_own_reason(vector: Vector) -> None:
    """Each is a good token with one thing changed, and that thing is what it is refused for."""
    assert why(vector.made()) == vector.why


def test_control_is_accepted() -> None:
    """What the hostile tokens are made from is good, so the one change is what refuses them."""
    found = accepted(token())
    assert found.principal.identity() == [ISS, "agent-7"]
    assert found.principal.groups == ("dev",)
    assert (found.token_id, found.session) == ("j1", "")
    assert (found.not_before, found.expires_at) == (NOW - 35, NOW + 330)
    accepted(token({**HEADER, "alg": "ES256", "kid": "ec-1"}))


def test_table_is_one_change_each_and_no_name_twice() -> None:
    """The table keeps its own rules, and is large enough to mean something."""
    assert [name for name, count in Counter(v.id for v in VECTORS).items() if count > 1] == []
    for vector in VECTORS:
        if vector.part in ("header", "claims"):
            control: dict[str, Any] = HEADER if vector.part == "header" else CLAIMS
            assert dumps(changed_by(control, vector.member, vector.value)) != dumps(control), vector.id
    sizes = Counter(v.group for v in VECTORS)
    assert sum(sizes[group] for group in ("kid", "header", "encoding", "claims")) >= 105
    assert all(sizes[group] >= 10 for group in ("alg", "confusion", "header_key", "signature"))


@pytest.mark.parametrize("vector", VECTORS, ids=lambda v: v.id)
def test_refusal_says_nothing_of_the_token(vector: Vector) -> None:
    """Reasons name claims, never what stands in them."""
    found = judged(vector.made())
    assert isinstance(found, Unauthenticated)
    said = f"{found} {found.public} {found!r}"
    for shown in ("agent-7", "evil", "idp.test", "/etc", "admin", "dpop", "Offline"):
        assert shown not in said
    if isinstance(vector.value, str) and len(vector.value) > 8:
        assert vector.value not in said


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("typ", DROP),
        ("typ", "jwt"),
        ("typ", "at+jwt"),
        ("typ", "AT+JWT"),
        ("typ", "application/at+jwt"),
        ("kid", "rsa-2"),
        ("x5t", "nzMl8z0tU2Fv"),
        ("x5t#S256", "nzMl8z0tU2Fv"),
        ("unknown", {"may": ["be", "there"]}),
        ("iss", ISS),
        ("sub", "agent-7"),
        ("exp", CLAIMS["exp"]),
    ],
)
def test_header_of_an_access_token_is_accepted(member: str, value: Any) -> None:
    """What good issuers write into headers does no harm."""
    accepted(token({name: held for name, held in {**HEADER, member: value}.items() if held is not DROP}))


@pytest.mark.parametrize(
    ("algorithm", "kid"),
    [
        *((name, "rsa-2") for name in ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")),
        ("RS512", "rsa-512"),
        ("ES256", "ec-1"),
        ("ES384", "ec-384"),
        ("ES512", "ec-521"),
        ("EdDSA", "ed-1"),
    ],
)
def test_configured_algorithm_is_accepted_and_any_other_is_not(algorithm: str, kid: str) -> None:
    """Each algorithm works where it is configured, and nowhere else."""
    made = token({**HEADER, "alg": algorithm, "kid": kid})
    accepted(made, trust=replace(TRUST, algorithms=frozenset({algorithm})))
    assert why(made, trust=replace(TRUST, algorithms=ALGORITHMS - {algorithm})) == ALGORITHM


def test_algorithm_that_must_not_be_configured_stays_refused() -> None:
    """Not even a configuration makes a shared secret of a public key."""
    reckless = replace(TRUST, algorithms=frozenset({"HS256", "none"}))
    for vector in (*ALG, *CONFUSION):
        judged_so = judged(vector.made(), trust=reckless)
        assert isinstance(judged_so, Unauthenticated), vector.id


def test_token_without_kid_needs_an_issuer_with_one_key() -> None:
    """Where there is nothing to choose, nothing must be named."""
    made = token({"alg": "RS256"}, by="rsa-2")
    one = key_set(jwk("rsa-2", kid=None))
    assert verify(made, one, TRUST, NOW).principal.subject == "agent-7"
    assert verify(made, key_set(jwk("rsa-2")), TRUST, NOW).principal.subject == "agent-7"
    for several in (key_set(jwk("rsa-2"), jwk("ec-1")), key_set()):
        with pytest.raises(Unauthenticated) as refused:
            verify(made, several, TRUST, NOW)
        assert refused.value.why == UNKNOWN_KEY


def test_expiry_is_said_only_when_all_else_is_right() -> None:
    """EXPIRED is told to the presenter, so it must not confirm a forged or foreign token's claims."""
    later = CLAIMS["exp"] + 1000.0
    assert why(token(), now=later) == EXPIRED
    assert "expired" in getattr(judged(token(), now=later), "public", "")
    for vector in VECTORS:
        # What was only too early is, by then, a good token that has expired.
        assert vector.why == "not_yet_valid" or why(vector.made(), now=later) != EXPIRED, vector.id
    assert why(token(), trust=replace(TRUST, claims=((("hd",), ("acme",)),)), now=later) == CLAIM


@pytest.mark.parametrize(
    ("past", "good"), [(29.999, True), (30.0, False), (30.001, False), (float("inf"), False), (float("nan"), False)]
)
def test_token_speaks_until_its_end_and_the_leeway(past: float, good: bool) -> None:
    """`now < exp + leeway`, to the moment; and a clock that shows no time lets nobody in."""
    assert isinstance(judged(token(), now=CLAIMS["exp"] + past), Identity) is good


def test_times_may_be_fractions() -> None:
    """RFC 7519 §2: NumericDate may be non-integer; all its digits are kept by the reader."""
    end = str(CLAIMS["exp"]).encode()
    for written, at in ((end + b".25", 300.25), (b"18000003.005e2", 300.5), (end + b"." + b"0" * 40 + b"1", 300)):
        assert accepted(raw_token(dumps(HEADER), dumps(CLAIMS).replace(end, written))).expires_at == NOW + at + 30


@settings(max_examples=150, deadline=None)
@given(st.text() | st.from_regex(r"[A-Za-z0-9_-]*\.[A-Za-z0-9_-]*\.[A-Za-z0-9_-]*", fullmatch=True))
@example("")
@example("..")
@example("\ud800.\ud800.\ud800")
def test_any_text_is_refused_and_nothing_else_happens(made: str) -> None:
    """No text makes the verifier raise anything but a refusal."""
    assert isinstance(judged(made), Unauthenticated)
    with pytest.raises(Unauthenticated):
        issuer_of(made, 8192)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.dictionaries(st.sampled_from(MEMBERS) | st.text(), JSON, max_size=4) | JSON,
    st.dictionaries(st.sampled_from(NAMES) | st.text(), JSON, max_size=6) | JSON,
    st.booleans(),
    st.booleans(),
)
def test_any_signed_json_is_judged_and_nothing_else_happens(
    header: Any, claims: Any, good_header: bool, good_claims: bool
) -> None:
    """Whatever JSON the issuer signs, alone or over a good token's, the verifier answers yes or refuses."""
    if good_header:
        header = {**HEADER, **(header if isinstance(header, dict) else {})}
    if good_claims:
        claims = {**CLAIMS, **(claims if isinstance(claims, dict) else {})}
    made = raw_token(dumps(header), dumps(claims))
    wide = replace(TRUST, groups=(*TRUST.groups, *NESTED), claims=((("azp",), ("x", 1, True)),) if good_header else ())
    for trust in (TRUST, wide, replace(TRUST, machine=True, id_tokens=True, required=())):
        judged(made, trust=trust)


NESTED = tuple(replace(TRUST.groups[0], claim=path) for path in (("realm_access", "roles"), ("sub", "x"), ()))


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=60), st.binary(max_size=60))
def test_any_signed_bytes_are_judged_and_nothing_else_happens(header: bytes, payload: bytes) -> None:
    """Whatever bytes are signed, the verifier refuses them."""
    assert isinstance(judged(raw_token(header, dumps(CLAIMS))), Unauthenticated)
    assert isinstance(judged(raw_token(dumps(HEADER), payload)), Unauthenticated)


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(["exp", "nbf", "iat"]),
    st.from_regex(r"-?(0|[1-9][0-9]{0,30})(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,25})?", fullmatch=True),
)
@example("exp", "1e-9999999999999999999999999")
@example("nbf", "1E-400")
@example("exp", "1" * 5000)
def test_any_number_is_a_time_or_refused(name: str, number: str) -> None:
    """However a number is written, it is a time in the window or it is refused."""
    claims = json.dumps(CLAIMS).replace(f'"{name}": {CLAIMS[name]}', f'"{name}": {number}').encode()
    found = judged(raw_token(dumps(HEADER), claims))
    if isinstance(found, Unauthenticated):
        assert found.why in {MALFORMED, TIME, CLAIM, EXPIRED, "not_yet_valid"}
    else:
        assert 1 <= float(number) < 2**53
