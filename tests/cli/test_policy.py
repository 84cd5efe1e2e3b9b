"""`interposer policy`: answers on standard output, exit codes that scripts may rely on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from interposer.cli.policy import policy
from interposer.errors import ConfigurationError

POLICY = """version: 1
rules:
  - {id: fetch, effect: allow, skills: [web.fetch]}
  - {id: send, effect: allow, skills: [mail.send]}
  - {id: tainted, effect: ask, skills: [mail.send], when: "'untrusted' in session.labels"}
  - {id: enough, effect: deny, skills: [web.fetch], when: session.calls >= 2}
obligations:
  - {skills: [web.fetch], labels: [untrusted]}
"""


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "policy.yaml"
    path.write_text(POLICY, encoding="utf-8")
    return str(path)


def run(*arguments: str, lines: list[Any] | None = None) -> Result:
    given = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in lines or [])
    return CliRunner().invoke(policy, list(arguments), input=given)


def call(skill: str, session: str | None = "s", **more: Any) -> dict[str, Any]:
    row = {"skill": skill, "arguments": {}, "principal": {"subject": "anna", "groups": []}, **more}
    return row if session is None else {**row, "session": session}


def decided(file: str, *lines: Any) -> tuple[list[dict[str, Any]], int]:
    result = run("decide", "--jsonl", "--policy", file, lines=list(lines))
    return [json.loads(line) for line in result.stdout.splitlines()], result.exit_code


def test_an_allowed_line_labels_its_session(file: str) -> None:
    """After untrusted text was fetched, the same session is asked before it sends; another is not."""
    answers, code = decided(
        file,
        call("mail.send"),
        call("web.fetch"),
        call("mail.send"),
        call("mail.send", "other"),
        call("mail.send", None),
    )
    assert [row["effect"] for row in answers] == ["allow", "allow", "ask", "allow", "allow"]
    assert [row["labels"] for row in answers] == [[], ["untrusted"], ["untrusted"], [], []]
    assert answers[2]["rules"] == ["send", "tainted"]
    assert set(answers[0]) == {"effect", "rules", "reason", "labels"}
    assert code == 0


def test_lines_of_a_session_share_counters(file: str) -> None:
    """Allowed lines count; denied ones do not."""
    answers, _ = decided(file, *[call("web.fetch")] * 4, call("web.fetch", None))
    assert [row["effect"] for row in answers] == ["allow", "allow", "deny", "deny", "allow"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("", "not valid JSON"),
        ("[]", "expected a JSON object"),
        ("{", "not valid JSON"),
        ('{"skill": "a.b", "skill": "c.d", "arguments": {}, "principal": {"subject": "x"}}', "duplicate key"),
        ({"arguments": {}, "principal": {"subject": "x"}}, "skill"),
        ({"skill": "", "principal": {"subject": "x"}}, "skill"),
        ({"skill": "a.b", "arguments": [], "principal": {"subject": "x"}}, "arguments"),
        ({"skill": "a.b", "arguments": {}}, "principal"),
        ({"skill": "a.b", "principal": {"groups": []}}, "subject"),
        ({"skill": "a.b", "principal": {"subject": "x", "groups": "support"}}, "groups"),
        ({"skill": "a.b", "principal": {"subject": "x", "groups": [1]}}, "principal.groups"),
        ({"skill": "a.b", "principal": {"subject": "x", "uid": "0"}}, "principal.uid"),
        ({"skill": "a.b", "principal": {"subject": "x"}, "session": 1}, "session"),
        ({"skill": "a.b", "principal": {"subject": "x"}, "now": "today"}, "now"),
    ],
)
def test_a_line_that_cannot_be_read_is_answered_in_its_place(file: str, line: Any, said: str) -> None:
    """An error and deny for that line, the others decided, and exit code 2 at the end."""
    answers, code = decided(file, call("mail.send"), line, call("mail.send"))
    assert [row["effect"] for row in answers] == ["allow", "deny", "allow"]
    assert said in answers[1]["error"]
    assert code == 2


def test_annotations_and_time_of_a_line_are_used(file: str) -> None:
    """The built-in policy allows what the line marks read-only, and `now` is the line's."""
    row = call("a.b", annotations={"readOnlyHint": True}, now=5.5)
    answers, code = decided("builtin:starter", row, call("a.b"))
    assert [answer["effect"] for answer in answers] == ["allow", "ask"]
    assert code == 0


def test_check_reports_everything_at_once(tmp_path: Path, file: str) -> None:
    """All problems of all files, each with its place, and exit code 2."""
    bad = tmp_path / "bad.yaml"
    bad.write_text("version: 1\nrules:\n  - {id: a, effect: no, skills: [x]}\n", encoding="utf-8")
    result = run("check", file, str(bad), str(tmp_path / "none.yaml"))
    assert result.exit_code == 2
    assert f"{bad}:3:21: error:" in result.stdout
    assert f"{bad}:3:34: error:" in result.stdout
    assert "none.yaml: error: cannot be read" in result.stdout
    assert f"{file}: can be used" in result.stdout


def test_check_exits_1_for_what_is_said_in_vain(tmp_path: Path, file: str) -> None:
    """Warnings are a no, notes are not, and known skills are compared."""
    vain = tmp_path / "vain.yaml"
    vain.write_text(POLICY + "otherwise:\n  - {id: rest, effect: ask, skills: [mail.send]}\n", encoding="utf-8")
    skills = tmp_path / "skills.json"
    skills.write_text('[{"id": "web.fetch"}]', encoding="utf-8")
    assert run("check", file).exit_code == 0
    result = run("check", str(vain), "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["problems"][0]["level"] == "warning"
    assert run("check", file, "--skills", str(skills)).exit_code == 1


def test_explain_tells_rules_places_and_needs(file: str) -> None:
    """The text names the rule with its place; `--json` gives the same as data."""
    arguments = [
        "explain",
        "--skill",
        "mail.send",
        "--as",
        "anna:support,staff",
        "--policy",
        file,
        "--label",
        "untrusted",
    ]
    result = run(*arguments)
    assert result.exit_code == 0
    assert result.stdout.startswith("ask: mail.send as anna (support, staff)\n")
    assert f"tainted  {file}:5" in result.stdout
    found = json.loads(run(*arguments, "--json").stdout)
    assert found["needed"] == ["1 yes from any operator, within 1800 s"]


def test_explain_refuses_arguments_that_are_not_an_object(file: str) -> None:
    """A usage error is exit code 2."""
    assert run("explain", "--skill", "a.b", "--policy", file, "--arguments", "[1]").exit_code == 2
    assert run("explain", "--skill", "a.b", "--policy", file, "--arguments", '{"a":1,"a":2}').exit_code == 2


def test_a_broken_policy_decides_nothing(tmp_path: Path) -> None:
    """A policy with problems is not used at all; the command line prints them and exits 2."""
    bad = tmp_path / "bad.yaml"
    bad.write_text("version: 1\nrulez: []\n", encoding="utf-8")
    result = run("decide", "--jsonl", "--policy", str(bad), lines=[call("a.b")])
    assert isinstance(result.exception, ConfigurationError)
    assert result.stdout == ""


@pytest.mark.parametrize("command", [[], ["check"], ["explain"], ["decide"]])
def test_help_ends_with_an_example(command: list[str]) -> None:
    """Every help text ends with a command to copy."""
    result = run(*command, "--help")
    assert "Example:" in result.stdout.rstrip().rsplit("\n\n", 1)[-1]
