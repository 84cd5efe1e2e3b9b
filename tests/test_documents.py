"""The documents say what the code does: the diagram is drawn from the table, the schemas from the models."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from interposer import config, lifecycle

ROOT = Path(__file__).parents[1]
ARCHITECTURE = ROOT / "ARCHITECTURE.md"
SCHEMA = ROOT / "schemas/config.schema.json"
_DIAGRAM = re.compile(r"(?s)(<!-- lifecycle -->\n).*?(<!-- /lifecycle -->)")


def drawn() -> str:
    return _DIAGRAM.sub(lambda m: f"{m[1]}\n{lifecycle.mermaid()}\n\n{m[2]}", ARCHITECTURE.read_text())


def described() -> str:
    return json.dumps(config.schema(), indent=2) + "\n"


def test_the_diagram_is_the_table() -> None:
    """ARCHITECTURE.md shows the transitions that the journal allows, no others."""
    assert ARCHITECTURE.read_text() == drawn()


def test_the_configuration_schema_is_the_models() -> None:
    """Editors complete what the broker reads."""
    assert SCHEMA.read_text() == described()


def test_links_lead_somewhere() -> None:
    """Every relative link in the documents names a file that is there."""
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


if __name__ == "__main__" and "--write" in sys.argv:
    ARCHITECTURE.write_text(drawn())
    SCHEMA.write_text(described())
