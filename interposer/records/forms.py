"""The words of `terms.py` and `model.py` as the JSON that the record's tables keep of them, and back.

What an older interposer wrote reads as what it meant: fields that it did not know have their defaults.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from interposer import canonical
from interposer.model import Effect, Json, MatchedRule, Principal, Vote
from interposer.terms import ApprovalTerms, GrantCap, GrantSpec, Window


def text(value: Json) -> str:
    return canonical.encode(value).decode()


def parsed(text: str) -> Json:
    return canonical.parse(text.encode())


def principal_json(principal: Principal) -> dict[str, Json]:
    return asdict(principal) | {"groups": list(principal.groups)}


def principal_of(value: Json) -> Principal:
    return Principal(**value | {"groups": tuple(value["groups"])})


def principal_text(principal: Principal) -> str:
    return text(principal_json(principal))


def terms_json(terms: ApprovalTerms) -> dict[str, Json]:
    """Sets are sorted: equal terms have one JSON."""
    return asdict(terms) | {
        "groups": sorted(terms.groups),
        "subjects": sorted(terms.subjects),
        "expires_s": float(terms.expires_s),
        "minima": [list(each) for each in terms.minima],
        "windows": [[asdict(window) | {"days": sorted(window.days)} for window in some] for some in terms.windows],
        "cap": None if terms.cap is None else asdict(terms.cap) | {"for_s": float(terms.cap.for_s)},
        "reading_s": float(terms.reading_s),
    }


def terms_of(value: Json) -> ApprovalTerms:
    cap = value.get("cap")
    return ApprovalTerms(
        **value
        | {
            "groups": frozenset(value["groups"]),
            "subjects": frozenset(value["subjects"]),
            "minima": tuple((group, least) for group, least in value.get("minima", ())),
            "windows": tuple(
                tuple(Window(**window | {"days": frozenset(window["days"])}) for window in some)
                for some in value.get("windows", ())
            ),
            "cap": None if cap is None else GrantCap(**cap),
        }
    )


def spec_text(spec: GrantSpec | None) -> str:
    """Empty: once."""
    return "" if spec is None else text(asdict(spec) | {"schema": spec.schema.decode()})


def spec_of(written: str) -> GrantSpec | None:
    if not written:
        return None
    value = parsed(written)
    return GrantSpec(**value | {"schema": value["schema"].encode()})


def rules_text(rules: Sequence[MatchedRule]) -> str:
    return text([asdict(rule) for rule in rules])


def rules_of(written: str) -> tuple[MatchedRule, ...]:
    return tuple(MatchedRule(**rule | {"effect": Effect(rule["effect"])}) for rule in parsed(written))


def votes_text(votes: Sequence[Vote]) -> str:
    return text([asdict(vote) | {"principal": principal_json(vote.principal)} for vote in votes])


def votes_of(written: str) -> tuple[Vote, ...]:
    return tuple(Vote(**vote | {"principal": principal_of(vote["principal"])}) for vote in parsed(written))
