"""What the broker stands on: whoever else could change it keeps it from starting, and is named."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from interposer.boundary import footing
from interposer.errors import Unsafe
from interposer.settings import settings
from interposer.standing import StandingPolicy
from tests.boundary import brokers
from tests.boundary.installation import Installation, Person
from tests.e2e.needs import missing

STRANGER = 64321
"""A uid and gid of nobody's."""
MORE = """revoked: revoked.yaml
issuers: [{issuer: "https://id.example.org", audience: interposer, keys: {file: keys.json}}]
listen: {socket: {path: run/agents.sock}}
console:
  enabled: true
  login: {issuer: "https://login.example.org", client_id: console, keys: {file: login.json}}
"""
KEPT = ("revoked.yaml", "keys.json", "login.json")
"""What it names."""
Place = Callable[[Installation, Person], Path]
PLACES: dict[str, Place] = {
    "configuration": lambda _, person: person.home / "interposer.yaml",
    "policy": lambda _, person: person.home / "policy.yaml",
    "deny list": lambda _, person: person.home / "revoked.yaml",
    "keys of an issuer": lambda _, person: person.home / "keys.json",
    "keys of the login": lambda _, person: person.home / "login.json",
    "credential": lambda _, person: person.home / "credential",
    "folder of the configuration": lambda _, person: person.home,
    "state": lambda _, person: person.home / "state",
    "record": lambda _, person: person.home / "state/record.db",
    "pins": lambda _, person: person.home / "state/pins",
    "folder of the socket": lambda _, person: person.home / "run",
    "interpreter": lambda found, _: Path(found.python).resolve(),
    "folder of the interpreter": lambda found, _: Path(found.python).parent,
    "module path": lambda found, _: found.package.parent,
    "folder above everything": lambda found, _: found.root,
    "package": lambda found, _: found.package,
    "module": lambda found, _: found.package / "broker.py",
    "module in a folder": lambda found, _: found.package / "policy" / "engine.py",
    "compiled module": lambda found, _: next((found.package / "__pycache__").iterdir()),
    "dependency": lambda found, _: found.package.parent / "anyio",
    "module of a dependency": lambda found, _: own(found.package.parent / "anyio" / "__init__.py"),
    "module that is not loaded yet": lambda found, _: own(found.package.parent / "sqlite_utils" / "db.py"),
    "folder of compiled modules": lambda found, _: found.package / "upstreams" / "__pycache__",
}


def own(path: Path) -> Path:
    """The same file, no longer shared with the suite's own packages."""
    kept = path.read_bytes()
    path.unlink()
    path.write_bytes(kept)
    return path


@pytest.fixture
def person(installation: Installation) -> Iterator[Person]:
    """With everything that a broker can be told to stand on."""
    person = installation.person(4)
    brokers.configured(installation, person, "x" * 20, MORE)
    person.file("revoked.yaml", "version: 1\n")
    person.file("keys.json", '{"keys": []}')
    person.file("login.json", '{"keys": []}')
    for name in ("state", "state/pins", "run"):
        (person.home / name).mkdir(mode=0o700)
        os.chown(person.home / name, person.uid, person.uid)
    person.file("state/record.db", "", 0o600)
    yield person
    installation.forget(person)


@pytest.mark.parametrize("place", PLACES)
def test_a_place_that_others_can_change_is_refused(installation: Installation, person: Person, place: str) -> None:
    """Writable by a group, by everybody, or somebody else's: the broker does not start, and says which place it is and
    which command mends it."""
    path = PLACES[place](installation, person)
    before = path.stat()
    words = [installation.python, "-I", "-m", "interposer", "serve", "--config", str(person.home / "interposer.yaml")]
    try:
        ways = (
            (0o020, before.st_uid, STRANGER, f"chmod g-w {path}"),
            (0o002, before.st_uid, before.st_gid, f"chmod o-w {path}"),
            (0o000, STRANGER, before.st_gid, f"chown {person.uid} {path}"),
        )
        # Every place in one of the ways, and some in all.
        number = list(PLACES).index(place)
        for mode, owner, group, command in ways if number % 6 == 0 else ways[number % 3 :][:1]:
            os.chown(path, owner, group)
            # What others own they must let us in to for us to see it.
            path.chmod(before.st_mode & 0o7777 | mode | (0o055 if owner == STRANGER else 0))
            done = person.run(words)
            assert (done.returncode, done.stdout) == (78, b"")
            assert [line for line in done.stderr.decode().splitlines() if line.endswith(f": {command}")], done.stderr
    finally:
        os.chown(path, before.st_uid, before.st_gid)
        path.chmod(before.st_mode & 0o7777)


def test_everything_that_is_amiss_is_named_at_once(installation: Installation, person: Person) -> None:
    """One start tells all; and each place once, however many files it is on the way to."""
    amiss = [
        PLACES[name](installation, person) for name in ("configuration", "policy", "credential", "state", "module")
    ]
    before = [path.stat().st_mode & 0o7777 for path in amiss]
    try:
        for path in amiss:
            path.chmod(0o777)
        words = [installation.python, "-I", "-m", "interposer", "stdio", "--config", str(amiss[0])]
        said = person.run(words).stderr.decode().splitlines()
    finally:
        for path, mode in zip(amiss, before, strict=True):
            path.chmod(mode)
    assert sorted(line.rpartition(" ")[2] for line in said) == sorted(map(str, amiss))


def test_root_does_not_run_the_code_of_others(tmp_path: Path) -> None:
    """Whoever owns a file that root stands on would be root."""
    if os.geteuid() != 0:
        missing("needs root to give a file away")
    file = tmp_path / "file"
    file.write_text("x")
    os.chown(file, STRANGER, STRANGER)
    with pytest.raises(Unsafe, match=f"belongs to uid {STRANGER}: .*chown 0 "):
        footing.require_firm([str(file)])
    assert Unsafe.exit_code == 78


def test_a_folder_that_is_only_passed_may_be_sticky(tmp_path: Path) -> None:
    """A socket in /tmp is safe from everybody but root; a folder of files of ours that others can add to is not."""
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o1777)
    shared = str(tmp_path / "shared")
    assert footing.faults([shared], passed=True) == []
    assert footing.faults([f"{shared}/absent"], passed=True) == []
    assert len(footing.faults([shared, f"{shared}/absent"])) == 2


def test_everything_that_code_comes_from_is_looked_at(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The interpreter, its environment, the linker's path, the module path, and the package file by file."""
    monkeypatch.setenv("LD_LIBRARY_PATH", f"{tmp_path}:")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "absent"), str(tmp_path)])
    found = list(footing.code())
    assert {sys.executable, str(tmp_path), ".", footing.PACKAGE} < set(found)
    assert str(tmp_path / "absent") not in found
    (tmp_path / "below").mkdir()
    (tmp_path / "one.py").touch()
    (tmp_path / "one.py").chmod(0o666)
    (tmp_path / "below" / "two.pyc").touch()
    (tmp_path / "below" / "two.pyc").chmod(0o606)
    (tmp_path / "three.py").symlink_to("one.py")
    monkeypatch.setattr(footing, "PACKAGE", str(tmp_path))
    amiss = {str(tmp_path / name) for name in ("one.py", "below/two.pyc", "three.py")}
    assert {path for path, _ in footing.beneath(footing.PACKAGE)} == amiss


def test_what_a_configuration_names_is_looked_at(tmp_path: Path) -> None:
    """Files and folders are found from the configuration's own folder; what is not there yet counts as well."""
    (tmp_path / "interposer.yaml").write_text(f"version: 1\npolicy: p.yaml\nstate: s\n{MORE}")
    chosen = settings(str(tmp_path / "interposer.yaml"), None, ["true"])
    names = {str(tmp_path / name) for name in ("interposer.yaml", "p.yaml", *KEPT)}
    assert set(chosen.stands_on()) == names
    assert set(chosen.passes()) == {str(tmp_path / "s"), str(tmp_path / "run")}
    (tmp_path / "s").mkdir()
    assert {str(tmp_path / "s"), str(tmp_path / "s" / "record.db")} < set(chosen.stands_on())


async def test_a_policy_that_others_can_write_is_not_taken(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A reload looks again: the old policy stands, and the log says why."""
    path = tmp_path / "policy.yaml"
    path.write_text(brokers.ALLOW_ALL)
    path.chmod(0o600)
    standing = StandingPolicy(str(path))
    before = standing.current
    path.write_text("version: 1\nrules: []\n")
    path.chmod(0o602)
    await standing.try_reload()
    assert standing.current is before
    assert f"chmod o-w {path}" in caplog.text
    path.chmod(0o600)
    await standing.try_reload()
    assert standing.current is not before
