"""Credentials from a keyring."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator

import keyring
import pytest
from keyring.backend import KeyringBackend
from keyring.backends import chainer, fail, null
from keyring.errors import KeyringLocked

from interposer.errors import ConfigurationError
from interposer.secrets.keyring import KeyringSecrets

VALUE = "-".join(["not", "a", "real", "credential"])


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Drawer(KeyringBackend):
    """A keyring in memory that may be locked or slow."""

    priority = 1

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.entries = {("crm.example/api", "bot"): VALUE}
        self.fault: Exception | None = None
        self.wait: threading.Event | None = None

    def get_password(self, service: str, username: str) -> str | None:
        if self.wait is not None:
            self.wait.wait(10)
        if self.fault is not None:
            raise self.fault
        return self.entries.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self.entries[service, username] = password


@pytest.fixture
def drawer() -> Iterator[Drawer]:
    before, drawer = keyring.get_keyring(), Drawer()
    keyring.set_keyring(drawer)
    yield drawer
    keyring.set_keyring(before)


async def refusal(entry: str = "crm.example/api/bot", **options: float) -> str:
    with pytest.raises(ConfigurationError) as raised:
        await KeyringSecrets({"crm": entry}, **options).reveal("crm")
    assert VALUE not in str(raised.value)
    return str(raised.value)


async def test_an_entry_is_read_at_every_use(drawer: Drawer) -> None:
    """The user is what stands behind the last slash; what was changed counts at once."""
    secrets = KeyringSecrets({"crm": "crm.example/api/bot"})
    assert (await secrets.reveal("crm")).reveal() == VALUE
    drawer.set_password("crm.example/api", "bot", "rotated-" + VALUE)
    assert (await secrets.reveal("crm")).reveal() == "rotated-" + VALUE


async def test_a_missing_entry_is_told_of(drawer: Drawer) -> None:
    """And what to do about it."""
    assert "keyring set" in await refusal("crm.example/api/nobody")
    with pytest.raises(ConfigurationError):
        await KeyringSecrets({}).reveal("crm")


@pytest.mark.parametrize("entry", ["crm", "/bot", "crm/"])
def test_both_names_are_needed(entry: str) -> None:
    """Service and user."""
    with pytest.raises(ConfigurationError, match="SERVICE/USER"):
        KeyringSecrets({"crm": entry})


async def test_a_backend_that_keeps_nothing_safe_is_refused(drawer: Drawer) -> None:
    """Also one that another backend would ask in turn, and those that write plain files."""
    plain = type("PlaintextKeyring", (Drawer,), {"__module__": "keyrings.alt.file"})
    several = type("Several", (Drawer,), {"__module__": chainer.__name__})
    failing = fail.Keyring()  # type: ignore[no-untyped-call]
    nothing = null.Keyring()  # type: ignore[no-untyped-call]
    for backend in (failing, nothing, plain()):
        keyring.set_keyring(backend)
        assert "not safe" in await refusal()
        chained = several()
        chained.backends = [drawer, backend]
        keyring.set_keyring(chained)
        assert "not safe" in await refusal()
    chained.backends = [drawer]
    assert (await KeyringSecrets({"crm": "crm.example/api/bot"}).reveal("crm")).reveal() == VALUE


class Unavailable(Exception):
    """As libraries below a backend raise them."""


@pytest.mark.parametrize(
    "fault", [KeyringLocked(VALUE), RuntimeError(VALUE), OSError(VALUE), KeyError(VALUE), Unavailable(VALUE)]
)
async def test_a_keyring_that_fails_is_told_of_without_its_words(drawer: Drawer, fault: Exception) -> None:
    """Whatever a backend raises, only its kind is shown."""
    drawer.fault = fault
    assert type(fault).__name__ in await refusal()


async def test_a_locked_keyring_holds_nobody_up(drawer: Drawer) -> None:
    """A backend that waits for somebody to unlock it is not waited for without end."""
    drawer.wait = threading.Event()
    assert "locked" in await refusal(within_s=0.05)
    drawer.wait.set()


async def test_without_the_package_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package is an extra."""
    monkeypatch.setitem(sys.modules, "keyring", None)
    assert "pip install 'interposer[keyring]'" in await refusal()
