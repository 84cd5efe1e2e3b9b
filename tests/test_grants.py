"""Standing grants: within policy's cap, for the calls they name, and for nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st

from interposer.ballot import VoteRefused, asked
from interposer.canonical import canonical, digest_bytes
from interposer.grant import Grant, GrantState
from interposer.grants import carries, commitment, fits_cap, given, stated
from interposer.model import Decision, Effect, Invocation, Json, JsonObject, Principal, Question, Skill, Vote
from interposer.terms import ApprovalTerms, GrantCap, GrantSpec, Window

AGENT = Principal("https://idp", "agent", ("support",))
REFUND = Skill("payments.refund", "payments", "refund", "refund", {}, "skill-1")
NOW = 1_750_000_000.0
CAP = GrantCap(3600.0, uses=5, session=True, matching=True)
TERMS = ApprovalTerms(cap=CAP)
SMALL: JsonObject = {
    "type": "object",
    "properties": {"amount": {"type": "number", "maximum": 100}},
    "required": ["amount"],
    "additionalProperties": False,
}


def call(arguments: JsonObject | None = None, **more: Any) -> Invocation:
    said = {"amount": 90} if arguments is None else arguments
    exact = canonical(said)
    return replace(Invocation("i_1", "s_1", AGENT, REFUND, said, exact, digest_bytes(exact)), **more)


def asks(terms: ApprovalTerms = TERMS, policy: str = "policy-1") -> Decision:
    return Decision(Effect.ASK, (), policy, "a human decides", terms=terms)


def question(terms: ApprovalTerms = TERMS) -> Question:
    found = asked("q_1", call(), asks(terms), terms, now=NOW)
    return replace(found, votes=(Vote(Principal("operator", "anna"), True, "", NOW),))


def grant(spec: GrantSpec | None = None, terms: ApprovalTerms = TERMS) -> Grant:
    return given("g_1", question(terms), spec or GrantSpec(600.0, uses=3), now=NOW)


def schema(value: Json) -> bytes:
    return canonical(value)


@pytest.mark.parametrize(
    "spec",
    [
        GrantSpec(3600.0, uses=5),
        GrantSpec(1.0, uses=1),
        GrantSpec(60.0, uses=2, session=True),
        GrantSpec(60.0, uses=2, schema=schema(SMALL)),
    ],
)
def test_what_the_cap_allows_may_be_agreed_to(spec: GrantSpec) -> None:
    """Up to the cap, an approver says how much."""
    fits_cap(spec, question())


@pytest.mark.parametrize(
    ("spec", "cap"),
    [
        pytest.param(GrantSpec(60.0, uses=2), None, id="once only"),
        pytest.param(GrantSpec(3601.0, uses=2), CAP, id="longer"),
        pytest.param(GrantSpec(0.0, uses=2), CAP, id="no time"),
        pytest.param(GrantSpec(-1.0, uses=2), CAP, id="negative time"),
        pytest.param(GrantSpec(float("nan"), uses=2), CAP, id="no number"),
        pytest.param(GrantSpec(60.0, uses=6), CAP, id="more uses"),
        pytest.param(GrantSpec(60.0), CAP, id="any number where the cap counts"),
        pytest.param(GrantSpec(60.0, uses=0), CAP, id="none"),
        pytest.param(GrantSpec(60.0, uses=2, session=True), GrantCap(60.0), id="session"),
        pytest.param(GrantSpec(60.0, schema=schema(SMALL)), GrantCap(60.0), id="matching"),
        pytest.param(GrantSpec(60.0, uses=2, schema=schema({})), CAP, id="a schema that says nothing"),
        pytest.param(GrantSpec(60.0, uses=2, schema=schema(True)), CAP, id="a schema that is true"),
        pytest.param(
            GrantSpec(60.0, uses=2, schema=schema({**SMALL, "additionalProperties": True})), CAP, id="open schema"
        ),
        pytest.param(
            GrantSpec(60.0, uses=2, schema=schema({**SMALL, "properties": {}})), CAP, id="schema without properties"
        ),
        pytest.param(
            GrantSpec(60.0, uses=2, schema=schema({**SMALL, "properties": {"amount": {"const": 10}}})),
            CAP,
            id="the call in question does not match",
        ),
        pytest.param(
            GrantSpec(60.0, uses=2, schema=schema({**SMALL, "$ref": "https://example.com/x"})),
            CAP,
            id="remote reference",
        ),
        pytest.param(
            GrantSpec(60.0, uses=2, schema=schema({**SMALL, "description": "x" * 20_000})), CAP, id="long schema"
        ),
    ],
)
def test_more_than_the_cap_is_refused(spec: GrantSpec, cap: GrantCap | None) -> None:
    """Nobody agrees to more than policy lets them, and a schema has to say what every argument may be."""
    with pytest.raises(VoteRefused) as refused:
        fits_cap(spec, question(ApprovalTerms(cap=cap)))
    assert refused.value.name == "grant_refused"


def having(part: Json, **more: Json) -> JsonObject:
    """A schema for one argument, `amount`, of which this is said."""
    return {"type": "object", "properties": {"amount": part}, "additionalProperties": False, **more}


@pytest.mark.parametrize(
    ("said", "named"),
    [
        pytest.param(having({"type": "string", "format": "ipv4"}), "`format`", id="not validated"),
        pytest.param(having({"type": "string", "maxLenght": 5}), "`maxLenght`", id="misspelt"),
        pytest.param(having({"type": "number", "maxLength": 5}), "`maxLength`", id="for another type"),
        pytest.param(having({"maximum": 100}), "`maximum`", id="carries texts"),
        pytest.param(having({}), "`type`", id="anything"),
        pytest.param(having(True), "`true`", id="true"),
        pytest.param(having({"anyOf": [{"const": 90}, {}]}), "/properties/amount/anyOf/1", id="a branch for anything"),
        pytest.param(having({"allOf": [{"const": 90}, {"x": 1}]}), "`x`", id="unknown in a branch"),
        pytest.param(having({"type": ["number", "object"]}), "additionalProperties", id="open object"),
        pytest.param(
            having({"type": ["number", "object"], "properties": {}, "additionalProperties": {"const": 1}}),
            "additionalProperties",
            id="object with other members",
        ),
        pytest.param(having({"type": ["number", "array"]}), "`items`", id="array of anything"),
        pytest.param(
            having({"type": ["number", "array"], "prefixItems": [{"const": 1}]}), "`items`", id="array that goes on"
        ),
        pytest.param(having({"type": ["number", "array"], "items": True}), "`true`", id="items of any kind"),
        pytest.param(having({"const": 90, "not": {"const": 80}}), "`not`", id="what must not match"),
        pytest.param(having({"oneOf": [{"const": 90}]}), "`oneOf`", id="only one of"),
        pytest.param(having({"type": "number"}, **{"if": {}, "then": {}}), "`if`", id="conditions"),
        pytest.param(having({"const": 90}, patternProperties={"": {}}), "`patternProperties`", id="names by pattern"),
        pytest.param(having({"const": 90}, propertyNames={"maxLength": 9}), "`propertyNames`", id="names by schema"),
        pytest.param(having({"const": 90}, unevaluatedProperties=True), "`unevaluated", id="unevaluated"),
        pytest.param(having({"$ref": "#/$defs/x"}, **{"$defs": {"x": {}}}), "`$defs`", id="reference"),
        pytest.param(having({"$ref": "#"}), "`$ref`", id="reference to itself"),
        pytest.param(having({"const": 90, "$id": "x:y"}), "`$id`", id="name"),
        pytest.param(
            having({"const": 90}, **{"$schema": "http://json-schema.org/draft-07/schema#"}), "`$schema`", id="dialect"
        ),
        pytest.param(having({"const": 90, "$schema": "x:y"}), "", id="dialect inside"),
    ],
)
def test_schema_that_would_carry_more_than_it_says_is_refused(said: JsonObject, named: str) -> None:
    """Only rules that are enforced, every object closed, at every depth; what is wrong is named. Stored all the same,
    such a schema carries nothing, not even the call in question."""
    spec = GrantSpec(60.0, uses=2, schema=schema(said))
    with pytest.raises(VoteRefused) as refused:
        fits_cap(spec, question())
    assert refused.value.name == "grant_refused"
    assert named in str(refused.value)
    assert not carries(grant(spec), call(), asks(), now=NOW)


@pytest.mark.parametrize(
    "part",
    [
        {"const": 90},
        {"enum": [80, 90, {"any": ["thing"]}], "description": "what it costs"},
        {"type": ["integer", "null"], "minimum": 1, "maximum": 100, "multipleOf": 10, "default": 1, "examples": [2]},
        {"anyOf": [{"type": "string", "pattern": "^[a-z]+$"}, {"type": "number", "exclusiveMaximum": 91}]},
        {"type": ["number", "array"], "prefixItems": [{"const": 1}], "items": False, "minItems": 1},
        {
            "type": ["number", "object"],
            "properties": {"deep": {"type": "array", "items": {"type": "boolean"}, "uniqueItems": True}},
            "dependentRequired": {"deep": []},
            "additionalProperties": False,
        },
    ],
)
def test_schema_that_says_everything_is_accepted(part: JsonObject) -> None:
    """Nothing that is enforced and closed has to be left out; 2020-12 may be named."""
    said = having(part, **{"$schema": "https://json-schema.org/draft/2020-12/schema", "$comment": "small ones"})
    spec = GrantSpec(60.0, uses=2, schema=schema(said))
    fits_cap(spec, question())
    assert carries(grant(spec), call(), asks(), now=NOW)


ENOUGH: list[JsonObject] = [{"title": "x"}, {"default": {}}, {"$comment": "y"}]
TOO_MUCH: list[JsonObject] = [
    *(
        {"properties": {}},
        {"patternProperties": {"": {}}},
        {"additionalProperties": True},
        {"items": {}},
        {"items": True},
    ),
    *({"not": {"const": 0}}, {"$ref": "#"}, {"format": "x"}, {"anyOf": [{}]}, {"allOf": [{}]}, {"type": "object"}),
    *({"if": {}, "then": {}}, {"unevaluatedProperties": {}}, {"dependentSchemas": {}}, {"type": ["array", "object"]}),
]
Pair = tuple[Any, Any]
"""A schema, and a value for it."""


def members(part: Pair, more: JsonObject, closed: bool) -> Pair:
    stated, value = part
    end: JsonObject = {"additionalProperties": False} if closed else {}
    return {"type": "object", "properties": {"m": stated, "n": {"type": "null"}}, **end, **more}, {"m": value}


def items(part: Pair, more: JsonObject, wrong: bool) -> Pair:
    stated, value = part
    return {"type": "array", "prefixItems": [stated], "items": {} if wrong else stated, **more}, [value, value]


def either(part: Pair, more: JsonObject, wrong: bool) -> Pair:
    stated, value = part
    return {"anyOf": [{"const": 7}, stated], **({"allOf": [stated]} if wrong else {}), **more}, value


extra = st.sampled_from(ENOUGH * 24 + TOO_MUCH)
leaves: st.SearchStrategy[Pair] = st.sampled_from(
    [
        ({"type": "integer"}, 3),
        ({"const": {"a": {}}}, {"a": {}}),
        ({"enum": ["x", [{}]]}, [{}]),
        ({"type": "null"}, None),
        ({}, {}),
    ]
)
pairs = st.recursive(
    leaves,
    lambda below: st.one_of(
        st.builds(members, below, extra, st.sampled_from([True, True, True, False])),
        st.builds(items, below, extra, st.sampled_from([False, False, True])),
        st.builds(either, below, extra, st.booleans()),
    ),
    max_leaves=4,
)


def widened(value: Json) -> Iterator[Json]:
    """The value with one more member, in each of its objects in turn."""
    if isinstance(value, dict):
        yield {**value, "new": 1}
    for key, part in value.items() if isinstance(value, dict) else enumerate(value if isinstance(value, list) else []):
        for other in widened(part):
            copy: Any = deepcopy(value)
            copy[key] = other
            yield copy


@hypothesis.given(pairs, extra)
def test_whatever_schema_is_accepted_no_new_member_is_carried(part: Pair, more: JsonObject) -> None:
    """An argument that nobody read about is carried nowhere in the arguments, at any depth."""
    said, value = having(part[0], **more), {"amount": part[1]}
    asked_for = asked("q_1", call(value), asks(), TERMS, now=NOW)
    spec = GrantSpec(60.0, uses=2, schema=schema(said))
    try:
        fits_cap(spec, asked_for)
    except VoteRefused:
        return
    standing = given("g_1", asked_for, spec, now=NOW)
    assert carries(standing, call(value), asks(), now=NOW)
    for other in widened(value):
        assert not carries(standing, call(other), asks(), now=NOW)


def test_a_grant_carries_the_identical_call_in_its_time() -> None:
    """The very arguments, of this caller, to this skill, under this policy."""
    assert carries(grant(), call(), asks(), now=NOW + 599.9)
    assert not carries(grant(), call(), asks(), now=NOW + 600.0)


@pytest.mark.parametrize(
    ("invocation", "decision"),
    [
        pytest.param(call({"amount": 91}), asks(), id="arguments"),
        pytest.param(call(principal=Principal("https://idp", "other", ("support",))), asks(), id="principal"),
        pytest.param(call(principal=Principal("local", "agent")), asks(), id="issuer"),
        pytest.param(call(skill=replace(REFUND, digest="skill-2")), asks(), id="definition"),
        pytest.param(call(skill=replace(REFUND, id="payments.other")), asks(), id="skill"),
        pytest.param(call(), asks(policy="policy-2"), id="policy"),
        pytest.param(call(), asks(replace(TERMS, quorum=2)), id="terms"),
        pytest.param(call(), asks(replace(TERMS, cap=None)), id="cap"),
    ],
)
def test_a_grant_carries_nothing_else(invocation: Invocation, decision: Decision) -> None:
    """Whatever it was given for has changed: it is no yes any more."""
    assert not carries(grant(), invocation, decision, now=NOW)


def test_a_grant_for_a_session_carries_no_other_session() -> None:
    """The identical call from another conversation is asked for anew."""
    own = grant(GrantSpec(600.0, uses=3, session=True))
    assert carries(own, call(), asks(), now=NOW)
    assert not carries(own, call(session="s_2"), asks(), now=NOW)


def test_a_grant_for_a_schema_carries_what_matches() -> None:
    """Arguments that match are carried; one step outside of the schema is not."""
    small = grant(GrantSpec(600.0, uses=3, schema=schema(SMALL)))
    assert carries(small, call({"amount": 1}), asks(), now=NOW)
    assert not carries(small, call({"amount": 101}), asks(), now=NOW)
    assert not carries(small, call({"amount": 1, "to": "me"}), asks(), now=NOW)
    assert not carries(small, call({}), asks(), now=NOW)


def test_a_grant_is_not_used_outside_of_its_hours() -> None:
    """Hours apply to the use as to the vote."""
    terms = replace(TERMS, windows=((Window(frozenset(), 0, 1, "UTC"),),))
    assert not carries(grant(terms=terms), call(), asks(terms), now=NOW)


@pytest.mark.parametrize("state", [GrantState.SPENT, GrantState.EXPIRED, GrantState.REVOKED])
def test_a_grant_that_has_ended_carries_nothing(state: GrantState) -> None:
    """Only an active grant with uses left is a yes."""
    assert not carries(replace(grant(), state=state), call(), asks(), now=NOW)
    assert not carries(replace(grant(), used=2), call(), asks(), now=NOW)


def test_the_question_itself_is_the_first_use() -> None:
    """A grant of three uses carries two more; one without a number carries any."""
    assert grant().uses == 2
    assert grant(GrantSpec(600.0), replace(TERMS, cap=GrantCap(3600.0))).uses is None


def test_an_amended_question_gives_a_grant_for_the_amended_arguments() -> None:
    """What was agreed to is what may be repeated, and not what was asked for first."""
    amended = canonical({"amount": 10})
    narrow = given("g_1", replace(question(), amended=amended), GrantSpec(600.0, uses=3), now=NOW)
    assert carries(narrow, call({"amount": 10}), asks(), now=NOW)
    assert not carries(narrow, call(), asks(), now=NOW)


def test_every_edit_of_a_grant_changes_its_commitment() -> None:
    """A grant that somebody widened in the database is not the one that was given."""
    base = grant()
    edits: list[dict[str, Any]] = [
        {"uses": 99},
        {"expires_at": base.expires_at + 1},
        {"schema": b"{}"},
        {"arguments_digest": "other"},
        {"session": "s_9"},
        {"requester": Principal("https://idp", "other")},
        {"skill": "payments.other"},
        {"skill_digest": "skill-2"},
        {"policy": "policy-2"},
        {"terms": replace(TERMS, cap=None)},
        {"approvers": ()},
        {"question": "q_2"},
        {"id": "g_2"},
    ]
    assert len({commitment(replace(base, **edit)) for edit in [{}, *edits]}) == len(edits) + 1
    assert commitment(base).encode() in stated(base)
    assert commitment(replace(base, used=1, state=GrantState.SPENT)) == commitment(base)
