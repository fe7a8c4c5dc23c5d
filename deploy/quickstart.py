"""A first look at Keycache, in some seconds: what `deploy/quickstart` runs once .venv is there.

A node is started on a data directory and free ports of its own. It is handed the mails of `sample_mails` over gRPC by the
`keycache` command, as an administrator would, and asked for the senders' keys. Two tables show what came of it, and what came of it
is compared with what should have: the exit code is 0 only if all is as `sample_mails` says. Then the node is stopped and
a directory that was made for it removed, also after Ctrl-C. With --keep the node runs on.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import quickstart_cluster
import quickstart_report
from quickstart_node import COMMAND, Interrupts, Node, QuickstartError
from sample_mails import MANAGED_DOMAIN, SampleMail, Samples, sample_mails, write

from keycache.clock import SystemClock


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """`data_dir` None: one that is made and removed again. `began`: seconds since 1970 at which the person pressed return."""

    keep: bool
    data_dir: Path | None
    began: float | None
    nodes: int


def main() -> int:
    options = _options(sys.argv[1:])
    begin = SystemClock().now().timestamp() if options.began is None else options.began
    interrupts = Interrupts()
    interrupts.install()
    try:
        wrong = _quickstart(options, interrupts)
    except QuickstartError as error:
        print(f"quickstart: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("quickstart: interrupted; everything is cleared away", file=sys.stderr)
        return 130
    for difference in wrong:
        print(f"quickstart: {difference}", file=sys.stderr)
    took = SystemClock().now().timestamp() - begin
    print(f"{'Not all is as it should be' if wrong else 'All as it should be'}; {took:.1f} s.")
    return 1 if wrong else 0


def _options(arguments: Sequence[str]) -> Options:
    parser = argparse.ArgumentParser(prog="deploy/quickstart", description="Try Keycache out with sample mail.")
    parser.add_argument("--keep", action="store_true", help="let the node run on and print the commands to go on with")
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="the node's directory, which is then not removed")
    parser.add_argument(
        "--nodes", type=int, default=1, choices=range(1, 8), help="make a cluster of so many nodes, by the real commands"
    )
    parser.add_argument("--began", type=float, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    data_dir = given.data_dir.absolute() if given.data_dir else None
    return Options(keep=given.keep, data_dir=data_dir, began=given.began, nodes=given.nodes)


def _quickstart(options: Options, interrupts: Interrupts) -> list[str]:
    """What came out differently from what it should be, as sentences."""
    samples = sample_mails(SystemClock().now())
    if options.nodes > 1:
        with _directory(options) as folder:
            return quickstart_cluster.run(folder, samples, options.nodes, interrupts, keep=options.keep)
    with _directory(options) as data_dir, _running(Node(data_dir, interrupts), samples, keep=options.keep) as node:
        harvested = [
            result
            for direction in ("inbound", "outbound")
            for result in _harvest(node, [mail for mail in samples.mails if mail.direction == direction], direction)
        ]
        found = node.call("lookup", *(mail.sender for mail in samples.mails))["results"]
        quickstart_report.show(samples, harvested, found)
        wrong = quickstart_report.differences(samples, harvested, found)
        if options.keep:
            print(_ways_on(node))
    return wrong


def _harvest(node: Node, mails: Sequence[SampleMail], direction: str) -> list[dict[str, Any]]:
    files = [str(_mail_dir(node.data_dir) / f"{mail.name}.eml") for mail in mails]
    results: list[dict[str, Any]] = node.call("harvest", "--direction", direction, *files)["results"]
    return results


def _mail_dir(data_dir: Path) -> Path:
    return data_dir / "sample-mail"


@contextmanager
def _directory(options: Options) -> Iterator[Path]:
    """The data directory. One that was made here is removed again, except when a node runs on in it."""
    if options.data_dir is not None:
        yield _own_directory(options.data_dir)
        return
    made = Path(tempfile.mkdtemp(prefix="keycache-quickstart-"))
    done = False
    try:
        yield made
        done = True
    finally:
        if not (done and options.keep):
            shutil.rmtree(made, ignore_errors=True)


def _own_directory(data_dir: Path) -> Path:
    """`data_dir`, made if need be. Raises QuickstartError if it is somebody else's: the configuration there would be overwritten."""
    config = data_dir / "keycache.toml"
    try:
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        ours = (
            config.read_text("utf-8").startswith(quickstart_cluster.CONFIG_HEAD)
            if config.exists()
            else not any(data_dir.iterdir())
        )
    except OSError as error:
        raise QuickstartError(f"{error}. Name a directory that you may write to: --data-dir DIR") from error
    if not ours:
        raise QuickstartError(f"{data_dir} is neither empty nor of an earlier quickstart. Name another one: --data-dir DIR")
    return data_dir


@contextmanager
def _running(node: Node, samples: Samples, *, keep: bool) -> Iterator[Node]:
    """A node that trusts the samples' CA; stopped again, unless `keep` and all went well."""
    if node.answers():
        raise QuickstartError(
            f"A node runs on {node.data_dir} already. Stop it first, or name another directory: --data-dir DIR"
        )
    write(samples, _mail_dir(node.data_dir))
    _configure(node.data_dir)
    try:
        node.start()
        yield node
    except QuickstartError as error:
        try:
            node.stop()
        except QuickstartError as further:
            raise QuickstartError(f"{error}\n{further}") from error
        raise
    except BaseException:
        node.stop()
        raise
    if not keep:
        node.stop()


def _configure(data_dir: Path) -> None:
    """Free ports, our domain, the samples' CA and no other."""
    anchor = json.dumps(str(_mail_dir(data_dir) / "ca.pem"))
    (data_dir / "keycache.toml").write_text(
        f"""{quickstart_cluster.CONFIG_HEAD}
[listen]
grpc = "127.0.0.1:0"
metrics = "127.0.0.1:0"

[mail]
managed_domains = ["{MANAGED_DOMAIN}"]

[trust]
anchors = [{anchor}]
system_anchors = false
""",
        "utf-8",
    )


def _ways_on(node: Node) -> str:
    keycache = f"{shlex.quote(str(COMMAND))} --data-dir {shlex.quote(str(node.data_dir))}"
    mail = shlex.quote(str(_mail_dir(node.data_dir) / "smime-forged.eml"))
    return f"""
The node runs on. To go on:
  {keycache} status
  {keycache} list
  {keycache} explain --direction inbound {mail}
  {keycache} issuers list
  {keycache} settings show
  {keycache} --help
  kill {node.pid}   # stops it; its data stay in {node.data_dir}
"""


if __name__ == "__main__":
    sys.exit(main())
