"""Alarms for credentials that come back outside of an answer."""

from __future__ import annotations

from interposer.echoes import EVERY_S, Echoes, echoed
from interposer.masking.engine import Engine
from interposer.ports import Secret
from tests.fakes.house import HandClock

OWN = "upst-" + "9f3kd83kd93md03kd93mdl29sk"


def test_each_upstream_is_told_of_once_a_minute() -> None:
    """However often it happens, and wherever; another upstream has alarms of its own."""
    clock, told = HandClock(), list[tuple[str, str, str]]()
    echoes = Echoes(lambda *alarm: told.append(alarm), clock)
    for _ in range(100):
        echoes.told("crm", "stderr")
        echoes.told("crm", "definition")
        echoes.told("mail", "progress")
    assert told == [
        ("crm", "credential_echoed", "in its stderr"),
        ("mail", "credential_echoed", "in its progress"),
    ]
    clock.time_s += EVERY_S
    echoes.told("crm", "notice")
    assert told[2:] == [("crm", "credential_echoed", "in its notice")]


def test_only_our_own_credentials_are_echoes() -> None:
    """Other findings of the masker are none."""
    masker = Engine()
    masker.guard(Secret(OWN))
    for profiles in (frozenset[str](), frozenset({"pii", "secrets"})):
        assert echoed(masker.mask({"x": OWN}, profiles))
        assert not echoed(masker.mask({"x": "ann@corp-mail.test"}, profiles))
