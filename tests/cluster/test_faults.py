"""Whatever machines, networks, disks and clocks do to a cluster: no acknowledged key is lost, no deleted one comes back, no expired one
is served, and in the end all nodes hold the same (DESIGN 2.1, 2.2, 2.4 to 2.8).

Clients write through all nodes while a nemesis does faults of one kind, or of every kind; then all is healed, and every node must agree
with what the clients were told. That this suite sees a loss is shown by `test_mutants.py`.

KEYCACHE_FAULT_SEED=n repeats a run's choices (what they meet depends on the machine); KEYCACHE_FAULT_SECONDS=n makes each run longer.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from support import nemesis
from support.cluster import Cluster, ClusterNode, cluster
from support.ledger import Ledger, State, now
from support.nemesis import Fault, torment
from support.scenario import digest_of, eventually
from support.swarm import LONG, Administrator, Client, Looker

SEED = int(os.environ.get("KEYCACHE_FAULT_SEED", "1"))
SECONDS = float(os.environ.get("KEYCACHE_FAULT_SECONDS", "10"))


@dataclass(frozen=True, kw_only=True)
class Emphasis:
    """`faults`: what the nemesis chooses from."""

    name: str
    faults: Sequence[Fault]
    partitions: bool = False
    clocks: bool = False
    flags: Sequence[str] = field(default=())


NODES = (nemesis.kills_a_node, nemesis.kills_all_nodes, nemesis.stops_a_node)
MEMBERS = (nemesis.kills_a_member, nemesis.kills_the_quorum, nemesis.kills_every_member)
PAUSES = (nemesis.pauses_a_node, nemesis.pauses_a_member, nemesis.pauses_the_quorum)
CUTS = (
    nemesis.cuts_a_node_off,
    nemesis.cuts_a_member_off,
    nemesis.cuts_a_member_from_members,
    nemesis.splits_in_two,
    nemesis.loses_what_a_node_says,
)
KINDS = [
    Emphasis(name="kills of nodes", faults=NODES),
    Emphasis(name="kills of members", faults=MEMBERS),
    Emphasis(name="pauses", faults=PAUSES),
    Emphasis(name="partitions", faults=CUTS, partitions=True),
    Emphasis(name="compaction", faults=(nemesis.compacts, nemesis.compacts, nemesis.kills_a_member)),
    Emphasis(name="quota", faults=(nemesis.fills_the_quota, nemesis.kills_a_node), flags=nemesis.QUOTA),
    Emphasis(name="clocks", faults=(nemesis.sets_a_clock,), clocks=True),
    Emphasis(
        name="everything",
        faults=(*NODES, *MEMBERS, *PAUSES, *CUTS, nemesis.compacts, nemesis.fills_the_quota, nemesis.sets_a_clock),
        partitions=True,
        clocks=True,
        flags=nemesis.QUOTA,
    ),
]


@pytest.mark.timeout(240 + 3 * SECONDS)
@pytest.mark.parametrize("kind", KINDS, ids=[kind.name for kind in KINDS])
async def test_under_faults_nothing_acknowledged_is_lost_and_all_nodes_agree_in_the_end(kind: Emphasis, tmp_path: Path) -> None:
    print(f"KEYCACHE_FAULT_SEED={SEED} KEYCACHE_FAULT_SECONDS={SECONDS:g}")
    async with cluster(tmp_path, partitions=kind.partitions, clocks=kind.clocks, flags=kind.flags) as made:
        ledger, chance = Ledger(LONG), random.Random(f"{kind.name} {SEED}")
        administrator = Administrator(made.nodes, ledger, SEED)
        await administrator.change(LONG, made.nodes[0])
        clients = [Client(f"c{number}", node, made.nodes, ledger, SEED) for number, node in enumerate(made.nodes)]
        lookers = [Looker(node, ledger, SEED) for node in made.nodes]
        enough = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for one in (*clients, *lookers, administrator):
                group.create_task(one.run(enough))
            done = await torment(made, kind.faults, chance, SECONDS)
            enough.set()
        print(f"faults: {done}\nclients: {[client.acts for client in clients]}, {administrator.changed} changes of settings")
        await made.heal()
        await administrator.change(LONG, made.nodes[0])
        await made.settled()
        await check(made, ledger)
        assert len(done) > 1
        assert len(ledger.of(State.KEPT)) > 10
        assert all(looker.answers for looker in lookers), "nobody looked"


async def check(made: Cluster, ledger: Ledger) -> None:
    """Every node against the ledger, and against the others."""
    exports = [await settled_export(node) for node in made.nodes]
    for node, lines in zip(made.nodes, exports, strict=True):
        ledger.check(lines)
        assert set(lines) ^ set(exports[0]) <= expiring(ledger), "nodes differ"
        await served_is_what_is_there(node, ledger, lines)


async def settled_export(node: ClusterNode) -> dict[str, str]:
    """What it holds; the digest that it tells is just of that."""

    async def look() -> dict[str, str] | None:
        before = await node.running.status()
        lines = await node.running.export()
        after = await node.running.status()
        if before.digest != after.digest:
            return None  # the purger was at work
        assert digest_of(lines.values()) == after.digest, "the digest is not of what is there"
        return lines

    return await eventually(look)


def expiring(ledger: Ledger) -> set[str]:
    """Those that the purger may be removing just now."""
    return {fingerprint for fingerprint, known in ledger.known.items() if known.true and ledger.may_be_expired(known)}


async def served_is_what_is_there(node: ClusterNode, ledger: Ledger, lines: dict[str, str]) -> None:
    """By address: who is there and not expired, and nobody else."""
    unsure = expiring(ledger) | set(ledger.of(State.DOUBT))
    people = {known.person.address: fingerprint for fingerprint, known in ledger.known.items() if fingerprint not in unsure}
    served = {people[address] for address in await node.running.served(people)}
    assert served == set(lines) & set(people.values()), f"{node.name} serves others than it has"


async def test_a_ledger_would_see_a_loss(tmp_path: Path) -> None:
    """Else all the silence above is worth nothing: an administrator of another cluster deletes behind the clients' backs."""
    async with cluster(tmp_path, nodes=1, members=1) as made:
        ledger = Ledger(LONG)
        client = Client("c", made.nodes[0], made.nodes, ledger, SEED)
        for _ in range(3):
            await client.harvest()
        victim = next(iter(ledger.of(State.KEPT)))
        made.etcd.etcdctl("del", f"/keycache/test/entries/openpgp/{victim}")
        await made.settled()
        with pytest.raises(AssertionError, match="acknowledged, not expired, and lost"):
            await check(made, ledger)
        assert now()
