"""The search that says that no credential got out would have found one that did."""

from __future__ import annotations

import base64
import html
import quopri
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.fakes.canary import canary, credential_file, marker, require_absent, require_clean
from tools.canary import CHUNK_BYTES, Search, encodings_in, fresh, main

PLANTED = fresh()
SAID = f"Authorization: {PLANTED}-crm, ok"
LEAKS = {
    "plain": SAID.encode(),
    "upper case": SAID.upper().encode(),
    "cut short": SAID[:-12].encode(),
    "base64": base64.b64encode(SAID.encode()),
    "base64 after one byte": base64.b64encode(b"x" + SAID.encode()),
    "base64 after two bytes": base64.b64encode(b"xy" + SAID.encode()),
    "base64url": base64.urlsafe_b64encode("ÿ~?".encode() + SAID.encode()),
    "hexadecimal": SAID.encode().hex().encode(),
    "hexadecimal, upper case": SAID.encode().hex().upper().encode(),
    "hexadecimal with colons": SAID.encode().hex(":").encode(),
    "percent": "".join(f"%{byte:02X}" for byte in SAID.encode()).encode(),
    "url": quote(SAID).encode(),
    "json": "".join(f"\\u{ord(char):04x}" for char in SAID).encode(),
    "backslash x": "".join(f"\\x{byte:02x}" for byte in SAID.encode()).encode(),
    "html": html.escape(SAID).encode(),
    "html entities": "".join(f"&#{ord(char)};" for char in SAID).encode(),
    "html entities in hexadecimal": "".join(f"&#x{ord(char):X};" for char in SAID).encode(),
    "quoted-printable": quopri.encodestring(SAID.encode()),
    "quoted-printable, all of it": "".join(f"={byte:02X}" for byte in SAID.encode()).encode(),
    "utf-16": SAID.encode("utf-16"),
    "utf-16, big-endian": SAID.encode("utf-16-be"),
    "utf-32": SAID.encode("utf-32"),
    "reversed": SAID[::-1].encode(),
}


@pytest.mark.parametrize("how", LEAKS)
def test_a_leak_is_found_however_it_is_written(how: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A canary in a file is found in each encoding, its place is named, and it is not shown."""
    record = tmp_path / "state" / "record.db-wal"
    record.parent.mkdir()
    record.write_bytes(bytes(range(256)) * 50 + LEAKS[how] + b"\0 and more")
    assert run(tmp_path, tmp_path / "state") == 1
    said = capsys.readouterr().out
    assert "record.db-wal" in said
    assert PLANTED[8:-8] not in said


def run(folder: Path, *paths: Path, cores: Path | None = None) -> int:
    """The exit code of a search, with one credential file in custody."""
    secret, custody = folder / "canary", folder / "custody"
    secret.write_text(PLANTED)
    custody.mkdir(exist_ok=True)
    (custody / "crm.credential").write_text(f"{PLANTED}-crm")
    more = ["--cores", str(cores)] if cores else []
    return main(["search", str(secret), *more, str(custody), *map(str, paths)])


def test_a_leak_across_the_pieces_of_a_large_file_is_found(tmp_path: Path) -> None:
    """Files are read in pieces; what lies across two of them is found too."""
    core = tmp_path / "core.4711"
    with core.open("wb") as file:
        file.seek(CHUNK_BYTES - 20)
        file.write(SAID.encode("utf-32"))
    assert run(tmp_path, cores=tmp_path) == 1


def test_files_that_are_meant_to_hold_it_are_passed_over(tmp_path: Path) -> None:
    """A credential file that is nothing but the credential, and what an upstream is to say; not the same text under
    another name, and not a credential with anything beside it."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "script.emitted").write_text(SAID)
    (home / "mail.credential").write_text(f"{PLANTED}-mail\n")
    assert run(tmp_path, home) == 0
    for name, text in [("copy", f"{PLANTED}-mail"), ("x.credential", SAID)]:
        leaked = home / name
        leaked.write_text(text)
        assert run(tmp_path, home) == 1
        leaked.unlink()


def test_a_file_name_is_searched_and_not_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that is named after the credential is a leak."""
    home = tmp_path / "home"
    home.mkdir()
    (home / f"{PLANTED}.sock").touch()
    assert run(tmp_path, home) == 1
    assert PLANTED[8:-8] not in capsys.readouterr().out


def test_a_search_without_a_credential_in_custody_proves_nothing(tmp_path: Path) -> None:
    """When no test gave the canary to a broker, the search fails instead of finding nothing."""
    secret = tmp_path / "canary"
    assert main(["make", str(secret)]) == 0
    assert secret.stat().st_mode & 0o077 == 0
    (tmp_path / "empty").mkdir()
    assert main(["search", str(secret), str(tmp_path / "empty")]) == 2


def test_a_file_without_a_canary_is_not_searched_for(tmp_path: Path) -> None:
    """An empty marker would be found nowhere."""
    secret = tmp_path / "canary"
    secret.touch()
    assert main(["search", str(secret), str(tmp_path)]) == 2


def test_ordinary_text_holds_none() -> None:
    """Nothing else is taken for it, another canary of the same shape included."""
    source = Path(__file__).read_bytes() + fresh().encode()
    assert encodings_in(source, PLANTED) == []


def test_credentials_of_a_run_differ_and_share_its_marker(tmp_path: Path) -> None:
    """Each label has its own credential; the suite's own checks find any of them without showing it."""
    assert canary("crm") != canary("mail")
    assert all(marker() in canary(label) for label in ("crm", "mail"))
    credential_file(tmp_path, "crm")
    require_clean(tmp_path)
    (tmp_path / "log").write_text(f"token={canary('crm')}")
    with pytest.raises(AssertionError, match=r"log: plain") as leak:
        require_clean(tmp_path)
    require_absent(str(leak.value).encode(), "the message")
    search = Search(marker())
    search.below(tmp_path)
    assert search.in_custody == 1
    (tmp_path / "log").unlink()


def test_a_test_that_prints_the_canary_has_failed(tmp_path: Path) -> None:
    """What passing tests print and log is searched when they have run, for it is kept nowhere."""
    root = Path(__file__).parents[1]
    (tmp_path / "conftest.py").write_text((root / "tests/conftest.py").read_text())
    (tmp_path / "test_it.py").write_text(
        "import sys\nfrom tests.fakes.canary import canary\n"
        "def test_loud(): sys.stderr.write(canary('x'))\ndef test_quiet(): print('x')\n"
    )
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path)]
    done = subprocess.run(
        [*words, f"--basetemp={tmp_path / 't'}", "-c", "/dev/null", str(tmp_path)],
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "1 failed, 1 passed" in done.stdout, done.stdout + done.stderr
    assert "the canary is in Captured stderr call: plain" in done.stdout
    assert "ixc-" not in done.stdout
