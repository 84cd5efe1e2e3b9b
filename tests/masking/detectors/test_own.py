"""The broker's own credentials, in whatever form they come back."""

from __future__ import annotations

import base64
import json
import random
import re
import string
import time
from collections.abc import Callable
from functools import cache
from html import escape
from urllib.parse import quote

import pytest

from interposer.errors import ConfigurationError
from interposer.masking.detectors import own
from interposer.masking.engine import KEPT, PROFILES, Engine
from interposer.ports import Secret

OWN = "upst-" + "9f3kd83/d93md+3kd<93mdl29=k"
BODY = "\n".join("MIIEvQIBADANBgkqhkiG9w0BAQEFAASC" * 2 + f"{line:02d}" for line in range(3))
PEM = f"-----BEGIN {'PRIVATE'} KEY-----\n{BODY}\n-----END {'PRIVATE'} KEY-----"
NESTED = "GO-" + "nested-member-93kd-of-some-length-and-more"
ACCOUNT = {
    "type": "service_account",
    "project_id": "a-project-of-some-length",
    "private_key_id": "0123456789abcdef0123456789abcdef",
    "private_key": PEM + "\n",
    "client_email": "robot@a-project-of-some-length.iam.example",
    "token_uri": "https://oauth2.example.com/token",
    "nested": [{"client_secret": NESTED}],
}

Encode = Callable[[str], str]


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


ENCODINGS: dict[str, Encode] = {
    "plain": str,
    "base64": b64,
    "base64 after one byte": lambda text: b64("x" + text),
    "base64 after two bytes": lambda text: b64("xy" + text),
    "base64 in lines": lambda text: base64.encodebytes(text.encode()).decode(),
    "base64url": lambda text: base64.urlsafe_b64encode(text.encode()).decode(),
    "basic authentication": lambda text: "Basic " + b64("user:" + text),
    "hexadecimal": lambda text: text.encode().hex(),
    "HEXADECIMAL": lambda text: text.encode().hex().upper(),
    "percent": lambda text: "".join(f"%{byte:02X}" for byte in text.encode()),
    "percent where needed": lambda text: quote(text, safe=""),
    "JSON": json.dumps,
    "JSON in JSON": lambda text: json.dumps(json.dumps(text)),
    "unicode escapes": lambda text: "".join(f"\\u{ord(char):04X}" for char in text),
    "HTML": escape,
    "HTML entities": lambda text: "".join(f"&#{ord(char)};" for char in text),
    "HTML entities, hexadecimal": lambda text: "".join(f"&#x{ord(char):X};" for char in text),
    "base32": lambda text: base64.b32encode(text.encode()).decode(),
    "base32 after three bytes": lambda text: base64.b32encode(b"xyz" + text.encode()).decode(),
    "reversed": lambda text: text[::-1],
    "upper case": str.upper,
    "lower case": str.lower,
}


def decoded(shown: str) -> list[str]:
    """The base64 in a text, read."""
    runs = re.findall(r"[A-Za-z0-9+/]{20,}", shown.replace("-", "+").replace("_", "/"))
    return [base64.b64decode(run[: len(run) // 4 * 4]).decode("latin-1") for run in runs]


@cache
def guarding(text: str) -> Engine:
    engine = Engine()
    engine.guard(Secret(text))
    return engine


@pytest.mark.parametrize("encode", ENCODINGS.values(), ids=ENCODINGS)
@pytest.mark.parametrize("credential", [OWN, PEM, json.dumps(ACCOUNT, indent=2)], ids=["token", "pem", "account"])
@pytest.mark.parametrize("profiles", [frozenset[str](), PROFILES], ids=["nothing", "all"])
def test_a_credential_is_found_in_every_encoding(credential: str, encode: Encode, profiles: frozenset[str]) -> None:
    """Whole, in a text beside others, under any policy: counted as a credential and gone."""
    encoded = encode(credential)
    masked = guarding(credential).mask({"said": f"it was {encoded} I think"}, profiles)
    assert masked.counts.get("credential")
    shown = masked.value["said"]
    # Of a JSON object what is public may be left, where it had to be decoded to be read.
    secrets = [credential] if credential in (OWN, PEM) else [PEM, NESTED]
    for part in map(encode, secrets):
        assert not any(part[start : start + 16] in shown for start in range(8, max(9, len(part) - 24), 16))
    assert not any(secret[-40:-24] in bare for secret in secrets for bare in decoded(shown))


@pytest.mark.parametrize("encode", ENCODINGS.values(), ids=ENCODINGS)
@pytest.mark.parametrize("part", [PEM, NESTED], ids=["private_key", "client_secret"])
def test_secret_members_of_a_json_credential_are_found_alone(part: str, encode: Encode) -> None:
    """A service account's file is not only looked for as a whole: its private key is enough."""
    masked = guarding(json.dumps(ACCOUNT)).mask([encode(part)], frozenset())
    assert masked.counts.get("credential")
    assert encode(part)[8:24] not in masked.value[0]


def test_public_members_of_a_json_credential_are_left_alone() -> None:
    """Project, addresses and identifiers are no secrets, and masking them would raise false alarms."""
    engine = guarding(json.dumps(ACCOUNT))
    public = [ACCOUNT[name] for name in ("type", "project_id", "private_key_id", "client_email", "token_uri")]
    assert engine.mask(public, frozenset()).value == public


@pytest.mark.parametrize("joint", ["", " ", "\r\n", "\n    ", "\\n", "\\\\r\\\\n", "%0A", "&#10;"])
def test_lines_of_a_credential_may_be_wrapped_anew(joint: str) -> None:
    """A key is the same key without its line breaks, or with others."""
    masked = guarding(PEM).mask("key: " + PEM.replace("\n", joint), frozenset())
    assert masked.value == "key: [REDACTED:credential]"


@pytest.mark.parametrize("text", ["{", "{}", '{"a": [[[]]]}', '{"password": 5}', '{"key": "short"}', "[1]" * 5])
def test_what_looks_like_json_is_a_credential_as_it_is(text: str) -> None:
    """Nothing that a credential holds is an error."""
    assert own.guarded(text) == [text]


def test_of_those_that_nobody_holds_the_last_are_found() -> None:
    """Old ones may still be echoed, but they do not pile up; what is held and another owner's stay, however old."""
    engine = Engine()
    engine.guard(Secret("static-credential"), "mail")
    engine.guard(Secret("running-credential"), "crm")
    for number in range(10):
        engine.guard(Secret(f"rotated-credential-{number}"), "crm")
        engine.release(Secret(f"rotated-credential-{number}"), "crm")
    engine.guard(Secret("last-credential"), "crm")
    for number in range(10):
        found = engine.mask(f"rotated-credential-{number}", frozenset()).counts.get("credential", 0)
        assert bool(found) == (number >= 10 - KEPT)
    for held in ("static", "running", "last"):
        assert engine.mask(f"{held}-credential", frozenset()).counts


def test_a_credential_is_held_as_often_as_it_was_guarded() -> None:
    """Two processes with the same one: the end of the first does not count."""
    engine = Engine()
    for _ in range(2):
        engine.guard(Secret("shared-credential"), "crm")
    engine.release(Secret("shared-credential"), "crm")
    for number in range(10):
        engine.guard(Secret(f"rotated-credential-{number}"), "crm")
        engine.release(Secret(f"rotated-credential-{number}"), "crm")
    assert engine.mask("shared-credential", frozenset()).counts


def random_text(seed: int, size: int, alphabet: str = string.ascii_letters + string.digits + "+/") -> str:
    return "".join(random.Random(seed).choices(alphabet, k=size))


LONG = {
    "64 KiB": random_text(1, 64 * 1024),
    "24,000 in lines": "\n".join(random_text(line, 75) for line in range(316)),
    "2 KB": random_text(2, 2048, string.printable.strip()),
    "monotonous": "a" * 24_000,
}


@pytest.mark.parametrize("encode", ENCODINGS.values(), ids=ENCODINGS)
@pytest.mark.parametrize("credential", LONG.values(), ids=LONG)
def test_a_long_credential_is_found_in_every_encoding(credential: str, encode: Encode) -> None:
    """From its beginning to its end."""
    encoded = encode(credential)
    masked = guarding(credential).mask({"said": f"it was {encoded} I think"}, frozenset())
    assert masked.counts.get("credential")
    shown = masked.value["said"]
    assert len(shown) < 120
    assert not any(credential[-40:-24] in bare for bare in decoded(shown))


@pytest.mark.parametrize("size", [1_000, 3_000, 20_000])
def test_a_piece_of_a_long_credential_is_cut_out_as_far_as_it_goes(size: int) -> None:
    """Also where the answer ends in the midst of it; what stands around it is left."""
    text = LONG["64 KiB"]
    masked = guarding(text).mask(["before", f"said: {text[:size]}, so", "after"], frozenset())
    assert masked.value[0] == "before"
    assert masked.value[2] == "after"
    if size > 6_000:
        assert masked.value[1] == "said: [REDACTED:credential], so"


def test_beginnings_that_all_tokens_share_are_no_credential() -> None:
    """The claims of a signed token and the armour of a key are in others, too."""
    words = string.ascii_letters + string.digits + "-_"
    claims = ".".join((random_text(3, 36, words), random_text(4, 700, words)))
    token = f"{claims}.{random_text(5, 342, words)}"
    assert not guarding(token).mask(f"{claims}.{random_text(6, 342, words)}", frozenset()).counts
    assert guarding(token).mask(f"Bearer {token}", frozenset()).value == "Bearer [REDACTED:credential]"


def test_credentials_that_are_rotated_often_are_all_found() -> None:
    """Service accounts' files of a usual size, one after the other, in bounded time."""
    engine = Engine()
    engine.warm()
    accounts = [json.dumps({**ACCOUNT, "private_key": key_file(number)}, indent=2) for number in range(7)]
    began = time.process_time()
    for account in accounts:
        engine.guard(Secret(account), "crm")
    assert time.process_time() - began < 0.3 * len(accounts)
    for account in accounts:
        masked = engine.mask(["x" * 100, json.loads(account)["private_key"], account], PROFILES)
        assert masked.counts.get("credential")
        assert not any(line in str(masked.value) for line in json.loads(account)["private_key"].split("\n")[2:-2])


def key_file(seed: int) -> str:
    body = "\n".join(random_text(100 * seed + line, 64) for line in range(26))
    return PEM.replace(BODY, body) + "\n"


@pytest.mark.parametrize("text", ["lone-\ud800-surrogate", "\udcff" * 8])
def test_what_is_no_text_is_refused_when_it_is_guarded(text: str) -> None:
    """And not later, when a message with it cannot be masked."""
    engine = Engine()
    with pytest.raises(ConfigurationError):
        engine.guard(Secret(text))
    assert engine.mask("ordinary", PROFILES).value == "ordinary"


def test_what_stands_between_two_copies_stays() -> None:
    """A credential that is there twice, plain and encoded, is masked twice, and nothing else is."""
    secret = "svc-" + "a8f3kd93Kd93md03q"
    engine = Engine()
    engine.guard(Secret(secret))
    encoded = base64.b64encode(f"service:{secret}".encode()).decode()
    masked = engine.mask(f"X-Key: {secret}\nthen, encoded: {encoded} end", frozenset())
    assert masked.counts["credential"] == 2
    assert "\nthen, encoded: " in masked.value
    assert masked.value.endswith(" end")
