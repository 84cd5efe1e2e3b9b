"""`interposer token`: what the broker would say to a token, and why. Nothing is fetched; the keys come from a file."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from interposer.errors import ConfigurationError, Problem, Unauthenticated
from interposer.identity.trust import ALGORITHMS, GroupsFrom, Identity, Trust
from interposer.model import JsonObject

if TYPE_CHECKING:
    from interposer.identity.keys import KeySet
    from interposer.identity.trust import Path as ClaimPath

_DEFAULT = Trust("", frozenset())
_LATEST = 200_000_000_000
"""Beyond it there is no calendar to write a date in."""
_LONGEST = 315_360_000
_EPILOG = """\b
Exit codes: 0 accepted (with --jsonl: every line was answered), 1 rejected, 2 a usage error or keys that cannot be read.

\b
Example:
  interposer token verify --issuer https://idp.example/realms/acme --audience interposer --jwks jwks.json < token.txt
"""


class _Seconds(click.FloatRange):
    """A range that does not let NaN pass, which no comparison would refuse later."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        found: float = super().convert(value, param, ctx)
        if not isfinite(found):
            self.fail("expected a number of seconds", param, ctx)
        return found


@click.group(
    name="token",
    epilog="\b\nExample:\n  interposer token verify --issuer https://idp.example --audience interposer "
    "--jwks jwks.json < token.txt",
)
def token() -> None:
    """Verify access tokens as the broker does."""


@token.command(epilog=_EPILOG)
@click.option("--issuer", required=True, metavar="URL", help="What `iss` must be, byte for byte.")
@click.option("--audience", "audiences", required=True, multiple=True, help="One must be in `aud`; may be repeated.")
@click.option("--jwks", required=True, metavar="FILE", help="The issuer's public keys.")
@click.option(
    "--now",
    type=_Seconds(0, _LATEST),
    metavar="EPOCH",
    help="Judge as of these seconds since 1970. Default: now.",
)
@click.option(
    "--algorithm",
    "algorithms",
    multiple=True,
    type=click.Choice(sorted(ALGORITHMS)),
    help="May be repeated. Default: RS256 and ES256.",
)
@click.option(
    "--leeway",
    type=_Seconds(0, 300),
    default=_DEFAULT.leeway_s,
    show_default=True,
    metavar="S",
)
@click.option(
    "--max-lifetime",
    type=_Seconds(0, _LONGEST),
    default=_DEFAULT.max_lifetime_s,
    show_default=True,
    metavar="S",
)
@click.option("--authorized-party", "parties", multiple=True, help="One must be `azp`; may be repeated.")
@click.option(
    "--groups-claim",
    default="groups",
    show_default=True,
    metavar="PATH",
    help="Keys with dots between, or a JSON list of keys.",
)
@click.option("--groups-shape", type=click.Choice(["list", "words", "one"]), default="list", show_default=True)
@click.option("--subject-claim", default="sub", show_default=True, metavar="PATH", help="As --groups-claim.")
@click.option("--id-tokens", is_flag=True, help="Take ID tokens, which are meant for the client that logged in.")
@click.option("--jsonl", is_flag=True, help='{"name", "token"} per line in, {"name", "verdict", "reason"} out.')
@click.option("--json", "as_json", is_flag=True, help="Answer with one JSON object.")
def verify(
    issuer: str,
    audiences: tuple[str, ...],
    jwks: str,
    now: float | None,
    algorithms: tuple[str, ...],
    leeway: float,
    max_lifetime: float,
    parties: tuple[str, ...],
    groups_claim: str,
    groups_shape: Any,
    subject_claim: str,
    id_tokens: bool,
    jsonl: bool,
    as_json: bool,
) -> None:
    """Judge the token on standard input, or with --jsonl one per line, and say who it speaks for or why not."""
    from interposer.clock import SystemClock

    trust = Trust(
        issuer=issuer,
        audiences=frozenset(audiences),
        algorithms=frozenset(algorithms) or _DEFAULT.algorithms,
        authorized_parties=frozenset(parties),
        subject=_path(subject_claim, "--subject-claim"),
        groups=(GroupsFrom(_path(groups_claim, "--groups-claim"), groups_shape),),
        leeway_s=leeway,
        max_lifetime_s=max_lifetime,
        id_tokens=id_tokens,
    )
    at = SystemClock().now() if now is None else now
    keys = _keys(jwks)
    if jsonl:
        _lines(keys, trust, at)
    else:
        _one(keys, trust, at, as_json)


def _lines(keys: KeySet, trust: Trust, now: float) -> None:
    out = sys.stdout
    for line in sys.stdin.buffer:
        if line.strip():
            out.write(json.dumps(_row(keys, trust, now, line)) + "\n")
            out.flush()


def _row(keys: KeySet, trust: Trust, now: float, line: bytes) -> JsonObject:
    try:
        # Leniently, so that a line with a token that is no text at all still gets its name back.
        row = json.loads(line.decode("utf-8", "surrogateescape"), strict=False)
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict):
        return _rejected(None, 'malformed: expected a line {"name", "token"}')
    name = row["name"] if isinstance(row.get("name"), str) else None
    if not isinstance(row.get("token"), str):
        return _rejected(name, "malformed: the token is not a text")
    try:
        _identity(row["token"], keys, trust, now)
    except Unauthenticated as refusal:
        return _rejected(name, f"{refusal.why}: {refusal}")
    return {"name": name, "verdict": "accept", "reason": ""}


def _rejected(name: str | None, reason: str) -> JsonObject:
    return {"name": name, "verdict": "reject", "reason": reason}


def _one(keys: KeySet, trust: Trust, now: float, as_json: bool) -> None:
    text = sys.stdin.buffer.read().decode("utf-8", "surrogateescape")
    try:
        # The line end is the file's, not the token's.
        identity = _identity(text.removesuffix("\n").removesuffix("\r"), keys, trust, now)
    except Unauthenticated as refusal:
        said: JsonObject = {"verdict": "reject", "why": refusal.why, "reason": str(refusal)}
        click.echo(json.dumps(said) if as_json else f"rejected ({refusal.why}): {refusal}")
        sys.exit(1)
    said = _facts(identity)
    if as_json:
        click.echo(json.dumps(said))
        return
    for name, value in said.items():
        click.echo(f"{name:<10} {(', '.join(value) if isinstance(value, list) else value) or '-'}")


def _identity(text: str, keys: KeySet, trust: Trust, now: float) -> Identity:
    from interposer.identity.verify import verify as verified

    return verified(text, keys, trust, now)


def _facts(identity: Identity) -> JsonObject:
    who = identity.principal
    return {
        "verdict": "accept",
        "issuer": who.issuer,
        "subject": who.subject,
        "groups": list(who.groups),
        "client": who.client_id,
        "token_id": identity.token_id,
        "session": identity.session,
        "expires": datetime.fromtimestamp(identity.expires_at, UTC).isoformat(),
    }


def _keys(file: str) -> KeySet:
    from interposer.identity.keys import BadKeys, read_keys

    try:
        keys = read_keys(Path(file).read_bytes())
    except OSError as error:
        said = f"cannot be read ({error.strerror}); save the issuer's JWKS (`jwks_uri` of its discovery document) there"
        raise ConfigurationError([Problem(file, 0, 0, said)]) from None
    except BadKeys as error:
        said = f"{error}; save the document that the issuer's `jwks_uri` answers with"
        raise ConfigurationError([Problem(file, 0, 0, said)]) from None
    for dropped in keys.dropped:
        click.echo(f"{file}: {dropped}; it is not used", err=True)
    if not keys.keys:
        click.echo(f"{file}: no key can be used, so every token is rejected", err=True)
    return keys


def _path(text: str, option: str) -> ClaimPath:
    if not text.startswith("["):
        return tuple(text.split("."))
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, list) or not found or not all(isinstance(key, str) for key in found):
        raise click.BadParameter("expected keys with dots between, or a JSON list of keys", param_hint=option)
    return tuple(found)
