"""What the replica's documents say, decoded once per change and held in memory: settings, blocks, issuers, intermediates, members.

Filled from the replica at start and after every applied batch that touched a document. Decisions read it without I/O.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from keycache.codec import block_from_wire, decode, decode_settings, issuer_from_wire
from keycache.codec.authority import decode_change, decode_report
from keycache.codec.joining import decode_node, decode_removal
from keycache.codec.members import decode_member, decode_witness
from keycache.domain.administration import BlockList, IssuerDecision, IssuerState
from keycache.domain.entry import Key
from keycache.domain.errors import InvalidInput, Unavailable
from keycache.domain.examination import TrustBase
from keycache.domain.log import (
    ABSENT,
    AUTHORITY,
    AUTHORITY_REPORTS,
    BLOCKS,
    CHAIN,
    ISSUERS,
    MEMBERS,
    NODES,
    REMOVED,
    SETTINGS,
    WITNESSES,
)
from keycache.domain.lookup import timeouts_us
from keycache.domain.membership import Member, Witness
from keycache.domain.names import NodeId, Revision
from keycache.domain.nodes import ClusterNode
from keycache.domain.ports import Replica
from keycache.domain.removal import Removal
from keycache.domain.rotation import AuthorityChange, AuthorityReport
from keycache.domain.settings import Settings
from keycache.v1 import record_pb2


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """A member's word, and the revision by which it was written."""

    member: Member
    revision: Revision


class View:
    """`settings` is None until read, and again if the record cannot be read: then nothing is removed (DESIGN 2.3).

    `on_trust` is called with the new base whenever issuers or intermediates change, and once at the first load. `on_members` is called
    with the keys of members that spoke or went, as it is heard: never for what was found in a listing, or here at the start.
    """

    def __init__(
        self,
        replica: Replica,
        *,
        anchors: tuple[bytes, ...] = (),
        crls: tuple[bytes, ...] = (),
        on_trust: Callable[[TrustBase], None] = lambda _base: None,
        on_settings: Callable[[], None] = lambda: None,
        on_members: Callable[[frozenset[str]], None] = lambda _keys: None,
    ) -> None:
        self._replica = replica
        self._anchors = anchors
        self._crls = crls
        self._on_trust = on_trust
        self._on_settings = on_settings
        self._on_members = on_members
        self.settings: Settings | None = None
        self.settings_revision: Revision = ABSENT
        self.settings_problem = "The settings were not read yet."
        self.timeouts: tuple[int, int, int] | None = None
        self.blocks = BlockList()
        self.decisions: dict[str, IssuerDecision] = {}
        self.chain: dict[str, bytes] = {}
        self.members: dict[str, Said] = {}
        self.witnesses: dict[str, Witness] = {}
        self.nodes: dict[NodeId, ClusterNode] = {}
        self.removed: dict[NodeId, Removal] = {}
        self.changes: dict[str, AuthorityChange] = {}
        self.reports: dict[NodeId, AuthorityReport] = {}

    def require_settings(self) -> Settings:
        """Raises Unavailable where nothing may be assumed."""
        if self.settings is None:
            raise Unavailable(self.settings_problem, hint="Nothing that depends on them is done. See 'keycache status'.")
        return self.settings

    def require_timeouts(self) -> tuple[int, int, int]:
        """In microseconds, in the order of ORIGINS. Raises Unavailable."""
        if self.timeouts is None:
            self.require_settings()
        assert self.timeouts is not None
        return self.timeouts

    def is_rejected(self, key: Key) -> bool:
        """Whether an administrator rejected the key's issuer: its keys were dropped then, everywhere, and are not to come back."""
        decision = None if key.issuer is None else self.decisions.get(key.issuer.id)
        return decision is not None and decision.state is IssuerState.REJECTED

    def load(self) -> None:
        """Read everything anew from the replica."""
        self._load_settings()
        self._load_blocks()
        self._load_trust()
        self._load_members()
        self._load_witnesses()
        self._load_nodes()
        self._load_authority()

    def touched(self, keys: Iterable[str]) -> None:
        """Documents of these keys changed in the replica."""
        keys = frozenset(keys)
        kinds = {key if key == SETTINGS else key.partition("/")[0] + "/" for key in keys}
        if SETTINGS in kinds:
            self._load_settings()
            self._on_settings()
        if BLOCKS in kinds:
            self._load_blocks()
        if kinds & {ISSUERS, CHAIN}:
            self._load_trust()
        if WITNESSES in kinds:
            self._load_witnesses()
        if kinds & {NODES, REMOVED}:
            self._load_nodes()
        if kinds & {AUTHORITY, AUTHORITY_REPORTS}:
            self._load_authority()
        if MEMBERS in kinds:
            self._load_members()
            self._on_members(frozenset(key for key in keys if key.startswith(MEMBERS)))

    def _load_settings(self) -> None:
        record = self._replica.document(SETTINGS)
        self.settings, self.timeouts, self.settings_revision = None, None, ABSENT
        if record is None:
            self.settings_problem = "There are no settings in the log."
            return
        self.settings_revision = record.mod_revision
        try:
            self.settings = decode_settings(record.value)
        except InvalidInput as error:
            self.settings_problem = f"The settings cannot be read: {error.text}"
        else:
            self.timeouts = timeouts_us(self.settings.timeouts)

    def _load_blocks(self) -> None:
        blocks = []
        for record in self._replica.documents(BLOCKS):
            try:
                blocks.append(block_from_wire(decode(record_pb2.Block, record.value)))
            except InvalidInput:
                continue  # of a later version: its own nodes obey it
        self.blocks = BlockList(tuple(blocks))

    def _load_trust(self) -> None:
        self.decisions = {}
        for record in self._replica.documents(ISSUERS):
            try:
                decision = issuer_from_wire(decode(record_pb2.IssuerDecision, record.value))
            except InvalidInput:
                continue
            self.decisions[decision.id] = decision
        self.chain = {record.key.removeprefix(CHAIN): record.value for record in self._replica.documents(CHAIN)}
        decisions = self.decisions.values()
        self._on_trust(
            TrustBase(
                anchors=self._anchors,
                approved=tuple(d.certificate for d in decisions if d.state is IssuerState.APPROVED and d.certificate),
                intermediates=tuple(self.chain.values()),
                crls=self._crls,
                rejected=frozenset(d.id for d in decisions if d.state is IssuerState.REJECTED),
            )
        )

    def _load_members(self) -> None:
        """By key, as those below; what cannot be read is of a later version, and no part of what we decide."""
        self.members = {}
        for record in self._replica.documents(MEMBERS):
            with contextlib.suppress(InvalidInput):
                self.members[record.key] = Said(member=decode_member(record.value), revision=record.mod_revision)

    def _load_witnesses(self) -> None:
        self.witnesses = {}
        for record in self._replica.documents(WITNESSES):
            with contextlib.suppress(InvalidInput):
                self.witnesses[record.key] = decode_witness(record.value)

    def _load_nodes(self) -> None:
        """Who belongs to the cluster, and who was removed."""
        self.nodes, self.removed = {}, {}
        for record in self._replica.documents(NODES):
            with contextlib.suppress(InvalidInput):
                node = decode_node(record.value)
                self.nodes[node.node] = node
        for record in self._replica.documents(REMOVED):
            with contextlib.suppress(InvalidInput):
                removal = decode_removal(record.value)
                self.removed[removal.node] = removal

    def _load_authority(self) -> None:
        """Changes of authorities, by the id of the former one, and how far each node is."""
        self.changes, self.reports = {}, {}
        for record in self._replica.documents(AUTHORITY):
            with contextlib.suppress(InvalidInput):
                change = decode_change(record.value)
                self.changes[change.former] = change
        for record in self._replica.documents(AUTHORITY_REPORTS):
            with contextlib.suppress(InvalidInput):
                report = decode_report(record.value)
                self.reports[report.node] = report
