"""Claims of a verified signature -> Identity: types first, then whether they speak to us, to now, and of whom.

Every claim that is used, or that other parts of the broker rely on, has one type and one shape; anything else refuses
the token, because a claim that is read leniently is a claim that two readers read differently.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Final

from interposer import canonical
from interposer.errors import EXPIRED, Unauthenticated
from interposer.model import Json, JsonObject, Principal

from .refusals import (
    AUDIENCE,
    AUTHORIZED_PARTY,
    CLAIM,
    GROUPS,
    GROUPS_ELSEWHERE,
    ISSUER,
    NOT_YET_VALID,
    SUBJECT,
    TIME,
    TOKEN_KIND,
)
from .text import is_name, is_visible
from .trust import GroupsFrom, Identity, Path, Trust

MAX_SUBJECT = 255
"""OpenID Connect Core §2."""
MAX_MACHINE_SUBJECT = 1024
"""Workloads are named by repository, branch and environment, and that specification is not for them."""
MAX_ID = 256
"""Characters of `jti`, `sid`, `azp`, `client_id`."""
MAX_SCOPE = 4096
MAX_GROUP = 256
MAX_GROUPS = 2000
MAX_TIME = 2**53
"""Beyond it seconds are no longer exact (RFC 7159 §6)."""

_IDS = ("jti", "sid", "azp", "client_id")
# OpenID Connect Core §3.1.3.6, §2 and §3.3.2.11; FAPI: only ID tokens have these.
_OF_ID_TOKENS = ("nonce", "at_hash", "c_hash", "s_hash")
# RFC 8417 (security events, logout tokens) and RFC 7800 (bound to a key whose possession is not proved to us).
_NEVER = ("events", "cnf")
# Keycloak says in `typ`, Cognito in `token_use`, what a token is. Anything else than an access token is refused.
_KINDS = ("typ", "token_use")
_ACCESS = frozenset({"bearer", "jwt", "at+jwt", "access"})
_MISSING: Final = object()


def identify(claims: JsonObject, trust: Trust, now: float) -> Identity:
    """Who the claims speak of. Raises `Unauthenticated`; with `EXPIRED` only when all the rest is right."""
    _check_kind(claims, trust)
    _check_issuer(claims, trust)
    _check_required(claims, trust)
    _check_audience(claims, trust)
    client = _client(claims, trust)
    principal = Principal(
        issuer=trust.issuer,
        subject=_subject(claims, trust),
        groups=_groups(claims, trust),
        client_id=client,
        machine=trust.machine,
    )
    _check_claims(claims, trust)
    not_before, expires_at = _window(claims, trust, now)
    if not now < expires_at:  # so that what is no number ends in no
        raise Unauthenticated("the token has expired", why=EXPIRED)
    return Identity(
        principal, claims.get("jti", ""), claims.get("sid", ""), not_before, expires_at, claims.get("sub", "")
    )


def _check_kind(claims: JsonObject, trust: Trust) -> None:
    for name in _NEVER if trust.id_tokens else _NEVER + _OF_ID_TOKENS:
        if name in claims:
            raise Unauthenticated(f"the token has {name}, so it is no bearer's access token", why=TOKEN_KIND)
    kinds = _ACCESS | {"id"} if trust.id_tokens else _ACCESS
    for name in _KINDS:
        if name in claims and not (isinstance(claims[name], str) and claims[name].lower() in kinds):
            raise Unauthenticated(f"the token's {name} is not that of an access token", why=TOKEN_KIND)


def _check_issuer(claims: JsonObject, trust: Trust) -> None:
    issuer = claims.get("iss")
    # RFC 8725 §3.8: byte for byte; two spellings of one URL are two issuers.
    if not isinstance(issuer, str) or not issuer or issuer != trust.issuer:
        raise Unauthenticated("the token's issuer is another one", why=ISSUER)


def _check_required(claims: JsonObject, trust: Trust) -> None:
    for name in trust.required:
        if claims.get(name) is None:
            raise Unauthenticated(f"the claim {name} is missing", why=CLAIM)


def _check_audience(claims: JsonObject, trust: Trust) -> None:
    audience = claims.get("aud")
    listed = [audience] if isinstance(audience, str) else audience
    if not isinstance(listed, list) or not all(isinstance(name, str) for name in listed):
        raise Unauthenticated("aud is not a text or a list of texts", why=AUDIENCE)
    if trust.audiences.isdisjoint(listed):
        raise Unauthenticated("the token is for another audience", why=AUDIENCE)


def _client(claims: JsonObject, trust: Trust) -> str:
    """Which client asked for the token, or empty; on the way, the claims that say who and what beyond the subject."""
    for name in _IDS:
        if name in claims and not is_name(claims[name], MAX_ID):
            raise Unauthenticated(f"the claim {name} is not a plain text", why=CLAIM)
    scope = claims.get("scope", "")
    # Where groups are read from it, their shape is checked instead.
    if ("scope",) not in {source.claim for source in trust.groups} and not (
        isinstance(scope, str) and len(scope) <= MAX_SCOPE and is_visible(scope)
    ):
        raise Unauthenticated("the claim scope is not a plain text", why=CLAIM)
    client: str = claims.get("azp") or claims.get("client_id") or ""
    if trust.authorized_parties and client not in trust.authorized_parties:
        raise Unauthenticated("the token was issued to another client", why=AUTHORIZED_PARTY)
    return client


def _subject(claims: JsonObject, trust: Trust) -> str:
    limit = MAX_MACHINE_SUBJECT if trust.machine else MAX_SUBJECT
    # `sub` is held to it even where another claim is the name: revocation goes by it.
    if "sub" in claims and not is_name(claims["sub"], limit):
        raise Unauthenticated("the claim sub is not a plain text", why=SUBJECT)
    found = _at(claims, trust.subject, SUBJECT)
    if not is_name(found, limit):
        raise Unauthenticated(f"the claim {_said(trust.subject)} is not a plain text", why=SUBJECT)
    return found


def _groups(claims: JsonObject, trust: Trust) -> tuple[str, ...]:
    found: set[str] = set()
    for source in trust.groups:
        _check_here(claims, source)
        value = _at(claims, source.claim, GROUPS)
        if value is not _MISSING:
            found.update(source.prefix + name for name in _names(value, source))
    if len(found) > MAX_GROUPS:
        raise Unauthenticated("the token has too many groups", why=GROUPS)
    return tuple(sorted(found))


def _check_here(claims: JsonObject, source: GroupsFrom) -> None:
    """OpenID Connect Core §5.6.2, as Entra uses it: claims that are elsewhere. They are never fetched."""
    elsewhere = claims.get("_claim_names", {})
    if not isinstance(elsewhere, dict):
        raise Unauthenticated("the claim _claim_names is not an object", why=CLAIM)
    if elsewhere.keys() & source.claim[:1] or (source.claim == ("groups",) and "hasgroups" in claims):
        raise Unauthenticated(
            f"the issuer left {_said(source.claim)} out of the token because they are too many; have it send app "
            "roles, or only the groups assigned to the application",
            why=GROUPS_ELSEWHERE,
        )


def _names(value: Json, source: GroupsFrom) -> list[str]:
    names = value
    if source.shape == "words":
        names = (value.split(" ") if value else []) if isinstance(value, str) else None
    elif source.shape == "one":
        names = [value]
    if not isinstance(names, list) or len(names) > MAX_GROUPS or not all(is_name(name, MAX_GROUP) for name in names):
        raise Unauthenticated(f"the claim {_said(source.claim)} has not the shape of groups", why=GROUPS)
    return names


def _check_claims(claims: JsonObject, trust: Trust) -> None:
    for path, values in trust.claims:
        found = _at(claims, path, CLAIM)
        held = found if isinstance(found, list) else [found]
        if found is _MISSING or not any(_same(one, value) for one in held for value in values):
            raise Unauthenticated(f"the claim {_said(path)} has not a value that is required", why=CLAIM)


def _same(one: Json, other: Json) -> bool:
    """Equality of JSON, where `true` is not 1 and `"1"` is not 1, but 1 is 1.0."""
    numbers = (int, float, Decimal)
    if type(one) in numbers and type(other) in numbers:
        return bool(one == other)
    return type(one) is type(other) and canonical.canonical(one) == canonical.canonical(other)


def _window(claims: JsonObject, trust: Trust, now: float) -> tuple[float, float]:
    """From when, and until when, the token speaks; leeway included."""
    expires = _time(claims, "exp")
    if expires is None:
        raise Unauthenticated("the claim exp is missing", why=CLAIM)
    starts = [at for name in ("nbf", "iat") if (at := _time(claims, name)) is not None]
    if any(at > expires for at in starts):
        raise Unauthenticated("the token ends before it begins", why=TIME)
    issued = _time(claims, "iat")
    # Without `iat`, what is left of it is all that can be held against the longest lifetime.
    if expires - now > trust.max_lifetime_s + trust.leeway_s or (
        issued is not None and expires - issued > trust.max_lifetime_s
    ):
        raise Unauthenticated("the token lives longer than allowed", why=TIME)
    begins = max(starts) - trust.leeway_s if starts else 0.0
    if not begins <= now:
        raise Unauthenticated("the token is not valid yet", why=NOT_YET_VALID)
    return begins, expires + trust.leeway_s


def _time(claims: JsonObject, name: str) -> float | None:
    """RFC 7519 §2, NumericDate: a JSON number of seconds since 1970, fractions allowed."""
    if name not in claims:
        return None
    value = claims[name]
    if type(value) not in (int, float, Decimal) or not 1 <= value < MAX_TIME:
        raise Unauthenticated(f"the claim {name} is not a time", why=TIME)
    return float(value)


def _at(claims: JsonObject, path: Path, why: str) -> Json:
    """The claim at a path, or `_MISSING`; something on the way that is no object refuses the token."""
    found: Json = claims
    for key in path:
        if not isinstance(found, dict):
            raise Unauthenticated(f"the way to the claim {_said(path)} is not made of objects", why=why)
        if key not in found:
            return _MISSING
        found = found[key]
    return found


def _said(path: Path) -> str:
    return ".".join(path)
