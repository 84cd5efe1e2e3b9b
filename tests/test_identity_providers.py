"""docs/how-to/identity-providers.md: what it shows is read, and fits the tokens that those providers make."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from interposer import config, parts
from interposer.callers.revocation import deny_list
from interposer.config import IssuerConfig
from interposer.errors import Unauthenticated
from interposer.identity.keys import read_keys
from interposer.identity.verify import issuer_of, verify
from interposer.model import Effect, Facts, Principal, Skill
from interposer.policy import engine
from tests.fakes.issuer import SigningKey

PAGE = Path(__file__).parents[1] / "docs/how-to/identity-providers.md"
NOW = 1_700_000_000
TIMES = {"iat": NOW, "exp": NOW + 600}
TENANT = "72f0c0de-0000-4000-8000-0000000acce1"
GROUP = "6f2b1c1e-9d3f-4c55-8f0a-2f6f2a0c9b11"
KEY = SigningKey("k1")


def blocks() -> dict[str, str]:
    """Heading -> the YAML below it, in order."""
    found: dict[str, str] = {}
    heading = ""
    for title, block in re.findall(r"(?m)^#+ (.+)$|^```yaml\n((?s:.*?))^```$", PAGE.read_text()):
        heading = title or heading
        if block:
            found[f"{heading} ({block.split(':')[0]})"] = block
    return found


def read(folder: Path, block: str) -> config.Config:
    path = folder / "interposer.yaml"
    path.write_text(f"version: 1\n{block}")
    return config.load(path)


def issuer(folder: Path, provider: str) -> IssuerConfig:
    (found,) = read(folder, blocks()[f"{provider} (issuers)"]).issuers
    return found


PROVIDERS: dict[str, tuple[dict[str, Any], dict[str, Any], Principal]] = {
    "Keycloak": (
        {"typ": "JWT"},
        {
            "iss": "https://idp.example/realms/acme",
            "aud": ["interposer", "account"],
            "sub": "0c9cc8d3-61c1-4e4b-9f6e-2a5d1f7f4a10",
            "typ": "Bearer",
            "azp": "agent-desk",
            "jti": "onrtac:8d0f0a5e",
            "sid": "81a0-4c",
            "acr": "1",
            "allowed-origins": ["https://desk.example"],
            "realm_access": {"roles": ["support", "offline_access"]},
            "resource_access": {"account": {"roles": ["view-profile"]}},
            "scope": "openid email profile",
            "email_verified": True,
            "preferred_username": "alice",
            "groups": ["/support"],
        },
        Principal(
            "https://idp.example/realms/acme",
            "0c9cc8d3-61c1-4e4b-9f6e-2a5d1f7f4a10",
            ("/support", "role:offline_access", "role:support"),
            client_id="agent-desk",
        ),
    ),
    "Entra ID": (
        {"typ": "JWT", "x5t": "thumbprint"},
        {
            "iss": f"https://login.microsoftonline.com/{TENANT}/v2.0",
            "aud": "11111111-2222-4333-8444-555555555555",
            "nbf": NOW,
            "aio": "opaque",
            "azp": "99999999-2222-4333-8444-555555555555",
            "azpacr": "0",
            "groups": [GROUP],
            "name": "Alice",
            "oid": "a11ce000-0000-4000-8000-000000000001",
            "preferred_username": "alice@acme.example",
            "rh": "opaque",
            "roles": ["Support"],
            "scp": "access_as_user",
            "sub": "pairwise",
            "tid": TENANT,
            "uti": "opaque",
            "ver": "2.0",
        },
        Principal(
            f"https://login.microsoftonline.com/{TENANT}/v2.0",
            "a11ce000-0000-4000-8000-000000000001",
            (GROUP, "role:Support"),
            client_id="99999999-2222-4333-8444-555555555555",
        ),
    ),
    "Okta": (
        {},
        {
            "iss": "https://acme.okta.com/oauth2/default",
            "ver": 1,
            "jti": "AT.x1",
            "aud": "api://interposer",
            "cid": "0oa1agentdesk",
            "uid": "00u1alice",
            "scp": ["openid"],
            "auth_time": NOW - 5,
            "sub": "alice@acme.example",
            "groups": ["Everyone", "support"],
        },
        Principal("https://acme.okta.com/oauth2/default", "alice@acme.example", ("Everyone", "support")),
    ),
    "Google": (
        {"typ": "JWT"},
        {
            "iss": "https://accounts.google.com",
            "azp": "1234567890-agents.apps.googleusercontent.com",
            "aud": "1234567890-agents.apps.googleusercontent.com",
            "sub": "110169484474386276334",
            "hd": "acme.example",
            "email": "alice@acme.example",
            "email_verified": True,
            "at_hash": "opaque",
            "nonce": "opaque",
        },
        Principal(
            "https://accounts.google.com",
            "110169484474386276334",
            ("domain:acme.example",),
            client_id="1234567890-agents.apps.googleusercontent.com",
        ),
    ),
    "Auth0": (
        {"typ": "at+jwt"},
        {
            "iss": "https://acme.eu.auth0.com/",
            "sub": "auth0|alice",
            "aud": ["https://interposer.acme.example", "https://acme.eu.auth0.com/userinfo"],
            "azp": "AgentDeskClientId",
            "scope": "openid profile",
            "https://acme.example/roles": ["support"],
            "permissions": ["read:crm"],
        },
        Principal(
            "https://acme.eu.auth0.com/", "auth0|alice", ("may:read:crm", "support"), client_id="AgentDeskClientId"
        ),
    ),
    "GitHub Actions": (
        {"typ": "JWT", "x5t": "thumbprint"},
        {
            "iss": "https://token.actions.githubusercontent.com",
            "jti": "j1",
            "sub": "repo:acme/shop:environment:production",
            "aud": "interposer",
            "ref": "refs/heads/main",
            "sha": "0" * 40,
            "repository": "acme/shop",
            "repository_owner": "acme",
            "repository_owner_id": "1234567",
            "environment": "production",
            "event_name": "push",
            "job_workflow_ref": "acme/shop/.github/workflows/deploy.yml@refs/heads/main",
            "nbf": NOW - 300,
        },
        Principal(
            "https://token.actions.githubusercontent.com",
            "repo:acme/shop:environment:production",
            ("env:production", "repo:acme/shop"),
            machine=True,
        ),
    ),
    "GitLab CI": (
        {"typ": "JWT"},
        {
            "iss": "https://gitlab.example",
            "aud": "interposer",
            "sub": "project_path:acme/shop:ref_type:branch:ref:main",
            "jti": "j1",
            "nbf": NOW - 5,
            "namespace_id": "42",
            "namespace_path": "acme",
            "project_path": "acme/shop",
            "ref": "main",
            "ref_protected": "true",
            "user_login": "alice",
        },
        Principal(
            "https://gitlab.example",
            "project_path:acme/shop:ref_type:branch:ref:main",
            ("project:acme/shop",),
            machine=True,
        ),
    ),
    "Kubernetes service accounts": (
        {},
        {
            "iss": "https://kubernetes.default.svc.cluster.local",
            "aud": ["interposer"],
            "sub": "system:serviceaccount:agents:crawler",
            "jti": "j1",
            "nbf": NOW,
            "kubernetes.io": {
                "namespace": "agents",
                "node": {"name": "n1", "uid": "u1"},
                "pod": {"name": "crawler-0", "uid": "u2"},
                "serviceaccount": {"name": "crawler", "uid": "u3"},
            },
        },
        Principal(
            "https://kubernetes.default.svc.cluster.local",
            "system:serviceaccount:agents:crawler",
            ("ns:agents", "sa:crawler"),
            machine=True,
        ),
    ),
}
"""Provider -> a token's header and claims as it makes them, and who that is."""

REFUSED: dict[str, dict[str, Any]] = {
    "Keycloak": {"aud": "account"},
    "Entra ID": {"groups": None, "_claim_names": {"groups": "src1"}, "_claim_sources": {"src1": {"endpoint": "x"}}},
    "Okta": {"cid": "0oa2other"},
    "Google": {"hd": None},
    "Auth0": {"azp": "OtherClient"},
    "GitHub Actions": {"repository_owner_id": "7654321"},
    "GitLab CI": {"ref_protected": "false"},
    "Kubernetes service accounts": {"kubernetes.io": {"namespace": "default"}},
}
"""Provider -> what makes its token one that the page says is refused; None takes a claim away."""


def judged(folder: Path, provider: str, **changed: Any) -> Principal:
    header, claims, _ = PROVIDERS[provider]
    claims = {name: value for name, value in {**claims, **TIMES, **changed}.items() if value is not None}
    token = KEY.sign(claims, **{"typ": None, **header})
    found = issuer(folder, provider)
    trust = parts.trust_of(found)
    # The fake signs with an elliptic curve, which is quick to make; all of these providers use RSA by default.
    assert {"RS256", "ES256"} <= trust.algorithms
    assert issuer_of(token, trust.max_bytes) == trust.issuer
    keys = read_keys(json.dumps({"keys": [KEY.jwk()]}).encode())
    return verify(token, keys, trust, NOW + 1.0).principal


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_provider_s_token_is_its_principal(tmp_path: Path, provider: str) -> None:
    """With the page's snippet, a token as that provider makes it says who is asking, groups and all."""
    assert judged(tmp_path, provider) == PROVIDERS[provider][2]


@pytest.mark.parametrize("provider", REFUSED)
def test_what_a_snippet_keeps_out_is_kept_out(tmp_path: Path, provider: str) -> None:
    """Another audience, client, domain, owner or namespace, or groups that are elsewhere: refused."""
    with pytest.raises(Unauthenticated):
        judged(tmp_path, provider, **REFUSED[provider])


def test_every_snippet_is_read(tmp_path: Path) -> None:
    """Each block of the page is a configuration, a policy or a deny list without a mistake, and none is left out."""
    for heading, block in blocks().items():
        if heading.endswith("(issuers)"):
            assert heading.removesuffix(" (issuers)") in PROVIDERS
        elif heading.endswith("(callers)"):
            assert read(tmp_path, block).callers
        elif "rules:" in block:
            assert engine.load(block, "policy.yaml").document.rules
        else:
            assert len(deny_list(block.encode(), "revoked.yaml").rows) == 4
    assert len(blocks()) == len(PROVIDERS) + 3


def test_the_rules_of_the_page_speak_of_its_principals() -> None:
    """The groups in the page's policy are the ones that its issuers give."""
    block = next(block for block in blocks().values() if "rules:" in block)
    policy = engine.load(block, "policy.yaml")

    def effect(provider: str, id: str, uid: int | None = None) -> Effect:
        who = PROVIDERS[provider][2]
        skill = Skill(id, id.partition(".")[0], "", "", {}, "")
        asking = Principal(who.issuer, who.subject, who.groups, uid, who.client_id, who.machine)
        return policy.decide(asking, skill, {}, "", Facts()).effect

    assert effect("Keycloak", "crm.get_customer") is Effect.ALLOW
    assert effect("Okta", "crm.get_customer") is Effect.DENY
    assert effect("GitHub Actions", "deploy.start") is Effect.ALLOW
    assert effect("Keycloak", "payments.refund") is Effect.ASK
    assert effect("Keycloak", "payments.refund", uid=990) is Effect.DENY
