"""interposer.yaml: read strictly, every problem at once, with its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from interposer import checked, config
from interposer.config_approvals import ClientConfig
from interposer.errors import ConfigurationError

WRONG = """\
version: 1
policiy: x
upstreams:
  9a: {command: []}
  b: {command: [x], credential: {env: "a b", source: foo}, start_timeout: 5}
listen:
  tcp: {port: 70000, tokens: [{subject: a}]}
callers: [{uid: -1, subject: a}]
approvals: {hold: 4}
"""

EXPECTED = {
    (2, "unknown key"),
    (4, "a letter, then"),
    (4, "at least one entry"),
    (5, "environment variable"),
    (5, "file:PATH"),
    (5, "a duration such as"),
    (7, "missing"),
    (7, "from 0 to 65535"),
    (8, "from 0 to"),
    (9, "a duration such as"),
}


AMISS = """\
version: 1
issuers:
  - issuer: http://idp.example
    audience: ""
    leeway: 6m
    keys: {cache: 301s}
    groups: [{claim: a..b}]
  - issuer: https://idp.example?x=1
    audience: []
    keys: {uri: "https://u:p@idp.example", file: keys.json}
    max_lifetime: 0s
    algorithms: [HS256]
callers:
  - {uid: 1000}
  - {gid: 100, subject: staff}
  - {uid: 1, gid: 1, subject: a}
  - {groups: [a]}
"""

SAID = {
    (3, "only for this machine"),
    (4, "not an empty text"),
    (5, "from 0s to 5m"),
    (6, "from 1s to 300s"),
    (7, "none of them empty"),
    (8, "without a query"),
    (9, "at least one entry"),
    (10, "user name or password"),
    (11, "from 1s to 366d"),
    (12, "'EdDSA'"),
    (14, "the subject of this uid is missing"),
    (15, "a gid has no subject"),
    (16, "either a uid"),
    (17, "either a uid"),
}


OTHER_SHAPES = """\
version: 1
state: 5
policy:
insecure_env: "yes"
upstreams:
  9a: {command: []}
  b: [x]
  c: {command: x, env: {A: 1, "a b": x}}
boundary: 4
limits: {frame: 1.5}
issuers:
  - {issuer: "https://a", audience: [a, 1], groups: [{claim: []}]}
  - {issuer: "https://b", audience: 5, require: [{claim: 5, values: [{}]}]}
approvals:
  rate: 60
  pending: true
  clients:
    a: 5
    b: soon
    c: {hold: 5, rounds: x, tasks: 1, nope: 1}
    d:
"""

SHAPES = [
    (2, "state: expected a text, not a number; write it in quotes"),
    (3, "policy: expected a text, and nothing is there; write it in quotes, or leave it out"),
    (4, "insecure_env: expected true or false, not a text; write it as one of the two, without quotes"),
    (6, "upstreams.9a: expected a letter, then at most 31 letters, digits, single _ or -"),
    (6, "upstreams.9a.command: expected at least one entry"),
    (7, "upstreams.b: expected a mapping, not a list; write it as {name: value}"),
    (8, "upstreams.c.command: expected a list, not a text; write it as [a, b]"),
    (8, "upstreams.c.env.A: expected a text, not a number; write it in quotes"),
    (8, "upstreams.c.env.a b: expected the name of an environment variable"),
    (9, "boundary: expected 'L1', 'L2', 'L4' or 'L5'; write one of them"),
    (10, "limits.frame: expected a whole number, not a decimal number; write it in digits, without quotes"),
    (12, "issuers.0.audience.1: expected a text, not a number; write it in quotes"),
    (12, "issuers.0.groups.0.claim: expected at least one entry"),
    (13, "issuers.1.audience: expected a text or a list, not a number; write it as one of them"),
    (13, "issuers.1.require.0.claim: expected a text or a list, not a number; write it as one of them"),
    (
        13,
        "issuers.1.require.0.values.0: expected a text or a whole number or true or false, not a mapping; "
        "write it as one of them",
    ),
    (15, "approvals.rate: expected a rate of at most 100000, such as 5/s, 60/min, 100/h or 1000/d"),
    (16, "approvals.pending: expected a whole number, not true; write it in digits, without quotes"),
    (18, "approvals.clients.a: expected a duration such as 500ms, 4s, 30m, 12h or 1d"),
    (19, "approvals.clients.b: expected a duration such as 500ms, 4s, 30m, 12h or 1d"),
    (20, "approvals.clients.c.hold: expected a duration such as 500ms, 4s, 30m, 12h or 1d"),
    (20, "approvals.clients.c.rounds: expected 'auto', 'ask_again' or 'never'; write one of them"),
    (20, "approvals.clients.c.tasks: expected true or false, not a number; write it as one of the two, without quotes"),
    (20, "approvals.clients.c.nope: unknown key; remove it or correct its name"),
    (21, "approvals.clients.d: expected a duration such as 500ms, 4s, 30m, 12h or 1d"),
]


def write(folder: Path, text: str) -> Path:
    path = folder / "interposer.yaml"
    path.write_text(text)
    return path


def test_every_problem_is_reported_at_once_with_its_line(tmp_path: Path) -> None:
    """An operator repairs a file in one go."""
    with pytest.raises(ConfigurationError) as refused:
        config.load(write(tmp_path, WRONG))
    found = refused.value.problems
    for line, said in EXPECTED:
        assert any(problem.line == line and said in problem.message for problem in found), (line, said)
    assert all(problem.column > 0 for problem in found)


def test_whom_tokens_are_believed_is_checked_before_anything_starts(tmp_path: Path) -> None:
    """An issuer that could be impersonated, keys that would be believed for too long, and a row that names nobody are
    refused at once, each with its line."""
    with pytest.raises(ConfigurationError) as refused:
        config.load(write(tmp_path, AMISS))
    found = refused.value.problems
    for line, said in SAID:
        assert any(problem.line == line and said in problem.message for problem in found), (line, said, found)


def test_each_value_of_another_shape_is_told_once_in_the_files_own_words(tmp_path: Path) -> None:
    """What is expected, what stands there, and what to do: for each value once, with no name of a class or a check."""
    with pytest.raises(ConfigurationError) as refused:
        config.load(write(tmp_path, OTHER_SHAPES))
    assert [(problem.line, problem.message) for problem in refused.value.problems] == SHAPES


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("version: 1\nversion: 1\n", "already there"),
        (
            "version: 1\nissuers:\n- {issuer: 'https://a', audience: b}\n- {issuer: 'https://a', audience: c}\n",
            ":2:.*twice; merge the entries: https://a",
        ),
        (
            "version: 1\nissuers:\n- {issuer: 'https://a', audience: b, keys: {uri: 'https://a/k', file: k}}\n",
            ":3:.*either the uri or the file",
        ),
        ("version: 2\n", "expected 1"),
        ("version: '1'\n", "a whole number, not a text; write it in digits, without quotes"),
        ("[version]\n", ":1:1: file: expected a mapping, not a list"),
        ("", "empty"),
        ("[1", "not YAML"),
    ],
)
def test_a_file_that_could_be_misread_is_refused(tmp_path: Path, text: str, said: str) -> None:
    """Nothing is guessed: neither keys, nor types, nor versions."""
    with pytest.raises(ConfigurationError, match=said):
        config.load(write(tmp_path, text))


def test_a_whole_configuration_is_read(tmp_path: Path) -> None:
    """What the reference shows is what is read."""
    found = config.load(
        write(
            tmp_path,
            """\
version: 1
policy: p.yaml
upstreams:
  crm:
    command: [python3, service.py]
    credential: {env: KEY, source: "file:k"}
    env: {A: b}
    inherit: [HTTPS_PROXY]
    era: legacy
    start_timeout: 5s
listen:
  socket: {path: s.sock, group: agents}
  tcp: {port: 8765, tokens: [{source: "file:t", subject: ci, groups: [ci]}]}
callers: [{uid: 1001, subject: ann, groups: [support]}]
operators: [{uid: 1000, subject: bob}]
approvals: {hold: 500ms, rate: 5/s, clients: {claude-code: 2m, codex: {hold: 1m, rounds: ask_again}}}
limits: {frame: 65536, in_flight: 8}
""",
        )
    )
    assert found.upstreams["crm"].credential is not None
    assert found.callers[0].groups == ["support"]
    assert checked.duration_s(found.approvals.hold) == 0.5
    assert found.approvals.rate == "5/s"
    assert found.approvals.clients == {"claude-code": "2m", "codex": ClientConfig("1m", "ask_again")}
    assert found.listen.tcp is not None
    assert found.listen.tcp.tokens[0].subject == "ci"


def test_a_named_file_must_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A configuration that was asked for is never replaced by another one."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "version: 1\n")
    with pytest.raises(ConfigurationError, match="--config"):
        config.find(str(tmp_path / "other.yaml"))
    monkeypatch.setenv("INTERPOSER_CONFIG", str(tmp_path / "other.yaml"))
    with pytest.raises(ConfigurationError, match="INTERPOSER_CONFIG"):
        config.find()
    monkeypatch.delenv("INTERPOSER_CONFIG")
    assert config.find() == tmp_path / "interposer.yaml"


@pytest.mark.parametrize("text", ["4", "s", "-1s", "1 s", "1w", "", "1e3s"])
def test_durations_have_units(text: str) -> None:
    """A number without a unit is not a duration."""
    with pytest.raises(ValueError, match="duration"):
        checked.duration_s(text)
