"""An etcd that somebody else runs: whether it will do for a cluster, and how nodes show themselves to it."""

from __future__ import annotations

import re

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from keycache.cluster.etcd_binary import check_version
from keycache.domain.capacity import EtcdEndpoint
from keycache.domain.errors import ConfigError, InvalidInput
from keycache.domain.forming import ExternalEtcd
from keycache.domain.joining import EtcdAccess
from keycache.domain.names import ClusterIdentity
from keycache.etcd.client import EtcdClient
from keycache.etcd.connection import EtcdTls, target_of
from keycache.etcd.log import EtcdLog
from keycache.etcd.monitor import EtcdMonitor

_NUMBER = re.compile(r"(\d+)\.(\d+)\.(\d+)")


def access_tls(access: EtcdAccess | None) -> EtcdTls | None:
    """None: without TLS."""
    if access is None:
        return None
    return EtcdTls(ca=access.ca, certificate=access.certificate, key=access.key.reveal())


def check_form(etcd: ExternalEtcd) -> None:
    """Raises InvalidInput for what is no endpoint, no certificate, or no key of it: nothing was asked yet."""
    try:
        for url in etcd.endpoints:
            target_of(url)
    except ConfigError as error:
        raise InvalidInput(error.text, hint=error.hint) from error
    if etcd.access is None:
        return
    _certificates(etcd.access.ca, "--etcd-ca")
    if bool(etcd.access.certificate) != bool(etcd.access.key.reveal()):
        raise InvalidInput(
            "A certificate and its key belong together.", hint="Say both --etcd-cert and --etcd-key, or neither."
        )
    if etcd.access.certificate:
        own = _certificates(etcd.access.certificate, "--etcd-cert")[0]
        try:
            key = load_pem_private_key(etcd.access.key.reveal(), password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise InvalidInput(
                "--etcd-key holds no private key in PEM that is not encrypted.", hint="Name the key of --etcd-cert."
            ) from error
        if key.public_key() != own.public_key():
            raise InvalidInput("--etcd-key is not the key of the certificate in --etcd-cert.", hint="Name the two of one pair.")


async def check_endpoints(etcd: ExternalEtcd) -> str:
    """That each answers and is of a version that will do, as a sentence. Raises ConfigError."""
    client = EtcdClient(etcd.endpoints, access_tls(etcd.access))
    try:
        seen = await EtcdMonitor(client).endpoints()
    finally:
        await client.close()
    return f"etcd answers: {', '.join(f'{one.endpoint} ({_suited(one)})' for one in seen)}."


async def founded(etcd: ExternalEtcd, name: str) -> ClusterIdentity | None:
    """Of the cluster of that name there; None: nobody uses it. Raises LogUnavailable."""
    log = EtcdLog(EtcdClient(etcd.endpoints, access_tls(etcd.access)), name)
    try:
        return (await log.survey()).identity
    finally:
        await log.close()


def _suited(one: EtcdEndpoint) -> str:
    """Its version."""
    if not one.reachable:
        raise ConfigError(one.problem)
    if one.alarms:
        raise ConfigError(
            f"{one.endpoint} has the alarm {', '.join(one.alarms)} and takes no writes.", hint="Make room in etcd first."
        )
    number = _NUMBER.match(one.version)
    if number is None:
        raise ConfigError(f"{one.endpoint} says that it is etcd {one.version[:40]!r}, which is no version.")
    check_version((int(number[1]), int(number[2]), int(number[3])), one.endpoint)
    return one.version


def _certificates(pem: bytes, option: str) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise InvalidInput(f"{option} holds no certificate in PEM.", hint="Name a file with the certificate in PEM.") from error
