"""An installation that every user of the machine can run, and ordinary users to run it.

The suite's own interpreter may stand where others cannot go (below a 0700 home), so this is a copy: of the standard
library, of the packages, by hard links where that is possible, and of the interpreter and the broker as files of their
own, whose modes a test may change. Users are numbers that nobody has. Needs root.
"""

from __future__ import annotations

import compileall
import os
import shutil
import stat
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.needs import missing

ROOT = Path(__file__).parents[2]
ABSENT = {"test", "tests", "idlelib", "tkinter", "lib2to3", "ensurepip", "site-packages", "dist-packages", "turtledemo"}
ABSENT_PACKAGES = (
    "mypy",
    "ruff",
    "hypothesis",
    "pip",
    "langchain",
    "langsmith",
    "setuptools",
    "hatch",
    "pytest",
    "_pytest",
)


@dataclass(frozen=True)
class Person:
    """An ordinary user: a uid and gid without a name, and a folder of its own."""

    uid: int
    home: Path

    def environment(self, **more: str) -> dict[str, str]:
        state = str(self.home / "state")
        return {"PATH": "/usr/bin:/bin", "HOME": str(self.home), "INTERPOSER_HOME": state, **more}

    def popen(
        self, words: Sequence[str], env: Mapping[str, str] | None = None, **options: Any
    ) -> subprocess.Popen[bytes]:
        """A process of this user's, in its folder; standard streams are pipes unless told otherwise."""
        streams: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        chosen = {**streams, "cwd": self.home, **options}
        variables = self.environment() if env is None else dict(env)
        return subprocess.Popen(words, user=self.uid, group=self.uid, extra_groups=[], env=variables, **chosen)

    def run(self, words: Sequence[str], **options: Any) -> subprocess.CompletedProcess[bytes]:
        """The same, to its end."""
        with self.popen(words, **{"stdin": subprocess.DEVNULL, **options}) as process:
            try:
                out, err = process.communicate(timeout=60)
            finally:
                process.kill()
        return subprocess.CompletedProcess(list(words), process.returncode, out, err)

    def file(self, name: str, text: str, mode: int = 0o600) -> Path:
        path = self.home / name
        path.write_text(text)
        path.chmod(mode)
        os.chown(path, self.uid, self.uid)
        return path


@dataclass(frozen=True)
class Installation:
    """`python` runs everywhere, by everybody, with `-I -m interposer` too."""

    root: Path
    python: str
    package: Path
    """The broker's code."""
    upstream: str
    """The scriptable MCP server of tests/fakes."""

    def person(self, number: int = 0) -> Person:
        """One of nine users of this test run."""
        uid = 40000 + os.getpid() % 2500 * 10 + number
        home = self.root / "home" / str(uid)
        if not home.exists():
            home.mkdir(mode=0o700, parents=True)
            os.chown(home, uid, uid)
        return Person(uid, home)

    def forget(self, person: Person) -> None:
        """Remove what a user has."""
        shutil.rmtree(person.home, ignore_errors=True)


@pytest.fixture(scope="session")
def installation() -> Iterator[Installation]:
    if os.geteuid() != 0:
        missing("ordinary users are made of numbers: run as root")
    root = Path(tempfile.mkdtemp(prefix="interposer-", dir=_reachable()))
    try:
        root.chmod(0o755)
        yield _installed(root)
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _reachable() -> str:
    """A folder for temporary files that everybody can pass through."""
    for place in (tempfile.gettempdir(), "/tmp", "/var/tmp"):
        if all(part.stat().st_mode & stat.S_IXOTH for part in (Path(place), *Path(place).parents)):
            return place
    raise AssertionError("there is no temporary folder that other users can reach")


def _installed(root: Path) -> Installation:
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    library = root / "lib" / version
    _linked(Path(sysconfig.get_path("stdlib")), library, ABSENT)
    python = _interpreter(root, version)
    packages = _packages(library, python)
    _linked(Path(sysconfig.get_path("purelib")), packages, {"__editable__"}, ABSENT_PACKAGES)
    shutil.rmtree(packages / "interposer", ignore_errors=True)
    skipped = shutil.ignore_patterns("__pycache__")
    package = Path(shutil.copytree(ROOT / "interposer", packages / "interposer", ignore=skipped))
    compileall.compile_dir(package, quiet=2, workers=1)
    upstream = shutil.copy(ROOT / "tests/fakes/upstream.py", root / "upstream.py")
    for path in (package, *package.rglob("*"), Path(upstream)):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return Installation(root, python, package, str(upstream))


def _packages(library: Path, python: str) -> Path:
    """Where this interpreter looks for packages: Debian's looks in a folder of another name."""
    words = [python, "-I", "-c", "import site; print(*site.getsitepackages(), sep='\\n')"]
    places = subprocess.run(words, capture_output=True, check=True, text=True).stdout.split()
    return next(Path(place) for place in places if Path(place).parent == library)


def _interpreter(root: Path, version: str) -> str:
    (root / "bin").mkdir()
    python = root / "bin" / version
    base = Path(sys._base_executable).resolve()  # type: ignore[attr-defined]
    old = sysconfig.get_config_var("LIBDIR") or ""
    # Where its shared library is looked for, if it has one: beside the copy.
    code = base.read_bytes().replace(old.encode() + b"\0", b"$ORIGIN/../lib".ljust(len(old), b"\0") + b"\0")
    python.write_bytes(code)
    python.chmod(0o755)
    shared = Path(old) / (sysconfig.get_config_var("INSTSONAME") or "")
    if sysconfig.get_config_var("Py_ENABLE_SHARED") and shared.is_file():
        _link(shared, root / "lib" / shared.name)
    (root / "bin" / "python").symlink_to(version)
    return str(root / "bin" / "python")


def _linked(source: Path, target: Path, absent: set[str], starts: tuple[str, ...] = ()) -> None:
    """A copy of a folder that shares its files."""
    for folder, names, files in os.walk(source):
        at_top = Path(folder) == source
        names[:] = [n for n in names if n not in absent and not (at_top and n.startswith(starts or ("\0",)))]
        place = target / Path(folder).relative_to(source)
        place.mkdir(parents=True, exist_ok=True)
        for name in files:
            if not name.endswith(".pth") or not at_top:
                _link(Path(folder) / name, place / name)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copy2(source, target)
