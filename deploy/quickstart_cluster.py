"""A cluster on one machine, by the real commands: what `deploy/quickstart --nodes 3` runs.

Node 1 works alone and is handed the sample mails; what it kept is made old, some keys so old that they expire meanwhile. Then it begins
a cluster, the others join, and all are restarted. What each serves then is compared with what node 1 served at first: every key that has
not expired, and no other.
"""

from __future__ import annotations

import json
import shlex
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path

from quickstart_node import COMMAND, Interrupts, Node
from sample_mails import MANAGED_DOMAIN, Samples, write

from keycache.clock import SystemClock

CONFIG_HEAD = "# Written by deploy/quickstart."
"""How a directory of an earlier quickstart is known from one of somebody else's node."""
AGES = {"HARVESTED": timedelta(days=499), "LOOKED_UP": timedelta(hours=23)}
"""Old, and younger than the timeouts of their origins: 500 days and 24 hours."""
EXPIRES_WITHIN = timedelta(seconds=10)
"""From the import on: longer than the first lookups take, and the cluster is begun within it."""


def run(folder: Path, samples: Samples, number: int, interrupts: Interrupts, *, keep: bool) -> list[str]:
    """What came out differently from what it should be, as sentences. Prints what it does."""
    mails = folder / "sample-mail"
    mails.mkdir(parents=True, exist_ok=True)
    write(samples, mails)
    with _nodes(folder, number, interrupts, keep=keep) as nodes:
        first, *others = nodes
        first.start()
        inbound = [mail for mail in samples.mails if mail.direction == "inbound"]
        first.call("harvest", "--direction", "inbound", *(str(mails / f"{mail.name}.eml") for mail in inbound))
        expiring = _age(first, folder / "aged.jsonl")
        senders = sorted({mail.sender for mail in inbound})
        alone = _served(first, senders)
        print(f"Node 1 alone: keys of {len(alone)} senders served, {len(expiring)} keys about to expire.")
        created = first.call("cluster", "create", "--name", "quickstart")
        print(f"Node 1 is a cluster: {created['entries']} unexpired entries.")
        for place, node in enumerate(others, 2):
            node.start()
            token = first.call("cluster", "token")["token"]
            joined = node.call("cluster", "join", "--token", token)
            print(f"Node {place} joined: {joined['entries']} unexpired entries, digest {joined['digest'][:16]}.")
        time.sleep(EXPIRES_WITHIN.total_seconds())
        lasting = {sender: keys - expiring for sender, keys in alone.items() if keys - expiring}
        for node in reversed(nodes):
            node.stop()
        for node in nodes:
            node.start()
        print("All were restarted.")
        wrong = _differences(nodes, senders, lasting, expiring)
        if keep:
            print(_ways_on(nodes))
    return wrong


def _age(node: Node, file: Path) -> set[str]:
    """Make what the node holds old, by export and import, which keep time stamps. Fingerprints of those that expire in a moment."""
    now, expiring, lines = SystemClock().now(), set[str](), []
    entries = [json.loads(line) for line in node.text("export").splitlines()]
    for place, entry in enumerate(one for one in entries if "fingerprint" in one):
        origin = ("HARVESTED", "LOOKED_UP", "LOOKED_UP")[place % 3]
        age = AGES[origin]
        if place % 3 == 2:
            age = timedelta(hours=24) - EXPIRES_WITHIN
            expiring.add(entry["fingerprint"])
        at = f"{now - age:%Y-%m-%dT%H:%M:%SZ}"
        entry["sightings"] = [{"origin": origin, "source": "quickstart", "cached_at": at, "refreshed_at": at}]
        lines.append(json.dumps(entry))
    file.write_text("".join(f"{line}\n" for line in lines), "utf-8")
    node.call("purge", "--all", "--yes")
    node.call("import", str(file))
    return expiring


def _served(node: Node, senders: Sequence[str]) -> dict[str, set[str]]:
    """By sender, fingerprints of the keys that are served."""
    results = node.call("lookup", *senders)["results"]
    found = {result["address"]: {key["fingerprint"] for key in result["keys"]} for result in results}
    return {sender: keys for sender, keys in found.items() if keys}


def _differences(
    nodes: Sequence[Node],
    senders: Sequence[str],
    lasting: Mapping[str, set[str]],
    expiring: set[str],
) -> list[str]:
    wrong = []
    if not lasting:
        wrong.append("Nothing was there that had to be kept.")
    for place, node in enumerate(nodes, 1):
        served = _served(node, senders)
        keys = {key for found in served.values() for key in found}
        print(f"Node {place}: {len(keys)} keys served, {len(keys & expiring)} of the {len(expiring)} expired.")
        if served != lasting:
            wrong.append(f"Node {place} serves other keys than it should: {served} instead of {dict(lasting)}.")
        if keys & expiring:
            wrong.append(f"Node {place} serves keys that have expired: {sorted(keys & expiring)}.")
    return wrong


@contextmanager
def _nodes(folder: Path, number: int, interrupts: Interrupts, *, keep: bool) -> Iterator[list[Node]]:
    """Configured, not started; those that run are stopped at the end, unless `keep` and all went well."""
    made = []
    for place in range(1, number + 1):
        data_dir = folder / f"node{place}"
        data_dir.mkdir(mode=0o700, exist_ok=True)
        _configure(data_dir, folder / "sample-mail" / "ca.pem")
        made.append(Node(data_dir, interrupts))
    with ExitStack() as stack:
        for node in made:
            stack.callback(node.stop)
        yield made
        if keep:
            stack.pop_all()


def _configure(data_dir: Path, anchor: Path) -> None:
    grpc, join, client, peer = _free_ports(4)
    (data_dir / "keycache.toml").write_text(
        f"""{CONFIG_HEAD}
[listen]
grpc = "127.0.0.1:{grpc}"
metrics = "127.0.0.1:0"
join = "127.0.0.1:{join}"

[mail]
managed_domains = ["{MANAGED_DOMAIN}"]

[trust]
anchors = [{json.dumps(str(anchor))}]
system_anchors = false

[cluster]
etcd_client = "127.0.0.1:{client}"
etcd_peer = "127.0.0.1:{peer}"
""",
        "utf-8",
    )


def _free_ports(number: int) -> list[int]:
    """All held at once, so that they differ."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _ways_on(nodes: Sequence[Node]) -> str:
    keycache = shlex.quote(str(COMMAND))
    lines = [f"  {keycache} --data-dir {shlex.quote(str(node.data_dir))} cluster members" for node in nodes]
    pids = " ".join(str(node.pid) for node in nodes)
    return "\n".join(("", "The nodes run on. To go on:", *lines, f"  kill {pids}   # stops them", ""))
