"""What the configuration says of callers is what they are held to."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from interposer import config, parts
from interposer.callers.everyone import Everyone
from interposer.callers.keyfile import FileKeys
from interposer.errors import ConfigurationError, Unauthenticated
from interposer.identity.trust import GroupsFrom, Trust
from interposer.model import Caller, Principal
from interposer.settings import Settings
from tests.fakes.house import HandClock
from tests.fakes.issuer import Provider


def settings(folder: Path, text: str) -> Settings:
    path = folder / "interposer.yaml"
    path.write_text(text)
    return Settings(config.load(path), folder, config.STARTER, folder)


def everyone(folder: Path, text: str, clock: HandClock) -> Everyone:
    return parts.callers(settings(folder, text), clock)


async def test_all_kinds_of_callers_are_put_together(idp: Provider, clock: HandClock, tmp_path: Path) -> None:
    """Uids, gids, tokens of an issuer and the deny list, as the file says; paths are relative to it."""
    (tmp_path / "revoked.yaml").write_text("version: 1\nrevoked: [{subject: mallory}]\n")
    text = f"""\
version: 1
issuers:
  - {{issuer: "{idp.url}", audience: interposer, algorithms: [ES256], machine: true}}
callers:
  - {{uid: 1000, subject: ann, groups: [support]}}
  - {{gid: 100, groups: [staff]}}
revoked: revoked.yaml
"""
    who = everyone(tmp_path, text, clock)
    ann = Principal("local", "ann", ("support", "staff"), uid=1000)
    assert await who.authenticate(Caller("unix", uid=1000, gid=100)) == ann
    found = await who.authenticate(Caller("tcp", token=idp.token(clock.now(), groups=["a"])))
    assert found == Principal(idp.url, "alice", ("a",), machine=True)
    for nobody in (Caller("unix", uid=7), Caller("tcp", token=idp.token(clock.now(), sub="mallory"))):
        with pytest.raises(Unauthenticated):
            await who.authenticate(nobody)


async def test_keys_may_be_configured(idp: Provider, clock: HandClock, tmp_path: Path) -> None:
    """A JWKS at an address or in a file takes the place of discovery."""
    jwks = idp.url.removesuffix("/realms/acme") + "/realms/acme/keys"
    issuer = f'issuer: "{idp.url}", audience: interposer, algorithms: [ES256]'
    who = everyone(tmp_path, f'version: 1\nissuers: [{{{issuer}, keys: {{uri: "{jwks}"}}}}]\n', clock)
    token = Caller("tcp", token=idp.token(clock.now()))
    assert (await who.authenticate(token)).subject == "alice"
    assert set(idp.hits) == {"/realms/acme/keys"}
    (tmp_path / "keys.json").write_text('{"keys": []}')
    with pytest.raises(ConfigurationError, match=r"keys\.json"):
        everyone(tmp_path, f"version: 1\nissuers: [{{{issuer}, keys: {{file: keys.json}}}}]\n", clock)


async def test_a_key_file_needs_no_network(idp: Provider, clock: HandClock, tmp_path: Path) -> None:
    """An issuer with a file is never asked."""
    (tmp_path / "keys.json").write_text(json.dumps({"keys": [idp.keys[0].jwk()]}))
    assert FileKeys(str(tmp_path / "keys.json"), clock).current() is not None
    issuer = f'issuer: "{idp.url}", audience: interposer, algorithms: [ES256]'
    who = everyone(tmp_path, f"version: 1\nissuers: [{{{issuer}, keys: {{file: keys.json}}}}]\n", clock)
    assert (await who.authenticate(Caller("tcp", token=idp.token(clock.now())))).subject == "alice"
    assert not idp.hits


def test_an_issuer_is_trusted_as_far_as_its_entry_says(tmp_path: Path) -> None:
    """Every member of an entry arrives in what its tokens are held to."""
    text = """\
version: 1
issuers:
  - issuer: https://idp.example/realms/acme
    audience: [interposer, other]
    algorithms: [EdDSA]
    authorized_parties: [desk]
    subject: preferred_username
    groups:
      - {claim: realm_access.roles, prefix: "role:"}
      - {claim: ["https://acme.example/team"], shape: one}
      - {claim: scope, shape: words}
    require:
      - {claim: email_verified, values: [true]}
      - {claim: ["kubernetes.io", namespace], values: [ci, 7]}
    leeway: 5s
    max_lifetime: 1h
    id_tokens: true
    machine: true
  - {issuer: "https://two.example", audience: a}
"""
    one, two = map(parts.trust_of, settings(tmp_path, text).config.issuers)
    assert one == Trust(
        "https://idp.example/realms/acme",
        frozenset({"interposer", "other"}),
        frozenset({"EdDSA"}),
        frozenset({"desk"}),
        subject=("preferred_username",),
        groups=(
            GroupsFrom(("realm_access", "roles"), "list", "role:"),
            GroupsFrom(("https://acme.example/team",), "one"),
            GroupsFrom(("scope",), "words"),
        ),
        claims=((("email_verified",), (True,)), (("kubernetes.io", "namespace"), ("ci", 7))),
        leeway_s=5.0,
        max_lifetime_s=3600.0,
        id_tokens=True,
        machine=True,
    )
    assert two == Trust("https://two.example", frozenset({"a"}))


def test_without_issuers_nothing_heavy_is_loaded() -> None:
    """A broker that takes no tokens starts without cryptography and without an HTTP client."""
    heavy = {"jwt", "cryptography", "httpx2"}
    code = (
        "import sys; from pathlib import Path; from interposer import parts, config; "
        "from interposer.settings import Settings; "
        "parts.callers(Settings(config.Config(version=1), Path('.'), config.STARTER, Path('.'))); "
        f"print(sorted({heavy!r} & sys.modules.keys()))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert said.stdout.strip() == "[]"
