"""Hostile tokens whose header or signature is wrong: alg, confusion, header_key, signature, kid, header."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import utils

from interposer.errors import UNKNOWN_KEY
from interposer.identity import refusals as r
from tests.identity.hostile import (
    DROP,
    Vector,
    ec_text,
    header,
    header_bytes,
    nested,
    segments,
    text,
    with_signature,
)
from tests.identity.signing import CLAIMS, HEADER, b64, dumps, jwk, rsa_key, token, unb64


def _hs256(secret: Callable[[], bytes], **members: Any) -> Callable[[], str]:
    """Signed with a secret that is public."""

    def made() -> str:
        signed = f"{b64(dumps({**HEADER, 'alg': 'HS256', **members}))}.{b64(dumps(CLAIMS))}"
        return f"{signed}.{b64(hmac.digest(secret(), signed.encode(), hashlib.sha256))}"

    return made


def _pem() -> bytes:
    public = rsa_key("rsa-1").public_key()
    return public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


_FORGED = {**HEADER, "kid": "rsa-evil"}
_ORDER = int("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551", 16)


def _der(raw: bytes) -> bytes:
    return utils.encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))


def _pair(first: int, second: int) -> Callable[[bytes], bytes]:
    return lambda _: first.to_bytes(32, "big") + second.to_bytes(32, "big")


def _signed_as(algorithm: str, kid: str, **members: Any) -> Callable[[], str]:
    return lambda: token({**HEADER, "alg": algorithm, "kid": kid, **members})


ALG = [
    *(
        header("alg", f"alg is {said}", r.ALGORITHM, "alg", value)
        for said, value in {
            "none": "none",
            "NONE": "NONE",
            "nOnE": "nOnE",
            "gone": DROP,
            "empty": "",
            "null": None,
            "a list": ["RS256"],
            "an object": {"RS256": 1},
            "a number": 256,
            "in lower case": "rs256",
            "followed by a space": "RS256 ",
            "followed by NUL": "RS256\0",
            "a URI": "http://www.w3.org/2001/04/xmldsig-more#rsa-sha256",
            "an encryption": "RSA-OAEP",
            "dir": "dir",
        }.items()
    ),
    Vector("alg", "none without a signature", r.MALFORMED, lambda: token({**HEADER, "alg": "none"}).rpartition(".")[0]),
]
CONFUSION = [
    Vector("confusion", "HS256 by the PEM", r.ALGORITHM, _hs256(_pem)),
    Vector("confusion", "HS256 by the PEM without its line end", r.ALGORITHM, _hs256(lambda: _pem().rstrip())),
    Vector("confusion", "HS256 by the JWK", r.ALGORITHM, _hs256(lambda: dumps(jwk("rsa-1")))),
    Vector("confusion", "HS256 by the modulus", r.ALGORITHM, _hs256(lambda: unb64(jwk("rsa-1")["n"]))),
    Vector("confusion", "HS256 by nothing", r.ALGORITHM, _hs256(lambda: b"")),
    Vector(
        "confusion",
        "HS256 by a key of the set",
        r.ALGORITHM,
        _hs256(lambda: b"a shared secret of thirty-two b.", kid="oct-1"),
    ),
    Vector(
        "confusion", "RS256 with the id of an EC key", r.ALGORITHM, lambda: token({**HEADER, "kid": "ec-1"}, by="rsa-1")
    ),
    Vector(
        "confusion",
        "ES256 with the id of an RSA key",
        r.ALGORITHM,
        lambda: token({**HEADER, "alg": "ES256"}, by="ec-1"),
    ),
    Vector("confusion", "PS256, not configured", r.ALGORITHM, _signed_as("PS256", "rsa-2")),
    Vector("confusion", "RS512, not configured", r.ALGORITHM, _signed_as("RS512", "rsa-512")),
    Vector("confusion", "EdDSA, not configured", r.ALGORITHM, _signed_as("EdDSA", "ed-1")),
    Vector("confusion", "ES256K", r.ALGORITHM, _signed_as("ES256K", "k1-1")),
    Vector("confusion", "ES256 on secp256k1", UNKNOWN_KEY, _signed_as("ES256", "k1-1")),
    Vector("confusion", "ES256 on P-384", r.ALGORITHM, _signed_as("ES256", "ec-384")),
    Vector("confusion", "key for encryption", UNKNOWN_KEY, _signed_as("RS256", "rsa-enc")),
    Vector("confusion", "key for RS512", r.ALGORITHM, _signed_as("RS256", "rsa-512")),
    Vector("confusion", "key not for verifying", UNKNOWN_KEY, _signed_as("RS256", "rsa-ops")),
    Vector("confusion", "key of 1024 bits", UNKNOWN_KEY, _signed_as("RS256", "rsa-1024")),
]
HEADER_KEY = [
    Vector("header_key", "jwk with its own key", r.HEADER, lambda: token({**_FORGED, "jwk": jwk("rsa-evil")})),
    Vector(
        "header_key",
        "jwk under our kid",
        r.HEADER,
        lambda: token({**HEADER, "jwk": jwk("rsa-evil", kid="rsa-1")}, by="rsa-evil"),
    ),
    Vector("header_key", "x5t of an unknown key", UNKNOWN_KEY, lambda: token({**_FORGED, "x5t": "AAAA"})),
    header("header_key", "jwk of our own key", r.HEADER, "jwk", {"kty": "RSA"}),
    *(
        header("header_key", f"jku {url}", r.HEADER, "jku", url)
        for url in ("https://idp.test/realms/acme/certs", "https://idp.test@evil.test/", "file:///etc/passwd", "")
    ),
    header("header_key", "x5u", r.HEADER, "x5u", "http://127.0.0.1/cert"),
    header("header_key", "x5c", r.HEADER, "x5c", ["MII"]),
    header("header_key", "jku null", r.HEADER, "jku", None),
]
SIGNATURES = [
    ec_text("r and s are 0", _pair(0, 0)),
    ec_text("r is 0", _pair(0, 1)),
    ec_text("s is 0", _pair(1, 0)),
    ec_text("r and s are the order", _pair(_ORDER, _ORDER)),
    ec_text("r is the order", _pair(_ORDER, 1)),
    ec_text("ECDSA in DER", _der),
    ec_text("ECDSA with zeros before", lambda raw: b"\0" + raw[:32] + b"\0" + raw[32:]),
    ec_text("ECDSA cut short", lambda raw: raw[:-1]),
    Vector(
        "signature",
        "another EC key",
        r.SIGNATURE,
        lambda: token({**HEADER, "alg": "ES256", "kid": "ec-1"}, by="ec-evil"),
    ),
    Vector("signature", "another RSA key", r.SIGNATURE, lambda: token(by="rsa-evil")),
    Vector("signature", "another digest", r.SIGNATURE, lambda: token(with_algorithm="RS384")),
    Vector("signature", "another padding", r.SIGNATURE, lambda: token(with_algorithm="PS256")),
    text("signature", "gone, with its dot", lambda made: made.rpartition(".")[0]),
    text("signature", "gone", lambda made: made.rpartition(".")[0] + "."),
    text("signature", "one bit", lambda m: with_signature(m, lambda raw: raw[:-1] + bytes([raw[-1] ^ 1])), r.SIGNATURE),
    text("signature", "zeros", lambda made: with_signature(made, lambda raw: bytes(len(raw))), r.SIGNATURE),
    text("signature", "a zero before", lambda made: with_signature(made, lambda raw: b"\0" + raw), r.SIGNATURE),
    text("signature", "too long", lambda made: with_signature(made, lambda raw: raw + raw), r.SIGNATURE),
    text(
        "signature",
        "of another payload",
        segments(lambda found: [found[0], b64(dumps({**CLAIMS, "sub": "admin"})), found[2]]),
        r.SIGNATURE,
    ),
    text("signature", "of another header", segments(lambda f: [b64(dumps({**HEADER, "a": 1})), *f[1:]]), r.SIGNATURE),
]
KID = [
    *(
        header("kid", f"{said}", r.HEADER, "kid", value)
        for said, value in {
            "null": None,
            "empty": "",
            "number": 1,
            "true": True,
            "list": ["rsa-1"],
            "object": {"kid": "rsa-1"},
            "too long": "r" * 300,
            "with NUL": "rsa-1\0",
            "with a line end": "rsa-1\n",
            "with CR LF": "rsa-1\r\nX: y",
            "with a space after": "rsa-1 ",
            "with a space before": " rsa-1",
            "with a tab": "\trsa-1",
            "with a zero width space": "rsa-1\u200b",
            "with a right-to-left override": "\u202ersa-1",
            "escape sequence": "\x1b[2Jrsa-1",
        }.items()
    ),
    *(
        header("kid", f"{said}", UNKNOWN_KEY, "kid", value)
        for said, value in {
            "gone, with many keys": DROP,
            "unknown": "rsa-9",
            "in upper case": "RSA-1",
            "beginning of one": "rsa",
            "longer than one": "rsa-11",
            "pattern": "rsa-*",
            "path": "../../../../dev/null",
            "absolute path": "/proc/sys/kernel/randomize_va_space",
            "URL": "https://evil.test/jwks.json",
            "SQL": "rsa-1' UNION SELECT 'x",
            "shell": "rsa-1|id",
            "percent-encoded": "rsa%2d1",
            "look-alike letters": "rѕa-1",
            "full width": "ｒｓａ-1",
            "of the shared secret": "oct-1",
            "undefined": "undefined",
            "prototype": "__proto__",
            "index": "0",
        }.items()
    ),
    header_bytes("kid", "twice", lambda raw: raw[:-1] + b',"kid":"rsa-1"}'),
    header_bytes("kid", "twice, once escaped", lambda raw: raw[:-1] + b',"\\u006bid":"rsa-2"}'),
    header_bytes("kid", "lone surrogate", lambda raw: raw.replace(b'"rsa-1"', b'"rsa-1\\ud800"')),
]
HEADERS = [
    *(
        header("header", f"typ is {said}", r.HEADER, "typ", value)
        for said, value in {
            "of a logout token": "logout+jwt",
            "of a security event": "secevent+jwt",
            "of a proof": "dpop+jwt",
            "of a client": "client-authentication+jwt",
            "of a grant": "oauth-id-jag+jwt",
            "of a request": "oauth-authz-req+jwt",
            "of an introspection": "token-introspection+jwt",
            "of an entity": "entity-statement+jwt",
            "JOSE": "JOSE",
            "JOSE+JSON": "JOSE+JSON",
            "JWE": "JWE",
            "empty": "",
            "null": None,
            "a number": 1,
            "a list": ["JWT"],
            "followed by a space": "JWT ",
            "with parameters": "at+jwt; charset=utf-8",
            "with a long s": "at+jwt\u017f",
        }.items()
    ),
    header("header", "crit, unknown", r.HEADER, "crit", ["x"]),
    header("header", "crit, empty", r.HEADER, "crit", []),
    header("header", "crit, null", r.HEADER, "crit", None),
    header("header", "crit of exp", r.HEADER, "crit", ["exp"]),
    header("header", "crit of b64", r.HEADER, "crit", ["b64"]),
    header("header", "b64 false", r.HEADER, "b64", False),
    header("header", "b64 true", r.HEADER, "b64", True),
    header("header", "zip", r.HEADER, "zip", "DEF"),
    header("header", "enc", r.HEADER, "enc", "A256GCM"),
    header("header", "cty", r.HEADER, "cty", "JWT"),
    header("header", "p2c", r.HEADER, "p2c", 2**31),
    header("header", "epk", r.HEADER, "epk", {"kty": "EC"}),
    header("header", "x5t no text", r.HEADER, "x5t", ["AAAA"]),
    header("header", "iss of another", r.HEADER, "iss", "https://evil.test"),
    header("header", "sub of another", r.HEADER, "sub", "admin"),
    header("header", "exp of another", r.HEADER, "exp", 1),
    header("header", "too deep", r.MALFORMED, "x", nested(80)),
    header_bytes("header", "alg twice", lambda raw: raw[:-1] + b',"alg":"RS256"}'),
    header_bytes("header", "an unknown member twice", lambda raw: raw[:-1] + b',"x":1,"x":1}'),
    header_bytes("header", "list", lambda raw: b"[" + raw + b"]"),
    header_bytes("header", "text", lambda raw: dumps(raw.decode())),
    header_bytes("header", "null", lambda _: b"null"),
    header_bytes("header", "number", lambda _: b"1"),
    header_bytes("header", "two objects", lambda raw: raw + raw),
    header_bytes("header", "not closed", lambda raw: raw[:-1]),
    header_bytes("header", "comma at the end", lambda raw: raw[:-1] + b",}"),
    header_bytes("header", "comment", lambda raw: raw + b"// x"),
    header_bytes("header", "single quotes", lambda raw: raw.replace(b'"', b"'")),
    header_bytes("header", "NaN", lambda raw: raw[:-1] + b',"x":NaN}'),
    header_bytes("header", "number out of range", lambda raw: raw[:-1] + b',"x":1e999}'),
    header_bytes("header", "number too small", lambda raw: raw[:-1] + b',"x":1e-9999999999999999999999}'),
]
