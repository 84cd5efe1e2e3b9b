"""An issuer for tests: its keys, its JWKS, and tokens that it signs, each part of which a test may replace.

Keys are made when they are first asked for, and live as long as the test process.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils

from interposer.identity.keys import KeySet, read_keys
from interposer.identity.trust import Trust

ISSUER = "https://idp.test/realms/acme"
AUDIENCE = "interposer"
NOW = 1_800_000_000.0
TRUST = Trust(ISSUER, frozenset({AUDIENCE}))
HEADER: dict[str, Any] = {"alg": "RS256", "typ": "JWT", "kid": "rsa-1"}
CLAIMS: dict[str, Any] = {
    "iss": ISSUER,
    "aud": AUDIENCE,
    "sub": "agent-7",
    "groups": ["dev"],
    "iat": int(NOW) - 5,
    "nbf": int(NOW) - 5,
    "exp": int(NOW) + 300,
    "jti": "j1",
}
_CURVES: dict[str, tuple[ec.EllipticCurve, str]] = {
    "ec-1": (ec.SECP256R1(), "P-256"),
    "ec-384": (ec.SECP384R1(), "P-384"),
    "ec-521": (ec.SECP521R1(), "P-521"),
    "ec-evil": (ec.SECP256R1(), "P-256"),
    "k1-1": (ec.SECP256K1(), "secp256k1"),
}
_BITS = {"rsa-1024": 1024}


def b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def unb64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def dumps(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


@cache
def rsa_key(name: str) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, _BITS.get(name, 2048))


@cache
def ec_key(name: str) -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(_CURVES[name][0])


@cache
def ed_key(name: str) -> ed25519.Ed25519PrivateKey:
    return ed25519.Ed25519PrivateKey.generate()


def jwk(name: str, **members: Any) -> dict[str, Any]:
    """The public JWK of a key, whose name is its kid; with members put in, or left out where they are None."""
    if name.startswith("rsa"):
        numbers = rsa_key(name).public_key().public_numbers()
        found: dict[str, Any] = {"kty": "RSA", "kid": name, "n": number(numbers.n), "e": number(numbers.e)}
    elif name.startswith("ed"):
        found = {"kty": "OKP", "kid": name, "crv": "Ed25519", "x": b64(ed_key(name).public_key().public_bytes_raw())}
    else:
        point = ec_key(name).public_key().public_numbers()
        size = (point.curve.key_size + 7) // 8
        x, y = (b64(value.to_bytes(size, "big")) for value in (point.x, point.y))
        found = {"kty": "EC", "kid": name, "crv": _CURVES[name][1], "x": x, "y": y}
    return {member: value for member, value in (found | members).items() if value is not None}


def number(value: int) -> str:
    return b64(value.to_bytes((value.bit_length() + 7) // 8, "big"))


def key_set(*jwks: Any) -> KeySet:
    return read_keys(dumps({"keys": list(jwks)}))


@cache
def keys() -> KeySet:
    """What the issuer publishes: keys for each algorithm, and some that must never verify anything."""
    return key_set(
        jwk("rsa-1", use="sig", alg="RS256"),
        jwk("rsa-2", use="sig"),
        jwk("ec-1", use="sig", alg="ES256"),
        jwk("ec-384"),
        jwk("ec-521"),
        jwk("ed-1"),
        jwk("rsa-enc", use="enc"),
        jwk("rsa-512", alg="RS512"),
        jwk("rsa-ops", key_ops=["encrypt"]),
        jwk("rsa-1024"),
        jwk("k1-1"),
        {"kty": "oct", "kid": "oct-1", "k": b64(b"a shared secret of thirty-two b."), "alg": "HS256"},
    )


def signature(algorithm: str, kid: str, signed: bytes) -> bytes:
    """As the key of that name signs; RSA for everything that is neither ECDSA nor EdDSA."""
    digest = {"384": hashes.SHA384(), "512": hashes.SHA512()}.get(algorithm[2:], hashes.SHA256())
    if kid.startswith("ed"):
        return ed_key(kid).sign(signed)
    if kid.startswith(("ec", "k1")):
        size = (ec_key(kid).key_size + 7) // 8
        r, s = utils.decode_dss_signature(ec_key(kid).sign(signed, ec.ECDSA(digest)))
        return r.to_bytes(size, "big") + s.to_bytes(size, "big")
    if algorithm.startswith("PS"):
        return rsa_key(kid).sign(signed, padding.PSS(padding.MGF1(digest), digest.digest_size), digest)
    return rsa_key(kid).sign(signed, padding.PKCS1v15(), digest)


def token(
    header: Mapping[str, Any] = HEADER,
    claims: Mapping[str, Any] = CLAIMS,
    *,
    by: str | None = None,
    with_algorithm: str | None = None,
) -> str:
    """A token signed by the key that its header names, or by another."""
    return raw_token(
        dumps(header),
        dumps(claims),
        by=by or str(header.get("kid", "rsa-1")),
        algorithm=with_algorithm or str(header.get("alg", "RS256")),
    )


def raw_token(
    header: bytes, payload: bytes, *, by: str = "rsa-1", algorithm: str = "RS256", spell: Callable[[bytes], str] = b64
) -> str:
    """A token of any bytes, properly signed; `spell` writes header and payload."""
    signed = f"{spell(header)}.{spell(payload)}"
    return f"{signed}.{b64(signature(algorithm, by, signed.encode('utf-8', 'surrogatepass')))}"
