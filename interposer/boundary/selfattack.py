"""The proof of a boundary: a broker is attacked with the identity of those it must hold against, and the level that is
proven follows from what came of it, never from reasoning about the deployment.

What was not tried proves nothing, and an empty list of attacks proves nothing.
"""

from __future__ import annotations

import errno
import json
import os
import pwd
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from interposer.errors import InterposerError
from interposer.model import JsonObject

from .targets import BROKER, UPSTREAM

LEVELS = ("L1", "L2", "L4", "L5")
"""Weakest first. L3 (a setgid launcher) is not offered."""
SAID = {
    "L1": "a soft gate: it stops a misled model, not hostile code that runs with the broker's uid",
    "L2": "a kernel sandbox around the agent",
    "L4": "an OS user boundary",
    "L5": "a host boundary",
}
OTHER_HOST = "L5 is a matter of another host: what is proven here is proven on this one"

_PARTS = ("process_attacks.py", "attack.py")
_JOINTS = re.compile(r"^from (?:__future__|\.\w+) import (?:\([^)]*\)|.+)\n", re.M)
"""What makes two modules of the thief's parts, and is not wanted where they are one text."""
_ATTACK_S = 120.0
_OWN_USER = (
    "run the broker as a user of its own (`interposer serve`; the agent uses `interposer connect`), or start "
    "the agent by `interposer run -- …`"
)
_REMEDIES = {
    "read-file": "make it readable by the broker's own user only (chmod 0400, directory 0700)",
    "write-file": "let only root or the broker's own user write to it (chown, chmod go-w)",
    "replace-file": "let only root or the broker's own user write to the directories above it",
    "operate": "keep admin.key readable by operators only, and the agent away from the state folder",
    "become": "take this user out of the group that may do so (docker, lxd, sudo), or out of sudoers",
    "core": "set the limit for core files to 0 (systemd: LimitCORE=0)",
}


_NOTHING_THERE = (os.strerror(errno.ENOENT), os.strerror(errno.ECONNREFUSED))


class NotTried(InterposerError):
    """The attack could not be made at all."""


@dataclass(frozen=True, slots=True)
class Attacker:
    """Who attacks."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()
    confined: bool = False
    """Inside the sandbox of `interposer run`."""

    def __str__(self) -> str:
        return f"uid {self.uid}" + (", inside the sandbox" if self.confined else "")


@dataclass(frozen=True, slots=True)
class Finding:
    """What came of one attack."""

    id: str
    target: str
    held: bool | None
    """None where it could not be tried."""
    how: str

    def remedy(self, same_user: bool) -> str:
        """What to change when it did not hold."""
        found = _REMEDIES.get(self.id)
        return found if found and (not same_user or self.id == "become") else _OWN_USER


@dataclass(frozen=True, slots=True)
class Verdict:
    """Which level the findings prove."""

    level: str
    why: str
    broken: tuple[Finding, ...] = ()
    untried: tuple[Finding, ...] = ()
    same_user: bool = True
    """Whether the attacker had the broker's uid."""

    def covers(self, claim: str) -> bool:
        return LEVELS.index(self.level) >= LEVELS.index(claim)


def verdict(findings: Sequence[Finding], attacker: Attacker, broker_uid: int) -> Verdict:
    """The level that one attacker's findings prove."""
    broken = tuple(finding for finding in findings if finding.held is False)
    untried = tuple(finding for finding in findings if finding.held is None and _counts(finding))
    same = attacker.uid == broker_uid
    if broken:
        return Verdict("L1", f"{len(broken)} of {len(findings)} attacks succeeded as {attacker}", broken, untried, same)
    if untried:
        return Verdict("L1", f"{len(untried)} attacks could not be tried as {attacker}", broken, untried, same)
    if not any(finding.held and _is_on(finding, BROKER) for finding in findings):
        return Verdict("L1", "no attack on the broker's process was tried", broken, untried, same)
    inside = any(finding.held and finding.id == "sandbox" for finding in findings)
    if not same and attacker.uid != 0 and not attacker.confined and not inside:
        return Verdict("L4", f"{len(findings)} attacks as another user ({attacker}) got nothing", same_user=False)
    if inside and any(finding.held and finding.id == "signal" and _is_on(finding, BROKER) for finding in findings):
        # The thief saw the sandbox around it at work; whether we meant to put it there does not matter.
        return Verdict(
            "L2", f"{len(findings)} attacks as {attacker}, from inside a sandbox, got nothing", same_user=same
        )
    if attacker.confined:
        return Verdict("L1", "the attacker did not see the sandbox around itself at work", same_user=same)
    return Verdict("L1", "nothing stands between the broker and other programs of its own user")


def weakest(verdicts: Sequence[Verdict]) -> Verdict:
    """A boundary is as good as it is against the worst of them."""
    if not verdicts:
        return Verdict("L1", "nobody attacked")
    return min(verdicts, key=lambda each: LEVELS.index(each.level))


def _counts(finding: Finding) -> bool:
    """A file that is not there, or an upstream that ended meanwhile, is nothing to hold; a broker's process is."""
    on_place = finding.id in ("read-file", "write-file", "replace-file", "operate")
    return finding.how not in _NOTHING_THERE if on_place else not _is_on(finding, UPSTREAM)


def _is_on(finding: Finding, role: str) -> bool:
    return finding.target.split(" ")[0] == role


def user(named: str, *, socket: str | None = None) -> Attacker:
    """The attacker of a user's name or uid, with the groups he has; a uid without a name gets the group that the
    agents' socket is open to. Raises `NotTried`."""
    try:
        found = pwd.getpwuid(int(named)) if named.isdigit() else pwd.getpwnam(named)
    except KeyError:
        if not named.isdigit():
            raise NotTried(f"there is no user {named!r}") from None
        return Attacker(int(named), int(named), _socket_group(socket))
    groups = os.getgrouplist(found.pw_name, found.pw_gid)
    return Attacker(found.pw_uid, found.pw_gid, tuple(sorted(set(groups))))


def myself(*, confined: bool = False) -> Attacker:
    return Attacker(os.geteuid(), os.getegid(), tuple(os.getgroups()), confined)


def _socket_group(path: str | None) -> tuple[int, ...]:
    try:
        gid = os.stat(path).st_gid if path else 0
    except OSError:
        return ()
    return (gid,) if gid else ()


def attack(job: JsonObject, attacker: Attacker, *, enter: Callable[[], None] | None = None) -> list[Finding]:
    """Run the thief as the attacker; `enter` puts it into the sandbox, between fork and exec. Raises `NotTried`."""
    if attacker.confined != (enter is not None):
        raise NotTried(f"{attacker}: the sandbox and the claim to be in it go together")
    said: list[str] = []
    for python in _interpreters():
        found = _run(python, job, attacker, enter, said)
        if found is not None:
            return found
    raise NotTried(f"no Python runs as {attacker}; install one that it can reach. {'; '.join(said)}")


def thief_text() -> str:
    """The thief as one text for `python -c`: it needs no file that it could not read."""
    texts = [Path(__file__).with_name(part).read_text(encoding="utf-8") for part in _PARTS]
    return "\n".join(["from __future__ import annotations", *(_JOINTS.sub("", text) for text in texts)])


def _interpreters() -> list[str]:
    """Ours may lie where another user cannot reach it. The thief is as good with an older one."""
    wanted = [sys.executable, os.path.realpath(sys.executable), "/usr/bin/python3", "/usr/local/bin/python3"]
    return [path for path in dict.fromkeys(wanted) if path and os.path.exists(path)]


def _run(
    python: str, job: JsonObject, attacker: Attacker, enter: Callable[[], None] | None, said: list[str]
) -> list[Finding] | None:
    other = attacker.uid != os.geteuid()
    try:
        # As text: another user may not be able to read the file. Its environment is empty and so are its descriptors.
        done = subprocess.run(  # noqa: S603  our own text and no shell
            [python, "-I", "-S", "-c", thief_text()],
            input=json.dumps(job),
            capture_output=True,
            text=True,
            cwd="/",
            env={"PATH": os.defpath},
            timeout=_ATTACK_S,
            check=False,
            preexec_fn=enter,
            user=attacker.uid if other else None,
            group=attacker.gid if other else None,
            extra_groups=list(attacker.groups) if other else None,
        )
        return [Finding(str(f["id"]), str(f["target"]), f["held"], str(f["how"])) for f in json.loads(done.stdout)]
    except subprocess.TimeoutExpired:
        raise NotTried(f"the attack as {attacker} did not end within {_ATTACK_S:.0f} s") from None
    except (OSError, subprocess.SubprocessError) as error:
        said.append(f"{python}: {error}")
    except ValueError:
        said.append(f"{python}: {(done.stderr.strip().splitlines() or ['no answer'])[-1]}")
    return None
