"""The words of a join, to and from the wire. Messages with secrets in them are never logged; the values redact themselves."""

from __future__ import annotations

import re

from keycache.codec import duration, enum_member, moment, settings_from_wire, settings_to_wire, span, timestamp, wire_enum
from keycache.domain.errors import InvalidInput
from keycache.domain.join_token import SECRET_BYTES, HostPort
from keycache.domain.joining import (
    Admission,
    Applicant,
    Application,
    Check,
    Doing,
    DryRun,
    EtcdAccess,
    EtcdMember,
    EtcdMode,
    Greeting,
    JoinProgress,
)
from keycache.domain.names import ClusterIdentity, NodeId, Revision
from keycache.domain.secret import Secret
from keycache.v1 import join_pb2 as pb

_TOKEN_ID = re.compile(r"[0-9a-f]{8}")


def greeting_to_wire(greeting: Greeting) -> pb.PingResponse:
    return pb.PingResponse(version=greeting.version, clock=timestamp(greeting.clock))


def greeting_from_wire(message: pb.PingResponse) -> Greeting:
    """Raises InvalidInput."""
    return Greeting(version=message.version, clock=moment(message.clock))


def application_to_wire(application: Application) -> pb.JoinRequest:
    node = application.applicant
    return pb.JoinRequest(
        token_id=application.token_id,
        token_secret=application.secret.reveal(),
        csr=application.csr,
        dry_run=application.dry_run,
        node=pb.NodeFacts(
            node_id=node.node.text,
            version=node.version,
            names=node.names,
            grpc_address=str(node.grpc),
            etcd_client_address="" if node.etcd_client is None else str(node.etcd_client),
            etcd_peer_address="" if node.etcd_peer is None else str(node.etcd_peer),
            clock=timestamp(node.clock),
            entries=node.entries,
        ),
    )


def application_from_wire(message: pb.JoinRequest) -> Application:
    """Raises InvalidInput: what comes from a stranger is checked in full before anything looks at it."""
    if not _TOKEN_ID.fullmatch(message.token_id) or len(message.token_secret) != SECRET_BYTES:
        raise InvalidInput("The request carries no join token of a shape that tokens have.")
    node = message.node
    if not node.HasField("clock"):
        raise InvalidInput("The request does not say what the node's clock says.")
    return Application(
        token_id=message.token_id,
        secret=Secret(message.token_secret),
        csr=message.csr,
        dry_run=message.dry_run,
        applicant=Applicant(
            node=NodeId.parse(node.node_id),
            version=node.version,
            names=tuple(node.names),
            grpc=HostPort.parse(node.grpc_address),
            etcd_client=HostPort.parse(node.etcd_client_address) if node.etcd_client_address else None,
            etcd_peer=HostPort.parse(node.etcd_peer_address) if node.etcd_peer_address else None,
            clock=moment(node.clock),
            entries=node.entries,
        ),
    )


def progress_to_wire(progress: JoinProgress) -> pb.JoinProgress:
    match progress:
        case Doing(text):
            return pb.JoinProgress(step=text)
        case DryRun():
            return pb.JoinProgress(dry_run=_dry_run_to_wire(progress))
        case Admission():
            return pb.JoinProgress(admission=_admission_to_wire(progress))


def progress_from_wire(message: pb.JoinProgress) -> JoinProgress:
    """Raises InvalidInput, also for a kind of progress of a later version."""
    match message.WhichOneof("progress"):
        case "step":
            return Doing(message.step)
        case "dry_run":
            return _dry_run_from_wire(message.dry_run)
        case "admission":
            return _admission_from_wire(message.admission)
        case _:
            raise InvalidInput("The host tells something that this version does not know.", hint="Upgrade this node.")


def _dry_run_to_wire(report: DryRun) -> pb.DryRunReport:
    return pb.DryRunReport(
        checks=[pb.DryRunReport.Check(name=check.name, passed=check.passed, detail=check.detail) for check in report.checks],
        settings=settings_to_wire(report.settings),
        etcd_mode=wire_enum(report.etcd_mode),  # type: ignore[arg-type]
        etcd_endpoints=report.etcd_endpoints,
        entries=report.entries,
    )


def _dry_run_from_wire(message: pb.DryRunReport) -> DryRun:
    """Raises InvalidInput."""
    mode = enum_member(EtcdMode, message.etcd_mode)
    if mode is None:
        raise InvalidInput("The host's answer does not say who runs its etcd.", hint="Upgrade this node, then join again.")
    return DryRun(
        checks=tuple(Check(name=one.name, passed=one.passed, detail=one.detail) for one in message.checks),
        settings=settings_from_wire(message.settings),
        etcd_mode=mode,
        etcd_endpoints=tuple(message.etcd_endpoints),
        entries=message.entries,
    )


def access_to_wire(access: EtcdAccess) -> pb.EtcdAccess:
    return pb.EtcdAccess(ca=access.ca, certificate=access.certificate, key=access.key.reveal())


def access_from_wire(message: pb.EtcdAccess) -> EtcdAccess:
    return EtcdAccess(ca=message.ca, certificate=message.certificate, key=Secret(message.key))


def _admission_to_wire(admission: Admission) -> pb.Admission:
    access = admission.etcd_access
    return pb.Admission(
        cluster_name=admission.cluster,
        identity=admission.identity.text,
        ca=admission.ca,
        ca_key=admission.ca_key.reveal(),
        certificate=admission.certificate,
        etcd_mode=wire_enum(admission.etcd_mode),  # type: ignore[arg-type]
        etcd_members=[
            pb.EtcdMember(
                id=member.id,
                name=member.name,
                peer_urls=member.peer_urls,
                client_urls=member.client_urls,
                learner=member.learner,
            )
            for member in admission.etcd_members
        ],
        etcd_access=None if access is None else access_to_wire(access),
        settings=settings_to_wire(admission.settings),
        clock=timestamp(admission.clock),
        clock_skew_bound=duration(admission.clock_skew_bound),
        digest=admission.digest,
        revision=admission.revision,
        entries=admission.entries,
    )


def _admission_from_wire(message: pb.Admission) -> Admission:
    mode = enum_member(EtcdMode, message.etcd_mode)
    if mode is None or not message.identity or not message.HasField("clock"):
        raise InvalidInput(
            "The host's admission lacks its etcd, identity or clock.", hint="Upgrade this node, then join again."
        )
    return Admission(
        cluster=message.cluster_name,
        identity=ClusterIdentity(message.identity),
        ca=message.ca,
        ca_key=Secret(message.ca_key),
        certificate=message.certificate,
        etcd_mode=mode,
        etcd_members=tuple(
            EtcdMember(
                id=member.id,
                name=member.name,
                peer_urls=tuple(member.peer_urls),
                client_urls=tuple(member.client_urls),
                learner=member.learner,
            )
            for member in message.etcd_members
        ),
        etcd_access=access_from_wire(message.etcd_access) if message.HasField("etcd_access") else None,
        settings=settings_from_wire(message.settings),
        clock=moment(message.clock),
        clock_skew_bound=span(message.clock_skew_bound),
        digest=message.digest,
        revision=Revision(message.revision),
        entries=message.entries,
    )
