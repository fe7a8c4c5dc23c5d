"""Certificates are renewed while the node runs, and whatever holds one hears of it: the server, the channels to etcd, etcd itself."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from keycache import logs
from keycache.app.parts import Node, configured_tls
from keycache.clock import SystemClock
from keycache.cluster.etcd_members import EtcdMembers
from keycache.cluster.own_etcd import tls_of
from keycache.config import Cluster
from keycache.domain.cautions import of_certificate
from keycache.domain.errors import ConfigError, KeycacheError
from keycache.domain.standing import Standing
from keycache.etcd.client import EtcdClient
from keycache.etcd.connection import EtcdTls
from keycache.pki import LivePki, NodePki
from keycache.pki.files import read

LOOK_SECONDS = 5.0
"""Between two looks, by the wall clock, which may be set. A look at our own certificates compares two dates; the administrator's for
an external etcd are three small files."""

_log = logs.get_logger(__name__)


def tell_of_certificates(pki: LivePki, client: EtcdClient, members: EtcdMembers) -> None:
    """The channels to the etcd that nodes run."""
    pki.tell(lambda now: client.trust(tls_of(now)))
    pki.tell(lambda now: members.trust(tls_of(now)))


async def keep_certificates(cluster: Cluster, node: Node, clock: SystemClock) -> None:
    """Until cancelled. A failure is told once and tried again, long before the certificate ends."""
    external = configured_tls(cluster) if node.standing.now is None else None
    trouble = logs.Recurring(_log, "certificates cannot be renewed", level=logging.ERROR)
    while True:
        await clock.sleep(LOOK_SECONDS)
        try:
            if await node.pki.renew(clock.now()):
                _log.info("certificates renewed", until=f"{node.pki.now.server.not_after:%Y-%m-%d}")
            if external is not None and node.shared is not None:
                external = _taken_up(cluster, external, node.shared.client)
            trouble.over()
        except KeycacheError as error:
            trouble.tell(error)


def certificate_cautions(cluster: Cluster, pki: NodePki, standing: Standing | None, now: datetime) -> tuple[str, ...]:
    """Of all that this node shows, and of what it was given for an external etcd."""
    told = pki.cautions(now)
    for name, content, how in _given(cluster, standing):
        try:
            found = x509.load_pem_x509_certificates(content) if content else []
        except ValueError:
            continue  # as long as it is not whole, the former is in use
        for one in found:
            told += of_certificate(f"The certificate {name}", one.not_valid_before_utc, one.not_valid_after_utc, now, how=how)
    return told


def _given(cluster: Cluster, standing: Standing | None) -> Iterator[tuple[str, bytes, str]]:
    """What an administrator gave this node for an etcd of others: its name, PEM, and how it is renewed."""
    if standing is None:
        how = "Put a new one in its place: it is taken up without a restart."
        for setting, path in (("cluster.certificate", cluster.certificate), ("cluster.ca", cluster.ca)):
            yield f"in {path} ({setting})", b"" if path is None else read(path) or b"", how
    elif standing.access is not None:
        how = (
            f"Run 'keycache cluster create --name {standing.cluster} --etcd-endpoints ...' again, with new files, on each node."
        )
        yield "that this node shows to etcd", standing.access.certificate, how
        yield "that etcd's own end in", standing.access.ca, how


def _taken_up(cluster: Cluster, known: EtcdTls, client: EtcdClient) -> EtcdTls:
    """What an administrator put in the place of the files for an external etcd, if it is whole."""
    now = configured_tls(cluster)
    if now is None or now == known or not _fits(now):
        return known
    client.trust(now)
    _log.info("new certificates for etcd taken up")
    return now


def _fits(tls: EtcdTls) -> bool:
    """Not in the middle of being replaced. Raises ConfigError for what cannot be read."""
    try:
        x509.load_pem_x509_certificates(tls.ca)
        if not tls.certificate:
            return True
        form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        key = load_pem_private_key(tls.key, password=None).public_key()
        return x509.load_pem_x509_certificate(tls.certificate).public_key().public_bytes(*form) == key.public_bytes(*form)
    except (ValueError, TypeError) as error:
        raise ConfigError("The new certificates for etcd (cluster.ca, cluster.certificate) cannot be read.") from error
