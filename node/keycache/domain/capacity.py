"""How much etcd holds, and how near it is to its quota."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class EtcdEndpoint:
    """One endpoint of etcd as this node sees it. `quota_bytes` 0: not known. `alarms`: NOSPACE, CORRUPT. `problem`: why it is not
    reachable."""

    endpoint: str
    reachable: bool
    version: str = ""
    leader: bool = False
    learner: bool = False
    db_bytes: int = 0
    db_bytes_in_use: int = 0
    quota_bytes: int = 0
    alarms: tuple[str, ...] = ()
    problem: str = ""
