"""The container example: what its files say of the boundary, and the same boundary made without Docker."""

from __future__ import annotations

import grp
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from interposer import checked, config
from interposer.policy.strict_yaml import read as read_yaml
from tests.boundary.installation import Installation, Person, installation
from tests.e2e.needs import missing
from tests.fakes import canary

from .conversation import DEADLINE_S, Conversation, connect, until_ready
from .layout import DEPLOY, Layout, laid_out

__all__ = ["installation"]

FOLDER = DEPLOY / "container"
BROKER, AGENT, AGENTS = "10001", "10002", "10003"
IN_A_BOX = 'mount --bind "$1" "$2" && mount -o remount,bind,ro "$2" && shift 2 && exec "$@"'
"""A container's view: processes of its own, and the socket's folder through a mount that is read-only."""

Object = dict[str, Any]


@pytest.fixture(scope="module")
def compose() -> Object:
    root, problems = read_yaml((FOLDER / "compose.yaml").read_text(), "compose.yaml")
    assert not problems
    assert root is not None
    plain: Object = root.plain()
    return plain


def mounts(service: Object) -> dict[str, Object]:
    return {mount["target"]: mount for mount in service["volumes"]}


def test_every_container_has_no_rights_but_those_it_needs(compose: Object) -> None:
    """No capability, no new privileges, no namespace of another one's processes, no socket of the container engine;
    broker and agent have ids of their own, and root file systems that are not written to."""
    for name, service in compose["services"].items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert not {"privileged", "cap_add", "pid", "ipc", "uts", "userns_mode", "devices"} & service.keys()
        assert all("docker.sock" not in mount.get("source", "") for mount in service["volumes"])
    broker, agent = compose["services"]["broker"], compose["services"]["agent"]
    assert (broker["user"], agent["user"]) == (f"{BROKER}:{BROKER}", f"{AGENT}:{AGENT}")
    assert broker["read_only"]
    assert agent["read_only"]


def test_an_agent_shares_nothing_with_the_broker_but_the_socket(compose: Object) -> None:
    """One volume, read-only on the agent's side; no network, no secret and no state in common, and no way out."""
    broker, agent = compose["services"]["broker"], compose["services"]["agent"]
    shared = {mount["source"] for mount in broker["volumes"]} & {mount["source"] for mount in agent["volumes"]}
    assert shared == {"socket"}
    assert mounts(agent)["/run/interposer"]["read_only"] is True
    assert not set(broker["secrets"]) & set(agent["secrets"])
    assert "network_mode" not in agent
    assert agent["networks"] == ["agents"]
    assert compose["networks"]["agents"] == {"internal": True}
    assert not any("agents" in other.get("networks", []) for other in (broker, compose["services"]["idp"]))


def test_the_files_agree_with_each_other(compose: Object) -> None:
    """Socket, ids, secrets and state are the same in compose.yaml, Dockerfile and interposer.yaml."""
    broker, agent = compose["services"]["broker"], compose["services"]["agent"]
    read = config.load(FOLDER / "interposer.yaml")
    dockerfile = (FOLDER / "Dockerfile").read_text()
    socket = read.listen.socket
    assert socket.path is not None
    assert str(Path(socket.path).parent) in mounts(broker)
    assert socket.uids == [int(BROKER), int(AGENT)]
    assert broker["group_add"] == agent["group_add"] == [AGENTS]
    assert f'"groupadd", "--gid", "{AGENTS}", "{socket.group}"' in dockerfile
    assert f'"-o", "{BROKER}", "-g", "{AGENTS}", "-m", "0750", "/run/interposer"' in dockerfile
    assert f'"-o", "{BROKER}", "-g", "{BROKER}", "-m", "0700", "{read.state}"' in dockerfile
    assert f"USER {BROKER}:{BROKER}" in dockerfile
    assert read.state in mounts(broker)
    sources = {one.credential.source for one in read.upstreams.values() if one.credential}
    assert sources == {f"file:/run/secrets/{name}" for name in broker["secrets"]}
    assert [operator.uid for operator in read.operators] == [int(BROKER)]


def test_the_image_runs_what_root_owns_and_no_shell() -> None:
    """Every command is a list of words, packages come by their hashes, and the last stage has them from root."""
    lines = (FOLDER / "Dockerfile").read_text().splitlines()
    for line in lines:
        if re.match(r"RUN|CMD|ENTRYPOINT|HEALTHCHECK", line):
            json.loads(line[line.index("[") :])
    installs = [line for line in lines if '"install", "--no-cache-dir"' in line]
    assert all("--require-hashes" in line or "--no-index" in line for line in installs)
    last = lines[max(number for number, line in enumerate(lines) if line.startswith("FROM")) :]
    assert all("--chown=0:0" in line for line in last if line.startswith("COPY"))


def test_the_realm_makes_tokens_that_the_broker_takes(compose: Object) -> None:
    """Issuer, audience, authorised party, claim of groups and lifetime are the same on both sides."""
    realm = json.loads((FOLDER / "realm/acme.json").read_text())
    [issuer] = config.load(FOLDER / "interposer.yaml").issuers
    [client] = realm["clients"]
    idp = compose["services"]["idp"]
    assert issuer.issuer == f"{idp['environment']['KC_HOSTNAME']}/realms/{realm['realm']}"
    assert compose["services"]["broker"]["network_mode"] == "service:idp"
    mappers = {mapper["protocolMapper"]: mapper["config"] for mapper in client["protocolMappers"]}
    audience = mappers["oidc-audience-mapper"]
    assert (audience["included.custom.audience"], audience["access.token.claim"]) == (issuer.audience, "true")
    groups = mappers["oidc-group-membership-mapper"]
    assert [one.claim for one in issuer.groups] == [groups["claim.name"]]
    assert (groups["full.path"], groups["access.token.claim"]) == ("false", "true")
    assert issuer.authorized_parties == [client["clientId"]]
    assert issuer.algorithms == [realm["defaultSignatureAlgorithm"]]
    assert realm["accessTokenLifespan"] <= checked.duration_s(issuer.max_lifetime)
    [account] = realm["users"]
    assert account["serviceAccountClientId"] == client["clientId"]
    policy = (FOLDER / "policy.yaml").read_text()
    assert all(f"groups: [{group.strip('/')}]" in policy for group in account["groups"])


@contextmanager
def started(layout: Layout, installation: Installation, broker: Person, gid: int) -> Iterator[None]:
    """The broker as the container's entry point starts it, with the socket's group beside its own."""
    words = [installation.python, "-I", "-m", "interposer", "serve", "--config", str(layout.config)]
    with (layout.root / "log").open("wb") as log:
        process = subprocess.Popen(
            words,
            user=broker.uid,
            group=broker.uid,
            extra_groups=[gid],
            env={"PATH": "/usr/bin:/bin", "INTERPOSER_HOME": str(layout.state), "PYTHONDONTWRITEBYTECODE": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            cwd=layout.state,
            bufsize=0,
        )
    try:
        until_ready(process, layout.root / "log")
        yield
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE_S) == 0, (layout.root / "log").read_text()
    finally:
        process.kill()
        process.communicate()
        canary.require_absent((layout.root / "log").read_bytes(), "the broker's log")


def boxed(layout: Layout, agent: Person, gid: int, words: list[str], **env: str) -> subprocess.Popen[bytes]:
    """A process of the agent's, with the socket's group, where it sees its own processes and a read-only folder."""
    for program in ("unshare", "setpriv", "mount"):
        if shutil.which(program) is None:
            missing(f"{program} is not installed: apt-get install util-linux mount")
    inside = layout.root / "seen"
    inside.mkdir(exist_ok=True)
    user = ["setpriv", f"--reuid={agent.uid}", f"--regid={agent.uid}", f"--groups={gid}", "--no-new-privs"]
    box = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    return subprocess.Popen(
        [*box, "sh", "-c", IN_A_BOX, "box", str(layout.run), str(inside), *user, "--bounding-set=-all", *words],
        env=agent.environment(PATH="/usr/sbin:/usr/bin:/sbin:/bin", **env),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd="/",
        bufsize=0,
    )


def signed(layout: Layout, issuer: str, agent: Person) -> Path:
    """A token as the realm's mappers make it, in a file of the agent's; its key goes to the broker's configuration."""
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(private.public_key()))
    (layout.etc / "jwks.json").write_text(json.dumps({"keys": [{**public, "kid": "k1", "use": "sig", "alg": "RS256"}]}))
    now = int(time.time())
    claims = {
        "iss": issuer,
        "aud": "interposer",
        "azp": "support-agent",
        "sub": "0d5a3c1e-service-account",
        "typ": "Bearer",
        "jti": "one",
        "iat": now,
        "exp": now + 300,
        "groups": ["support"],
    }
    return agent.file("token", jwt.encode(claims, private, "RS256", headers={"kid": "k1"}), 0o400)


def test_the_containers_boundary_holds(installation: Installation) -> None:
    """Through a read-only mount, with processes of its own, an agent gets what its token allows; it cannot put another
    socket in place, see the broker's processes or read its files; and without a token it gets nothing."""
    broker, agent = installation.person(4), installation.person(5)
    group = next(one for one in grp.getgrall() if one.gr_gid not in (0, broker.uid, agent.uid))
    changes = {
        "group: interposer-agents": f"group: {group.gr_name}",
        f"[{BROKER}, {AGENT}]": f"[{broker.uid}, {agent.uid}]",
        "audience: interposer": "audience: interposer\n    keys: {file: jwks.json}",
    }
    layout = laid_out("container", installation, broker, changes)
    os.chown(layout.run, broker.uid, group.gr_gid)
    layout.run.chmod(0o750)
    # Docker mounts a secret as it is on the machine: there it belongs to the broker's uid.
    os.chown(layout.credential, broker.uid, broker.uid)
    token = signed(layout, config.load(layout.config).issuers[0].issuer, agent)
    seen = layout.root / "seen/broker.sock"
    words = list(connect(installation.python, seen))
    with started(layout, installation, broker, group.gr_gid):
        socket = layout.socket.stat()
        assert (socket.st_uid, socket.st_gid, socket.st_mode & 0o777) == (broker.uid, group.gr_gid, 0o660)
        with Conversation(boxed(layout, agent, group.gr_gid, words, INTERPOSER_TOKEN_FILE=str(token))) as talk:
            talk.open()
            answer = talk.call("get_customer", id="C-1001")
            assert "[REDACTED:" in answer["result"]["content"][0]["text"], answer
            canary.require_absent(talk.raw, "what the agent was sent")
        with Conversation(boxed(layout, agent, group.gr_gid, words)) as talk:
            assert "result" not in talk.call("get_customer", id="C-1001")
        health = broker.run(list(connect(installation.python, layout.socket)))
        assert health.returncode == 0, health.stderr
        doctor = ["doctor", "--config", str(layout.config), "--as", str(agent.uid), "--claim", "L4"]
        env = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent"}
        proved = subprocess.run(
            [installation.python, "-I", "-m", "interposer", *doctor], capture_output=True, timeout=120, cwd="/", env=env
        )
        assert proved.returncode == 0, (proved.stdout + proved.stderr).decode()
        attempts = (
            ["rm", "-f", str(seen)],
            ["mv", str(seen), str(seen) + "2"],
            ["touch", str(seen.parent / "x")],
            ["ls", str(layout.state)],
            ["cat", str(layout.credential)],
            ["sh", "-c", 'test "$(ls -d /proc/[0-9]* | wc -l)" -gt 8'],
        )
        for attempt in attempts:
            process = boxed(layout, agent, group.gr_gid, attempt)
            process.communicate(timeout=DEADLINE_S)
            assert process.returncode != 0, attempt
    canary.require_clean(layout.state)
    shutil.rmtree(layout.root)
