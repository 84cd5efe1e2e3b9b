"""Where the console is found: its socket, the names that it answers to, and the addresses that people are given."""

from __future__ import annotations

import errno
import re
import socket
import ssl
from dataclasses import dataclass
from urllib.parse import urlsplit

from interposer.errors import ConfigurationError, Problem

_BACKLOG = 64
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
_EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104
_QUESTION = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True, slots=True)
class Place:
    """As it is configured."""

    host: str = "127.0.0.1"
    port: int = 0
    url: str = ""
    """How people reach it, where that is not host and port."""
    certificate: str = ""
    key: str = ""
    """PEM files; empty without TLS."""


class Listener:
    """A socket that listens already. Whoever connects waits until somebody serves it."""

    def __init__(self, place: Place) -> None:
        """Raises `ConfigurationError`."""
        if place.url and urlsplit(place.url).path not in ("", "/"):
            raise _problem("console.url", "expected an address without a path; give the console a host name of its own")
        if place.host in _EVERYWHERE and not place.url:
            raise _problem("console.url", f"is needed where `host` is {place.host}: say how people reach the console")
        self.tls = _tls(place) if place.certificate else None
        self.socket = _bound(place)
        port: int = self.socket.getsockname()[1]
        scheme = "http" if self.tls is None else "https"
        named = f"[{place.host}]" if ":" in place.host else place.host
        names = {named, *(_LOOPBACK if place.host in ("127.0.0.1", "::1", "localhost", *_EVERYWHERE) else ())}
        hosts = {f"{name}:{port}".lower() for name in names}
        default = f":{443 if self.tls else 80}"
        hosts |= {host.removesuffix(default) for host in hosts if host.endswith(default)}
        self.base = f"{scheme}://{named}:{port}"
        origins = {f"{scheme}://{host}" for host in hosts}
        if place.url:
            parts = urlsplit(place.url)
            # Browsers leave the usual port out, in Host and in Origin.
            named = parts.netloc.lower().removesuffix(":443" if parts.scheme == "https" else ":80")
            self.base = f"{parts.scheme}://{named}".lower()
            hosts.add(named)
            origins.add(self.base)
        self.hosts, self.origins = frozenset(hosts), frozenset(origins)
        self.proxied = self.tls is None and self.base.startswith("https:")
        """Everybody comes from the address of the proxy that speaks https."""
        self.secure = self.base.startswith("https:")
        self.cookie = "__Host-interposer" if self.secure else f"interposer-{port}"
        """Cookies know no ports: two brokers on one host must not overwrite each other's."""

    def link(self, question: str = "") -> str:
        """The page of a question, or the inbox."""
        return f"{self.base}/q/{question}" if is_id(question) else f"{self.base}/"

    def login(self, token: str, question: str = "") -> str:
        """The page whose button logs in, and goes on to the question."""
        return f"{self.base}/login?token={token}" + (f"&to={question}" if is_id(question) else "")

    def close(self) -> None:
        self.socket.close()


def is_id(text: str) -> bool:
    """Whether it can be the id of a question or grant; nothing else gets into an address."""
    return _QUESTION.fullmatch(text) is not None


def _bound(place: Place) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in place.host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((place.host, place.port))
        listener.listen(_BACKLOG)
    except (OSError, UnicodeError) as error:
        listener.close()
        # The number of a `gaierror` is none of errno's; a name that is no host name at all has neither.
        why = getattr(error, "strerror", None) or "this is no name of a host"
        if getattr(error, "errno", 0) == errno.EADDRINUSE:
            why = "this port is in use"
        raise _problem("console", f"cannot listen on {place.host}:{place.port}: {why}") from error
    listener.setblocking(False)
    return listener


def _tls(place: Place) -> ssl.SSLContext:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        tls.load_cert_chain(place.certificate, place.key)
    except (OSError, ssl.SSLError) as error:
        why = getattr(error, "strerror", "") or "not a certificate chain and its key"
        raise _problem("console.tls", f"cannot be used: {why}") from error
    return tls


def _problem(where: str, what: str) -> ConfigurationError:
    return ConfigurationError([Problem(where, 0, 0, what)])
