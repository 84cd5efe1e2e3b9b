"""The rules of standing grants: what may be agreed to within policy's cap, and which calls a grant carries.

Pure. A grant is for one principal, one skill as it is defined, one policy and its terms; when any of them changes it
carries nothing any more. It always ends.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from functools import lru_cache
from typing import Any

from . import canonical
from .arguments import DIALECT, UnusableSchema, compiled
from .ballot import VoteRefused, named, terms_json
from .grant import Grant, GrantState
from .model import Decision, Invocation, Json, JsonObject, Kind, Principal, Question, Record
from .terms import GrantCap, GrantSpec
from .windows import is_open

LIMIT_SCHEMA_BYTES = 16 * 1024
_LONGEST = 64


def fits_cap(spec: GrantSpec, question: Question) -> None:
    """Raises `VoteRefused` named `grant_refused` where policy does not allow this much for this question."""
    cap = question.terms.cap
    if cap is None:
        raise _refused("policy allows this call to be approved once only; approve it without uses, time or schema")
    if not 0 < spec.for_s <= cap.for_s:
        raise _refused(f"policy allows a grant of at most {cap.for_s:g} s")
    if spec.uses is not None and spec.uses < 1:
        raise _refused("a grant is for at least one call")
    if cap.uses is not None and (spec.uses is None or spec.uses > cap.uses):
        raise _refused(f"policy allows a grant for at most {cap.uses} calls; say for how many it is")
    if spec.session and not cap.session:
        raise _refused("policy does not allow grants for a session")
    if spec.schema:
        _fits_schema(spec.schema, cap, question)


def _fits_schema(schema: bytes, cap: GrantCap, question: Question) -> None:
    if not cap.matching:
        raise _refused("policy does not allow grants for arguments that match a schema")
    if len(schema) > LIMIT_SCHEMA_BYTES:
        raise _refused(f"the schema is longer than {LIMIT_SCHEMA_BYTES} bytes")
    try:
        validator = _validator(schema)
    except UnusableSchema as unusable:
        raise _refused(f"the schema cannot be used: {unusable}") from None
    if not _valid(validator, canonical.parse(question.amended or question.canonical)):
        raise _refused("the arguments in question do not match the schema")


# A human agrees to what a schema reads as. So it holds nothing but rules that are enforced; none of them asks whether
# something does *not* match (`not`, `oneOf`, `if`), for a pattern that takes too long counts as not matching.
_WORDS = frozenset({"title", "description", "examples", "default", "$comment"})
_ALWAYS = _WORDS | {"type", "const", "enum", "allOf", "anyOf"}
_OF_NUMBERS = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"})
_OF: dict[str, frozenset[str]] = {
    "object": frozenset(
        {"properties", "additionalProperties", "required", "dependentRequired", "minProperties", "maxProperties"}
    ),
    "array": frozenset({"items", "prefixItems", "minItems", "maxItems", "uniqueItems"}),
    "string": frozenset({"pattern", "minLength", "maxLength"}),
    "number": _OF_NUMBERS,
    "integer": _OF_NUMBERS,
}
_ENFORCED = _ALWAYS.union(*_OF.values())


def _says_everything(stated: Json, at: str = "") -> None:
    """Raises `UnusableSchema` unless every value that matches is one the schema spells out or says the type of, with
    every member of every object by name. `stated` has passed for JSON Schema 2020-12."""
    if stated is False:
        return  # Nothing matches.
    if not isinstance(stated, dict):
        raise _unsaid(at, "`true` is for anything; say what it may be")
    types = _types(stated)
    _only_enforced(stated, types, at)
    if not stated.keys() & {"const", "enum"}:
        _closed(stated, types, at)
    for step, below in _parts(stated):
        _says_everything(below, f"{at}/{step[:_LONGEST]}")


def _only_enforced(stated: JsonObject, types: list[str], at: str) -> None:
    meant = _ALWAYS.union(*(_OF.get(each, ()) for each in types))
    for keyword in stated:
        if keyword not in _ENFORCED:
            raise _unsaid(at, f"`{keyword[:_LONGEST]}` is not enforced in grants; leave it out")
        if keyword not in meant:
            raise _unsaid(at, f"`{keyword}` without the `type` that it is for; say the type")


def _closed(stated: JsonObject, types: list[str], at: str) -> None:
    if not types and not stated.keys() & {"allOf", "anyOf"}:
        raise _unsaid(at, "say the `type` (or `const`, `enum`, `anyOf`)")
    if "object" in types and not ("properties" in stated and stated.get("additionalProperties") is False):
        raise _unsaid(at, 'an object needs `properties` and `"additionalProperties": false`')
    if "array" in types and "items" not in stated:
        raise _unsaid(at, "an array needs `items`")


def _types(stated: JsonObject) -> list[str]:
    found = stated.get("type", [])
    return [each for each in (found if isinstance(found, list) else [found]) if isinstance(each, str)]


def _parts(stated: JsonObject) -> Iterator[tuple[str, Json]]:
    """The schemas in a schema, with where they stand."""
    for keyword in ("items", "additionalProperties"):
        if keyword in stated:
            yield keyword, stated[keyword]
    for keyword in ("allOf", "anyOf", "prefixItems"):
        branches = stated.get(keyword)
        yield from ((f"{keyword}/{n}", each) for n, each in enumerate(branches if isinstance(branches, list) else ()))
    members = stated.get("properties")
    yield from ((f"properties/{name}", each) for name, each in (members if isinstance(members, dict) else {}).items())


def _unsaid(at: str, reason: str) -> UnusableSchema:
    return UnusableSchema(f"at {at or '/'}: {reason}")


def _refused(reason: str) -> VoteRefused:
    return VoteRefused("grant_refused", reason)


def given(id: str, question: Question, spec: GrantSpec, *, now: float) -> Grant:
    """The grant that comes of a question which was granted with `spec`. `now` is the wall clock."""
    exact = question.amended or question.canonical
    return Grant(
        id=id,
        question=question.id,
        state=GrantState.ACTIVE,
        requester=question.requester,
        skill=question.skill,
        skill_digest=question.skill_digest,
        policy=question.policy,
        terms=question.terms,
        arguments_digest="" if spec.schema else canonical.digest_bytes(exact),
        schema=spec.schema,
        session=question.session if spec.session else "",
        # The call in question is carried by the question itself.
        uses=None if spec.uses is None else spec.uses - 1,
        used=0,
        approvers=tuple(named(vote.principal) for vote in question.votes if vote.yes),
        given_at=now,
        expires_at=now + spec.for_s,
    )


def carries(grant: Grant, invocation: Invocation, decision: Decision, *, now: float) -> bool:
    """Whether the grant is a yes to this call, as policy decides on it now. `now` is the wall clock."""
    return (
        grant.state is GrantState.ACTIVE
        and now < grant.expires_at
        and (grant.uses is None or grant.used < grant.uses)
        and grant.requester.identity() == invocation.principal.identity()
        and (grant.skill, grant.skill_digest) == (invocation.skill.id, invocation.skill.digest)
        and (grant.policy, grant.terms) == (decision.policy, decision.terms)
        and grant.session in ("", invocation.session)
        and is_open(grant.terms.windows, now)
        and _for_these(grant, invocation)
    )


def _for_these(grant: Grant, invocation: Invocation) -> bool:
    if not grant.schema:
        return grant.arguments_digest == invocation.arguments_digest
    try:
        return _valid(_validator(grant.schema), invocation.arguments)
    except UnusableSchema:
        return False


@lru_cache(maxsize=256)
def _validator(schema: bytes) -> Any:
    """Raises `UnusableSchema`, also where the schema would carry more than it says."""
    stated = canonical.parse(schema)
    if not isinstance(stated, dict) or stated.get("type") != "object" or not stated.get("properties"):
        raise _unsaid(
            "",
            'it must say what every argument may be: {"type": "object", "properties": {…}, '
            '"additionalProperties": false} with at least one property',
        )
    if stated.pop("$schema", DIALECT) != DIALECT:
        raise _unsaid("", f"`$schema` must be {DIALECT}, or be left out")
    validator = compiled(stated)
    _says_everything(stated)
    return validator


def _valid(validator: Any, arguments: Json) -> bool:
    """A value that cannot be judged does not match."""
    try:
        return bool(validator.is_valid(arguments))
    except ValueError:
        return False


def commitment(grant: Grant) -> str:
    """A digest of everything in a grant that never changes; the payload of its first row carries it."""
    whose: list[Json] = [grant.id, grant.question, grant.requester.identity(), grant.skill, grant.skill_digest]
    under: list[Json] = [grant.policy, terms_json(grant.terms), grant.arguments_digest, grant.schema.decode()]
    bounds: list[Json] = [grant.session, grant.uses, list(grant.approvers), grant.given_at, grant.expires_at]
    return canonical.digest([whose, under, bounds])


def stated(grant: Grant) -> bytes:
    """What the first row of a grant says of it, as canonical JSON: nothing of the schema's text, which may quote
    personal data, but its digest."""
    schema = canonical.digest_bytes(grant.schema) if grant.schema else ""
    return canonical.canonical(
        {
            "commitment": commitment(grant),
            "uses": grant.uses,
            "session": grant.session,
            "schema_sha256": schema,
            "expires_at": grant.expires_at,
            "approvers": list(grant.approvers),
        }
    )


def row(grant: Grant, kind: Kind, *, at: float, by: Principal | None = None, code: str = "") -> Record:
    """A row about a grant, in the requester's name unless somebody else did it."""
    return Record(
        kind=kind,
        session=grant.session,
        at=at,
        skill=grant.skill,
        principal=by or grant.requester,
        policy=grant.policy,
        skill_digest=grant.skill_digest,
        code=code,
        question=grant.id,
    )


def spec_json(spec: GrantSpec | None) -> Json:
    """What is agreed to, as JSON; null: once."""
    return None if spec is None else asdict(spec) | {"schema": spec.schema.decode()}
