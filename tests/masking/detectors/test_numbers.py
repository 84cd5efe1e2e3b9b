"""Cards, social security numbers, addresses and telephone numbers: what is one, and what only looks like one."""

from __future__ import annotations

import pytest

from interposer.masking.detectors.cards import issued, luhn
from interposer.masking.detectors.ssn import kind
from interposer.masking.engine import PROFILES, Engine

engine = Engine()


def mask(text: str) -> str:
    return str(engine.mask(f"{text}", PROFILES).value)


def pan(prefix: str, size: int) -> str:
    """A number of that size with a valid check digit."""
    body = prefix.ljust(size - 1, "7")
    return next(body + str(digit) for digit in range(10) if luhn(body + str(digit)))


@pytest.mark.parametrize(
    ("prefix", "size"),
    [
        ("4", 13),
        ("4", 16),
        ("4", 19),
        ("51", 16),
        ("2221", 16),
        ("34", 15),
        ("37", 15),
        ("6011", 16),
        ("36", 14),
        ("3528", 16),
        ("62", 19),
    ],
)
def test_issued_number_is_a_card(prefix: str, size: int) -> None:
    """Every scheme's prefix at its length, with the right check digit, is masked."""
    number = pan(prefix, size)
    assert mask(f"paid with {number}.") == "paid with [REDACTED:credit_card]."


@pytest.mark.parametrize(
    "form", ["{0} {1} {2} {3}", "{0}-{1}-{2}-{3}", "{0} {1}-{2} {3}", "PAN={0}{1}{2}{3};", "({0}{1}{2}{3})"]
)
def test_card_is_found_as_it_is_written(form: str) -> None:
    """Blocks with blanks or dashes between them are one card."""
    number = pan("4", 16)
    text = form.format(*(number[i : i + 4] for i in range(0, 16, 4)))
    assert number[-4:] not in mask(text)
    assert "credit_card" in mask(text)


def test_cards_in_a_row_are_all_found() -> None:
    """Blanks between cards do not make one long number of them."""
    number = pan("4", 16)
    spaced = " ".join(number[i : i + 4] for i in range(0, 16, 4))
    assert mask(f"{number} {spaced} {number}") == " ".join(["[REDACTED:credit_card]"] * 3)


@pytest.mark.parametrize(
    "text",
    [
        "order 4012888888881882 shipped",
        "epoch 1767225600 and 1767225600123",
        "ISBN 978-3-16-148410-0",
        "order no. 4711-0815-2026",
        "total: $1,234,567.89 / 4 = 308641.97",
        "pi=3.14159265358979323846264338327950288419716939937510",
        "0.4012888888881881",
        "2026-08-22 11:28:09 -0700",
        "2026-08-22 10 2026-08-23 11",
        "id a4012888888881881 or 4012888888881881_x",
        "786512e2-9e0d-44bd-8f29-789f320fe840",
        "commit 9fceb02d0ae598e95dc970b74767f19372d61af8",
        "golang.org/x/net v0.0.0-20190311183353-d8887717615a",
        "brotli v1.2.0+20130313144700",
        "version 10.2.33, schema 2020-12, port 8080",
        "Version=4.0.0.0, Culture=neutral",
        "OID 1.2.840.113549.1.1.11",
        "300.1.2.3 and 1.2.3.4.5 and 01.2.3.4",
        "std::vector and dead::beef and 12:30:45",
        "regexp \\d{3}-\\d{2}-\\d{4}",
        "078-05-0000 666-05-1123 000-12-3456 078 00 1123",
        "fingerprint 00:11:22:33:44:55:66:77",
        "mac FF:FF:FF:FF:FF:FF 00:00:00:00:00:00",
        "200-100-4000 and 123-456-7890",
        "Item 12-34-5678-90",
    ],
)
def test_look_alike_stays(text: str) -> None:
    """Identifiers, versions, dates, sums and hashes are left alone."""
    assert mask(text) == text


@pytest.mark.parametrize("text", ["078-05-" + "1123", "078 05 " + "1123", "078.05." + "1123"])
def test_ssn_by_its_form(text: str) -> None:
    """Three, two and four digits with one kind of separator are a social security number."""
    assert mask(f"abc {text} abc") == "abc [REDACTED:us_ssn] abc"


def test_ssn_in_one_piece_needs_a_word() -> None:
    """Nine digits are a social security number only where the text says so."""
    digits = "21909" + "9999"
    assert mask(f"his SSN is {digits}") == "his SSN is [REDACTED:us_ssn]"
    assert mask(f"ticket {digits}") == f"ticket {digits}"


def test_taxpayer_numbers_have_their_ranges() -> None:
    """Numbers from 900 on are taxpayer numbers in the groups that the IRS uses, and nothing outside of them."""
    assert kind("911701234") == "us_itin"
    assert kind("911891234") == ""
    assert kind("078051120") == ""


@pytest.mark.parametrize(
    "number",
    ["+16702345678", "+44 (20) 7123 4567", "+49 30 1234567", "+1-903-240-4508x769", "(415) 555-0132", "415-555-0132",
     "415.555.0132", "1-415-555-0132", "+690 3101", "+86 131 2345 6789"],
)  # fmt: skip
def test_telephone_number_by_its_form(number: str) -> None:
    """International and North American forms are masked wherever they stand."""
    assert mask(f"reach me: {number}, please") == "reach me: [REDACTED:phone], please"


def test_other_telephone_numbers_need_a_word() -> None:
    """A national number is masked where it is called one."""
    assert mask("Mobile: 0490 39 07 81") == "Mobile: [REDACTED:phone]"
    assert mask("Phone: 358 0594") == "Phone: [REDACTED:phone]"
    assert mask("rows 0490 39 07 81") == "rows 0490 39 07 81"


@pytest.mark.parametrize(
    "address",
    [
        "10.31.73.20",
        "192.168.0.1",
        "2001:db8::8a2e:370:7334",
        "fe80::1ff:fe23:4567:890a",
        "2001:0db8:85a3:0000:0000:8a2e:0370:7334",
        "::1",
    ],
)
def test_network_address(address: str) -> None:
    """Both families of addresses are masked."""
    assert mask(f"from {address} to") == "from [REDACTED:ip_address] to"


@pytest.mark.parametrize("address", ["00:1A:2B:3C:4D:5E", "AA-BB-CC-DD-EE-FF", "0012.3456.789a"])
def test_hardware_address(address: str) -> None:
    """Hardware addresses are masked in the three usual forms."""
    assert mask(f"MAC: {address}") == "MAC: [REDACTED:mac_address]"


def test_check_digit_and_prefix_are_both_needed() -> None:
    """Neither a prefix without the check digit nor the digit without a prefix makes a card."""
    assert luhn("4012888888881881")
    assert not luhn("4012888888881882")
    assert not luhn("0000000000000000")
    assert issued("4012888888881881")
    assert not issued("1012888888881881")


def test_long_run_of_digits_is_linear() -> None:
    """A megabyte of digits is looked at once, not once for every digit."""
    text = "1 2 3 4 5 6 7 8 9 0 " * 20_000
    assert mask(text) == text
    assert mask("12345678" * 20_000) == "12345678" * 20_000
