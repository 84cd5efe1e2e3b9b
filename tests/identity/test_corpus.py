"""The shared corpus of tokens: each row is decided as it says."""

from __future__ import annotations

import gzip
import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from interposer.errors import Unauthenticated
from interposer.identity.keys import read_keys
from interposer.identity.refusals import WHYS
from interposer.identity.trust import GroupsFrom, Trust
from interposer.identity.verify import issuer_of, verify

CORPUS = Path(__file__).parents[2] / "../shared/corpora/jwt"
pytestmark = pytest.mark.skipif(not CORPUS.exists(), reason="needs ../shared/corpora/jwt beside the project")


def rows() -> list[dict[str, Any]]:
    with gzip.open(CORPUS / "tokens.jsonl.gz", "rt") as lines:
        return [json.loads(line) for line in lines]


@cache
def configured() -> tuple[Trust, float]:
    found = json.loads((CORPUS / "config.json").read_text())
    trust = Trust(
        issuer=found["issuer"],
        audiences=frozenset({found["audience"]}),
        algorithms=frozenset(found["algorithms"]),
        groups=(GroupsFrom((found["groups_claim"],)),),
        required=tuple(found["required"]),
        leeway_s=found["leeway"],
        max_lifetime_s=found["max_lifetime"],
        max_bytes=found["max_token_bytes"],
    )
    return trust, found["now"]


@pytest.mark.parametrize("row", rows() if CORPUS.exists() else [], ids=lambda row: f"{row['group']}:{row['name']}")
def test_row_is_decided_as_it_says(row: dict[str, Any]) -> None:
    """Every hostile token is refused with a reason of ours, every control is accepted."""
    trust, now = configured()
    keys = read_keys((CORPUS / "jwks.json").read_bytes())
    if row["expect"] == "accept":
        assert issuer_of(row["token"], trust.max_bytes) == trust.issuer
        assert verify(row["token"], keys, trust, now).principal.issuer == trust.issuer
        return
    with pytest.raises(Unauthenticated) as refused:
        verify(row["token"], keys, trust, now)
    assert refused.value.why in WHYS


def test_configuration_of_the_corpus_is_our_default() -> None:
    """Nothing has to be said for the corpus that a deployment would not get anyway."""
    trust, _ = configured()
    assert trust == Trust(trust.issuer, trust.audiences)
