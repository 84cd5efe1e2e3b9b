"""A compact JWS, taken apart in the one way it can be written (RFC 7515 §3.1, §7.1); its header, read strictly.

What two readers could take differently is refused: padding, white space, dangling bits, duplicate members, the JSON
serialisation. What a header could steer us with is refused: keys, places to fetch keys from, extensions, encryption.
Nothing here is verified.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field

from interposer import canonical
from interposer.errors import Unauthenticated
from interposer.model import Json, JsonObject

from .refusals import ALGORITHM, HEADER, MALFORMED, TOO_LARGE
from .text import is_name

MAX_KID = 256
"""Characters of a key's id."""

_COMPACT = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)")
_BASE64URL = re.compile(r"[A-Za-z0-9_-]+")
_ENDS = {1: "", 2: "AQgw", 3: "AEIMQUYcgkosw048"}
"""Characters left over after groups of four -> what the last one can be."""

# RFC 8725 §3.1, §3.10: keys come from our configuration, never from the token, and nothing is fetched that it names.
_KEYS = ("jwk", "jku", "x5u", "x5c")
# RFC 7515 §4.1.11: an extension that is not understood refuses the token, and none is understood (RFC 7797: b64).
_EXTENSIONS = ("crit", "b64")
# RFC 7516: nothing encrypted, compressed or nested (RFC 7519 §5.2).
_ENCRYPTION = ("enc", "zip", "cty", "epk", "apu", "apv", "iv", "tag", "p2s", "p2c")
_REFUSED = frozenset((*_KEYS, *_EXTENSIONS, *_ENCRYPTION))
# Thumbprints choose nothing here; Entra sends them beside `kid`.
_THUMBPRINTS = ("x5t", "x5t#S256")
# RFC 8725 §3.11, RFC 9068 §2.1: other types are other kinds of token.
_TYPES = frozenset({"jwt", "at+jwt", "application/at+jwt"})
# RFC 7519 §5.3: claims may be repeated in the header; they must then say the same.
_REPEATED = ("iss", "sub", "aud", "exp", "nbf", "iat", "jti")


@dataclass(frozen=True, slots=True)
class Parts:
    """The three segments, decoded, and the bytes that the signature is over."""

    header: bytes = field(repr=False)
    payload: bytes = field(repr=False)
    signature: bytes = field(repr=False)
    signed: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Header:
    """What a header may tell us: which of our algorithms, which of our keys."""

    algorithm: str
    kid: str | None
    repeated: JsonObject = field(repr=False)
    """Claims that the header repeats."""


def take_apart(token: str, max_bytes: int) -> Parts:
    """The parts of a compact JWS. Raises `Unauthenticated`; looks at nothing of a token that is too long."""
    if not isinstance(token, str):
        raise Unauthenticated("the token is not a text", why=MALFORMED)
    if len(token) > max_bytes:
        raise Unauthenticated("the token is longer than allowed", why=TOO_LARGE)
    found = _COMPACT.fullmatch(token)
    if found is None:
        raise Unauthenticated("the token is not three base64url segments with dots between", why=MALFORMED)
    try:
        header, payload, signature = map(_decoded, found.groups())
    except ValueError:
        raise Unauthenticated("a segment of the token is not canonical base64url", why=MALFORMED) from None
    return Parts(header, payload, signature, token[: found.end(2)].encode("ascii"))


def unbase64url(text: str) -> bytes:
    """Bytes from base64url without padding (RFC 7515 §2). Raises `ValueError` for all but the canonical spelling."""
    if not _BASE64URL.fullmatch(text):
        raise ValueError("not base64url")
    return _decoded(text)


def _decoded(text: str) -> bytes:
    over = len(text) % 4
    # RFC 4648 §3.5: bits that are left over are zero; else one value would have many spellings.
    if over and text[-1] not in _ENDS[over]:
        raise ValueError("not canonical")
    return base64.urlsafe_b64decode(text + "=" * (-over % 4))


def read_object(raw: bytes, part: str) -> JsonObject:
    """The JSON object in a segment; `part` is the segment's name. Raises `Unauthenticated`."""
    try:
        # The decoder looks at the UTF-8 of texts; this one looks at every byte.
        raw.decode("utf-8")
        value = canonical.parse(raw)
    except ValueError:
        raise Unauthenticated(f"the {part} is not strict JSON", why=MALFORMED) from None
    if not isinstance(value, dict):
        raise Unauthenticated(f"the {part} is not a JSON object", why=MALFORMED)
    return value


def read_header(raw: bytes) -> Header:
    """What the header says, when it says nothing that it must not. Raises `Unauthenticated`."""
    header = read_object(raw, "header")
    for name in _REFUSED & header.keys():
        raise Unauthenticated(f"the header has {name}, which is not accepted", why=HEADER)
    for name in _THUMBPRINTS:
        if name in header and not is_name(header[name], MAX_KID):
            raise Unauthenticated(f"the header's {name} is not a thumbprint", why=HEADER)
    _check_type(header)
    algorithm = header.get("alg")
    if not isinstance(algorithm, str):
        raise Unauthenticated("the header names no algorithm", why=ALGORITHM)
    kid = header.get("kid")
    if "kid" in header and not is_name(kid, MAX_KID):
        raise Unauthenticated("the header's kid is not the id of a key", why=HEADER)
    return Header(algorithm, kid, {name: header[name] for name in _REPEATED if name in header})


def check_repeated(header: Header, claims: JsonObject) -> None:
    """What the header repeats of the claims is the same. Raises `Unauthenticated`."""
    for name, value in header.repeated.items():
        if name not in claims or canonical.canonical(claims[name]) != canonical.canonical(value):
            raise Unauthenticated(f"the header's {name} is not the claim's", why=HEADER)


def _check_type(header: JsonObject) -> None:
    if "typ" not in header:
        return
    kind: Json = header["typ"]
    # RFC 7515 §4.1.9: a media type, so upper and lower case are the same.
    if not isinstance(kind, str) or kind.lower() not in _TYPES:
        raise Unauthenticated("the header's typ is not that of an access token", why=HEADER)
