"""Tokens with which nodes join: made, listed, withdrawn, and used once."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Sequence
from datetime import timedelta

from keycache.cache.journal import Journal
from keycache.cache.writer import Writer, audit_put
from keycache.codec.joining import decode_token, encode_node, encode_token, token_used
from keycache.domain.errors import Conflict, InvalidInput, NotFound, PermissionDenied
from keycache.domain.join_token import (
    ENTROPY_BYTES,
    NEW_TOKEN_HINT,
    HostPort,
    Joiner,
    JoinToken,
    TokenRecord,
    TokenVerdict,
    judge,
    record_of,
)
from keycache.domain.log import ABSENT, TOKENS, Committed, Record, Transaction, authority_key, node_key, token_key
from keycache.domain.nodes import ClusterNode
from keycache.domain.ports import EntryLog, Replica
from keycache.domain.secret import Secret
from keycache.replication.timekeeper import Timekeeper


class Tokens:
    def __init__(self, *, log: EntryLog, writer: Writer, replica: Replica, timekeeper: Timekeeper, journal: Journal) -> None:
        self._log = log
        self._writer = writer
        self._replica = replica
        self._timekeeper = timekeeper
        self._journal = journal

    async def make(
        self, *, endpoints: Sequence[HostPort], authority: bytes, ttl: timedelta, actor: str
    ) -> tuple[JoinToken, TokenRecord]:
        """`authority`: as in JoinToken. Those that have expired are cleared away. Raises OutOfRange, InvalidInput, LogUnavailable."""
        now = self._timekeeper.now()
        token = JoinToken.new(secrets.token_bytes(ENTROPY_BYTES), endpoints=endpoints, authority=authority)
        record = record_of(token, created_by=actor, now=now, ttl=ttl)
        over = tuple(token_key(one.id) for one in self.known() if now >= one.expires_at)[:50]
        key = token_key(token.id)
        line = self._journal.entry_of(actor, "TOKEN_MAKE", token.id, f"until {record.expires_at:%Y-%m-%d %H:%M} UTC")
        await self._writer.act(line, compare={key: ABSENT}, puts={key: encode_token(record)}, deletes=over)
        return token, record

    def known(self) -> tuple[TokenRecord, ...]:
        """The newest first."""
        found = []
        for record in self._replica.documents(TOKENS):
            with contextlib.suppress(InvalidInput):  # of a later version
                found.append(decode_token(record.value))
        return tuple(sorted(found, key=lambda one: one.created_at, reverse=True))

    async def revoke(self, token_id: str, actor: str) -> None:
        """Raises NotFound, LogUnavailable."""
        if token_id not in {one.id for one in self.known()}:
            raise NotFound(f"There is no token {token_id[:20]!r}.", hint="See 'keycache cluster token --list'.")
        await self._writer.act(self._journal.entry_of(actor, "TOKEN_REVOKE", token_id), deletes=(token_key(token_id),))

    async def judge(self, token_id: str, secret: Secret, joiner: Joiner) -> None:
        """By the log itself, not by what was replicated of it. Raises PermissionDenied, LogUnavailable."""
        key = token_key(token_id)
        self._judge((await self._log.survey((key,))).records[key], secret, joiner)

    async def use(self, token_id: str, secret: Secret, joiner: Joiner, node: ClusterNode, *, authority: str) -> None:
        """Mark it used and write down who belongs to the cluster now, in one transaction: two nodes cannot use it at once.

        `authority`: id of the one that certified the node; a change of it that has begun meanwhile refuses the node.

        Raises PermissionDenied, Conflict, LogUnavailable.
        """
        key, place = token_key(token_id), node_key(node.node)
        found = (await self._log.survey((key, place))).records
        record, known = self._judge(found[key], secret, joiner), found[place]
        line = self._journal.entry_of(f"token {token_id}", "NODE_JOIN", node.node.text, node.address)
        transaction = Transaction(
            compare={
                key: record.mod_revision,
                place: ABSENT if known is None else known.mod_revision,
                authority_key(authority): ABSENT,
            },
            puts={
                key: token_used(record.value, joiner, at=self._timekeeper.now()),
                place: encode_node(node),
                **audit_put(line),
            },
        )
        if not isinstance(await self._log.commit(transaction), Committed):
            raise Conflict(
                "The token was used by another node just now, or the cluster began to change its authority.",
                hint=NEW_TOKEN_HINT,
            )

    def _judge(self, record: Record | None, secret: Secret, joiner: Joiner) -> Record:
        """The record of a token that lets the joiner in. Raises PermissionDenied."""
        known = None
        with contextlib.suppress(InvalidInput):
            known = None if record is None else decode_token(record.value)
        verdict = judge(known, secret=secret, joiner=joiner, now=self._timekeeper.now())
        if record is None or verdict is not TokenVerdict.OK:
            raise PermissionDenied(verdict.sentence, hint=NEW_TOKEN_HINT)
        return record
