"""Certificates of every kind are renewed while lookups and writes go on, and nothing is left that needs the old ones.

The nodes are started under a clock that is so far behind that their certificates, good for a year by it, really end within a minute.
Then the clock is set right: what was issued is renewed at the next look, and what is old is over for etcd as well, which no
libfaketime reaches.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path

from cryptography import x509

from keycache.clock import SystemClock
from keycache.domain.errors import KeycacheError
from keycache.pki.authority import LEAF_LIFE
from support.forming import keycache, places, seated, token_of
from support.scenario import ClockFile, Running, children, connected, eventually, running

LEFT = timedelta(seconds=75)
"""Of real time, for the certificates that the nodes begin with: enough to make the cluster in."""


def shown(place: str, pki: Path) -> str:
    """The serial number of the certificate that a server shows at a new handshake: openssl's word."""
    command = ["openssl", "s_client", "-connect", place, "-CAfile", str(pki / "trusted.pem"), "-verify_return_error"]
    command += ["-cert", str(pki / "server.pem"), "-key", str(pki / "server.key"), "-alpn", "h2"]
    done = subprocess.run(command, input=b"", capture_output=True, check=False, timeout=60)
    assert b"Verify return code: 0 (ok)" in done.stdout, done.stdout + done.stderr
    told = subprocess.run(
        ["openssl", "x509", "-noout", "-serial"], input=done.stdout, capture_output=True, check=True, timeout=60
    )
    return told.stdout.decode().strip()


def own(pki: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate((pki / "server.pem").read_bytes())


def serial(certificate: x509.Certificate) -> str:
    number = f"{certificate.serial_number:X}"
    return f"serial={'0' * (len(number) % 2)}{number}"


def etcd_of(node: Running) -> int:
    """The process of the etcd that a node runs: its own, or the child of the guard that starts it."""
    around = children(node.pid)
    around |= {grandchild for child in around for grandchild in children(child)}
    return next(pid for pid in around if Path(f"/proc/{pid}/comm").read_text().strip() == "etcd")


async def work(node: Running, failures: list[str], ended: asyncio.Event) -> int:
    """Lookups and writes, one after the other; how many went well."""
    done = 0
    while not ended.is_set():
        try:
            await node.lookup("anybody@example.org")
            await node.block(address=f"n{done}@example.org")
            done += 1
        except KeycacheError as error:
            failures.append(str(error))
        await asyncio.sleep(0.05)
    return done


async def test_nodes_and_their_etcd_renew_certificates_under_load_and_the_old_ones_end(tmp_path: Path) -> None:
    clock = ClockFile(tmp_path / "clock")
    clock.go(LEFT - LEAF_LIFE)
    first, second = tmp_path / "first", tmp_path / "second"
    one, two = places(), places()
    async with AsyncExitStack() as stack:
        host = await stack.enter_async_context(running(first, environ=clock.environ, **one))
        await keycache(first, "cluster", "create", "--name", "mail")
        joiner = await stack.enter_async_context(running(second, environ=clock.environ, **two))
        await keycache(second, "cluster", "join", "--token", await token_of(first))
        await seated(first, voters=1, learners=1)
        before = {folder: own(folder / "pki") for folder in (first, second)}
        ends = max(certificate.not_valid_after_utc for certificate in before.values())
        assert ends < SystemClock().now() + LEFT + timedelta(seconds=1)
        assert shown(one["CLUSTER__ETCD_CLIENT"], first / "pki") == serial(before[first])

        # The joiner's authority is the cluster's now: what was connected before trusts its own.
        joiner = Running(joiner.node, await stack.enter_async_context(connected(joiner.node, None)))
        failures: list[str] = []
        ended = asyncio.Event()
        loads = [asyncio.create_task(work(node, failures, ended)) for node in (host, joiner)]
        clock.go()

        async def renewed() -> bool | None:
            return True if all(own(folder / "pki") != before[folder] for folder in (first, second)) else None

        await eventually(renewed)
        await asyncio.sleep((ends - SystemClock().now()).total_seconds() + 1)
        for folder, its in ((first, one), (second, two)):
            now = serial(own(folder / "pki"))
            assert now != serial(before[folder])
            places_of = (its["LISTEN__GRPC"], its["LISTEN__JOIN"], its["CLUSTER__ETCD_CLIENT"], its["CLUSTER__ETCD_PEER"])
            assert [await asyncio.to_thread(shown, place, folder / "pki") for place in places_of] == [now] * 4
        ended.set()
        assert min(await asyncio.gather(*loads)) > 20
        assert failures == []
        # Every connection to etcd is made anew now, by what the nodes hold in memory.
        for node in (host, joiner):
            os.kill(etcd_of(node), signal.SIGKILL)
        for node, address in ((host, "one@example.org"), (joiner, "two@example.org")):

            async def written(node: Running = node, address: str = address) -> bool | None:
                with contextlib.suppress(KeycacheError):
                    return bool(await node.block(address=address))
                return None

            assert await eventually(written)
