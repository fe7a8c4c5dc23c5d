"""`cluster create|token|join`: a node that works alone begins a cluster, lets others in, or enters one."""

from __future__ import annotations

import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from keycache.cli import screen
from keycache.cli.call import Call, command
from keycache.cli.join_report import joined, lines
from keycache.cli.session import read_token, talk
from keycache.domain.errors import InvalidInput, KeycacheError, Refused, Unavailable
from keycache.domain.join_token import TTL_DEFAULT
from keycache.domain.spans import format_span, parse_span

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from keycache.client import Connection
    from keycache.v1.admin_pb2 import Status
    from keycache.v1.cluster_pb2 import CheckResponse, FormingResponse

WAIT_SECONDS = 900.0
"""A million entries are brought in some minutes. What is not done then goes on by itself."""
_LOOK_SECONDS = 0.5

_DryRun = Annotated[bool, typer.Option("--dry-run", help="Make all checks, change nothing.")]
_Skip = Annotated[list[str] | None, typer.Option("--skip-check", help="A check that may fail, by its name.", metavar="NAME")]


def register(group: typer.Typer) -> None:
    @command(group, "create", example="keycache cluster create --name mail")
    def create(
        call: Call,
        *,
        name: Annotated[str, typer.Option("--name", help="Of the cluster: 1 to 64 of a-z, 0-9 and -.")],
        etcd_endpoints: Annotated[
            list[str] | None,
            typer.Option(
                "--etcd-endpoints",
                help="Of an etcd that others run; several with commas.",
                metavar="URL",
            ),
        ] = None,
        etcd_ca: Annotated[
            Path | None, typer.Option("--etcd-ca", help="What that etcd's certificates end in.", metavar="FILE")
        ] = None,
        etcd_cert: Annotated[Path | None, typer.Option("--etcd-cert", help="What nodes show to it.", metavar="FILE")] = None,
        etcd_key: Annotated[Path | None, typer.Option("--etcd-key", help="The key of that.", metavar="FILE")] = None,
        dry_run: _DryRun = False,
        skip_check: _Skip = None,
    ) -> None:
        """Make this node, which works alone, the first of a cluster, with every entry and under the timeouts in force here.

        The node runs an etcd for it, or takes one that others run; it keeps copies of the files. Run again after an interruption it goes
        on. On a node of a cluster with an etcd of others, the same command exchanges endpoints and certificates. The node's connections
        end for a moment. Checks: etcd, ports, disk, settings; cluster (the name is not taken in the etcd of others).
        """
        from keycache.v1.cluster_pb2 import CreateRequest

        etcd = _external(etcd_endpoints or (), ca=etcd_ca, certificate=etcd_cert, key=etcd_key)
        request = CreateRequest(name=name, dry_run=dry_run, skip_checks=skip_check or (), **etcd)
        _form(call, lambda node: node.call(node.cluster.Create, request), dry_run=dry_run)

    @command(group, "join", example="keycache cluster join --token kc1/...")
    def join(
        call: Call,
        *,
        token: Annotated[
            str, typer.Option("--token", help="As 'keycache cluster token' printed it on a node of the cluster.")
        ] = "",
        token_file: Annotated[
            Path | None, typer.Option("--token-file", help="A file that holds it, or - for standard input.", metavar="FILE")
        ] = None,
        dry_run: _DryRun = False,
        skip_check: _Skip = None,
        discard_local: Annotated[
            bool, typer.Option("--discard-local", help="Forget this node's own entries instead of bringing them along.")
        ] = False,
    ) -> None:
        """Make this node one of a cluster. Its own entries come along, with their time stamps; the cluster's timeouts count.

        It is done when the node holds what another one holds, and says so. The node must run; 'keycache serve --join-token-file FILE'
        starts one and joins. Checks: version, clock, name, reachable, etcd-reachable, ports, disk, etcd (a node that passes over this
        takes no part in the cluster's own); timeouts (no key would expire by the cluster's), which --discard-local leaves out.
        """
        from keycache.v1.cluster_pb2 import JoinClusterRequest

        token = _one_token(token, token_file)
        request = JoinClusterRequest(token=token, dry_run=dry_run, skip_checks=skip_check or (), discard_local=discard_local)
        if discard_local and not dry_run:
            entries = talk(call, _status).entries
            screen.confirm(f"FORGET {entries.live + entries.held} entries of this node, for good?", yes=call.yes)
        with _telling_how_to_start():
            _form(call, lambda node: node.call(node.cluster.JoinCluster, request, timeout=None), dry_run=dry_run, joins=True)

    @command(group, "leave", example="keycache cluster leave --dry-run")
    def leave(call: Call, *, dry_run: _DryRun = False) -> None:
        """Make this node work alone again, with every entry that it has. Its certificates of the cluster go."""
        from keycache.v1.cluster_pb2 import LeaveClusterRequest

        if not dry_run:
            screen.confirm("Take this node out of its cluster?", yes=call.yes)
        request = LeaveClusterRequest(dry_run=dry_run)
        _form(
            call, lambda node: node.call(node.cluster.LeaveCluster, request, timeout=None), dry_run=dry_run, mode="standalone"
        )

    @command(group, "recover", example="keycache cluster recover --dry-run")
    def recover(call: Call, *, dry_run: _DryRun = False, skip_check: _Skip = None) -> None:
        """Begin the cluster anew on this node, with everything it holds, after its etcd lost its majority for good.

        Refused while the cluster's log can be reached. The other nodes come back by 'cluster leave' and 'cluster join', with every entry.
        """
        from keycache.v1.cluster_pb2 import RecoverClusterRequest

        if not dry_run:
            screen.confirm("Give up the cluster's etcd, and begin the cluster anew on this node?", yes=call.yes)
        request = RecoverClusterRequest(dry_run=dry_run, skip_checks=skip_check or ())
        _form(call, lambda node: node.call(node.cluster.RecoverCluster, request, timeout=None), dry_run=dry_run)

    @command(group, "remove", example="keycache cluster remove 7bd01c22")
    def remove(
        call: Call,
        node: Annotated[str, typer.Argument(help="Its id, or how that begins, or its address.", metavar="NODE")],
    ) -> None:
        """Take a node that is gone for good out of the cluster. Its certificate is worth nothing there any more."""
        from keycache.v1.cluster_pb2 import RemoveNodeRequest

        screen.confirm(f"Take node {node} out of the cluster?", yes=call.yes)
        answer = talk(call, lambda one: one.call(one.cluster.RemoveNode, RemoveNodeRequest(node=node)))
        if call.json:
            screen.show_json({"removed": answer.node_id})
        else:
            screen.say(f"Node {answer.node_id} belongs to the cluster no more.")

    @command(group, "token", example="keycache cluster token --ttl 30m")
    def token(
        call: Call,
        *,
        ttl: Annotated[str, typer.Option("--ttl", help="How long it is good for, as 30m or 2h.")] = format_span(TTL_DEFAULT),
        show: Annotated[
            bool, typer.Option("--list", help="Show those that were made; none of them can be shown again.")
        ] = False,
        revoke: Annotated[str, typer.Option("--revoke", help="Withdraw the token of this id.", metavar="ID")] = "",
    ) -> None:
        """A token with which one node may join the cluster, once. Print it, list those that were made, or withdraw one."""
        if show and revoke:
            raise InvalidInput("It must be clear what to do.", hint="Say either --list or --revoke.")
        if revoke:
            _revoke(call, revoke)
        elif show:
            _list(call)
        else:
            _make(call, ttl)


@contextmanager
def _telling_how_to_start() -> Iterator[None]:
    try:
        yield
    except KeycacheError as error:
        if error.code == "NODE_UNREACHABLE":
            error.hint += " To start it and join in one step: keycache serve --join-token-file FILE"
        raise


def _one_token(token: str, file: Path | None) -> str:
    if bool(token) == (file is not None):
        raise InvalidInput("It takes one token.", hint="Say either --token TOKEN or --token-file FILE.")
    return token if file is None else read_token(file)


def _external(endpoints: Iterable[str], **files: Path | None) -> dict[str, Any]:
    """As fields of CreateRequest. Raises InvalidInput, OSError."""
    from keycache.v1.join_pb2 import EtcdAccess

    urls = [url.strip() for one in endpoints for url in one.split(",") if url.strip()]
    given = {role: path.read_bytes() for role, path in files.items() if path is not None}
    if given and not urls:
        raise InvalidInput(
            "Certificates are for an etcd that others run, and none is named.", hint="Say --etcd-endpoints, too."
        )
    return {"etcd_endpoints": urls, "etcd_access": EtcdAccess(**given) if given else None}


def _make(call: Call, ttl: str) -> None:
    from keycache import codec
    from keycache.cli import present
    from keycache.v1.cluster_pb2 import CreateTokenRequest

    request = CreateTokenRequest(ttl=codec.duration(parse_span(ttl)))
    answer = talk(call, lambda node: node.call(node.cluster.CreateToken, request))
    until = answer.listed.expires_at.ToDatetime()
    if call.json:
        screen.show_json(
            {"token": answer.token, "id": answer.listed.id, "expires_at": present.moment(answer.listed, "expires_at")}
        )
        return
    screen.say(answer.token)
    screen.note(f"Good once, until {until:%Y-%m-%d %H:%M} UTC. On the new node: keycache cluster join --token ...")


def _list(call: Call) -> None:
    from keycache.cli import present
    from keycache.v1.cluster_pb2 import ListTokensRequest

    answer = talk(call, lambda node: node.call(node.cluster.ListTokens, ListTokensRequest()))
    tokens = [
        {
            "id": one.id,
            "created_by": one.created_by,
            "expires_at": present.moment(one, "expires_at"),
            "used_by": one.used_by,
        }
        for one in answer.tokens
    ]
    if call.json:
        screen.show_json({"tokens": tokens})
        return
    for one in tokens:
        used = f"used by {one['used_by']}" if one["used_by"] else "not used"
        screen.say(f"{one['id']}  until {one['expires_at']}  by {one['created_by']}, {used}")
    if not tokens:
        screen.say("There are no tokens.")


def _revoke(call: Call, token_id: str) -> None:
    from keycache.v1.cluster_pb2 import RevokeTokenRequest

    talk(call, lambda node: node.call(node.cluster.RevokeToken, RevokeTokenRequest(id=token_id)))
    if call.json:
        screen.show_json({"revoked": token_id})
    else:
        screen.say(f"Token {token_id} lets nobody in any more.")


def _form(
    call: Call, ask: Callable[[Connection], object], *, dry_run: bool, mode: str = "cluster", joins: bool = False
) -> None:
    before = talk(call, _status)
    answer: FormingResponse = talk(call, ask)  # type: ignore[arg-type]
    if not call.json:
        for check in answer.checks:
            screen.say(f"{'passed' if check.passed else 'FAILED':7} {check.name}: {check.detail}")
    if dry_run:
        if call.json:
            screen.show_json(_document(answer, None))
        else:
            screen.say(f"Nothing was changed. {answer.entries} entries would come along.")
        return
    after = _arrived(call, mode)
    report = joined(after, talk(call, _check)) if joins else {}
    if call.json:
        screen.show_json(_document(answer, after) | report)
        return
    entries = after.entries.live + after.entries.held
    same = " The digest is the same as before." if after.digest == before.digest else ""
    place = f"This node is in cluster {after.cluster.name}" if mode == "cluster" else "This node works alone"
    screen.say(
        f"{place}: {entries} unexpired entries here, {answer.entries} brought.{same}",
        f"Revision {after.applied_revision}, digest {after.digest}.",
        *lines(report),
    )


def _document(answer: FormingResponse, after: Status | None) -> dict[str, object]:
    document: dict[str, object] = {
        "checks": [{"name": one.name, "passed": one.passed, "detail": one.detail} for one in answer.checks],
        "brought": answer.entries,
    }
    if after is not None:
        document |= {
            "cluster": after.cluster.name,
            "entries": after.entries.live + after.entries.held,
            "revision": after.applied_revision,
            "digest": after.digest,
        }
    return document


async def _status(node: Connection) -> Status:
    from keycache.v1.admin_pb2 import GetStatusRequest

    return await node.call(node.admin.GetStatus, GetStatusRequest())


async def _check(node: Connection) -> CheckResponse:
    from keycache.v1.cluster_pb2 import CheckRequest

    return await node.call(node.cluster.Check, CheckRequest())


def _arrived(call: Call, mode: str) -> Status:
    """The status once the node is in its cluster; what it waits for is told meanwhile. Raises Unavailable when that takes too long."""
    end = time.monotonic() + WAIT_SECONDS
    told = ""
    while time.monotonic() < end:
        try:
            status = talk(call, _status)
        except Refused:
            raise
        except KeycacheError as error:  # it goes over just now
            waits = error.text
        else:
            if status.mode == mode and not status.forming and (mode == "standalone" or status.cluster.link == "FOLLOWING"):
                return status
            waits = status.forming or "It goes over."
        if waits != told and not call.json and "It waits" in waits:
            screen.note(waits)
        told = waits
        time.sleep(_LOOK_SECONDS)
    raise Unavailable(f"The node is not in its cluster yet. {told}", hint="It goes on by itself: see 'keycache status'.")
