"""Secrets by what they are assigned to: `password=…`, `"api_key": "…"`, `Authorization: …`, `https://user:pass@…`.

The word alone proves nothing: the value has to look like a secret and not like prose, code, a placeholder or a count.
"""

from __future__ import annotations

import re

from .detector import MARK, SECRETS, Detector, Finding, entropy

NAME = "secret"
_KEYWORDS = r"passw|passphrase|pwd|pass|secret|token|api|auth|credential|bearer|cookie|key"
_ASSIGNMENT = re.compile(
    rf"(?P<word>{_KEYWORDS})(?P<rest>[A-Za-z0-9_.\-]{{0,24}})"
    r"(?P<close>\\?[\"'`]|[\])]){0,3}"
    r"(?:[ \t]{0,4}(?:string|str|String)?[ \t]{0,4})"
    r"(?P<operator>(?::{0,3}=>?|\.=|\?=|\|\|:?|:=|=>|->|:|,|>|[\"'] value=)[ \t]*\n?\s{0,12})"
    r"(?:(?P<scheme>(?:bearer|basic|digest|token|apikey|api-key|api-token|key|negotiate|aws4-hmac-sha256)[ :]\s{0,3}))?"
    r"(?P<quote>\\{0,3}[\"'`]|b[\"'])?"
    r"(?:(?P<inner>(?:bearer|basic|digest|token|apikey|api-token)) )?",
    re.IGNORECASE | re.ASCII,
)
_BARE = re.compile(r"[^\s\"'`,;&<>(){}\[\]\\\x00]{1,16384}")
_UNTIL = {quote: re.compile(rf"[^\n\r\x00{quote}]{{1,16384}}") for quote in "\"'`"}
_PASSWORDS = re.compile(r"(?i)passw|passphrase|pwd|pass|secret")
_ORDINARY = re.compile(
    r"(?i)(?:null|none|nil|true|false|undefined|unknown|required|optional|string|object|number|boolean|text|default"
    r"|password|passwd|secret|token|key|changeme|change_me|redacted|removed|hidden|masked|example|sample|dummy|test"
    r"|your.*|my[-_ ]?(?:password|secret|token|key).*|.*(?:placeholder|_here|-here|example\.(?:com|org))|env|value"
    r"|(?:x{3,}|\*{3,}|\.{3,}|-{3,}|_{3,}|0{4,}|1234(?:5(?:6(?:7(?:89?0?)?)?)?)?|abc(?:def\w*)?))$"
)
_CODE = re.compile(
    r"\$\{|\$\(|\{\{|\}\}|<[a-zA-Z_ ]|%\(|%s|\*{3,}|x{6,}|X{6,}|\.{3}|os\.|process\.env|getenv|environ"
    r"|secrets?\.[a-z_A-Z]"
    r"|^(?:var|local|data|module|self|this|config|settings|request|req|ctx|args|options|params|props|env)\."
    r"|^\$[A-Za-z_]|^[A-Za-z_.]+\(|^/[\w.-]+/|^\.{1,2}/|^https?://|^[a-z]+:///?[a-z]"
)
_WORDS_ONLY = re.compile(r"[A-Za-z]+(?:[-_. /:][A-Za-z]+)*[.!?:]?$", re.ASCII)
_HARMLESS_REST = re.compile(
    r"(?i)^(?:s?[_-]?(?:count|limit|length|len|size|type|name|url|uri|path|file|expir\w*|ttl|field|id|ids|required"
    r"|reset|policy|hint|age|usage|budget|label|version|format|algorithm|method|provider|column|index|map|set|list|ring"
    r"|board|word|code|frame|up|down|press|stroke|s|ed)|or|ors|ored|ority|oring|enticat\w*|orship|ic|o)$"
)
_HARMLESS_WORD = re.compile(
    r"(?i)(?:progress|page|next|continuation|cancel\w*|public|pub|primary|foreign|sort|partition|cache|row|object|group"
    r"|natural|idempotency|dedup\w*|hash|s3|map|max|min|num|total|prompt|completion|input|output)[_-]?$"
)
_HARMLESS_JOINED = re.compile(r"(?i)(?:mon|don|tur|hoc|jo|whis|by|com|bou|unsur|sur|tres|over|under|en|sea|hot)$")
_TOKENISH = re.compile(r"[A-Za-z0-9_.=+/~@!:|%$^&#*?-]{8,}$", re.ASCII)
_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$", re.ASCII)
_DATE = re.compile(r"\d{4}-\d\d-\d\d(?:[T ]|$)|\d+(?:\.\d+)*(?:px|ms|s|m|h|d|kb|mb|gb|%)?$", re.ASCII | re.IGNORECASE)


def inspect(text: str, start: int, end: int, context: str) -> list[Finding]:
    match = _ASSIGNMENT.match(text, start)
    if match is None or _in_placeholder(text, start) or _harmless(text, start, match):
        return []
    quote = match["quote"] or ""
    mark = quote[-1:] if quote else ""
    at = match.end()
    value = (_UNTIL[mark] if mark else _BARE).match(text, at)
    if value is None:
        return []
    stop = value.end()
    if mark:
        stop = at + len(value.group().rstrip("\\"))
        if stop - at > 4 and (stop >= len(text) or text[stop] not in "\\" + mark):
            mark = ""  # The quote is never closed: read it as one word.
            bare = _BARE.match(text, at)
            stop = bare.end() if bare else at
    found = text[at:stop]
    stripped = found.rstrip(".:") if not mark else found
    headed = bool(match["scheme"] or match["inner"])
    if not stripped or not plausible(stripped, _word(match), quoted=bool(mark), headed=headed):
        return []
    return [(at, at + len(stripped), NAME)]


def _word(match: re.Match[str]) -> str:
    return (match["word"] + match["rest"]).lower()


def _harmless(text: str, start: int, match: re.Match[str]) -> bool:
    """Whether the name is one of the many that only contain such a word."""
    word = match["word"].lower()
    if _HARMLESS_REST.match(match["rest"]):
        return True
    before = text[max(0, start - 16) : start]
    if _HARMLESS_WORD.search(before) or (word in ("key", "pass") and _HARMLESS_JOINED.search(before)):
        return True
    if word == "key":
        return not before or not (before[-1] in "_-. " or before[-1].isalnum()) or before[-1] == " "
    if word in ("api", "auth"):
        return not re.search(r"(?i)key|token|secret|pass|auth|id$", word + match["rest"])
    return word == "pass" and bool(before) and before[-1].isalnum() and before[-1].islower()


def _in_placeholder(text: str, start: int) -> bool:
    mark = text.rfind(MARK, max(0, start - 48), start)
    return mark >= 0 and "]" not in text[mark:start]


def plausible(value: str, word: str, *, quoted: bool, headed: bool = False) -> bool:
    """Whether a value assigned to such a word is a secret."""
    size = len(value)
    if size < 6 or MARK in value or _ORDINARY.match(value) or _CODE.search(value) or _DATE.match(value):
        return _long_number(value, word)
    if len(set(value)) < 4:
        return False
    if _PASSWORDS.match(word) or (quoted and "secret" in word):
        return _passwordish(value, quoted, word in ("password", "passwd", "pwd", "passphrase"))
    if size < 8 or not _TOKENISH.match(value) or _WORDS_ONLY.match(value):
        return False
    if _UUID.match(value):
        return "token" in word or "key" in word or "secret" in word
    digits = sum(ch.isdigit() for ch in value)
    if digits == 0:
        return size >= 16 and entropy(value) >= (3.0 if headed else 3.5) and _mixed(value)
    return entropy(value) >= (2.5 if headed else 2.7) and (size >= 10 or headed)


def plausible_value(value: str) -> bool:
    """Whether the whole value of a key that names a secret is one."""
    value = value.strip()
    head, _, rest = value.partition(" ")
    if rest and head.lower() in ("bearer", "basic", "token", "digest", "apikey", "api-token"):
        value = rest
    return plausible(value, "password", quoted=True) or plausible(value, "token", quoted=True)


def _long_number(value: str, word: str) -> bool:
    return value.isdigit() and len(value) >= 15 and len(set(value)) >= 5 and ("token" in word or "secret" in word)


def _mixed(value: str) -> bool:
    return any(ch.isupper() for ch in value[1:]) and any(ch.islower() for ch in value)


def _passwordish(value: str, quoted: bool, told: bool) -> bool:
    has_digit = any(ch.isdigit() for ch in value)
    has_letter = any(ch.isalpha() for ch in value)
    has_mark = any(not ch.isalnum() and ch not in "_-. /:" for ch in value)
    if any(ch.isspace() for ch in value):
        return quoted and has_digit and has_mark and value.count(" ") <= 2
    if _WORDS_ONLY.match(value):
        drawn = len(value) >= 10 and _mixed(value) and entropy(value) >= 3.3 and "." not in value
        return quoted and (drawn or (told and value.isalnum()))
    return (has_letter and has_digit) or (has_mark and (quoted or has_digit))


_USERINFO = re.compile(r"://([^\s/@:\"'<>\x00]{0,128}:[^\s/@\"'<>\x00]{1,256}|[^\s/@:\"'<>\x00]{16,256})@", re.ASCII)


def inspect_userinfo(text: str, start: int, end: int, context: str) -> list[Finding]:
    """RFC 3986 §3.2.1: user information before the host of a URL."""
    match = _USERINFO.match(text, start)
    if match is None:
        return []
    info = match.group(1)
    password = info.partition(":")[2] or info
    if MARK in info or password[0] in "<{$[%*" or _CODE.search(password) or set(password) <= set("x*.X"):
        return []
    return [(*match.span(1), NAME)]


_USER_OPTION = re.compile(
    r"(?:-u|--user|--proxy-user)[ =]{1,2}"
    r"(?:\"([^\s\":]+:[^\"\n]+)\"|'([^\s':]+:[^'\n]+)'|([^\s:\"'-][^\s:\"']*:[^\s\"']+))",
    re.ASCII,
)


def inspect_user_option(text: str, start: int, end: int, context: str) -> list[Finding]:
    """The `-u user:password` of curl and its relatives."""
    match = _USER_OPTION.match(text, start)
    if match is None or match.lastindex is None or word_joined(text, start):
        return []
    value = match.group(match.lastindex)
    name, _, password = value.partition(":")
    if (
        MARK in value
        or name[0] in "<{$["
        or _CODE.search(password)
        or _ORDINARY.match(password)
        or name == password
        or len(password) < 4
    ):
        return []
    if password.isdigit() and name.isdigit():
        return []
    return [(*match.span(match.lastindex), NAME)]


def word_joined(text: str, start: int) -> bool:
    return start > 0 and not text[start - 1].isspace()


DETECTORS = (
    Detector(
        name="url_credential",
        profile=SECRETS,
        anchor=r"://[^\s/@:\"'<>\x00]*:[^\s/@\"'<>\x00]+@|://[^\s/@:\"'<>\x00]{16,}@",
        starts=":",
        inspect=inspect_userinfo,
    ),
    Detector(
        name="user_option",
        profile=SECRETS,
        anchor=r"(?:-u|--user|--proxy-user)[ =]{1,2}[\"']?[^\s:\"'\x00]+:[^\s\"'\x00]",
        starts="-",
        inspect=inspect_user_option,
    ),
    Detector(
        name=NAME,
        profile=SECRETS,
        anchor=(
            rf"(?i:{_KEYWORDS})[A-Za-z0-9_.\-]{{0,24}}[ \"'\\`\t\])]{{0,4}}(?:string|String)?[ \"'\\`\t\])]{{0,4}}"
            r"(?:=|:|,|>|\?|\.=|\|\||->| value)[=>:|, \"'\\`\t\r\n]{0,16}[A-Za-z0-9+/=_.~@!#$%^&*-][^\s\x00]{4}"
        ),
        starts="pPsStTaAcCbBkK",
        inspect=inspect,
    ),
)
