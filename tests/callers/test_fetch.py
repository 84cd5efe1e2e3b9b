"""One document, whole or not at all."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import anyio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from interposer.callers.fetch import LIMIT_BYTES, Fetcher, IssuerFault
from interposer.errors import ConfigurationError
from tests.fakes.issuer import DISCOVERY, JWKS, Provider, provider


def at(idp: Provider, path: str = JWKS) -> str:
    return idp.url.removesuffix("/realms/acme") + path


async def test_a_document_and_the_time_of_its_server_come_back(idp: Provider, fetcher: Fetcher) -> None:
    """What was sent arrives byte by byte, and with it the server's clock."""
    idp.jwks, idp.date = b'{"keys":[]}', 1_700_000_000.0
    found = await fetcher.get(at(idp))
    assert (found.body, found.date) == (idp.jwks, idp.date)
    idp.age = 60
    assert (await fetcher.get(at(idp))).date == idp.date + 60


async def test_no_redirect_is_followed(fetcher: Fetcher) -> None:
    """An issuer's server that was taken over cannot send the broker elsewhere: the bait has no visitor."""
    async with provider() as bait, provider(broken="redirect", bait=at(bait)) as idp:
        with pytest.raises(IssuerFault, match="redirect"):
            await fetcher.get(at(idp))
        assert not bait.hits


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ("huge", f"more than {LIMIT_BYTES} bytes"),
        ("error", "status 503"),
        ("gzip", "compressed"),
        ("down", "RemoteProtocolError"),
    ],
)
async def test_a_bad_answer_is_a_fault(idp: Provider, fetcher: Fetcher, broken: str, said: str) -> None:
    """Too large, not 200, packed or cut off: each ends in one kind of fault, which names the host."""
    idp.broken = broken
    with anyio.fail_after(5), pytest.raises(IssuerFault, match=f"127.0.0.1: .*{said}"):
        await fetcher.get(at(idp))


OK = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\x00" * 100,
        b"HTTP/1.1 999999 X\r\n\r\n",
        b"HTTP/1.1 200\xff\xfe\r\n\r\n{}",
        b"HTTP/1.1 204 No\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 1000,
        OK + b"content-length: -1\r\n\r\n{}",
        OK + b"content-length: 1\r\ncontent-length: 2\r\n\r\n{}",
        OK + b"content-length: 99\r\n\r\n{}",
        OK + b"transfer-encoding: chunked\r\n\r\nzz\r\n",
        OK + b"transfer-encoding: gzip\r\n\r\n{}",
        OK + b"x: " + b"a" * 1_000_000 + b"\r\n\r\n{}",
        OK + b"content-encoding: \xff\r\n\r\n{}",
        b"HTTP/1.1 302 Found\r\nlocation: http://[::1\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nlocation: \xff\xfe\r\n\r\n",
    ],
)
async def test_whatever_a_server_says_ends_in_a_fault(idp: Provider, fetcher: Fetcher, raw: bytes) -> None:
    """Bytes that are no HTTP, or HTTP that contradicts itself, stop nothing but this fetch."""
    idp.raw = raw
    with anyio.fail_after(5), pytest.raises(IssuerFault):
        await fetcher.get(at(idp))


@pytest.mark.parametrize("date", [b"\xff", b"x" * 10_000, b"Thu, 01 Jan 99999 00:00:00 GMT", b"1" * 400, b""])
async def test_a_date_that_is_none_is_left_aside(idp: Provider, fetcher: Fetcher, date: bytes) -> None:
    """The document counts, and the server's clock is not known."""
    idp.raw = OK + b"content-length: 2\r\ndate: " + date + b"\r\n\r\n{}"
    assert (await fetcher.get(at(idp))).date is None


@pytest.mark.parametrize("broken", ["drip", "silent"])
async def test_one_deadline_is_over_the_whole_answer(idp: Provider, broken: str) -> None:
    """A server that says nothing, or a byte at a time, is left when the time is over."""
    idp.broken = broken
    with anyio.fail_after(5), pytest.raises(IssuerFault, match=r"within 0\.2 s"):
        await Fetcher(deadline_s=0.2).get(at(idp))


async def test_nobody_there_is_a_fault(fetcher: Fetcher) -> None:
    """A refused connection is as good as a bad answer."""
    async with provider() as gone:
        url = at(gone)
    with pytest.raises(IssuerFault, match="ConnectError"):
        await fetcher.get(url)


async def test_the_environment_sends_nobody_through_a_proxy(
    idp: Provider, fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever sets the broker's environment does not see whom it trusts."""
    async with provider() as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, at(proxy, ""))
        await fetcher.get(at(idp, DISCOVERY))
        assert not proxy.hits


async def test_only_what_may_be_fetched_is_fetched(fetcher: Fetcher) -> None:
    """The last look at an address is taken where the request is made, and what it says holds the host alone."""
    with pytest.raises(IssuerFault) as refused:
        await fetcher.get("http://user:hunter2@idp.example/secret")
    assert str(refused.value).startswith("idp.example: ")
    assert "hunter2" not in str(refused.value)
    assert "secret" not in str(refused.value)


def self_signed(folder: Path) -> tuple[ssl.SSLContext, Path]:
    """A server's certificate for 127.0.0.1 that vouches for itself, and the file of it."""
    key, name = generate_private_key(SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    today = datetime.now(UTC)
    other = ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "crl_sign")
    usage = dict.fromkeys([*other, "encipher_only", "decipher_only"], False)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, today - timedelta(1), today + timedelta(1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(digital_signature=True, key_cert_sign=True, **usage), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, SHA256())
    )
    both, public = folder / "both.pem", folder / "public.pem"
    public.write_bytes(certificate.public_bytes(Encoding.PEM))
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    both.write_bytes(private + public.read_bytes())
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(both)
    return serving, public


async def test_certificates_are_verified(tmp_path: Path, fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that nobody vouches for is not believed; one of a private authority is, when that is named."""
    serving, public = self_signed(tmp_path)
    async with provider(tls=serving) as idp:
        with anyio.fail_after(5), pytest.raises(IssuerFault, match="ConnectError"):
            await fetcher.get(at(idp))
        assert not idp.hits
        monkeypatch.setenv("SSL_CERT_FILE", str(public))
        with anyio.fail_after(5):
            assert (await Fetcher().get(at(idp))).body
            with pytest.raises(IssuerFault, match="ConnectError"):
                await Fetcher().get(at(idp).replace("127.0.0.1", "localhost"))


def test_certificates_that_cannot_be_read_stop_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that was named and is not there is not replaced by another one."""
    monkeypatch.setenv("SSL_CERT_FILE", "/nonexistent.pem")
    with pytest.raises(ConfigurationError, match="SSL_CERT_FILE"):
        Fetcher()
