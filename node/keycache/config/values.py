"""What stands in settings, read from texts. A mistake is a ValueError that says what is wrong and how to write it."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import BeforeValidator

from keycache.domain.errors import KeycacheError
from keycache.domain.names import Domain
from keycache.domain.spans import format_span, parse_span

_SIZE = re.compile(r"(\d{1,12})\s*(|B|KiB|MiB|GiB|KB|MB|GB)", re.IGNORECASE)
_FACTORS = {"": 1, "b": 1, "kib": 2**10, "mib": 2**20, "gib": 2**30, "kb": 10**3, "mb": 10**6, "gb": 10**9}
_CLUSTER_NAME = re.compile(r"[a-z0-9-]{1,64}")
_HOST = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\.?")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A host and a port. Port 0, where to listen: any free one, told in the node's `run.json`."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Endpoint:
        """From `host:port`, an IPv6 address in brackets. Raises ValueError."""
        host, colon, port = text.strip().rpartition(":")
        bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
        if not colon or not (port.isascii() and port.isdigit()) or int(port) > 65535:
            raise ValueError(f"{text!r} is not host:port; write it as 127.0.0.1:7640 or [::1]:7640, port 0 to 65535")
        if bare is host and ":" in host:
            raise ValueError(f"{text!r} is not host:port; write an IPv6 address in brackets, as [::1]:7640")
        if not _is_ip(bare) and not _HOST.fullmatch(bare):
            raise ValueError(f"{bare!r} is neither a host name nor an IP address; write it as 127.0.0.1:7640")
        return cls(bare, int(port))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def endpoint(value: object) -> object:
    return Endpoint.parse(value) if isinstance(value, str) else value


def endpoint_or_off(value: object) -> object:
    return None if value == "off" else endpoint(value)


def domain(value: object) -> object:
    return Domain.parse(value) if isinstance(value, str) else value


def listener(value: str) -> str:
    """`address` or `address:port`, as mail processors name the listener that took a mail."""
    value = value.strip()
    if not _is_ip(value.strip("[]")) and not (value.rpartition(":")[1] == "" and _HOST.fullmatch(value)):
        Endpoint.parse(value)
    return value


def network(value: str) -> str:
    try:
        return str(ipaddress.ip_network(value.strip()))
    except ValueError as error:
        raise ValueError(f"{error}; write it as 10.0.0.0/8 or 2001:db8::/32") from error


def host_name(value: str) -> str:
    value = value.strip()
    if not _is_ip(value) and not _HOST.fullmatch(value):
        raise ValueError(f"{value!r} is neither a host name nor an IP address")
    return value


def listed(value: object) -> object:
    """Lists come from the environment as one text."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def size(value: object) -> object:
    if not isinstance(value, str):
        return value
    match = _SIZE.fullmatch(value.strip())
    if match is None:
        raise ValueError(f"{value!r} is not a size; write it as 25 MiB or as a number of bytes")
    return int(match[1]) * _FACTORS[match[2].lower()]


def span(value: object) -> object:
    return parse_span(value) if isinstance(value, str) else value


def interval(value: timedelta) -> timedelta:
    if not timedelta(seconds=1) <= value <= timedelta(days=1):
        raise ValueError(f"{format_span(value)} is out of range; choose between 1s and 24h")
    return value


def existing_path(value: Path) -> Path:
    if not value.is_absolute():
        raise ValueError(f"{value} is relative, and a service starts anywhere; write the whole path")
    if not value.exists():
        raise ValueError(f"{value} does not exist")
    return value


def existing_file(value: Path) -> Path:
    if not existing_path(value).is_file():
        raise ValueError(f"{value} is no file")
    return value


def tolerant(parse: Callable[[Any], object]) -> BeforeValidator:
    """For pydantic, which collects ValueErrors only."""

    def check(value: object) -> object:
        try:
            return parse(value)
        except KeycacheError as error:
            hint = f" ({error.hint[:1].lower()}{error.hint[1:].rstrip('.')})" if error.hint else ""
            raise ValueError(f"{error.text.rstrip('.')}{hint}") from error

    return BeforeValidator(check)


def cluster_name(value: str) -> str:
    if not _CLUSTER_NAME.fullmatch(value):
        raise ValueError(f"{value[:80]!r} is not a cluster's name; write 1 to 64 of a-z, 0-9 and -")
    return value


def url(value: str) -> str:
    """`http(s)://host:port` and nothing behind it."""
    value = value.strip().rstrip("/")
    parts = urlsplit(value)
    if parts.scheme not in {"http", "https"} or value != f"{parts.scheme}://{parts.netloc}" or "@" in parts.netloc:
        raise ValueError(f"{value[:80]!r} is not an endpoint of etcd; write it as https://etcd1.example.org:2379")
    _with_port(Endpoint.parse(parts.netloc))
    return value


def reachable(value: object) -> object:
    return _with_port(Endpoint.parse(value)) if isinstance(value, str) else value


def _with_port(endpoint: Endpoint) -> Endpoint:
    if not endpoint.port:
        raise ValueError(f"'{endpoint}' names no port under which others could reach it")
    return endpoint
