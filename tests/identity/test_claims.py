"""Claims say who asks: of the issuers that people use, and of the workloads that act without them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from interposer.errors import Unauthenticated
from interposer.identity.claims import MAX_GROUPS, MAX_MACHINE_SUBJECT, identify
from interposer.identity.refusals import AUTHORIZED_PARTY, CLAIM, GROUPS, GROUPS_ELSEWHERE, SUBJECT, TIME, TOKEN_KIND
from interposer.identity.trust import GroupsFrom, Identity, Trust
from interposer.model import Principal
from tests.identity.issuers import ENTRA, SHAPES
from tests.identity.signing import CLAIMS, ISSUER, NOW, TRUST

AT = int(NOW)


def judged(claims: dict[str, Any], trust: Trust = TRUST) -> Identity:
    return identify(claims, trust, NOW)


def why(claims: dict[str, Any], trust: Trust = TRUST) -> str:
    with pytest.raises(Unauthenticated) as refused:
        judged(claims, trust)
    return refused.value.why


@pytest.mark.parametrize("name", SHAPES)
def test_token_of_a_known_issuer_is_read(name: str) -> None:
    """With a fitting configuration, what these issuers send says who asks and in which groups they are."""
    claims, trust, subject, groups = SHAPES[name]
    found = judged(claims, trust)
    client = str(claims.get("azp", ""))
    assert found.principal == Principal(trust.issuer, subject, groups, client_id=client, machine=trust.machine)
    assert found.session == claims.get("sid", "")


@pytest.mark.parametrize("name", SHAPES)
def test_required_claim_that_differs_or_is_gone_refuses(name: str) -> None:
    """Each claim that the configuration requires is needed, with its value."""
    claims, trust, _, _ = SHAPES[name]
    for path, _ in trust.claims:
        without = {key: value for key, value in claims.items() if key != path[0]}
        assert why(without, replace(trust, groups=())) == CLAIM
        assert why(claims, replace(trust, claims=((path, ("other",)),))) == CLAIM


def test_groups_claim_that_is_not_there_is_no_group() -> None:
    """No groups means only what policy gives to everybody."""
    without = {key: value for key, value in CLAIMS.items() if key != "groups"}
    assert judged(without).principal.groups == ()
    nested = replace(TRUST, groups=(GroupsFrom(("realm_access", "roles")),))
    assert judged(CLAIMS, nested).principal.groups == ()
    assert judged({**CLAIMS, "realm_access": {}}, nested).principal.groups == ()


@pytest.mark.parametrize("on_the_way", ["roles", None, 1, True, ["roles"], [{"roles": ["dev"]}]])
def test_way_to_groups_goes_through_objects(on_the_way: object) -> None:
    """What should hold the groups and is no object is another shape, not an absence."""
    nested = replace(TRUST, groups=(GroupsFrom(("realm_access", "roles")),))
    assert why({**CLAIMS, "realm_access": on_the_way}, nested) == GROUPS


def test_groups_are_sorted_and_there_once() -> None:
    """The order in a token means nothing, and neither does saying a group twice."""
    assert judged({**CLAIMS, "groups": ["b", "a", "b"]}).principal.groups == ("a", "b")


@pytest.mark.parametrize(
    ("shape", "value", "groups"),
    [
        ("words", "a b", ("a", "b")),
        ("words", "", ()),
        ("words", " a", None),
        ("words", "a  b", None),
        ("words", "a\tb", None),
        ("words", ["a"], None),
        ("words", None, None),
        ("one", "a b", ("a b",)),
        ("one", "", None),
        ("one", ["a"], None),
        ("one", 1, None),
        ("list", [], ()),
        ("list", "a", None),
    ],
)
def test_groups_have_the_configured_shape(shape: Any, value: object, groups: tuple[str, ...] | None) -> None:
    """A list, words or one text: what is configured, and not what happens to come."""
    trust = replace(TRUST, groups=(GroupsFrom(("scope",), shape),))
    claims = {**CLAIMS, "scope": value}
    if groups is None:
        assert why(claims, trust) == GROUPS
    else:
        assert judged(claims, trust).principal.groups == groups


def test_too_many_groups_refuse() -> None:
    """There is a most, for one claim and for all together."""
    half = [f"g{n}" for n in range(MAX_GROUPS // 2 + 1)]
    two = replace(TRUST, groups=(GroupsFrom(("groups",)), GroupsFrom(("roles",), prefix="role:")))
    assert len(judged({**CLAIMS, "groups": half}, two).principal.groups) == len(half)
    assert why({**CLAIMS, "groups": half, "roles": half}, two) == GROUPS
    assert why({**CLAIMS, "groups": half * 2}) == GROUPS


def test_groups_that_are_elsewhere_are_not_fetched() -> None:
    """Entra leaves out groups that are too many; half an answer is none, and the reason says the way out."""
    entra = SHAPES["Entra"][1]
    for claims in (
        {**ENTRA, "_claim_names": {"groups": "src1"}, "_claim_sources": {"src1": {"endpoint": "https://graph"}}},
        {**ENTRA, "hasgroups": True},
    ):
        with pytest.raises(Unauthenticated, match="app roles") as refused:
            judged(claims, entra)
        assert refused.value.why == GROUPS_ELSEWHERE
        assert judged(claims, replace(entra, groups=(GroupsFrom(("roles",)),))).principal.groups == ("Tools.Use",)
    assert why({**CLAIMS, "_claim_names": ["groups"]}) == CLAIM


def test_authorized_party_is_azp_or_else_client_id() -> None:
    """Where parties are configured, a token that names none or another is somebody else's."""
    trust = replace(TRUST, authorized_parties=frozenset({"cli", "web"}))
    assert judged({**CLAIMS, "azp": "cli"}, trust).principal.client_id == "cli"
    assert judged({**CLAIMS, "client_id": "web"}, trust).principal.client_id == "web"
    assert judged({**CLAIMS, "azp": "any"}).principal.client_id == "any"
    for party in ({}, {"azp": "other"}, {"azp": "CLI"}, {"client_id": "other"}, {"azp": "other", "client_id": "cli"}):
        assert why({**CLAIMS, **party}, trust) == AUTHORIZED_PARTY


def test_subject_may_be_another_claim_and_is_held_to_the_same() -> None:
    """Whatever claim is the name, it is a plain text of bounded length; and `sub` stays one too."""
    trust = replace(TRUST, subject=("user", "name"))
    assert judged({**CLAIMS, "user": {"name": "anna"}}, trust).principal.subject == "anna"
    for user in ({}, {"name": ""}, {"name": "a\n"}, {"name": ["anna"]}, "anna", None):
        assert why({**CLAIMS, "user": user}, trust) == SUBJECT
    assert why({**CLAIMS, "sub": "a\n", "user": {"name": "anna"}}, trust) == SUBJECT
    assert why(CLAIMS, trust) == SUBJECT


def test_subject_length_is_bounded() -> None:
    """255 characters for people (OpenID Connect Core §2); workloads are named by longer things."""
    assert judged({**CLAIMS, "sub": "a" * 255}).principal.subject == "a" * 255
    assert why({**CLAIMS, "sub": "a" * 256}) == SUBJECT
    workload = replace(TRUST, machine=True)
    assert judged({**CLAIMS, "sub": "a" * MAX_MACHINE_SUBJECT}, workload).principal.machine
    assert why({**CLAIMS, "sub": "a" * (MAX_MACHINE_SUBJECT + 1)}, workload) == SUBJECT


@pytest.mark.parametrize(
    ("value", "required", "same"),
    [
        (True, True, True),
        (True, 1, False),
        (1, True, False),
        (1, 1, True),
        (1.0, 1, True),
        (0, False, False),
        ("1", 1, False),
        ("true", True, False),
        (["a", "b"], "b", True),
        (["a", True], 1, False),
        ([["a"]], "a", False),
        ([], "a", False),
        ({"a": 1}, "a", False),
        (None, "a", False),
        ("A", "a", False),
        (["a"], ["a"], False),
        ([["a"]], ["a"], True),
    ],
)
def test_required_value_is_the_same_json(value: object, required: object, same: bool) -> None:
    """No value stands in for another: not 1 for true, not a text for a number, not one case for the other."""
    trust = replace(TRUST, claims=((("x",), (required,)),))
    if same:
        judged({**CLAIMS, "x": value}, trust)
    else:
        assert why({**CLAIMS, "x": value}, trust) == CLAIM


def test_required_claims_are_there_and_not_null() -> None:
    """What the configuration requires is there, and has a value."""
    trust = replace(TRUST, required=(*TRUST.required, "email"))
    assert why(CLAIMS, trust) == CLAIM
    assert why({**CLAIMS, "email": None}, trust) == CLAIM
    judged({**CLAIMS, "email": "a@example.com"}, trust)


def test_end_is_needed_even_where_nothing_is_required() -> None:
    """No configuration makes a token that lasts for ever, or that is for nobody in particular."""
    trust = replace(TRUST, required=())
    for name in ("exp", "iss", "aud", "sub"):
        why({key: value for key, value in CLAIMS.items() if key != name}, trust)
    bare = {"iss": ISSUER, "aud": "interposer", "sub": "a", "exp": AT + 300}
    assert judged(bare, trust).not_before == 0.0
    assert why({**bare, "exp": AT + 86_431}, trust) == TIME


def test_lifetime_is_bounded_to_the_second() -> None:
    """`exp - iat` may be the longest lifetime, and no more."""
    claims = {**CLAIMS, "exp": CLAIMS["iat"] + 86_400}
    judged(claims)
    assert why({**claims, "exp": claims["exp"] + 1}) == TIME
    assert why(claims, replace(TRUST, max_lifetime_s=3600.0)) == TIME


def test_id_tokens_are_taken_only_where_configured() -> None:
    """An ID token is meant for the client that logged in; refresh and logout tokens are never taken."""
    taken = replace(TRUST, id_tokens=True)
    id_marks: list[dict[str, Any]] = [{"nonce": "n"}, {"at_hash": "h"}, {"typ": "ID"}, {"token_use": "id"}]
    for mark in id_marks:
        assert why({**CLAIMS, **mark}) == TOKEN_KIND
        judged({**CLAIMS, **mark}, taken)
    never: list[dict[str, Any]] = [{"typ": "Refresh"}, {"typ": "Offline"}, {"events": {}}, {"cnf": {}}]
    for mark in (*never, {"token_use": "refresh"}):
        assert why({**CLAIMS, **mark}, taken) == TOKEN_KIND


@pytest.mark.parametrize("mark", [{"typ": "Bearer"}, {"typ": "JWT"}, {"token_use": "access"}, {"typ": "at+jwt"}])
def test_access_tokens_may_say_that_they_are(mark: dict[str, str]) -> None:
    """Keycloak's and Cognito's access tokens name their kind in the claims."""
    judged({**CLAIMS, **mark})
