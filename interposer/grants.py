"""The rules of standing grants: what may be agreed to within policy's cap, and which calls a grant carries.

Pure. A grant is for one principal, one skill as it is defined, one policy and its terms; when any of them changes it
carries nothing any more. It always ends.
"""

from __future__ import annotations

from dataclasses import asdict
from functools import lru_cache
from typing import Any

from . import canonical
from .arguments import UnusableSchema, compiled
from .ballot import VoteRefused, named, terms_json
from .grant import Grant, GrantState
from .model import Decision, Invocation, Json, Kind, Principal, Question, Record
from .terms import GrantCap, GrantSpec
from .windows import is_open

LIMIT_SCHEMA_BYTES = 16 * 1024


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
    stated = canonical.parse(schema)
    if not _says_everything(stated):
        raise _refused(
            'the schema must say what every argument may be: {"type": "object", "properties": {…}, '
            '"additionalProperties": false} with at least one property'
        )
    try:
        validator = compiled(stated)
    except UnusableSchema as unusable:
        raise _refused(f"the schema cannot be used: {unusable}") from None
    if not _valid(validator, canonical.parse(question.amended or question.canonical)):
        raise _refused("the arguments in question do not match the schema")


def _says_everything(stated: Json) -> bool:
    return (
        isinstance(stated, dict)
        and stated.get("type") == "object"
        and isinstance(stated.get("properties"), dict)
        and bool(stated["properties"])
        and stated.get("additionalProperties") is False
    )


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
    return compiled(canonical.parse(schema))


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
