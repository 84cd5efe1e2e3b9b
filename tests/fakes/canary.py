"""One secret for a whole run of the suite, that brokers hold in custody and that must turn up nowhere else.

Every credential made here contains it. `.ci/run` names a file with it by INTERPOSER_CANARY_FILE and searches all that
the run left behind (tools/canary.py); without one, each run makes up its own. It is never in anybody's environment.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import tools.canary

_chosen: list[str] = []


def marker() -> str:
    """What all credentials of this run have in common; the same in every worker process."""
    if not _chosen:
        file = os.environ.get("INTERPOSER_CANARY_FILE")
        _chosen.append(Path(file).read_text().strip() if file else tools.canary.fresh())
    return _chosen[0]


def agree(upon: str) -> None:
    """Take the marker of the process that started this one."""
    _chosen[:] = [upon]


def canary(label: str) -> str:
    """A credential of its own for each label (lower-case letters and digits, `-` between)."""
    if re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", label) is None:
        raise ValueError(f"not a label: {label!r}")
    return f"{marker()}-{label}"


def credential_file(folder: Path, label: str, content: str | None = None) -> Path:
    """A file of mode 0400 with such a credential, by its name known to the search as one that may hold it."""
    file = folder / f"{label}.credential"
    file.unlink(missing_ok=True)
    file.write_text(canary(label) if content is None else content)
    file.chmod(0o400)
    return file


def require_absent(content: bytes | bytearray, where: str) -> None:
    """Raises `AssertionError`, which does not show it, when the canary is in there in any encoding."""
    found = tools.canary.encodings_in(content, marker())
    if found:
        raise AssertionError(f"the canary is in {where}: {', '.join(found)}")


def require_clean(folder: Path) -> None:
    """Raises `AssertionError` when a file below holds the canary without being meant to: for a folder that a test
    removes before the run is searched."""
    search = tools.canary.Search(marker())
    search.below(folder)
    if search.places:
        raise AssertionError(f"the canary is in {', '.join(search.places)}")
