"""The masker as a whole: what goes in, what comes out, and what it refuses to let out."""

from __future__ import annotations

import base64
import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interposer.canonical import encode, parse
from interposer.errors import ConfigurationError, MaskFault
from interposer.masking.engine import PROFILES, Engine
from interposer.ports import Masker, Secret

CARD = "4012" + "888888881881"
EMAIL = "jane.roe" + "@corp-mail.test"
SSN = "078-05" + "-1123"
IBAN = "GB29NWBK" + "60161331926819"
AWS = "AKIA" + "Q7ZX9WV5TR3MPLK2"
GITHUB = "ghp_" + "x7Qw9Zr2Tn5Lk8Vb1Mc4Pd6Fs3Hg0JyAaBbC"
JWT = "eyJhbGciOiJIUzI1NiJ9" + ".eyJzdWIiOiIxMjM0NTY3ODkwIn0." + "dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U"
PEM = "-----BEGIN " + "PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIDnEriZs5i+oBJWG\n-----END " + "PRIVATE KEY-----"
VALUES = {
    CARD: "credit_card",
    EMAIL: "email",
    SSN: "us_ssn",
    IBAN: "iban",
    AWS: "aws_access_key",
    GITHUB: "github_token",
    JWT: "jwt",
    PEM: "private_key",
    "+1 415 555 0132": "phone",
    "10.31.73.20": "ip_address",
}
OWN = "upst-" + "9f3kd83kd93md03kd93mdl29sk"

engine = Engine()


def mask(value: Any, profiles: frozenset[str] = PROFILES) -> Any:
    return engine.mask(value, profiles).value


def guarding() -> Engine:
    fresh = Engine()
    fresh.guard(Secret(OWN))
    return fresh


def test_engine_is_a_masker() -> None:
    """The engine fits the port it is written for."""
    port: Masker = engine
    assert port.mask("x", PROFILES).value == "x"


def test_clean_message_is_the_same_object() -> None:
    """A message without findings is handed back untouched."""
    value = {"content": [{"type": "text", "text": "nothing here, order 1042 of 2026-08-22"}], "n": [1, 2.5, None, True]}
    masked = engine.mask(value, PROFILES)
    assert masked.value is value
    assert masked.counts == {}


@pytest.mark.parametrize("secret", VALUES, ids=list(VALUES.values()))
@pytest.mark.parametrize(
    "place",
    [
        lambda v: v,
        lambda v: f"the value is {v} ok",
        lambda v: {"content": [{"type": "text", "text": v}]},
        lambda v: {"a": [{"b": {"c": [v]}}]},
        lambda v: {v: 1},
        lambda v: json.dumps({"k": v}),
        lambda v: json.dumps(json.dumps([v])),
        lambda v: "see " + "".join(f"\\u{ord(ch):04x}" for ch in v) + " there",
        lambda v: "https://x.test/?q=" + "".join(f"%{byte:02X}" for byte in v.encode()),
        lambda v: {"blob": base64.b64encode(f"k={v}".encode()).decode()},
        lambda v: "attached: " + base64.b64encode(f"this is the file with {v} in it".encode()).decode(),
    ],
    ids=["bare", "prose", "result", "deep", "key", "json", "json2", "escapes", "percent", "blob", "base64"],
)
def test_value_is_found_wherever_it_hides(secret: str, place: Any) -> None:
    """A value is masked in every place of a message, and the message is still JSON."""
    out = encode(mask(place(secret))).decode()
    readings = [out, out.encode().decode("unicode_escape")]
    core = "MC4CAQAwBQYDK2VwBCIEIDnEriZs5i" if secret == PEM else secret
    assert not any(core in reading for reading in readings)
    assert parse(out.encode()) is not None


@pytest.mark.parametrize("secret", VALUES, ids=list(VALUES.values()))
def test_finding_is_named_and_counted(secret: str) -> None:
    """The placeholder says what was there, and the counts say how often."""
    masked = engine.mask([f"one {secret} two", f"{secret}"], PROFILES)
    assert masked.value[0] == f"one [REDACTED:{VALUES[secret]}] two"
    assert masked.counts == {VALUES[secret]: 2}


@pytest.mark.parametrize(
    ("value", "masked"),
    [
        ({"pan": int(CARD)}, {"pan": "[REDACTED:credit_card]"}),
        ({"pan": float(CARD)}, {"pan": "[REDACTED:credit_card]"}),
        ({"pan": Decimal(CARD + ".00")}, {"pan": "[REDACTED:credit_card]"}),
        ({"ssn": 78051123}, {"ssn": 78051123}),
        ({"ssn": 219099999}, {"ssn": "[REDACTED:us_ssn]"}),
        ({"phone": 4155550132}, {"phone": "[REDACTED:phone]"}),
        (
            {"id": 4155550132, "at": 1767225600123, "big": 10**40},
            {"id": 4155550132, "at": 1767225600123, "big": 10**40},
        ),
    ],
)
def test_number_becomes_placeholder_only_for_what_it_is(value: Any, masked: Any) -> None:
    """A number is masked when its digits or its key say what it is; identifiers and times stay numbers."""
    assert mask(value) == masked


def test_keys_give_meaning_to_values() -> None:
    """What stands under a password's or an API key's name is a secret without looking like one."""
    word, key = "correct" + "horse", "q8Zk2" + "vT9wL4x"
    masked = mask({"password": word, "api_key": key, "nextPageToken": key, "progressToken": key, "name": word})
    assert masked == {
        "password": "[REDACTED:secret]",
        "api_key": "[REDACTED:secret]",
        "nextPageToken": key,
        "progressToken": key,
        "name": word,
    }


def test_keys_that_look_alike_when_masked_lose_nothing() -> None:
    """Two keys that are masked to the same text both keep their values."""
    masked = mask({"a@iana.org": 1, "b@iana.org": 2, "[REDACTED:email]": 3})
    assert sorted(masked.values()) == [1, 2, 3]
    assert all("iana" not in key for key in masked)


def test_profiles_choose_the_detectors() -> None:
    """Only what the profiles name is masked."""
    text = f"{EMAIL} {GITHUB}"
    assert mask(text, frozenset({"pii"})) == f"[REDACTED:email] {GITHUB}"
    assert mask(text, frozenset({"secrets"})) == f"{EMAIL} [REDACTED:github_token]"
    assert mask(text, frozenset()) == text


def test_unknown_profile_masks_nothing_and_says_so() -> None:
    """A profile that does not exist is a fault, not an empty set."""
    with pytest.raises(MaskFault):
        engine.mask("x", frozenset({"pi"}))


def test_own_credential_is_found_whatever_the_profiles() -> None:
    """The broker's own credential is masked even where policy asks for no masking."""
    masked = guarding().mask({"echo": f"Authorization was {OWN}."}, frozenset())
    assert masked.value == {"echo": "Authorization was [REDACTED:credential]."}
    assert masked.counts == {"credential": 1}


def test_own_credential_inside_of_another_candidate_is_found() -> None:
    """A run of digits that swallows the credential does not hide it."""
    fresh = Engine()
    fresh.guard(Secret("7712-3301-9945"))
    assert "7712-3301-9945" not in str(fresh.mask("n 100 7712-3301-9945 200", PROFILES).value)


def test_short_credential_is_refused() -> None:
    """A credential that is no longer than a word cannot be kept out of answers, so it is not taken on."""
    with pytest.raises(ConfigurationError):
        Engine().guard(Secret("abc"))


def test_guarding_applies_to_a_masker_in_use() -> None:
    """A credential that is rotated in is found from then on."""
    fresh = Engine()
    assert fresh.mask(OWN, PROFILES).value == OWN
    fresh.guard(Secret(OWN))
    assert fresh.mask(OWN, PROFILES).value == "[REDACTED:credential]"


def test_texts_that_stand_next_to_each_other_do_not_join() -> None:
    """Two halves in two texts are two texts: nothing is found that is in neither."""
    halves = [CARD[:8], CARD[8:], "jane", "@corp-mail.test", "078-05", "-1123"]
    assert mask(halves) == halves


@pytest.mark.parametrize("separator", ["\0", "\0\0", "\x00\n"])
def test_separator_in_a_text_shifts_nothing(separator: str) -> None:
    """A text that holds the search's own separator is masked in its place, and its neighbours in theirs."""
    texts = [f"a{separator}{EMAIL}{separator}b", separator, f"{CARD}{separator}", "end"]
    assert mask(texts) == [
        f"a{separator}[REDACTED:email]{separator}b",
        separator,
        f"[REDACTED:credit_card]{separator}",
        "end",
    ]


def test_characters_outside_of_ascii_shift_nothing() -> None:
    """Findings are replaced where they stand, whatever the width of what stands before them."""
    assert mask(f"Ünïcødé — 日本語 🎉 {EMAIL} ✓ {CARD}") == (
        "Ünïcødé — 日本語 🎉 [REDACTED:email] ✓ [REDACTED:credit_card]"
    )


def test_full_width_digits_are_digits() -> None:
    """A card in full-width digits with typographic dashes is a card."""
    wide = "".join(chr(ord(ch) + 0xFEE0) for ch in CARD)
    assert mask(f"Karte {wide}!") == "Karte [REDACTED:credit_card]!"
    assert mask(f"{CARD[:4]}–{CARD[4:8]}–{CARD[8:12]}–{CARD[12:]}") == "[REDACTED:credit_card]"


def test_lone_surrogates_do_not_hide_anything() -> None:
    """A text that is no valid Unicode is searched all the same."""
    assert mask(f"\ud800 {EMAIL}") == "\ud800 [REDACTED:email]"


def test_json_in_a_text_stays_json() -> None:
    """Where a text is JSON before masking it is JSON after it, numbers and escapes included."""
    text = json.dumps({"pan": int(CARD), "note": f"tab\t{EMAIL}", "n": 1})
    assert json.loads(mask(text)) == {"pan": "[REDACTED:credit_card]", "note": "tab\t[REDACTED:email]", "n": 1}


def test_json_in_a_text_keeps_its_form_where_it_can() -> None:
    """White space and order of a JSON text survive when nothing forces a rewrite."""
    text = f'{{ "b" : "{EMAIL}",\n  "a" : [1,  2] }}'
    assert mask(text) == text.replace(EMAIL, "[REDACTED:email]")


def test_base64_still_decodes() -> None:
    """A blob in which something was masked is still base64, of the masked text."""
    blob = base64.b64encode(f"user {EMAIL}".encode()).decode()
    assert base64.b64decode(mask({"blob": blob})["blob"]) == b"user [REDACTED:email]"


def test_masker_beyond_its_budget_withholds() -> None:
    """A message that takes too long is a fault, and no part of it comes back."""
    ticks = iter(range(10**9))
    slow = Engine(monotonic=lambda: float(next(ticks)), seconds_per_mb=0.25)
    with pytest.raises(MaskFault) as caught:
        slow.mask([f"{EMAIL} {n}" for n in range(2000)], PROFILES)
    assert EMAIL not in str(caught.value)


@pytest.mark.parametrize("value", [b"bytes", {"k": {1, 2}}, {1: "x"}, [object()]])
def test_what_is_no_json_is_withheld(value: Any) -> None:
    """A value that the masker cannot read does not leave."""
    with pytest.raises(MaskFault):
        engine.mask(value, PROFILES)


def test_error_inside_withholds_and_tells_nothing() -> None:
    """Any failure while masking is a fault whose text holds nothing of the message."""
    endless: list[Any] = [EMAIL]
    endless.append(endless)
    with pytest.raises(MaskFault) as caught:
        engine.mask(endless, PROFILES)
    assert EMAIL not in str(caught.value)
    assert caught.value.__cause__ is None


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=24)
    | st.sampled_from([*VALUES, OWN, "password=" + "Tr0ub4dor!x", '{"a": "', "%40", "\\u0040", "[REDACTED:", "&#64;"])
    | st.text(alphabet="0123456789-. +()", max_size=30),
    lambda children: (
        st.lists(children, max_size=4)
        | st.dictionaries(
            st.text(max_size=8) | st.sampled_from(["password", "ssn", "data", "blob", "phone", "text", EMAIL]),
            children,
            max_size=4,
        )
        | st.lists(children, max_size=3).map(lambda value: json.dumps(value, default=str))
        | st.lists(st.sampled_from([*VALUES, " ", ":", "=", '"', "token", ", ", "x"]), max_size=6).map("".join)
    ),
    max_leaves=12,
)


@settings(deadline=None, max_examples=150)
@given(JSON)
def test_masking_twice_is_masking_once(value: Any) -> None:
    """For any JSON: masking what was masked changes nothing."""
    once = mask(value)
    assert mask(once) == once


@settings(deadline=None, max_examples=120)
@given(JSON)
def test_json_in_json_out(value: Any) -> None:
    """For any JSON: what comes out can be written and has the same shape, texts and keys aside."""
    masked = mask(value)
    if not _surrogates(value):
        assert parse(encode(masked)) is not None or masked is None
    _same_shape(value, masked)


def _surrogates(value: Any) -> bool:
    try:
        encode(value)
    except ValueError:
        return True
    return False


def _same_shape(before: Any, after: Any) -> None:
    if isinstance(before, dict):
        assert isinstance(after, dict)
        assert len(before) == len(after)
        for old, new in zip(before.values(), after.values(), strict=True):
            _same_shape(old, new)
    elif isinstance(before, list):
        assert isinstance(after, list)
        for old, new in zip(before, after, strict=True):
            _same_shape(old, new)
    elif isinstance(before, str):
        assert isinstance(after, str)
    else:
        assert after == before or "[REDACTED:" in after
