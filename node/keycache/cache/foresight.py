"""What needs a person now, and what will soon (`domain.cautions`): found in what this node knows, and in what the log says now."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from keycache.cache.cluster import ClusterDesk
from keycache.cache.delivery import Delivery
from keycache.codec import decode_settings
from keycache.domain import cautions
from keycache.domain.errors import InvalidInput, KeycacheError
from keycache.domain.examination import DirectionPolicy
from keycache.domain.log import SETTINGS
from keycache.domain.ports import EntryLog, Replica
from keycache.domain.restart import RestartReport
from keycache.domain.retention import expires_at, lasting
from keycache.domain.settings import Settings
from keycache.replication.roster import Roster
from keycache.replication.timekeeper import Timekeeper
from keycache.replication.view import View


class Foresight:
    """`log`: itself, not the gated one: a log that this node refuses is what it may warn of."""

    def __init__(
        self,
        *,
        log: EntryLog,
        replica: Replica,
        view: View,
        roster: Roster,
        timekeeper: Timekeeper,
        cluster: ClusterDesk,
        delivery: Delivery,
        policy: DirectionPolicy,
    ) -> None:
        self._log = log
        self._replica = replica
        self._view = view
        self._roster = roster
        self._timekeeper = timekeeper
        self._cluster = cluster
        self._delivery = delivery
        self._policy = policy
        self.outside: list[Callable[[], tuple[str, ...]]] = []
        """What else warns: of things that are not the cache's, but its administrator's."""

    def warnings(self) -> tuple[str, ...]:
        """Of now, as sentences."""
        warnings = []
        if self._view.settings is None:
            warnings.append(self._view.settings_problem)
        else:
            clock = self._timekeeper.verdict(self._view.settings.clock_skew_bound)
            if not clock.trusted:
                warnings.append(clock.reason)
        held = self._cluster.purge_held()
        if held and held not in warnings:
            warnings.append(held)
        warnings.extend(self._cluster.warnings())
        warnings.extend(self._delivery.problems())
        warnings.extend(warning for source in self.outside for warning in source())
        if not self._policy.managed_domains:
            warnings.append("No managed domains are configured: mail needs a stated direction or a listener to be harvested.")
        return tuple(warnings)

    async def cautions(self, report: RestartReport) -> tuple[str, ...]:
        """Of soon. `report`: of the restart check as it would go now."""
        known, told = self._view.settings, list(cautions.of_restart(report))
        if known is not None:
            in_log = await self._settings_of_log()
            told += cautions.of_settings(known, in_log, await self._expiring(known, in_log))
            told += cautions.of_clocks(self._roster.offsets(), known.clock_skew_bound)
        if self._cluster.is_following():  # else it does not know who lives
            alive = {self._cluster.describe().node_id, *(said.member.node_id for said in self._roster.others.values())}
            seen = {witness.node_id: witness.at for witness in self._view.witnesses.values()}
            told += cautions.of_nodes(self._view.nodes.values(), alive, seen)
        return tuple(told)

    async def _settings_of_log(self) -> Settings | None:
        with contextlib.suppress(KeycacheError):  # that it cannot be read, the check has told
            record = (await self._log.survey((SETTINGS,))).records[SETTINGS]
            with contextlib.suppress(InvalidInput):
                return None if record is None else decode_settings(record.value)
        return None

    async def _expiring(self, known: Settings, in_log: Settings | None) -> int:
        """Entries here that live by the settings known and not by the log's."""
        if in_log is None or in_log.timeouts == known.timeouts:
            return 0
        now, theirs, ours = self._timekeeper.now(), in_log.timeouts, known.timeouts
        expired = await asyncio.to_thread(self._replica.expired, now=now, timeouts=theirs)
        return sum(expires_at(lasting(one.sightings, ours), ours) > now for one in expired)
