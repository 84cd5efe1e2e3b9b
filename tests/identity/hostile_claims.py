"""Hostile tokens that are spelled wrongly, or whose claims are wrong: encoding, claims."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from interposer.identity import refusals as r
from tests.identity.hostile import (
    DROP,
    Vector,
    claim,
    header_bytes,
    nested,
    payload_bytes,
    segments,
    text,
)
from tests.identity.signing import AUDIENCE, CLAIMS, HEADER, ISSUER, NOW, b64, dumps, raw_token, signature, token


def _dangling(part: int) -> Callable[[list[str]], list[str]]:
    """A spelling of the same bytes with left-over bits set; the part is lengthened until it has any."""

    def change(found: list[str]) -> list[str]:
        alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
        last = found[part][-1]
        found[part] = found[part][:-1] + alphabet[alphabet.index(last) ^ 1]
        return found

    return change


def _spelled_over(raw: bytes) -> bytes:
    """White space at the end, so that base64url has bits left over; still the same JSON."""
    return raw + b" " * ((-len(raw) - 1) % 3 or 3) if len(raw) % 3 == 0 else raw


def _spelling(part: int) -> str:
    parts = [dumps(HEADER), dumps(CLAIMS)]
    parts[part] = _spelled_over(parts[part])
    signed = ".".join(_dangling(part)([b64(raw) for raw in parts]))
    return f"{signed}.{b64(signature('RS256', 'rsa-1', signed.encode()))}"


def _serialised(made: str) -> str:
    first, second, third = made.split(".")
    return json.dumps({"protected": first, "payload": second, "signature": third})


def _padded(part: str) -> str:
    return part + "=" * (-len(part) % 4 or 4)


ENCODING = [
    text("encoding", "padding after the signature", lambda made: made + "=="),
    text("encoding", "padding after the header", segments(lambda f: [_padded(f[0]), *f[1:]])),
    text("encoding", "padding after the payload", segments(lambda f: [f[0], _padded(f[1]), f[2]])),
    text("encoding", "space before", lambda made: " " + made),
    text("encoding", "space after", lambda made: made + " "),
    text("encoding", "line end after", lambda made: made + "\n"),
    text("encoding", "CR LF after", lambda made: made + "\r\n"),
    text("encoding", "NUL after", lambda made: made + "\0"),
    text("encoding", "no-break space after", lambda made: made + "\u00a0"),
    text("encoding", "BOM before", lambda made: "\ufeff" + made),
    text("encoding", "line end inside", lambda made: made[:20] + "\n" + made[20:]),
    text("encoding", "space inside the signature", lambda made: made[:-20] + " " + made[-20:]),
    text("encoding", "character outside of the alphabet", lambda made: made[:-20] + "!" + made[-20:]),
    text("encoding", "Bearer before", lambda made: "Bearer " + made),
    text("encoding", "quotes around", lambda made: f'"{made}"'),
    text("encoding", "four segments", lambda made: made + ".AAAA"),
    text("encoding", "five segments", lambda made: made + ".AAAA.AAAA"),
    text("encoding", "one segment", lambda made: made.replace(".", "")),
    text("encoding", "dot before", lambda made: "." + made),
    text("encoding", "dot after", lambda made: made + "."),
    text("encoding", "two dots between", lambda made: made.replace(".", "..", 1)),
    text("encoding", "empty", lambda _: ""),
    text("encoding", "dots only", lambda _: ".."),
    text("encoding", "empty header", segments(lambda f: ["", *f[1:]])),
    text("encoding", "empty payload", segments(lambda f: [f[0], "", f[2]])),
    text("encoding", "JSON serialisation", _serialised),
    text("encoding", "percent-encoded", lambda made: quote(made, safe="").replace(".", "%2E")),
    text("encoding", "encoded once more", lambda made: b64(made.encode())),
    text("encoding", "full-width dots", lambda made: made.replace(".", "\uff0e")),
    text("encoding", "lone surrogate", lambda made: made + "\ud800"),
    text("encoding", "digit of another script", lambda made: made[:-1] + "\u0661"),
    text("encoding", "one character over", lambda made: made + "A" * (5 - len(made.rpartition(".")[2]) % 4)),
    Vector("encoding", "left-over bits in the header", r.MALFORMED, lambda: _spelling(0)),
    Vector("encoding", "left-over bits in the payload", r.MALFORMED, lambda: _spelling(1)),
    text(
        "encoding",
        "left-over bits in the signature",
        lambda made: made[:-1] + {"A": "B"}.get(made[-1], chr(ord(made[-1]) + 1)),
    ),
    Vector(
        "encoding",
        "the alphabet of plain base64",
        r.MALFORMED,
        lambda: raw_token(
            dumps(HEADER),
            dumps({**CLAIMS, "x": "???>>>~~~"}),
            spell=lambda raw: b64(raw).replace("_", "/").replace("-", "+"),
        ),
    ),
    text("encoding", "too long", lambda made: made + "A" * 8192, r.TOO_LARGE),
    Vector("encoding", "too long, signed", r.TOO_LARGE, lambda: token(claims={**CLAIMS, "x": "y" * 8192})),
    header_bytes("encoding", "header after a BOM", lambda raw: b"\xef\xbb\xbf" + raw),
    header_bytes("encoding", "header in UTF-16", lambda raw: raw.decode().encode("utf-16")),
    header_bytes("encoding", "header in Latin-1", lambda raw: raw[:-1] + b',"x":"\xe9"}'),
    header_bytes("encoding", "header with a control character", lambda raw: raw[:-1] + b',"x":"\n"}'),
    payload_bytes("encoding", "payload after a BOM", lambda raw: b"\xef\xbb\xbf" + raw),
    payload_bytes("encoding", "payload in UTF-16", lambda raw: raw.decode().encode("utf-16-le")),
    payload_bytes("encoding", "payload in UTF-32", lambda raw: raw.decode().encode("utf-32-be")),
    payload_bytes("encoding", "payload in Latin-1", lambda raw: raw.replace(b"agent", b"ag\xe9nt")),
    payload_bytes("encoding", "overlong UTF-8", lambda raw: raw.replace(b"agent", b"ag\xc1\xa5nt")),
    payload_bytes("encoding", "surrogates in UTF-8", lambda raw: raw.replace(b"agent", b"ag\xed\xa0\x80nt")),
    payload_bytes("encoding", "lone surrogate escaped", lambda raw: raw.replace(b"agent", b"ag\\udc00nt")),
    payload_bytes("encoding", "payload compressed", gzip.compress),
    payload_bytes("encoding", "NUL after the payload", lambda raw: raw + b"\0"),
    payload_bytes("encoding", "payload with a raw line end in a text", lambda raw: raw.replace(b"agent", b"ag\nent")),
    payload_bytes("encoding", "payload encoded twice", lambda raw: b64(raw).encode()),
]


def _twice(name: str) -> Vector:
    """A claim that is there twice; the first would be good."""
    first = b"" if name in CLAIMS else f',"{name}":1'.encode()
    second = f',"{name}":"x"}}'.encode()
    return payload_bytes("claims", f"{name} twice", lambda raw: raw[:-1] + first + second)


_AT = int(NOW)
_TIMES: dict[str, Any] = {
    "a text": str(_AT + 300),
    "true": True,
    "null": None,
    "a list": [_AT + 300],
    "an object": {},
    "0": 0,
    "negative": -1,
    "beyond exact seconds": 2**53,
    "a huge number": 10**400,
    "an ISO date": "2027-01-15T08:00:00Z",
}
_NAMES: dict[str, Any] = {
    "empty": "",
    "a number": 7,
    "true": True,
    "a list": ["agent-7"],
    "an object": {"sub": "agent-7"},
    "white space": "  ",
    "with a space before": " agent-7",
    "with a space after": "agent-7 ",
    "with NUL": "agent-7\0",
    "with a line end": "agent-7\nadmin",
    "with an escape sequence": "\x1b[1magent-7",
    "with a C1 control": "agent\u0085-7",
    "with DEL": "agent-7\x7f",
    "with a right-to-left override": "\u202eagent-7",
    "with a zero width space": "agent\u200b-7",
    "with a BOM": "\ufeffagent-7",
    "with a tag character": "agent-7\U000e0041",
    "with a private character": "agent-7\ue000",
    "with a noncharacter": "agent-7\uffff",
    "with a line separator": "agent-7\u2028",
    "with a soft hyphen": "agent\u00ad-7",
    "too long": "a" * 256,
}
_GROUPS: dict[str, Any] = {
    "a text": "dev",
    "a text of many": "dev,admin",
    "an object": {"dev": True},
    "a number": 1,
    "true": True,
    "null": None,
    "a list with a number": ["dev", 1],
    "a list with null": ["dev", None],
    "a list in a list": [["dev"]],
    "a list with an object": [{"name": "dev"}],
    "a list with an empty text": ["dev", ""],
    "a list with a control character": ["dev\0"],
    "a list with a zero width joiner": ["de\u200dv"],
    "a list with a space after": ["dev "],
    "a list with a long text": ["d" * 257],
}
CLAIMED = [
    claim("exp gone", r.CLAIM, "exp", DROP),
    claim("iat gone", r.CLAIM, "iat", DROP),
    claim("iss gone", r.ISSUER, "iss", DROP),
    claim("aud gone", r.CLAIM, "aud", DROP),
    claim("sub gone", r.CLAIM, "sub", DROP),
    claim("sub null", r.CLAIM, "sub", None),
    *(
        claim(f"{name} is {said}", r.CLAIM if value is None and name != "nbf" else r.TIME, name, value)
        for name in ("exp", "nbf", "iat")
        for said, value in _TIMES.items()
    ),
    claim("exp before iat", r.TIME, "exp", _AT - 6),
    claim("nbf in the future", r.NOT_YET_VALID, "nbf", _AT + 31),
    claim("iat in the future", r.NOT_YET_VALID, "iat", _AT + 31),
    claim("iat after exp", r.TIME, "iat", _AT + 301),
    claim("nbf after exp", r.TIME, "nbf", _AT + 301),
    claim("lives too long", r.TIME, "exp", _AT + 86_400 - 4),
    claim("issued too long ago", r.TIME, "iat", _AT - 86_400),
    claim("lives for ever", r.TIME, "exp", 2**52),
    *(
        claim(f"sub is {said}" if "with" not in said else f"sub {said}", r.SUBJECT, "sub", v)
        for said, v in _NAMES.items()
    ),
    *(claim(f"groups are {said}", r.GROUPS, "groups", value) for said, value in _GROUPS.items()),
    *(
        claim(f"iss is {said}", r.ISSUER, "iss", value)
        for said, value in {
            "another": "https://evil.test/realms/acme",
            "with a slash after": ISSUER + "/",
            "in upper case": ISSUER.upper(),
            "another scheme": ISSUER.replace("https", "http"),
            "with a port": ISSUER.replace("idp.test", "idp.test:443"),
            "the beginning": ISSUER[:-1],
            "longer": ISSUER + ".evil.test",
            "with white space": ISSUER + " ",
            "with a dot segment": ISSUER.replace("/realms", "/./realms"),
            "percent-encoded": ISSUER.replace("acme", "%61cme"),
            "with user information": ISSUER.replace("idp.test", "idp.test@evil.test"),
            "a list": [ISSUER],
            "an object": {"iss": ISSUER},
            "null": None,
            "empty": "",
            "a number": 1,
        }.items()
    ),
    *(
        claim(f"aud is {said}", r.AUDIENCE, "aud", value)
        for said, value in {
            "another": "other",
            "in upper case": AUDIENCE.upper(),
            "the beginning": AUDIENCE[:-1],
            "longer": AUDIENCE + "-admin",
            "with a space after": AUDIENCE + " ",
            "many in one text": f"other {AUDIENCE}",
            "a pattern": "*",
            "empty": "",
            "an empty list": [],
            "a list of others": ["a", "b"],
            "a list with a number": [AUDIENCE, 1],
            "a list with null": [AUDIENCE, None],
            "a list in a list": [[AUDIENCE]],
            "an object": {AUDIENCE: True},
            "a number": 1,
            "true": True,
        }.items()
    ),
    *(
        claim(f"{name} is {said}", r.CLAIM, name, value)
        for name in ("jti", "sid", "azp", "client_id")
        for said, value in {"a number": 1, "empty": "", "a list": ["x"], "too long": "x" * 257, "null": None}.items()
    ),
    claim("jti with a control character", r.CLAIM, "jti", "j1\n"),
    claim("scope is a list", r.CLAIM, "scope", ["read"]),
    claim("scope is a number", r.CLAIM, "scope", 1),
    claim("scope with a line end", r.CLAIM, "scope", "read\nwrite"),
    *(claim(f"an ID token: {name}", r.TOKEN_KIND, name, "x") for name in ("nonce", "at_hash", "c_hash", "s_hash")),
    *(
        claim(f"Keycloak's typ {kind}", r.TOKEN_KIND, "typ", kind)
        for kind in ("ID", "Refresh", "Offline", "Logout", "DPoP", "", 1, None)
    ),
    claim("Cognito's ID token", r.TOKEN_KIND, "token_use", "id"),
    claim("a refresh token", r.TOKEN_KIND, "token_use", "refresh"),
    claim("a logout token", r.TOKEN_KIND, "events", {"http://schemas.openid.net/event/backchannel-logout": {}}),
    claim("bound to a key", r.TOKEN_KIND, "cnf", {"jkt": "x"}),
    claim("groups elsewhere", r.GROUPS_ELSEWHERE, "_claim_names", {"groups": "src1"}),
    claim("groups elsewhere, implicitly", r.GROUPS_ELSEWHERE, "hasgroups", True),
    claim("_claim_names is a text", r.CLAIM, "_claim_names", "groups"),
    claim("too deep", r.MALFORMED, "x", nested(80)),
    *(_twice(name) for name in ("sub", "aud", "iss", "groups", "exp", "unknown")),
    payload_bytes("claims", "sub twice, once escaped", lambda raw: raw[:-1] + b',"s\\u0075b":"admin"}'),
    payload_bytes("claims", "twice inside", lambda raw: raw[:-1] + b',"realm_access":{"a":1,"a":2}}'),
    payload_bytes("claims", "exp is NaN", lambda raw: raw.replace(str(_AT + 300).encode(), b"NaN")),
    payload_bytes("claims", "exp is Infinity", lambda raw: raw.replace(str(_AT + 300).encode(), b"Infinity")),
    payload_bytes("claims", "exp out of range", lambda raw: raw.replace(str(_AT + 300).encode(), b"1e999")),
    payload_bytes("claims", "exp in hexadecimal", lambda raw: raw.replace(str(_AT + 300).encode(), b"0x7fffffff")),
    payload_bytes("claims", "exp tiny", lambda raw: raw.replace(str(_AT + 300).encode(), b"1e-300"), r.TIME),
    payload_bytes("claims", "a list", lambda raw: b"[" + raw + b"]"),
    payload_bytes("claims", "a text", lambda raw: json.dumps(raw.decode()).encode()),
    payload_bytes("claims", "null", lambda _: b"null"),
    payload_bytes("claims", "no claims", lambda _: b"{}", r.ISSUER),
    payload_bytes("claims", "not JSON", lambda _: b"iss=acme"),
]
