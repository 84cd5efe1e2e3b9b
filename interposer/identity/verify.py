"""JWT -> Identity: the one way from a text to somebody who may ask (RFC 7519, RFC 8725, RFC 9068).

In this order, and each step only after the one before: size, spelling, header, algorithm from our configuration, key
of ours, signature (PyJWT), claims, and expiry last. Whatever the text, the only exception is `Unauthenticated`, whose
`why` is one of `refusals.WHYS` and whose text holds nothing of the token.
"""

from __future__ import annotations

from typing import Any

from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm, RSAPSSAlgorithm

from interposer.errors import Unauthenticated

from .claims import identify
from .keys import Key, KeySet
from .refusals import ALGORITHM, ISSUER, SIGNATURE
from .token import Parts, check_repeated, read_header, read_object, take_apart
from .trust import Identity, Trust

# Named one by one, so that neither `none` nor a symmetric algorithm exists here.
_ALGORITHMS: dict[str, Any] = {
    "RS256": RSAAlgorithm(RSAAlgorithm.SHA256),
    "RS384": RSAAlgorithm(RSAAlgorithm.SHA384),
    "RS512": RSAAlgorithm(RSAAlgorithm.SHA512),
    "PS256": RSAPSSAlgorithm(RSAPSSAlgorithm.SHA256),
    "PS384": RSAPSSAlgorithm(RSAPSSAlgorithm.SHA384),
    "PS512": RSAPSSAlgorithm(RSAPSSAlgorithm.SHA512),
    "ES256": ECAlgorithm(ECAlgorithm.SHA256),
    "ES384": ECAlgorithm(ECAlgorithm.SHA384),
    "ES512": ECAlgorithm(ECAlgorithm.SHA512),
    "EdDSA": OKPAlgorithm(),
}


def issuer_of(token: str, max_bytes: int) -> str:
    """The issuer that a token claims, unverified: only to look up whose `Trust` it is held to. Raises
    `Unauthenticated`."""
    issuer = read_object(take_apart(token, max_bytes).payload, "payload").get("iss")
    if not isinstance(issuer, str) or not issuer:
        raise Unauthenticated("the token names no issuer", why=ISSUER)
    return issuer


def verify(token: str, keys: KeySet, trust: Trust, now: float) -> Identity:
    """Who the token says is asking, at `now` (seconds since 1970). Raises `Unauthenticated`, and nothing else."""
    parts = take_apart(token, trust.max_bytes)
    header = read_header(parts.header)
    # RFC 8725 §3.1: the algorithm comes from our configuration; the token can only pick one of it, by exact name.
    if header.algorithm not in trust.algorithms or header.algorithm not in _ALGORITHMS:
        raise Unauthenticated("the token's algorithm is not one of the configured", why=ALGORITHM)
    _check_signature(parts, header.algorithm, keys.find(header.kid, header.algorithm))
    claims = read_object(parts.payload, "payload")
    check_repeated(header, claims)
    return identify(claims, trust, now)


def _check_signature(parts: Parts, algorithm: str, key: Key) -> None:
    # RFC 7518 §3.3, §3.4: the length is exact, so ECDSA signatures in DER or with zeros around them have another one.
    if len(parts.signature) != key.signature_bytes or not _ALGORITHMS[algorithm].verify(
        parts.signed, key.public, parts.signature
    ):
        raise Unauthenticated("the signature is not the issuer's", why=SIGNATURE)
