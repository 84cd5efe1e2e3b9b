"""`interposer call`: one call through the whole pipeline, by hand."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from interposer.config import home

from .agent_client import AgentClient, CallRefused, NoAnswer, agent
from .display import printable
from .serve import CONFIG, POLICY, words

DENIED, WAITING, UNAVAILABLE = 3, 4, 5
_CODES = {
    -31001: DENIED,
    -31002: DENIED,
    -31003: UNAVAILABLE,
    -31004: UNAVAILABLE,
    -31005: UNAVAILABLE,
    -32602: 2,
    -32600: 2,
    -32700: 2,
}


@click.command(
    epilog="\b\nExamples:\n  interposer call crm.get_customer id=c-1001\n"
    '  interposer call echo message=hi --upstream "npx -y @modelcontextprotocol/server-everything"'
)
@CONFIG
@POLICY
@click.option("--arguments", metavar="JSON", help="All arguments as one JSON object.")
@click.option("--upstream", metavar="CMD", help="Start this stdio MCP server instead of reading a configuration.")
@click.option("--token-file", metavar="FILE", help="Who asks (default: $INTERPOSER_TOKEN_FILE, $INTERPOSER_TOKEN).")
@click.option("--json", "as_json", is_flag=True, help="Print the MCP result as JSON.")
@click.argument("skill")
@click.argument("pairs", metavar="[KEY=VALUE]...", nargs=-1)
def call(
    config: str | None,
    policy: str | None,
    arguments: str | None,
    upstream: str | None,
    token_file: str | None,
    as_json: bool,
    skill: str,
    pairs: tuple[str, ...],
) -> None:
    """Call SKILL (its id `<upstream>.<name>`, or the name agents see).

    A VALUE that is JSON is taken as JSON, else as text. Uses the running daemon, unless --config, --policy or
    --upstream says otherwise. Exit codes: 0 done, 1 the skill reported an error, 2 no such skill or unfit arguments,
    3 denied, 4 waiting for approval, 5 unavailable.
    """
    given = _arguments(arguments, pairs)
    try:
        with agent(home(), config=config, policy=policy, command=words(upstream), token_file=token_file) as (
            client,
            _,
        ):
            result = client.request("tools/call", {"name": _exposed(client, skill), "arguments": given})
    except CallRefused as refused:
        click.echo(f"interposer: {printable(str(refused))}", err=True)
        sys.exit(_CODES.get(refused.code, 1))
    except NoAnswer as error:
        click.echo(f"interposer: {error}", err=True)
        sys.exit(UNAVAILABLE)
    click.echo(json.dumps(result, ensure_ascii=False) if as_json else _text(result))
    sys.exit(_exit_code(result))


def _arguments(whole: str | None, pairs: tuple[str, ...]) -> dict[str, Any]:
    given: Any = {}
    if whole is not None:
        try:
            given = json.loads(whole)
        except ValueError as error:
            raise click.UsageError(f"--arguments is not JSON: {error}") from None
        if not isinstance(given, dict):
            raise click.UsageError("--arguments must be a JSON object")
    for pair in pairs:
        key, sign, value = pair.partition("=")
        if key in given:
            raise click.UsageError(f"{key!r} is given twice")
        if not sign or not key:
            raise click.UsageError(f"{pair!r}: expected KEY=VALUE")
        try:
            given[key] = json.loads(value)
        except ValueError:
            given[key] = value
    return dict(given)


def _exposed(client: AgentClient, skill: str) -> str:
    """The name agents use for a skill's id. An unknown one is passed on: the broker says that it is unknown."""
    names = [str(tool.get("name")) for tool in client.tools()]
    if skill in names:
        return skill
    upstream, _, name = skill.partition(".")
    collided = f"{upstream}__{name}"
    return collided if collided in names else name if name in names else skill


def _text(result: dict[str, Any]) -> str:
    """What a person reads: text as it is, everything else as JSON; control characters escaped."""
    blocks = result.get("content") or []
    lines = [
        block["text"] if block.get("type") == "text" else json.dumps(block, ensure_ascii=False) for block in blocks
    ]
    if not lines and "structuredContent" in result:
        lines = [json.dumps(result["structuredContent"], ensure_ascii=False, indent=2)]
    return "\n".join("\n".join(printable(line) for line in text.splitlines()) for text in lines)


def _exit_code(result: dict[str, Any]) -> int:
    if result.get("isError") is not True:
        return 0
    meta = result.get("_meta") or {}
    if "interposer/pending" in meta:
        return WAITING
    decision = meta.get("interposer/decision")
    return _CODES.get(int(decision.get("code", 0)), 1) if isinstance(decision, dict) else 1
