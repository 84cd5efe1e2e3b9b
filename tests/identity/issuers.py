"""What the issuers that people use send, and a configuration that fits: claims, trust, subject, groups."""

from __future__ import annotations

from typing import Any

from interposer.identity.trust import GroupsFrom, Trust
from tests.identity.signing import NOW

AT = int(NOW)
TIMES = {"iat": AT - 5, "nbf": AT - 5, "exp": AT + 300}


def trusting(issuer: str, audience: str, **more: Any) -> Trust:
    return Trust(issuer, frozenset({audience}), **more)


GITHUB = {
    "jti": "j-1",
    "sub": "repo:acme/agents:environment:prod",
    "environment": "prod",
    "aud": "interposer",
    "ref": "refs/heads/main",
    "sha": "sha-1",
    "repository": "acme/agents",
    "repository_owner": "acme",
    "actor_id": "12",
    "repository_visibility": "private",
    "repository_id": "74",
    "run_id": "run-1",
    "runner_environment": "github-hosted",
    "job_workflow_ref": "acme/automation/.github/workflows/oidc.yml@refs/heads/main",
    "iss": "https://token.actions.githubusercontent.com",
    **TIMES,
}
GITLAB = {
    "namespace_id": "72",
    "project_id": "20",
    "project_path": "my-group/my-project",
    "user_id": "1",
    "user_login": "anna",
    "user_email": "anna@example.com",
    "user_identities": [{"provider": "github", "extern_uid": "1"}],
    "pipeline_id": "574",
    "job_id": "302",
    "ref": "feature-branch-1",
    "ref_type": "branch",
    "ref_protected": "false",
    "groups_direct": ["mygroup/mysubgroup"],
    "environment_protected": "false",
    "runner_id": 1,
    "jti": "d0000000-0000-4000-8000-000000000001",
    "iss": "https://gitlab.example.com",
    "sub": "project_path:my-group/my-project:ref_type:branch:ref:feature-branch-1",
    "aud": "interposer",
    **TIMES,
}
KUBERNETES = {
    "aud": ["interposer"],
    "iss": "https://kubernetes.default.svc.cluster.local",
    "jti": "c0000000-0000-4000-8000-000000000001",
    "kubernetes.io": {
        "namespace": "my-namespace",
        "node": {"name": "127.0.0.1", "uid": "c0000000-0000-4000-8000-000000000002"},
        "pod": {"name": "my-pod", "uid": "c0000000-0000-4000-8000-000000000003"},
        "serviceaccount": {"name": "my-account", "uid": "c0000000-0000-4000-8000-000000000004"},
        "warnafter": AT + 200,
    },
    "sub": "system:serviceaccount:my-namespace:my-account",
    **TIMES,
}
KEYCLOAK = {
    "jti": "4d3f6d4c",
    "iss": "https://sso.example.com/realms/acme",
    "aud": ["interposer", "account"],
    "sub": "f:1c4d:anna",
    "typ": "Bearer",
    "azp": "agent-cli",
    "sid": "8f5a",
    "session_state": "8f5a",
    "acr": "1",
    "allowed-origins": ["https://app.example.com"],
    "realm_access": {"roles": ["support", "offline_access"]},
    "resource_access": {"interposer": {"roles": ["operator"]}, "account": {"roles": ["view-profile"]}},
    "scope": "openid profile",
    "email_verified": True,
    "preferred_username": "anna",
    **TIMES,
}
ENTRA = {
    "aud": "a0000000-0000-4000-8000-000000000001",
    "iss": "https://login.microsoftonline.com/a0000000-0000-4000-8000-000000000003/v2.0",
    "aio": "aio-1",
    "azp": "a0000000-0000-4000-8000-000000000002",
    "azpacr": "0",
    "groups": ["b0000000-0000-4000-8000-000000000001", "b0000000-0000-4000-8000-000000000002"],
    "roles": ["Tools.Use"],
    "oid": "a0000000-0000-4000-8000-000000000004",
    "rh": "I",
    "scp": "access_as_user",
    "sid": "0010a5c2",
    "sub": "pairwise-subject-of-anna",
    "tid": "a0000000-0000-4000-8000-000000000003",
    "uti": "uti-1",
    "ver": "2.0",
    **TIMES,
}
OKTA = {
    "ver": 1,
    "jti": "AT.1",
    "iss": "https://example.okta.com/oauth2/default",
    "aud": "api://default",
    "cid": "client-1",
    "uid": "user-1",
    "scp": ["offline_access", "tools.use"],
    "groups": ["Everyone", "Support Leads"],
    "auth_time": AT - 100,
    "sub": "anna@example.com",
    **TIMES,
}
GOOGLE = {
    "iss": "https://accounts.google.com",
    "azp": "client-1.apps.googleusercontent.com",
    "aud": "client-1.apps.googleusercontent.com",
    "sub": "100000000000000000001",
    "hd": "example.com",
    "email": "anna@example.com",
    "email_verified": True,
    "at_hash": "hash-of-it",
    "iat": AT - 5,
    "exp": AT + 3595,
}
SHAPES: dict[str, tuple[dict[str, Any], Trust, str, tuple[str, ...]]] = {
    "GitHub Actions": (
        GITHUB,
        trusting(
            str(GITHUB["iss"]),
            "interposer",
            groups=(GroupsFrom(("repository",), "one", "repo:"),),
            claims=((("repository_owner",), ("acme",)), (("ref",), ("refs/heads/main",))),
            machine=True,
        ),
        "repo:acme/agents:environment:prod",
        ("repo:acme/agents",),
    ),
    "GitLab": (
        GITLAB,
        trusting(
            "https://gitlab.example.com",
            "interposer",
            groups=(GroupsFrom(("groups_direct",)), GroupsFrom(("project_path",), "one", "project:")),
            claims=((("ref_protected",), ("true", "false")),),
            machine=True,
        ),
        "project_path:my-group/my-project:ref_type:branch:ref:feature-branch-1",
        ("mygroup/mysubgroup", "project:my-group/my-project"),
    ),
    "Kubernetes": (
        KUBERNETES,
        trusting(
            str(KUBERNETES["iss"]),
            "interposer",
            groups=(GroupsFrom(("kubernetes.io", "namespace"), "one", "ns:"),),
            claims=((("kubernetes.io", "serviceaccount", "name"), ("my-account",)),),
            machine=True,
        ),
        "system:serviceaccount:my-namespace:my-account",
        ("ns:my-namespace",),
    ),
    "Keycloak": (
        KEYCLOAK,
        trusting(
            str(KEYCLOAK["iss"]),
            "interposer",
            authorized_parties=frozenset({"agent-cli"}),
            subject=("preferred_username",),
            groups=(
                GroupsFrom(("realm_access", "roles")),
                GroupsFrom(("resource_access", "interposer", "roles"), prefix="interposer:"),
            ),
        ),
        "anna",
        ("interposer:operator", "offline_access", "support"),
    ),
    "Entra": (
        ENTRA,
        trusting(
            str(ENTRA["iss"]),
            str(ENTRA["aud"]),
            subject=("oid",),
            groups=(GroupsFrom(("groups",)), GroupsFrom(("roles",), prefix="role:")),
            claims=((("tid",), ("a0000000-0000-4000-8000-000000000003",)),),
        ),
        "a0000000-0000-4000-8000-000000000004",
        ("b0000000-0000-4000-8000-000000000001", "b0000000-0000-4000-8000-000000000002", "role:Tools.Use"),
    ),
    "Okta": (
        OKTA,
        trusting(
            str(OKTA["iss"]),
            "api://default",
            groups=(GroupsFrom(("groups",)), GroupsFrom(("scp",), prefix="scope:")),
            claims=((("cid",), ("client-1",)), (("scp",), ("tools.use",))),
        ),
        "anna@example.com",
        ("Everyone", "Support Leads", "scope:offline_access", "scope:tools.use"),
    ),
    "Google": (
        GOOGLE,
        trusting(
            "https://accounts.google.com",
            str(GOOGLE["aud"]),
            groups=(GroupsFrom(("hd",), "one", "domain:"),),
            claims=((("hd",), ("example.com",)), (("email_verified",), (True,))),
            id_tokens=True,
        ),
        "100000000000000000001",
        ("domain:example.com",),
    ),
}
