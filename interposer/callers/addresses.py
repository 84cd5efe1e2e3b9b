"""Which addresses keys may be fetched from: https, or http to this very machine; nothing that hides where it leads."""

from __future__ import annotations

from ipaddress import ip_address
from urllib.parse import SplitResult, urlsplit


def fault(url: str, *, query: bool = True) -> str:
    """What is wrong with an address, or nothing. An issuer has no query (OIDC Discovery 1.0 §2)."""
    parts = _split(url)
    if parts is None or not parts.hostname:
        return "expected an address such as https://idp.example/path"
    if "@" in parts.netloc:
        return "an address with a user name or password is not taken"
    if "#" in url or ("?" in url and not query):
        return "expected an address without a fragment" + ("" if query else " and without a query")
    if url.startswith("https://") or (url.startswith("http://") and is_loopback(parts.hostname)):
        return ""
    return "expected https:// (http:// only for this machine: localhost, 127.0.0.1, [::1])"


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def host_of(url: str) -> str:
    """The part of an address that may be logged."""
    parts = _split(url)
    return (parts.hostname or "?") if parts is not None else "?"


def _split(url: str) -> SplitResult | None:
    if not url.isascii() or not url.isprintable() or not set(url).isdisjoint(' \\"<>^`{|}'):
        return None
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises where it is not a number up to 65535
    except ValueError:
        return None
    return parts
