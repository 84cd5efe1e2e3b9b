"""An issuer's public keys, read from a JWKS (RFC 7517) with the hygiene of RFC 7518 and RFC 8725.

A set is read as a whole or refused with `BadKeys`; inside of it, a key that must not be used is dropped, never
repaired, and `KeySet.dropped` says why. Key objects are made once, here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    SECP384R1,
    SECP521R1,
    EllipticCurve,
    EllipticCurvePublicKey,
    EllipticCurvePublicNumbers,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey, RSAPublicNumbers

from interposer import canonical
from interposer.errors import UNKNOWN_KEY, Unauthenticated
from interposer.model import Json, JsonObject

from .refusals import ALGORITHM
from .text import is_name
from .token import MAX_KID, unbase64url

MAX_BYTES = 256 * 1024
MAX_KEYS = 100
RSA_BITS = (2048, 8192)
"""RFC 7518 §3.3 sets the least; beyond the most, a signature costs too much to look at."""
MAX_EXPONENT = 2**32

PublicKey: TypeAlias = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey

RSA_ALGORITHMS = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
# RFC 7518 §3.4: each ES algorithm has one curve. Name -> curve, bytes of a coordinate, algorithm.
_CURVES: dict[str, tuple[type[EllipticCurve], int, str]] = {
    "P-256": (SECP256R1, 32, "ES256"),
    "P-384": (SECP384R1, 48, "ES384"),
    "P-521": (SECP521R1, 66, "ES512"),
}
_PRIVATE = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"})


class BadKeys(ValueError):
    """Not a JWKS that can be used; the text is a constant that echoes nothing of it."""


class _Dropped(ValueError):
    """The text says what is wrong with one key."""


@dataclass(frozen=True, slots=True)
class Key:
    """One public key, and what it may verify."""

    kid: str | None
    algorithms: frozenset[str]
    public: PublicKey = field(repr=False)
    signature_bytes: int
    """The length that every signature by it has."""


@dataclass(frozen=True, slots=True)
class KeySet:
    """The keys of one issuer that can be used."""

    keys: tuple[Key, ...]
    dropped: tuple[str, ...] = ()
    """For operators: which keys cannot be used, by their place in the set, and why."""

    def find(self, kid: str | None, algorithm: str) -> Key:
        """The one key that a header means. Raises `Unauthenticated`, with `UNKNOWN_KEY` where fresh keys may help."""
        key = self._only() if kid is None else self._named(kid)
        if algorithm not in key.algorithms:
            raise Unauthenticated("the key is not for the token's algorithm", why=ALGORITHM)
        return key

    def _named(self, kid: str) -> Key:
        for key in self.keys:
            if key.kid == kid:
                return key
        raise Unauthenticated("the token's kid names no key of the issuer", why=UNKNOWN_KEY)

    def _only(self) -> Key:
        # OpenID Connect Core §10.1: where there are several keys, the token must say which.
        if len(self.keys) != 1:
            raise Unauthenticated("the token has no kid, and the issuer has not exactly one key", why=UNKNOWN_KEY)
        return self.keys[0]


def read_keys(raw: bytes) -> KeySet:
    """The usable keys of a JWKS; there may be none. Raises `BadKeys`, and nothing else."""
    if len(raw) > MAX_BYTES:
        raise BadKeys("the JWKS is too large")
    try:
        found = canonical.parse(raw)
    except ValueError:
        raise BadKeys("the JWKS is not strict JSON") from None
    listed = found.get("keys") if isinstance(found, dict) else None
    if not isinstance(listed, list):
        raise BadKeys("not a JWKS: expected an object with a list of keys")
    if len(listed) > MAX_KEYS:
        raise BadKeys("the JWKS has too many keys")
    return _chosen(listed)


def _chosen(listed: list[Json]) -> KeySet:
    # Keys that cannot be used count too: one kid must not mean two things, whatever the second is.
    named = Counter(kid for jwk in listed if isinstance(jwk, dict) and isinstance(kid := jwk.get("kid"), str))
    keys: list[Key] = []
    dropped: list[str] = []
    for place, jwk in enumerate(listed, start=1):
        try:
            keys.append(_key(jwk, named))
        except _Dropped as fault:
            dropped.append(f"key {place}: {fault}")
    return KeySet(tuple(keys), tuple(dropped))


def _key(jwk: Json, named: Counter[str]) -> Key:
    if not isinstance(jwk, dict):
        raise _Dropped("not an object")
    kid = jwk.get("kid")
    if "kid" in jwk and not is_name(kid, MAX_KID):
        raise _Dropped("its kid is not a plain text")
    if kid is not None and named[kid] > 1:
        raise _Dropped("another key has the same kid")
    if _PRIVATE & jwk.keys():
        raise _Dropped("it has private members, so others may have it too")
    _check_purpose(jwk)
    public, algorithms, signature_bytes = _public(jwk)
    if "alg" in jwk:
        algorithms = algorithms & {jwk["alg"]} if isinstance(jwk["alg"], str) else frozenset()
    if not algorithms:
        raise _Dropped("its alg is not one that it can verify here")
    return Key(kid, algorithms, public, signature_bytes)


def _check_purpose(jwk: JsonObject) -> None:
    """RFC 7517 §4.2, §4.3: a key for something else is not for signatures."""
    if "use" in jwk and jwk["use"] != "sig":
        raise _Dropped("it is not for signatures (use)")
    if "key_ops" in jwk:
        operations = jwk["key_ops"]
        if not isinstance(operations, list) or "verify" not in operations:
            raise _Dropped("it is not for verifying (key_ops)")


def _public(jwk: JsonObject) -> tuple[PublicKey, frozenset[str], int]:
    kty = jwk.get("kty")
    read = _KINDS.get(kty) if isinstance(kty, str) else None
    if read is None:
        raise _Dropped("its kty is not RSA, EC or OKP")
    try:
        return read(jwk)
    except _Dropped:
        raise
    except (ValueError, UnsupportedAlgorithm):
        raise _Dropped("its numbers are not a public key") from None


def _rsa(jwk: JsonObject) -> tuple[PublicKey, frozenset[str], int]:
    modulus, exponent = _number(jwk, "n"), _number(jwk, "e")
    bits = modulus.bit_length()
    if not RSA_BITS[0] <= bits <= RSA_BITS[1]:
        raise _Dropped("RSA keys must have 2048 to 8192 bits")
    if modulus % 2 == 0 or exponent % 2 == 0 or not 3 <= exponent < MAX_EXPONENT:
        raise _Dropped("its modulus or exponent is unsafe")
    return RSAPublicNumbers(exponent, modulus).public_key(), RSA_ALGORITHMS, (bits + 7) // 8


def _ec(jwk: JsonObject) -> tuple[PublicKey, frozenset[str], int]:
    crv = jwk.get("crv")
    if not isinstance(crv, str) or crv not in _CURVES:
        raise _Dropped("its curve is not P-256, P-384 or P-521")
    curve, size, algorithm = _CURVES[crv]
    x, y = _member(jwk, "x"), _member(jwk, "y")
    # RFC 7518 §6.2.1.2: always the full size of a coordinate.
    if len(x) != size or len(y) != size:
        raise _Dropped("its coordinates have not the size of the curve")
    numbers = EllipticCurvePublicNumbers(int.from_bytes(x, "big"), int.from_bytes(y, "big"), curve())
    # Raises ValueError for a point that is not on the curve.
    return numbers.public_key(), frozenset({algorithm}), 2 * size


def _okp(jwk: JsonObject) -> tuple[PublicKey, frozenset[str], int]:
    if jwk.get("crv") != "Ed25519":
        raise _Dropped("its curve is not Ed25519")
    return Ed25519PublicKey.from_public_bytes(_member(jwk, "x")), frozenset({"EdDSA"}), 64


_KINDS: dict[str, Callable[[JsonObject], tuple[PublicKey, frozenset[str], int]]] = {"RSA": _rsa, "EC": _ec, "OKP": _okp}


def _member(jwk: JsonObject, name: str) -> bytes:
    value = jwk.get(name)
    if not isinstance(value, str):
        raise _Dropped(f"its {name} is missing or not a text")
    return unbase64url(value)


def _number(jwk: JsonObject, name: str) -> int:
    raw = _member(jwk, name)
    # RFC 7518 §2: the fewest octets, so that a number has one spelling.
    if raw[0] == 0:
        raise _Dropped(f"its {name} has leading zeros")
    return int.from_bytes(raw, "big")
