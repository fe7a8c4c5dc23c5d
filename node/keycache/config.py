"""The configuration of one node: a TOML file, overruled by the environment.

1. Each setting is `section.name` in the file and `KEYCACHE_SECTION__NAME` in the environment; lists are comma-separated there.
2. What is wrong is told with its place, what is wrong with it and what is allowed; all of it at once, never a traceback.
3. An unknown name is an error: a misspelt setting that is silently ignored is one that does not hold.
4. Timeouts are not here: what must be equal on all nodes lives in the log (`keycache settings`).
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from keycache.domain.errors import ConfigError, KeycacheError
from keycache.domain.examination import DirectionPolicy
from keycache.domain.names import Domain
from keycache.domain.spans import format_span, parse_span

FILE_NAME = "keycache.toml"
PREFIX = "KEYCACHE_"

SYSTEM_ANCHORS = Path("/etc/ssl/certs/ca-certificates.crt")
"""Where Debian's ca-certificates puts its bundle."""

MESSAGE_LIMIT_MAX = 512 * 1024 * 1024
"""Bytes. A message is one gRPC message, whose length is a signed 32-bit number, and is held in memory several times."""

_SIZE = re.compile(r"(\d{1,12})\s*(|B|KiB|MiB|GiB|KB|MB|GB)", re.IGNORECASE)
_FACTORS = {"": 1, "b": 1, "kib": 2**10, "mib": 2**20, "gib": 2**30, "kb": 10**3, "mb": 10**6, "gb": 10**9}
_HOST = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\.?")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where to listen. Port 0: any free one, told in the node's `run.json`."""

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


def _endpoint(value: object) -> object:
    return Endpoint.parse(value) if isinstance(value, str) else value


def _endpoint_or_off(value: object) -> object:
    return None if value == "off" else _endpoint(value)


def _domain(value: object) -> object:
    return Domain.parse(value) if isinstance(value, str) else value


def _listener(value: str) -> str:
    """`address` or `address:port`, as mail processors name the listener that took a mail."""
    value = value.strip()
    if not _is_ip(value.strip("[]")) and not (value.rpartition(":")[1] == "" and _HOST.fullmatch(value)):
        Endpoint.parse(value)
    return value


def _network(value: str) -> str:
    try:
        return str(ipaddress.ip_network(value.strip()))
    except ValueError as error:
        raise ValueError(f"{error}; write it as 10.0.0.0/8 or 2001:db8::/32") from error


def _name(value: str) -> str:
    value = value.strip()
    if not _is_ip(value) and not _HOST.fullmatch(value):
        raise ValueError(f"{value!r} is neither a host name nor an IP address")
    return value


def _listed(value: object) -> object:
    """Lists come from the environment as one text."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _size(value: object) -> object:
    if not isinstance(value, str):
        return value
    match = _SIZE.fullmatch(value.strip())
    if match is None:
        raise ValueError(f"{value!r} is not a size; write it as 25 MiB or as a number of bytes")
    return int(match[1]) * _FACTORS[match[2].lower()]


def _span(value: object) -> object:
    return parse_span(value) if isinstance(value, str) else value


def _interval(value: timedelta) -> timedelta:
    if not timedelta(seconds=1) <= value <= timedelta(days=1):
        raise ValueError(f"{format_span(value)} is out of range; choose between 1s and 24h")
    return value


def _path(value: Path) -> Path:
    if not value.is_absolute():
        raise ValueError(f"{value} is relative, and a service starts anywhere; write the whole path")
    if not value.exists():
        raise ValueError(f"{value} does not exist")
    return value


def _tolerant(parse: Callable[[Any], object]) -> BeforeValidator:
    """For pydantic, which collects ValueErrors only."""

    def check(value: object) -> object:
        try:
            return parse(value)
        except KeycacheError as error:
            hint = f" ({error.hint[:1].lower()}{error.hint[1:].rstrip('.')})" if error.hint else ""
            raise ValueError(f"{error.text.rstrip('.')}{hint}") from error

    return BeforeValidator(check)


_Texts = BeforeValidator(_listed)
_Listener = Annotated[str, AfterValidator(_listener)]
_ExistingPath = Annotated[Path, AfterValidator(_path)]


class _Section(BaseModel):
    """`description` of each field tells what is allowed; errors show it."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Listen(_Section):
    """Where the node is reached. `names`: further host names or IP addresses for its certificate. `metrics`, `join`: None is off."""

    grpc: Annotated[Endpoint, _tolerant(_endpoint), Field(description="host:port")] = Endpoint("127.0.0.1", 7640)
    metrics: Annotated[Endpoint | None, _tolerant(_endpoint_or_off), Field(description="host:port or off")] = Endpoint(
        "127.0.0.1", 7641
    )
    join: Annotated[Endpoint | None, _tolerant(_endpoint_or_off), Field(description="host:port or off")] = Endpoint(
        "127.0.0.1", 7642
    )
    names: Annotated[
        tuple[Annotated[str, AfterValidator(_name)], ...], _Texts, Field(description="a list of host names and IP addresses")
    ] = ()


class Mail(_Section):
    """What tells inbound from outbound mail (seed questions 3 and 4), and the largest message looked into, in bytes."""

    managed_domains: Annotated[
        tuple[Annotated[Domain, _tolerant(_domain)], ...], _Texts, Field(description="a list of domain names")
    ] = ()
    inbound_listeners: Annotated[tuple[_Listener, ...], _Texts, Field(description="a list of address[:port]")] = ()
    outbound_listeners: Annotated[tuple[_Listener, ...], _Texts, Field(description="a list of address[:port]")] = ()
    internal_networks: Annotated[
        tuple[Annotated[str, AfterValidator(_network)], ...], _Texts, Field(description="a list of networks as 10.0.0.0/8")
    ] = ()
    message_limit: Annotated[
        int, _tolerant(_size), Field(ge=64 * 1024, le=MESSAGE_LIMIT_MAX, description="64 KiB to 512 MiB")
    ] = 25 * 1024 * 1024


class Trust(_Section):
    """Whom S/MIME certificates may end in. `anchors` and `crls`: files and folders, PEM or DER.

    `system_anchors`: whether the system's bundle counts too.
    """

    anchors: Annotated[tuple[_ExistingPath, ...], _Texts, Field(description="a list of existing files and folders")] = ()
    system_anchors: Annotated[bool, Field(description="true or false")] = True
    crls: Annotated[tuple[_ExistingPath, ...], _Texts, Field(description="a list of existing files and folders")] = ()

    @property
    def anchor_paths(self) -> tuple[Path, ...]:
        """All files and folders to take anchors from; the system's bundle may be absent on a machine that has none."""
        return (*self.anchors, SYSTEM_ANCHORS) if self.system_anchors else self.anchors


class Workers(_Section):
    """Parser workers (DESIGN 3): how many (0: one per processor, at most 4), and what one message may cost each."""

    count: Annotated[int, Field(ge=0, le=64, description="0 to 64, 0 for one per processor")] = 0
    memory_mb: Annotated[int, Field(ge=128, le=16384, description="128 to 16384")] = 512
    seconds: Annotated[float, Field(ge=1, le=600, description="1 to 600")] = 20.0

    @property
    def processes(self) -> int:
        return self.count or min(os.cpu_count() or 1, 4)


class Log(_Section):
    """`format`: json for machines, text for people."""

    level: Annotated[Literal["debug", "info", "warning", "error"], Field(description="debug, info, warning or error")] = "info"
    format: Annotated[Literal["json", "text"], Field(description="json or text")] = "json"


class Purge(_Section):
    """How often expired entries are looked for. They are not served in between either (DESIGN 2.5)."""

    interval: Annotated[timedelta, _tolerant(_span), AfterValidator(_interval), Field(description="1s to 24h")] = timedelta(
        minutes=5
    )


class Config(_Section):
    """One node's configuration, checked. Make it with `load`."""

    data_dir: Path
    listen: Listen = Listen()
    mail: Mail = Mail()
    trust: Trust = Trust()
    workers: Workers = Workers()
    log: Log = Log()
    purge: Purge = Purge()

    @property
    def direction_policy(self) -> DirectionPolicy:
        return DirectionPolicy(
            managed_domains=self.mail.managed_domains,
            inbound_listeners=self.mail.inbound_listeners,
            outbound_listeners=self.mail.outbound_listeners,
            internal_networks=self.mail.internal_networks,
        )


_SECTIONS: dict[str, type[_Section]] = {
    "listen": Listen,
    "mail": Mail,
    "trust": Trust,
    "workers": Workers,
    "log": Log,
    "purge": Purge,
}


def load(*, data_dir: Path, file: Path | None, environ: Mapping[str, str]) -> Config:
    """The configuration of the node in `data_dir`: defaults, then `file`, then KEYCACHE_SECTION__NAME of `environ`.

    `file` None: $KEYCACHE_CONFIG, else DATA_DIR/keycache.toml if there is one. Raises ConfigError, which names every mistake.
    """
    if file is None and environ.get(f"{PREFIX}CONFIG"):
        file = Path(environ[f"{PREFIX}CONFIG"])
    source = file or data_dir / FILE_NAME
    merged = _read_file(source, required=file is not None)
    mistakes, overrides = _environment(environ)
    for (section, name), value in overrides.items():
        table = merged.setdefault(section, {})
        if isinstance(table, dict):
            table[name] = value
    if "data_dir" in merged:
        mistakes.append(f"data_dir in {source} is not a setting; say --data-dir or KEYCACHE_DATA_DIR")
        del merged["data_dir"]
    try:
        config = Config.model_validate({**merged, "data_dir": data_dir.absolute()})
    except ValidationError as error:
        mistakes += _mistakes(error, source, overrides)
    if mistakes:
        count = "a mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
        listing = "".join(f"\n  {mistake}." for mistake in mistakes)
        raise ConfigError(f"The configuration has {count}:{listing}", hint="")
    return config


def _read_file(path: Path, *, required: bool) -> dict[str, Any]:
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError as error:
        if not required:
            return {}
        raise ConfigError(f"The configuration file {path} does not exist.", hint="Correct --config.") from error
    except OSError as error:
        text = f"The configuration file {path} cannot be read: {error.strerror or error}."
        raise ConfigError(text, hint="Run this as root or as the node's own user.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"The configuration file {path} is not UTF-8 text.", hint="Save it as UTF-8.") from error
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not TOML: {error}.", hint='Texts stand in quotes: grpc = "127.0.0.1:7640".') from error


def _environment(environ: Mapping[str, str]) -> tuple[list[str], dict[tuple[str, str], str]]:
    """Mistakes, and texts by section and name. Names of another shape belong to somebody else (Kubernetes sets KEYCACHE_PORT_... and
    the like for a service called keycache), except a known one with a single underscore, which is surely meant."""
    known = {f"{PREFIX}{section}__{name}".upper(): (section, name) for section, name in _known()}
    single = {variable.replace("__", "_"): variable for variable in known}
    mistakes, found = [], {}
    for variable, value in sorted(environ.items()):
        if variable in known:
            found[known[variable]] = value
        elif variable in single:
            mistakes.append(f"{variable} in the environment is not a setting; did you mean {single[variable]}")
        elif variable.startswith(PREFIX) and "__" in variable:
            mistakes.append(f"{variable} in the environment is not a setting{_did_you_mean(variable, known)}")
    return mistakes, found


def _known() -> Iterator[tuple[str, str]]:
    for section, model in _SECTIONS.items():
        for name in model.model_fields:
            yield section, name


def _mistakes(error: ValidationError, source: Path, overrides: Mapping[tuple[str, str], str]) -> Iterator[str]:
    for details in error.errors(include_url=False):
        place = [str(part) for part in details["loc"]]
        setting = ".".join(place[:2]) + "".join(f"[{number}]" for number in place[2:])
        where = str(source)
        if tuple(place[:2]) in overrides:
            where = f"{PREFIX}{place[0]}__{place[1]} in the environment".upper().replace(
                "IN THE ENVIRONMENT", "in the environment"
            )
        if details["type"] == "extra_forbidden":
            yield f"{setting} in {where} is not a setting{_instead(place)}"
        elif len(place) == 1:
            yield f"{setting} in {where} must be a section: write [{setting}] above its settings"
        else:
            allowed = _SECTIONS[place[0]].model_fields[place[1]].description
            yield f"{setting} in {where}: {_reason(details['msg'], details['input'])}; allowed: {allowed}"


def _reason(message: str, value: object) -> str:
    own = message.removeprefix("Value error, ")
    return own if own != message else f"{str(value)[:60]!r} does not fit ({message[:1].lower()}{message[1:]})"


def _instead(place: list[str]) -> str:
    """What to write instead of an unknown name."""
    if "timeout" in "".join(place):
        return "; timeouts are equal on all nodes, see 'keycache settings set'"
    if len(place) > 1:
        return _did_you_mean(place[1], _SECTIONS[place[0]].model_fields)
    homes = [f"{section}.{name}" for section, name in _known() if name == place[0]]
    return f"; did you mean {homes[0]}" if homes else _did_you_mean(place[0], _SECTIONS)


def _did_you_mean(word: str, known: Mapping[str, object]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {close[0]}" if close else f"; known are {', '.join(known)}"
