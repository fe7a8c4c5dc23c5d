"""The configuration of one node: a TOML file, overruled by the environment.

1. Each setting is `section.name` in the file and `KEYCACHE_SECTION__NAME` in the environment; lists are comma-separated there.
2. What is wrong is told with its place, what is wrong with it and what is allowed; all of it at once, never a traceback.
3. An unknown name is an error: a misspelt setting that is silently ignored is one that does not hold.
4. Timeouts are not here: what must be equal on all nodes lives in the log (`keycache settings`).
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from keycache.config import values
from keycache.config.values import Endpoint, tolerant
from keycache.domain.errors import ConfigError
from keycache.domain.examination import DirectionPolicy
from keycache.domain.names import Domain

__all__ = ["MESSAGE_LIMIT_MAX", "BaseModel", "Cluster", "Config", "Endpoint", "load"]

FILE_NAME = "keycache.toml"
PREFIX = "KEYCACHE_"

SYSTEM_ANCHORS = Path("/etc/ssl/certs/ca-certificates.crt")
"""Where Debian's ca-certificates puts its bundle."""

MESSAGE_LIMIT_MAX = 512 * 1024 * 1024
"""Bytes. A message is one gRPC message, whose length is a signed 32-bit number, and is held in memory several times."""

QUOTA_MAX = 100 * 2**30
"""Bytes. etcd itself warns above 8 GiB; beyond this a size is a slip of the pen."""

_Texts = BeforeValidator(values.listed)
_Listener = Annotated[str, AfterValidator(values.listener)]
_ExistingPath = Annotated[Path, AfterValidator(values.existing_path)]
_ExistingFile = Annotated[Path, AfterValidator(values.existing_file)]


class _Section(BaseModel):
    """`description` of each field tells what is allowed; errors show it."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Listen(_Section):
    """Where the node is reached. `names`: further host names or IP addresses for its certificate. `metrics`, `join`: None is off."""

    grpc: Annotated[Endpoint, tolerant(values.endpoint), Field(description="host:port")] = Endpoint("127.0.0.1", 7640)
    metrics: Annotated[Endpoint | None, tolerant(values.endpoint_or_off), Field(description="host:port or off")] = Endpoint(
        "127.0.0.1", 7641
    )
    join: Annotated[Endpoint | None, tolerant(values.endpoint_or_off), Field(description="host:port or off")] = Endpoint(
        "127.0.0.1", 7642
    )
    names: Annotated[
        tuple[Annotated[str, AfterValidator(values.host_name)], ...],
        _Texts,
        Field(description="a list of host names and IP addresses"),
    ] = ()


class Mail(_Section):
    """What tells inbound from outbound mail (seed questions 3 and 4), and the largest message looked into, in bytes."""

    managed_domains: Annotated[
        tuple[Annotated[Domain, tolerant(values.domain)], ...], _Texts, Field(description="a list of domain names")
    ] = ()
    inbound_listeners: Annotated[tuple[_Listener, ...], _Texts, Field(description="a list of address[:port]")] = ()
    outbound_listeners: Annotated[tuple[_Listener, ...], _Texts, Field(description="a list of address[:port]")] = ()
    internal_networks: Annotated[
        tuple[Annotated[str, AfterValidator(values.network)], ...],
        _Texts,
        Field(description="a list of networks as 10.0.0.0/8"),
    ] = ()
    message_limit: Annotated[
        int, tolerant(values.size), Field(ge=64 * 1024, le=MESSAGE_LIMIT_MAX, description="64 KiB to 512 MiB")
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

    interval: Annotated[timedelta, tolerant(values.span), AfterValidator(values.interval), Field(description="1s to 24h")] = (
        timedelta(minutes=5)
    )


class Cluster(_Section):
    """The log that nodes share. `endpoints` of etcd; none: the node works alone. `name`: which of the logs in that etcd. `ca`,
    `certificate`, `key`: for https, what etcd's certificates end in, and what this node shows. `quota`: bytes, as etcd's
    --quota-backend-bytes, where etcd does not tell it (before 3.6); 0: etcd's default. `address`: where others reach this node's
    gRPC; None: `listen.grpc`. `etcd_client`, `etcd_peer`: where others reach the etcd that this node runs for a cluster of its own; None:
    the host of `address`, ports 7650 and 7651.
    """

    name: Annotated[str, AfterValidator(values.cluster_name), Field(description="1 to 64 of a-z, 0-9 and -")] = "keycache"
    endpoints: Annotated[
        tuple[Annotated[str, AfterValidator(values.url)], ...], _Texts, Field(description="a list of http(s)://host:port")
    ] = ()
    ca: Annotated[_ExistingFile | None, Field(description="an existing file")] = None
    certificate: Annotated[_ExistingFile | None, Field(description="an existing file")] = None
    key: Annotated[_ExistingFile | None, Field(description="an existing file")] = None
    quota: Annotated[int, tolerant(values.size), Field(ge=16 * 2**20, le=QUOTA_MAX, description="16 MiB to 100 GiB")] = 0
    address: Annotated[Endpoint | None, tolerant(values.reachable), Field(description="host:port")] = None
    etcd_client: Annotated[Endpoint | None, tolerant(values.reachable), Field(description="host:port")] = None
    etcd_peer: Annotated[Endpoint | None, tolerant(values.reachable), Field(description="host:port")] = None

    @model_validator(mode="after")
    def _fits_together(self) -> Cluster:
        schemes = {endpoint.partition(":")[0] for endpoint in self.endpoints}
        if len(schemes) > 1:
            raise ValueError("some endpoints are http and some https; write all of them alike")
        if "https" in schemes and self.ca is None:
            raise ValueError("https endpoints need ca, the file with the certificate that etcd's own end in")
        if "http" in schemes and (self.ca or self.certificate or self.key):
            raise ValueError(
                "ca, certificate and key are for https, and the endpoints are http; write https, or leave them out"
            )
        if (self.certificate is None) is not (self.key is None):
            raise ValueError("certificate and key belong together; write both or neither")
        return self


class Config(_Section):
    """One node's configuration, checked. Make it with `load`."""

    data_dir: Path
    listen: Listen = Listen()
    mail: Mail = Mail()
    trust: Trust = Trust()
    workers: Workers = Workers()
    log: Log = Log()
    purge: Purge = Purge()
    cluster: Cluster = Cluster()

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
    "cluster": Cluster,
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
        elif len(place) == 1 and details["type"] == "value_error":
            yield f"{setting} in {where}: {_reason(details['msg'], details['input'])}"
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
