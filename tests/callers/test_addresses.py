"""Which addresses keys may be fetched from."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interposer.callers.addresses import fault, host_of


@pytest.mark.parametrize(
    "url",
    [
        "https://idp.example",
        "https://idp.example:8443/realms/acme/",
        "https://[2001:db8::1]/x",
        "http://localhost:8080/realms/acme",
        "http://127.0.0.1:1/",
        "http://[::1]:1/",
    ],
)
def test_tls_or_this_machine_is_taken(url: str) -> None:
    """Keys come over TLS, or do not leave the machine."""
    assert fault(url, query=False) == ""


@pytest.mark.parametrize(
    "url",
    [
        "",
        "idp.example",
        "http://idp.example",
        "http://127.0.0.1.example",
        "http://0.0.0.0/",
        "http://169.254.169.254/",
        "HTTP://localhost/",
        "ftp://idp.example",
        "file:///etc/passwd",
        "https://",
        "https:///path",
        "https://user@idp.example",
        "https://user:pass@idp.example",
        "https://idp.example@127.0.0.1/",
        "https://idp.example\\@127.0.0.1/",
        "https://idp.example/#x",
        "https://idp.example#",
        "https://idp.example:99999/",
        "https://idp.example:x/",
        "https://[::1/",
        "https://idp.example/a b",
        "https://idp.example/\n",
        "https://idp.exämple/",
    ],
)
def test_an_address_that_could_lead_elsewhere_is_refused(url: str) -> None:
    """No plain http, no user names, nothing that two readers of addresses read differently."""
    assert fault(url)


def test_an_issuer_has_no_query() -> None:
    """A JWKS may have one, the name of an issuer may not."""
    assert fault("https://idp.example/keys?p=1") == ""
    assert fault("https://idp.example/keys?p=1", query=False)


@given(st.text())
def test_every_text_has_a_verdict(text: str) -> None:
    """Whatever the text, there is an answer and no exception, and a host that can be logged."""
    assert isinstance(fault(text), str)
    assert isinstance(host_of(text), str)
