"""Is a secret anywhere that it should not be? Looks through files for a canary, in every encoding that leaks take.

    canary.py make FILE                         write a fresh canary
    canary.py search FILE [--cores DIR] PATH…   exit 1 where it is found, 2 where nothing was proved

Names the places, never the value. Two kinds of file hold the canary on purpose and are passed over: `*.credential`
whose whole content is one credential, as a test gives it to a broker, and `*.emitted`, what a fake upstream is to say.
Core files (`core`, `core.*`) are looked for with `--cores` in a folder itself, and everywhere below each PATH.
"""

from __future__ import annotations

import argparse
import re
import secrets
import sys
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

PREFIX = "ixc-"
SHAPE = re.compile(PREFIX + r"[a-z2-7]{40}")
EDGE = 8
"""Characters at each end that are not looked for: a text that was cut short there is found all the same."""
CHUNK_BYTES = 16 * 1024 * 1024
_ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"


def fresh() -> str:
    """A canary: 200 random bits in a shape that no rule for secrets knows."""
    return PREFIX + "".join(secrets.choice(_ALPHABET) for _ in range(40))


@cache
def needles(canary: str) -> tuple[tuple[str, bool, bytes], ...]:
    """(encoding, whether case counts, bytes) for the middle of a canary; without case the bytes are in lower case."""
    core = canary[EDGE:-EDGE]
    raw = core.encode()
    exact = {f"base64, {shift} bytes after": _base64(raw, shift) for shift in range(3)}
    folded = {
        "plain": core,
        "reversed": core[::-1],
        "hexadecimal": raw.hex(),
        "hexadecimal in pairs": raw.hex(" "),
        "hexadecimal with colons": raw.hex(":"),
        "percent": "".join(f"%{byte:02x}" for byte in raw),
        "quoted-printable": "".join(f"={byte:02x}" for byte in raw),
        "backslash x": "".join(f"\\x{byte:02x}" for byte in raw),
        "backslash u": "".join(f"\\u{byte:04x}" for byte in raw),
        "html entities": "".join(f"&#{byte};" for byte in raw),
        "html entities in hexadecimal": "".join(f"&#x{byte:x};" for byte in raw),
        "utf-16": "\0".join(core),
        "utf-32": "\0\0\0".join(core),
    }
    return (
        *((name, True, text) for name, texts in exact.items() for text in texts),
        *((name, False, text.encode()) for name, text in folded.items()),
    )


def _base64(raw: bytes, shift: int) -> tuple[bytes, ...]:
    """What is the same in the base64 of every text that holds these bytes at this offset (modulo three)."""
    first, last = (shift * 8 + 5) // 6, (shift + len(raw)) * 8 // 6
    padded = bytes(shift) + raw
    return tuple(dict.fromkeys(code(padded)[first:last] for code in (b64encode, urlsafe_b64encode)))


def encodings_in(content: bytes | bytearray, canary: str) -> list[str]:
    """The encodings in which the canary is in there."""
    lowered = content.lower()
    found = [name for name, case, text in needles(canary) if text in (content if case else lowered)]
    return list(dict.fromkeys(found))


@dataclass(slots=True)
class Search:
    """What was looked through, and what came of it."""

    canary: str
    files: int = 0
    content_bytes: int = 0
    in_custody: int = 0
    """Credential files that hold it: without one of them, finding nothing proves nothing."""
    places: list[str] = field(default_factory=list)

    def below(self, root: Path) -> None:
        for file in [root] if root.is_file() else walked(root):
            self._look(file)

    def cores(self, folder: Path) -> None:
        """Core files that a process left in this folder."""
        for file in sorted(folder.glob("core*")):
            if re.fullmatch(r"core(\.\d+)?", file.name) and file.is_file():
                self._look(file)

    def _look(self, file: Path) -> None:
        shown = str(file).replace(self.canary[EDGE:-EDGE], "…")
        if shown != str(file):
            self.places.append(f"{shown}: in its name")
        if file.name.endswith(".emitted"):
            return
        if self._is_credential(file):
            self.in_custody += 1
            return
        self.files += 1
        self.places += [f"{shown}: {encoding}" for encoding in sorted(self._found(file))]

    def _is_credential(self, file: Path) -> bool:
        if file.suffix != ".credential" or file.stat().st_size > 256:
            return False
        return re.fullmatch(re.escape(self.canary) + r"(-[a-z0-9]+)*\n?", file.read_text("latin-1")) is not None

    def _found(self, file: Path) -> set[str]:
        found: set[str] = set()
        overlap = max(len(text) for _, _, text in needles(self.canary))
        kept = b""
        with file.open("rb") as stream:
            while chunk := stream.read(CHUNK_BYTES):
                self.content_bytes += len(chunk)
                found.update(encodings_in(kept + chunk, self.canary))
                kept = chunk[-overlap:]
        return found


def walked(folder: Path) -> Iterator[Path]:
    """Every regular file below a folder; links are not followed."""
    for entry in sorted(folder.iterdir()):
        if entry.is_symlink():
            continue
        if entry.is_dir():
            yield from walked(entry)
        elif entry.is_file():
            yield entry


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("make").add_argument("file", type=Path)
    searching = verbs.add_parser("search")
    searching.add_argument("file", type=Path)
    searching.add_argument("--cores", type=Path, action="append", default=[])
    searching.add_argument("paths", type=Path, nargs="+")
    asked = parser.parse_args(words)
    if asked.verb == "make":
        asked.file.touch(mode=0o600, exist_ok=False)
        asked.file.write_text(fresh())
        return 0
    return _search(asked.file.read_text().strip(), asked.cores, asked.paths)


def _search(canary: str, cores: list[Path], paths: list[Path]) -> int:
    if SHAPE.fullmatch(canary) is None:
        sys.stderr.write("canary: the file holds no canary; write one with `canary.py make FILE`\n")
        return 2
    search = Search(canary)
    for path in paths:
        search.below(path)
    for folder in cores:
        search.cores(folder)
    for place in search.places:
        print(f"canary: {place}")
    custody, elsewhere = search.in_custody, len(search.places) or "no"
    print(f"canary: {search.files} files, {search.content_bytes / 1e6:.0f} MB")
    print(f"canary: in {custody} credential files and {elsewhere} other places")
    if not search.in_custody:
        sys.stderr.write("canary: no broker had it in custody, so nothing was proved\n")
        return 2
    return 1 if search.places else 0


if __name__ == "__main__":
    sys.exit(main())
