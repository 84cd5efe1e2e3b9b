"""Why a token is refused: every constant that this package puts into `Unauthenticated.why`.

`EXPIRED` and `UNKNOWN_KEY` stand in `interposer.errors`, because callers and key sources act on them. `EXPIRED` is said
of a token only when everything else about it is right, so telling the presenter tells an attacker nothing.
"""

from __future__ import annotations

from interposer.errors import EXPIRED, UNKNOWN_KEY

TOO_LARGE = "too_large"
MALFORMED = "malformed"
"""Not a compact JWS in its one spelling, or not strict JSON inside."""
HEADER = "header"
ALGORITHM = "algorithm"
"""Not one of ours, or not what the key is for."""
SIGNATURE = "signature"
TOKEN_KIND = "token_kind"  # noqa: S105 (a word for the record, not a password)
"""Signed by the issuer, but no access token for the bearer: an ID, refresh or logout token, or one bound to a key."""
ISSUER = "issuer"
AUDIENCE = "audience"
AUTHORIZED_PARTY = "authorized_party"
CLAIM = "claim"
"""A claim that is missing, has another type or shape than it must have, or not the value that is required."""
SUBJECT = "subject"
GROUPS = "groups"
GROUPS_ELSEWHERE = "groups_elsewhere"
"""The issuer says that the groups are too many for the token and to be fetched."""
TIME = "time"
"""`exp`, `nbf` or `iat` that make no sense together, or a lifetime beyond the longest allowed."""
NOT_YET_VALID = "not_yet_valid"

WHYS = frozenset(
    {
        EXPIRED,
        UNKNOWN_KEY,
        TOO_LARGE,
        MALFORMED,
        HEADER,
        ALGORITHM,
        SIGNATURE,
        TOKEN_KIND,
        ISSUER,
        AUDIENCE,
        AUTHORIZED_PARTY,
        CLAIM,
        SUBJECT,
        GROUPS,
        GROUPS_ELSEWHERE,
        TIME,
        NOT_YET_VALID,
    }
)
