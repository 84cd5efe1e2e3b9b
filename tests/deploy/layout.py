"""The files of examples/deploy in a folder of a test's own: their text, with other paths, ids and interpreters."""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from tests.boundary.installation import Installation, Person
from tests.fakes import canary

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "examples/deploy"
SERVICE = ROOT / "examples/react_service"


@dataclass(frozen=True, slots=True)
class Layout:
    """What root has put in place before the broker starts."""

    root: Path
    etc: Path
    run: Path
    state: Path
    skills: Path
    credential: Path

    @property
    def config(self) -> Path:
        return self.etc / "interposer.yaml"

    @property
    def socket(self) -> Path:
        return self.run / "broker.sock"


def laid_out(kind: str, installation: Installation, broker: Person, changes: dict[str, str]) -> Layout:
    """`kind` is a folder of examples/deploy. `changes` are made to its interposer.yaml before the paths are."""
    root = Path(installation.root, "deployed", f"{kind}-{broker.uid}")
    etc, run, state, skills = (root / name for name in ("etc", "run", "state", "skills"))
    layout = Layout(root, etc, run, state, skills, root / "credentials/skills.credential")
    for folder in (layout.etc, layout.run, layout.credential.parent):
        folder.mkdir(parents=True, mode=0o755)
    for folder in (layout.state, layout.skills):
        folder.mkdir(mode=0o700)
        os.chown(folder, broker.uid, broker.uid)
    service = shutil.copytree(SERVICE, root / "react_service")
    _make_data(installation, broker, service, layout)
    written = (DEPLOY / kind / "interposer.yaml").read_text()
    places = {
        "/run/interposer": layout.run,
        "/var/lib/interposer-skills": layout.skills,
        "/var/lib/interposer": layout.state,
        "/opt/skills/react_service": service,
        "/usr/bin/python3": installation.python,
        "/opt/interposer/bin/python": installation.python,
        "/run/secrets/skills_key": layout.credential,
    }
    for old, new in {**changes, **{old: str(new) for old, new in places.items()}}.items():
        written = written.replace(old, new)
    layout.config.write_text(written)
    shutil.copy(DEPLOY / kind / "policy.yaml", layout.etc)
    for file in layout.etc.iterdir():
        file.chmod(0o644)
    return layout


def _make_data(installation: Installation, broker: Person, service: Path, layout: Layout) -> None:
    """As the README says: the service makes its data as the broker's user; its key goes where only root looks."""
    data = layout.skills / "data"
    made = broker.run([installation.python, "-I", str(service / "service.py"), "init", str(data)])
    assert made.returncode == 0, made.stderr.decode()
    (data / "service.key").unlink()
    # The run's own canary is the key, so that a leak would be found in what the suite leaves behind.
    key = canary.credential_file(layout.credential.parent, "skills")
    (data / "key.sha256").chmod(0o600)
    (data / "key.sha256").write_text(hashlib.sha256(key.read_bytes()).hexdigest())
