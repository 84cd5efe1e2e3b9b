"""A notice as the bytes that receivers take: our own JSON, or Slack's blocks.

Both are ASCII. Foreign text (names of skills, rules and people) is escaped for where it is shown: it cannot end its
place, mention anybody, or become a link.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime

from interposer.display import printable
from interposer.model import Json

from .notice import Notice

_SHOWN_CHARS = 80
_RULES = 3
"""Slack refuses a section of more than 3,000 characters, and an `&` is five of them."""

_SAID = {
    "opened": "A call waits for approval",
    "amended": "What would be approved has been changed",
    "voted": "A call waits for more approvals",
    "granted": "A call was approved",
    "broke_glass": "GLASS WAS BROKEN: one person approved a call alone",
    "denied": "A call was denied",
    "expired": "Nobody approved a call in time",
    "withdrawn": "A call was withdrawn",
    "consumed": "An approved call is made",
}
_OPEN = frozenset({"opened", "amended", "voted"})


def generic(notice: Notice) -> bytes:
    """One JSON object, without white space."""
    return json.dumps(notice.payload, ensure_ascii=True, separators=(",", ":")).encode()


def slack(notice: Notice) -> bytes:
    """Slack's incoming webhooks (Block Kit): a heading, the facts, and where to answer. No button."""
    told = notice.payload
    said = _SAID[notice.event]
    facts = [f"*Skill* {_code(told['skill'])}", f"*Asked by* {_code(told['requester'])}"]
    facts.append(f"*Question* {_code(told['question'])}")
    if told["rules"]:
        facts.append(f"*Rules* {' '.join(_code(rule) for rule in told['rules'][:_RULES])}")
    if told["by"] is not None:
        facts.append(f"*Last answer by* {_code(told['by'])}")
    if notice.event in _OPEN:
        facts.append(f"*Approved by* {told['agreed']} of {told['quorum']}")
        facts.append(f"*Until* {_code(_time(told['expires_at']))}")
    if told["bytes"] is not None:
        facts.append(f"*Arguments* {told['bytes']} bytes, not shown here")
    facts.append(f"*Digest* {_code(told['digest'][:16])}")
    blocks: list[Json] = [
        {"type": "header", "text": {"type": "plain_text", "text": said, "emoji": False}},
        _section("\n".join(facts)),
    ]
    if told["link"] is not None:
        blocks.append(_section(f"<{_escaped(told['link'])}|{'Look and answer' if notice.event in _OPEN else 'Look'}>"))
    message = {"text": f"{said}: {_plain(told['skill'])} ({told['question']})", "mrkdwn": False, "blocks": blocks}
    return json.dumps(message, ensure_ascii=True, separators=(",", ":")).encode()


def _section(text: str) -> Json:
    # `verbatim`: names, channels and addresses in it are not looked for.
    return {"type": "section", "text": {"type": "mrkdwn", "text": text, "verbatim": True}}


def _code(text: str) -> str:
    """Foreign text in mrkdwn: inside of backticks nothing else is formatting."""
    return f"`{_plain(text).replace('`', chr(0x2019))}`"


def _plain(text: str) -> str:
    shown = printable(text)
    return _escaped(shown if len(shown) <= _SHOWN_CHARS else f"{shown[:_SHOWN_CHARS]}…")


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")
