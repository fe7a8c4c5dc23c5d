"""What a node looks at before it begins a cluster or enters one: named checks, all made and all told (`domain.joining.Check`).

| name             | create | join | passed when |
|------------------|--------|------|-------------|
| `etcd`           | yes    | yes  | the etcd that this node is to run is installed, the one of others answers; the version will do |
| `cluster`        | yes    |      | nobody uses that name in the etcd of others |
| `ports`          | yes    | yes  | what this node is to listen on is free |
| `disk`           | yes    | yes  | there is room for etcd, and for the cluster's entries |
| `settings`       | yes    |      | the settings in force are known |
| `timeouts`       |        | yes  | no entry of this node would be expired by the cluster's timeouts |
| `etcd-reachable` |        | yes  | this node reaches the cluster's etcd |
| `version`, `clock`, `name`, `reachable` | | yes | made by the host: see `forming.hosting` |
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from keycache.cluster.etcd_binary import find_etcd
from keycache.cluster.etcd_spec import HostPort
from keycache.cluster.external_etcd import founded
from keycache.cluster.managed_etcd import START_BYTES
from keycache.cluster.own_etcd import check_places
from keycache.domain.errors import ConfigError, KeycacheError, Refused
from keycache.domain.forming import ExternalEtcd
from keycache.domain.joining import Check
from keycache.domain.names import ClusterIdentity

REACH_SECONDS = 5.0
"""For one connection: a lost first packet is sent again after 1 and 3 (RFC 6298)."""

ENTRY_BYTES = 6 * 1024
"""Of disk for an entry that comes in with the first listing: a record of 2 KiB (README, "How much fits"), the rows by which it is found,
and once more in the write-ahead log, since the listing is one transaction."""


async def checked(name: str, check: Awaitable[str], *, binding: bool = False) -> Check:
    try:
        return Check(name=name, passed=True, detail=await check, binding=binding)
    except KeycacheError as error:
        return Check(name=name, passed=False, detail=str(error), binding=binding)


async def passes(check: Callable[[], object], detail: str) -> str:
    check()
    return detail


async def installed() -> str:
    found = await find_etcd()
    return f"{found.path} is etcd {'.'.join(map(str, found.version))}."


async def unused(etcd: ExternalEtcd, name: str) -> str:
    if await founded(etcd, name) is not None:
        raise Refused(
            f"A cluster {name} is in that etcd already.",
            hint="Join it with a token of one of its nodes, or take another name. If none of its nodes is left, and none of its keys is "
            f"wanted: etcdctl del --prefix /keycache/{name}/",
        )
    return f"Nobody uses the name {name} there."


async def same(etcd: ExternalEtcd, name: str, identity: ClusterIdentity, *, founding: bool) -> str:
    """`founding`: this node has not begun it there yet."""
    found = await founded(etcd, name)
    if found != identity and not (found is None and founding):
        raise Refused("What is there under this name is not this node's cluster.", hint="Name the etcd that holds it.")
    return "It holds this node's cluster."


async def free_ports(join: str, *etcd: HostPort) -> str:
    """`join`: host:port, empty if off."""
    check_places(*etcd, join=join)
    return f"{', '.join([*map(str, etcd), *([join] if join else [])]) or 'None'}: free."


async def room(data_dir: Path, *, runs_etcd: bool, entries: int = 0) -> str:
    """`entries`: that come in."""
    needed = (START_BYTES if runs_etcd else 0) + entries * ENTRY_BYTES
    free = shutil.disk_usage(data_dir).free
    if free < needed:
        raise ConfigError(
            f"Only {free // 2**20} MB are free on the disk of {data_dir}, and {-(-needed // 2**20)} MB are needed.",
            hint="Free some space there.",
        )
    return f"{free // 2**20} MB are free, and {-(-needed // 2**20)} MB are needed."


async def reached(urls: Sequence[str]) -> str:
    """That a connection can be made, to one at least: another may be down just now. Raises ConfigError."""
    places = [urlsplit(url) for url in urls]
    answers = await asyncio.gather(*(connects(place.hostname or "", place.port or 0) for place in places))
    failed = [url for url, answered in zip(urls, answers, strict=True) if not answered]
    if len(failed) == len(urls):
        raise ConfigError(
            f"This node does not reach the cluster's etcd at {', '.join(failed)}.",
            hint="Check that etcd runs, that its address is one which this machine reaches (cluster.etcd_client on its node), and the "
            "firewall.",
        )
    missing = f" Not at {', '.join(failed)}: it may be down, or behind a firewall." if failed else ""
    return f"This node reaches the cluster's etcd at {', '.join(url for url in urls if url not in failed)}.{missing}"


async def connects(host: str, port: int) -> bool:
    """Whether something listens there."""
    try:
        async with asyncio.timeout(REACH_SECONDS):
            _, writer = await asyncio.open_connection(host, port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True
