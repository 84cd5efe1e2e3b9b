"""Print what pyproject.toml asks for, resolved, pinned and hashed, with no index named.

    constraints.py            everything that tests need: constraints.txt
    constraints.py runtime    what the broker needs, in the same versions: examples/deploy/requirements.txt
    constraints.py deploy     the linters of examples/deploy: tools/requirements-deploy.txt

Needs pip-tools beside it: `pip install pip-tools`, then `make constraints`.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
BUILD = ["hatchling", "editables"]
QUIET = ["--no-header", "--no-annotate", "--no-emit-index-url", "--no-emit-trusted-host", "--no-emit-find-links"]


def main(which: str = "everything") -> int:
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())
    runtime, groups = wanted["project"]["dependencies"], wanted["dependency-groups"]
    lines = {"everything": [*runtime, *groups["dev"], *BUILD], "runtime": runtime, "deploy": groups["deploy"]}[which]
    same = ["--constraint", str(ROOT / "constraints.txt")] if which == "runtime" else []
    with tempfile.TemporaryDirectory() as folder:
        source, pinned = Path(folder, "in.txt"), Path(folder, "out.txt")
        source.write_text("\n".join(lines) + "\n")
        words = [
            "-m",
            "piptools",
            "compile",
            "--quiet",
            "--generate-hashes",
            "--allow-unsafe",
            "--strip-extras",
            *QUIET,
            *same,
        ]
        done = subprocess.run([sys.executable, *words, "-o", str(pinned), str(source)], stdout=sys.stderr, check=False)
        if done.returncode == 0:
            sys.stdout.write(pinned.read_text())
    return done.returncode


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
