"""`interposer mask` as a filter."""

from __future__ import annotations

import json

from click.testing import CliRunner

from interposer.cli.mask import mask

EMAIL = "jane.roe" + "@corp-mail.test"
TOKEN = "ghp_" + "x7Qw9Zr2Tn5Lk8Vb1Mc4Pd6Fs3Hg0JyAaBbC"


def run(text: str, *options: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(mask, options, input=text)
    return result.exit_code, result.stdout, result.stderr


def test_text_is_masked() -> None:
    """Standard input comes out masked, line ends as they were."""
    assert run(f"to {EMAIL}\nand on\n") == (0, "to [REDACTED:email]\nand on\n", "")


def test_rows_are_masked_in_order() -> None:
    """With --jsonl, each row's text comes out masked, one row for one row."""
    code, out, _ = run("".join(json.dumps({"text": f"{n} {EMAIL}"}) + "\n" for n in range(3)), "--jsonl")
    assert code == 0
    assert [json.loads(line) for line in out.splitlines()] == [{"text": f"{n} [REDACTED:email]"} for n in range(3)]


def test_profile_limits_what_is_masked() -> None:
    """--profile says what to mask, and may be given twice."""
    text = f"{EMAIL} {TOKEN}"
    assert run(text, "--profile", "pii")[1] == f"[REDACTED:email] {TOKEN}"
    assert run(text, "--profile", "pii", "--profile", "secrets")[1] == "[REDACTED:email] [REDACTED:github_token]"


def test_row_without_text_is_a_usage_error() -> None:
    """A line that is no row is refused with its number, and its text is not echoed."""
    code, _, err = run(f'{{"txt": "{EMAIL}"}}\n', "--jsonl")
    assert code == 2
    assert "line 1" in err
    assert EMAIL not in err


def test_help_ends_with_an_example() -> None:
    """--help shows how it is used."""
    assert "Example:" in run("", "--help")[1]
