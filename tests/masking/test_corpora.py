"""The published test data, where it is present. What is asserted is what was measured, not what is wished for."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from interposer.canonical import encode
from interposer.masking.engine import PROFILES, Engine
from interposer.ports import Secret

CORPORA = Path(__file__).parents[2] / "../shared/corpora"
OWN = "upst-" + "9f3kd83kd93md03kd93mdl29sk"
CORE = {"CREDIT_CARD", "US_SSN", "US_ITIN", "IBAN_CODE", "EMAIL_ADDRESS", "PHONE_NUMBER", "IP_ADDRESS", "MAC_ADDRESS"}

pytestmark = pytest.mark.skipif(not CORPORA.exists(), reason="the shared corpora (masking/*.jsonl.gz) are not here")
engine = Engine()


def rows(name: str) -> list[dict[str, Any]]:
    with gzip.open(CORPORA / f"masking/{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def leaks(secret: str, text: str) -> bool:
    """Half of a secret, and seven characters at least, survive."""
    size = max(7, (len(secret) + 1) // 2)
    return any(secret[i : i + size] in text for i in range(max(1, len(secret) - size + 1)))


def passes(row: dict[str, Any]) -> bool:
    text = engine.mask(row["text"], PROFILES).value
    if not row["must_mask"]:
        return bool(text == row["text"])
    return text != row["text"] and not any(leaks(secret, text) for secret in row["secrets"])


def share(chosen: list[dict[str, Any]]) -> float:
    return sum(map(passes, chosen)) / len(chosen)


@pytest.mark.parametrize(
    ("name", "at_least"),
    [
        ("pii_email_card_dev", 1.0),
        ("pii_phone_dev", 1.0),
        ("pii_synth_dev", 1.0),
        ("private_keys", 1.0),
        ("jwts", 0.99),
        ("secrets_gitleaks_dev", 0.94),
    ],
)
def test_strong_rows_are_masked(name: str, at_least: float) -> None:
    """Rows that surely hold a secret lose it."""
    assert share([row for row in rows(name) if row["must_mask"] and row["confidence"] == "strong"]) >= at_least


def test_core_entities_are_masked() -> None:
    """The entities that every deployment has are found nearly without exception."""
    strong = [row for row in rows("pii_presidio_core") if row["must_mask"] and row["confidence"] == "strong"]
    assert share([row for row in strong if row["entity"] in CORE]) >= 0.985


@pytest.mark.parametrize("name", ["benign_hard_negatives", "jwts", "private_keys", "pii_email_card_dev"])
def test_hard_benign_rows_are_untouched(name: str) -> None:
    """Not one of the texts that hold nothing is changed."""
    hard = [row for row in rows(name) if not row["must_mask"] and row.get("strictness") == "hard"]
    assert [row["text"] for row in hard if not passes(row)] == []


def test_values_are_found_in_every_place_of_a_message() -> None:
    """Tier A and B of the structural corpus: no value survives, wherever it stands; tier C is documented."""
    guarding = Engine()
    guarding.guard(Secret(OWN))
    script = CORPORA / "structural_masking.py"
    lines = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True).stdout.splitlines()
    leaked = [row["id"] for row in map(json.loads, lines) if row["tier"] in "AB" and _survives(guarding, row)]
    assert leaked == []


def _survives(guarding: Engine, row: dict[str, Any]) -> bool:
    out = ""
    for frame in row["frames"]:
        try:
            value = json.loads(frame)
        except ValueError:
            value = frame
        out += encode(guarding.mask(value, PROFILES).value).decode()
    readings = (out, out.encode().decode("unicode_escape"))
    return any(secret in reading for secret in row["find"] for reading in readings)
