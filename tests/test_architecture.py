"""The house stands: floors, receipts, and third-party packages where they belong (ARCHITECTURE.md, floors)."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HOUSE = ROOT / "interposer"

# Floor by floor, and on a floor from top to bottom: a module imports only what stands before it.
FLOORS: list[list[str]] = [
    ["__init__", "terms", "model", "grant", "errors", "canonical", "ownership"],
    [
        "display",
        "lifecycle",
        "chain",
        "arguments",
        "windows",
        "ballot",
        "grants",
        "figures",
        "seal",
        "identity",
        "policy",
        "shown",
        "masking",
        "wire",
        "reach",
    ],
    ["ports"],
    [
        "pages",
        "catalogue",
        "journal",
        "docket",
        "register",
        "outbox",
        "questions",
        "poll",
        "desk",
        "asking",
        "carried",
        "judging",
        "toll",
        "keeping",
        "broker",
        "errands",
        "replies",
        "flight",
        "subscriptions",
        "house",
        "tasked",
        "pending",
        "session",
        "recovery",
        "replay",
        "admin",
    ],
    [
        "clock",
        "crew",
        "pins",
        "facts",
        "callers",
        "transports",
        "upstreams",
        "records",
        "secrets",
        "channels",
        "console",
        "boundary",
    ],
    [
        "logs",
        "checked",
        "config_people",
        "config_approvals",
        "config",
        "settings",
        "presented",
        "echoes",
        "standing",
        "state",
        "parts",
        "people",
        "operations",
        "app",
        "spawned",
        "shim",
        "cli",
        "__main__",
    ],
]
APART = set(FLOORS[4])
"""On floor 4 nobody imports a neighbour."""
PACKAGES: list[set[str]] = [
    {"msgspec"},  # docs/adr/0001
    {"jsonschema", "jsonschema_rs", "re2", "cel", "ruamel", "jwt", "cryptography"},
    set(),
    {"anyio"},
    {"anyio", "sqlite_utils", "sqlite3", "httpx2", "keyring", "starlette", "uvicorn", "jinja2"},
    {"anyio", "pydantic", "pydantic_core", "click", "rich", "uvloop", "sqlite_utils"},
]
RECEIPTS = {"Permit": "broker.py", "Intent": "journal.py", "Masked": "masking/engine.py"}


def modules() -> list[Path]:
    return sorted(HOUSE.rglob("*.py"))


def place(module: str) -> tuple[int, int]:
    for floor, names in enumerate(FLOORS):
        if module in names:
            return floor, names.index(module)
    raise AssertionError(f"{module} stands on no floor: add it to FLOORS")


def owner(path: Path) -> str:
    first = path.relative_to(HOUSE).parts[0]
    return first.removesuffix(".py")


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """(module, whether it is ours) of every import, wherever it stands."""
    here = ("interposer", *path.relative_to(HOUSE).with_suffix("").parts)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            for name in node.names:
                yield from _named(name.name)
        elif isinstance(node, ast.ImportFrom):
            base = (
                [*here[: len(here) - node.level], *(node.module or "").split(".")]
                if node.level
                else (node.module or "").split(".")
            )
            names = [part for part in base if part]
            if names == ["interposer"]:
                yield from (
                    (a.name if (HOUSE / f"{a.name}.py").exists() or (HOUSE / a.name).is_dir() else "__init__", True)
                    for a in node.names
                )
            else:
                yield from _named(".".join(names))


def _named(name: str) -> Iterator[tuple[str, bool]]:
    parts = name.split(".")
    yield (parts[1] if len(parts) > 1 else "__init__", True) if parts[0] == "interposer" else (parts[0], False)


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(HOUSE)))
def test_a_module_imports_only_what_stands_below_it(path: Path) -> None:
    """Nothing on a lower floor knows of a higher one, and neighbours on floor 4 do not know each other."""
    me = owner(path)
    mine = place(me)
    for module, ours in imports(path):
        if not ours:
            allowed = module in sys.stdlib_module_names or module in PACKAGES[mine[0]]
            assert allowed, f"{module} is not a package of floor {mine[0]}"
        elif module != me:
            assert place(module) < mine, f"{me} imports {module}"
            assert not (me in APART and module in APART), f"{me} imports its neighbour {module}"


@cache
def called(path: Path) -> frozenset[str]:
    """The last names of all that is called in a module."""
    nodes = ast.walk(ast.parse(path.read_text()))
    calls = (node.func for node in nodes if isinstance(node, ast.Call))
    return frozenset(str(getattr(func, "id", getattr(func, "attr", ""))) for func in calls)


@pytest.mark.parametrize(("receipt", "maker"), RECEIPTS.items())
def test_a_receipt_is_made_in_one_module(receipt: str, maker: str) -> None:
    """What a step returns can only come from that step."""
    made = {str(path.relative_to(HOUSE)) for path in modules() if receipt in called(path)}
    assert made == {maker}


def broad(node: ast.AST) -> bool:
    """Whether it catches everything and lets it end there; one that cleans up and raises again does not."""
    if not isinstance(node, ast.ExceptHandler) or (isinstance(node.body[-1], ast.Raise) and not node.body[-1].exc):
        return False
    kinds = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
    return any(kind is None or getattr(kind, "id", "") in ("Exception", "BaseException") for kind in kinds)


def test_broad_excepts_stand_in_four_places_only() -> None:
    """Every other fault is named, or ends the task loudly."""
    found = [
        str(path.relative_to(HOUSE))
        for path in modules()
        for node in ast.walk(ast.parse(path.read_text()))
        if broad(node)
    ]
    assert set(found) <= {"broker.py", "policy/engine.py", "masking/engine.py", "session.py"}


def test_adapters_never_import_the_broker() -> None:
    """An adapter runs in the agent's process, where nothing of the broker may be."""
    for path in (ROOT / "adapters").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = (
                [a.name for a in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else []
            )
            assert not any(name.split(".")[0] in ("interposer", "mcp") for name in names), path
