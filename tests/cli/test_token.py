"""`interposer token verify` says of each token what the broker would say."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.identity.signing import AUDIENCE, CLAIMS, HEADER, ISSUER, NOW, dumps, jwk, token

CORPUS = Path(__file__).parents[2] / "../shared/corpora/jwt"


@pytest.fixture
def jwks(tmp_path: Path) -> Path:
    path = tmp_path / "jwks.json"
    path.write_bytes(dumps({"keys": [jwk("rsa-1"), jwk("ec-1")]}))
    return path


def run(jwks: Path, given: bytes, *options: str, now: float = NOW) -> tuple[int, str, str]:
    """The command in a process of its own."""
    command = [sys.executable, "-m", "interposer", "token", "verify", "--jwks", str(jwks), "--now", str(now), *options]
    if "--issuer" not in options:
        command += ["--issuer", ISSUER, "--audience", AUDIENCE]
    done = subprocess.run(command, input=given, capture_output=True, timeout=60)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def lines(*rows: object) -> bytes:
    return b"".join(dumps(row) + b"\n" for row in rows)


@pytest.mark.skipif(not CORPUS.exists(), reason="needs ../shared/corpora/jwt beside the project")
def test_corpus_is_decided_line_by_line() -> None:
    """Every row of the shared corpus gets the verdict that it expects, in order, with a reason where it is refused."""
    rows = [json.loads(line) for line in gzip.decompress((CORPUS / "tokens.jsonl.gz").read_bytes()).splitlines()]
    config = json.loads((CORPUS / "config.json").read_text())
    code, out, _ = run(
        CORPUS / "jwks.json",
        lines(*({"name": row["name"], "token": row["token"]} for row in rows)),
        *("--jsonl", "--issuer", config["issuer"], "--audience", config["audience"]),
        now=config["now"],
    )
    answers = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [(a["name"], a["verdict"]) for a in answers] == [(row["name"], row["expect"]) for row in rows]
    assert all(set(a) == {"name", "verdict", "reason"} for a in answers)
    assert all(bool(a["reason"]) == (a["verdict"] == "reject") for a in answers)


def test_line_that_cannot_be_read_is_a_reject_and_the_next_goes_on(jwks: Path) -> None:
    """A bad line costs one row, and keeps its name where it has one."""
    bad = [
        b"{",
        b"[1]",
        b'"x"',
        b"\xff",
        b"[" * 100_000,
        b'{"name":"n1"}',
        b'{"name":"n2","token":7}',
        b'{"name":3,"token":"a.b.c"}',
        b'{"name":"n4","token":"\\ud800"}',
        b'{"name":"n5","token":"\xff\x00"}',
    ]
    code, out, _ = run(jwks, b"\n".join(bad) + b"\n\n" + lines({"name": "good", "token": token()}), "--jsonl")
    answers = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [a["name"] for a in answers] == [None, None, None, None, None, "n1", "n2", None, "n4", "n5", "good"]
    assert [a["verdict"] for a in answers] == ["reject"] * len(bad) + ["accept"]


def test_one_token_is_told_in_words_or_json(jwks: Path) -> None:
    """A token on standard input is answered with who it speaks for."""
    code, out, err = run(jwks, token().encode() + b"\n")
    assert (code, err) == (0, "")
    assert "agent-7" in out
    assert ISSUER in out
    assert "dev" in out
    code, out, _ = run(jwks, token().encode(), "--json")
    assert code == 0
    assert json.loads(out) == {
        "verdict": "accept",
        "issuer": ISSUER,
        "subject": "agent-7",
        "groups": ["dev"],
        "client": "",
        "token_id": "j1",
        "session": "",
        "expires": "2027-01-15T08:05:30+00:00",
    }


def test_refused_token_exits_with_1_and_says_why(jwks: Path) -> None:
    """The reason is for the operator, and has nothing of the token in it."""
    code, out, _ = run(jwks, token(claims={**CLAIMS, "aud": "other-service"}).encode())
    assert code == 1
    assert "audience" in out
    assert "other-service" not in out
    code, out, _ = run(jwks, token().encode(), "--json", now=NOW + 10_000)
    assert code == 1
    assert json.loads(out) == {"verdict": "reject", "why": "expired", "reason": "the token has expired"}


def test_white_space_around_a_token_is_not_forgiven(jwks: Path) -> None:
    """Only the line end that a shell puts there is taken away."""
    assert run(jwks, token().encode() + b"\r\n")[0] == 0
    assert run(jwks, token().encode() + b"\n\n")[0] == 1
    assert run(jwks, b" " + token().encode())[0] == 1


def test_options_are_what_the_token_is_held_to(jwks: Path) -> None:
    """Each option changes the verdict in its own way."""
    es256 = token({**HEADER, "alg": "ES256", "kid": "ec-1"}).encode()
    assert run(jwks, es256, "--algorithm", "RS256")[0] == 1
    assert run(jwks, es256, "--algorithm", "RS256", "--algorithm", "ES256")[0] == 0
    assert run(jwks, token().encode(), "--max-lifetime", "60")[0] == 1
    assert run(jwks, token().encode(), "--authorized-party", "cli")[0] == 1
    assert run(jwks, token().encode(), "--leeway", "0", now=CLAIMS["exp"] + 1)[0] == 1
    nested = token(
        claims={**CLAIMS, "nonce": "n", "kubernetes.io": {"namespace": "prod"}, "email": "a@b.test"}
    ).encode()
    assert run(jwks, nested)[0] == 1
    claim = '["kubernetes.io", "namespace"]'
    options = ("--id-tokens", "--subject-claim", "email", "--groups-claim", claim, "--groups-shape", "one", "--json")
    code, out, _ = run(jwks, nested, *options)
    assert code == 0
    assert (json.loads(out)["subject"], json.loads(out)["groups"]) == ("a@b.test", ["prod"])


def test_keys_that_cannot_be_read_are_a_usage_error(tmp_path: Path) -> None:
    """Without keys nothing is judged, and the message says what to do."""
    page = tmp_path / "page.json"
    page.write_text("<html>")
    for file in (tmp_path / "none.json", page, tmp_path):
        code, out, err = run(file, token().encode(), "--jsonl")
        assert (code, out) == (2, "")
        assert "jwks_uri" in err


@pytest.mark.parametrize(
    "options", [("--now", "nan"), ("--leeway", "nan"), ("--groups-claim", "[1]"), ("--algorithm", "HS256")]
)
def test_option_that_makes_no_sense_is_a_usage_error(jwks: Path, options: tuple[str, str]) -> None:
    """A value that would make checks meaningless is refused before any token is read."""
    assert run(jwks, token().encode(), *options)[0] == 2


def test_unusable_keys_are_named_on_standard_error(tmp_path: Path) -> None:
    """Operators learn which keys of the issuer are of no use, and why."""
    path = tmp_path / "jwks.json"
    path.write_bytes(dumps({"keys": [jwk("rsa-1", use="enc")]}))
    code, _, err = run(path, token().encode())
    assert code == 1
    assert "key 1" in err
    assert "no key can be used" in err
