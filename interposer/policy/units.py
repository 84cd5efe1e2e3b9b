"""Durations (`500ms 4s 30m`), sizes (`64KiB 1MB`), rates (`60/min`), times of day (`08:00`) and skill patterns."""

from __future__ import annotations

import re

_DURATION = re.compile(r"([0-9]{1,9})(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE = re.compile(r"([0-9]{1,9})(B|KiB|MiB|GiB|KB|kB|MB|GB)")
_BYTES = {
    "B": 1,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "KB": 10**3,
    "kB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
}
_RATE = re.compile(r"([0-9]{1,9})/(s|min|h|d)")
MAX_COUNT = 100_000
"""The exact counter keeps one time for each call in the window."""
_PER = {"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_CLOCK = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])|24:00")
_NEVER_IN_PATTERNS = frozenset("?[]{}!\\")


def seconds(text: str) -> float:
    """A duration above zero. Raises `ValueError` that says what was expected."""
    found = _DURATION.fullmatch(text)
    if found is None or int(found[1]) == 0:
        raise ValueError("expected a duration such as 500ms, 4s, 30m, 12h or 1d")
    return int(found[1]) / 1000 if found[2] == "ms" else int(found[1]) * _SECONDS[found[2]]


def size(text: str) -> int:
    """Bytes, above zero. Raises `ValueError` that says what was expected."""
    found = _SIZE.fullmatch(text)
    if found is None or int(found[1]) == 0:
        raise ValueError("expected a size such as 64KiB, 4MiB or 1MB")
    return int(found[1]) * _BYTES[found[2]]


def rate(text: str) -> tuple[int, float]:
    """How many, in how many seconds. Raises `ValueError` that says what was expected."""
    found = _RATE.fullmatch(text)
    if found is None or not 0 < int(found[1]) <= MAX_COUNT:
        raise ValueError(f"expected a rate of at most {MAX_COUNT}, such as 5/s, 60/min, 100/h or 1000/d")
    return int(found[1]), _PER[found[2]]


def minute(text: str) -> int:
    """Minutes after midnight, 1440 for 24:00. Raises `ValueError` that says what was expected."""
    found = _CLOCK.fullmatch(text)
    if found is None:
        raise ValueError('expected a time of day such as "08:00" or "17:30", up to "24:00"')
    return int(found[1]) * 60 + int(found[2]) if found[1] else 24 * 60


def check_pattern(pattern: str) -> None:
    """`*`, or `<upstream>.<name>` with `*` as the only wildcard. Raises `ValueError` that says what was expected."""
    if pattern == "*":
        return
    if not pattern.isprintable() or pattern != pattern.strip():
        raise ValueError("a skill pattern has no control characters and no spaces around it")
    odd = sorted(_NEVER_IN_PATTERNS.intersection(pattern))
    if odd or "**" in pattern:
        raise ValueError(f"{(odd or ['**'])[0]!r} is not allowed in a skill pattern: `*` is the only wildcard")
    upstream, dot, name = pattern.partition(".")
    if not (dot and upstream and name):
        raise ValueError('expected <upstream>.<name>, such as crm.search or crm.get_*, or "*" for every skill')


def fits(pattern: str, skill_id: str) -> bool:
    """Whether a pattern names a skill. Case counts. Only the first dot separates upstream from name: the rest of the
    name may hold dots and slashes, and a `*` in the pattern's name covers them; a `*` in its upstream ends at the dot.
    """
    if pattern == "*":
        return True
    upstream, _, name = pattern.partition(".")
    of_skill, dot, skill_name = skill_id.partition(".")
    return dot == "." and _covers(upstream, of_skill) and _covers(name, skill_name)


def _covers(pattern: str, name: str) -> bool:
    if "*" not in pattern:
        return pattern == name
    first, *middle, last = pattern.split("*")
    if len(name) < len(first) + len(last) or not name.startswith(first) or not name.endswith(last):
        return False
    at, end = len(first), len(name) - len(last)
    for piece in middle:
        found = name.find(piece, at, end)
        if found < 0:
            return False
        at = found + len(piece)
    return True


def overlap(left: str, right: str) -> bool:
    """Whether some skill could fit both patterns."""
    if "*" in (left, right):
        return True
    pairs = zip(_parts(left), _parts(right), strict=True)
    return all(_overlap(one, other) for one, other in pairs)


def contains(wide: str, narrow: str) -> bool:
    """Whether every skill that fits `narrow` fits `wide`. May say no where a longer argument would say yes."""
    if wide == "*":
        return True
    if narrow == "*":
        return False
    # A `*` of `narrow` stands for any text, so it must itself be taken in by a `*` of `wide`.
    return all(_covers(one, other) for one, other in zip(_parts(wide), _parts(narrow), strict=True))


def _parts(pattern: str) -> tuple[str, str]:
    upstream, _, name = pattern.partition(".")
    return upstream, name


def _overlap(left: str, right: str) -> bool:
    reach = {0}
    for char in left:
        if char == "*":
            reach = set(range(min(reach), len(right) + 1)) if reach else reach
        else:
            reach = _step(reach, char, right)
    return len(right) in _closure(reach, right)


def _closure(reach: set[int], pattern: str) -> set[int]:
    wide = set(reach)
    for at in sorted(reach):
        while at < len(pattern) and pattern[at] == "*":
            at += 1
            wide.add(at)
    return wide


def _step(reach: set[int], char: str, pattern: str) -> set[int]:
    found: set[int] = set()
    for at in _closure(reach, pattern):
        if at < len(pattern) and pattern[at] == "*":
            found.add(at)
        elif at < len(pattern) and pattern[at] == char:
            found.add(at + 1)
    return found
