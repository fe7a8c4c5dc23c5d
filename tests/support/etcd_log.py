"""An `EtcdLog` ready for use, and a relay that loses etcd's answers on their way."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from keycache.domain.log import Committed
from keycache.domain.names import ClusterIdentity
from keycache.etcd.client import EtcdClient
from keycache.etcd.connection import EtcdTls
from keycache.etcd.log import EtcdLog
from support.etcd import TlsFiles, fresh_name


@asynccontextmanager
async def opened(
    endpoints: Sequence[str],
    *,
    tls: EtcdTls | None = None,
    name: str = "",
    presence_seconds: int = 15,
    receive_bytes: int = 2**26,
) -> AsyncIterator[EtcdLog]:
    """Not looked at yet. `name`: of the cluster, a fresh one if empty."""
    client = EtcdClient(endpoints, tls, receive_bytes=receive_bytes)
    log = EtcdLog(client, name or fresh_name(), presence_seconds=presence_seconds)
    try:
        yield log
    finally:
        await log.close()


@asynccontextmanager
async def founded(
    endpoints: Sequence[str],
    *,
    tls: EtcdTls | None = None,
    name: str = "",
    presence_seconds: int = 15,
    receive_bytes: int = 2**26,
) -> AsyncIterator[EtcdLog]:
    """Founded, unless it was, and bound."""
    async with opened(endpoints, tls=tls, name=name, presence_seconds=presence_seconds, receive_bytes=receive_bytes) as log:
        identity = (await log.survey()).identity
        if identity is None:
            identity = ClusterIdentity(secrets.token_hex(16))
            assert isinstance(await log.found(identity, {}), Committed)
        log.bind(identity)
        yield log


def tls_of(files: TlsFiles, *, authority: TlsFiles | None = None, client: bool = True) -> EtcdTls:
    """As the configuration would read it. `authority`: whose authority is believed."""
    return EtcdTls(
        ca=(authority or files).ca.read_bytes(),
        certificate=files.client.read_bytes() if client else b"",
        key=files.client_key.read_bytes() if client else b"",
    )


class Relay:
    """Stands before one endpoint. `lose_answers`: what etcd says from now on is swallowed. `cut`: all connections are broken off."""

    def __init__(self, endpoint: str) -> None:
        parts = urlsplit(endpoint)
        self._target = (parts.hostname, parts.port)
        self._losing = False
        self._writers: list[asyncio.StreamWriter] = []
        self._pipes: set[asyncio.Task[None]] = set()
        self.endpoint = ""

    @classmethod
    @asynccontextmanager
    async def before(cls, endpoint: str) -> AsyncIterator[Relay]:
        relay = cls(endpoint)
        server = await asyncio.start_server(relay._accept, "127.0.0.1", 0)
        relay.endpoint = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield relay
        finally:
            server.close()
            relay.cut()
            for pipe in relay._pipes:
                pipe.cancel()
            await asyncio.gather(*relay._pipes, return_exceptions=True)

    def lose_answers(self) -> None:
        self._losing = True

    def cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection(*self._target)
        self._writers += [writer, there_writer]
        for pipe in (self._pass(reader, there_writer, answers=False), self._pass(there_reader, writer, answers=True)):
            self._pipes.add(asyncio.ensure_future(pipe))

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if not (answers and self._losing):
                    writer.write(data)
                    await writer.drain()
