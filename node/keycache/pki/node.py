"""What a node keeps in `DATA_DIR/pki`, made at its first start and looked after at every other.

ca.key ca.pem           the authority, ten years: the node's own, or the cluster's (`joining`)
server.key server.pem   the node, under its names; in a cluster also as client of the role node
admin.key admin.pem     the command line on this machine
trusted.pem             whose certificates are taken: more than one authority while it changes (`rotation`)
etcd.pem                in a cluster: server.key and server.pem in one file, for etcd, which reads its files at every handshake
                        (pkg/transport, GetCertificate) and so never meets halves of two pairs

A node of a cluster renews its certificate by itself, since the authority's key is here.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509

from keycache.domain.errors import ConfigError
from keycache.domain.names import NodeId
from keycache.domain.rotation import AuthorityReport, Step
from keycache.pki import files, joining, rotation
from keycache.pki.authority import LEAF_LIFE, RENEW_BELOW, Authority, Issued, node_names, server_name
from keycache.pki.identity import ROLE_URI, Identity, PrivateKey, Role

ETCD = "etcd.pem"
LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")
ADMIN_NAME = "local admin"
_CA_WARNING = timedelta(days=365)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodePki:
    """A node's certificates, as they are on disk. `node`: its id in a cluster. `trusted`: PEM of the authorities whose certificates
    are taken, the one that signs first. `former`: while another one signs already, PEM. `warnings`: what an administrator should know,
    as sentences."""

    directory: Path
    names: tuple[str, ...]
    node: NodeId | None
    authority: Authority
    server: Identity
    admin: Identity
    trusted: bytes
    trusted_ids: frozenset[str]
    step: Step
    former: bytes | None
    warnings: tuple[str, ...]

    @property
    def etcd_file(self) -> Path:
        """For etcd, as certificate and as key; of a node in a cluster."""
        return self.directory / ETCD

    @property
    def trusted_file(self) -> Path:
        return self.directory / rotation.TRUSTED

    def sign_client(self, csr: bytes, *, role: Role, name: str, now: datetime) -> Issued:
        """As `Authority.sign_client`."""
        return replace(self.authority.sign_client(csr, role=role, name=name, now=now), ca=self.trusted)

    def sign_node(self, csr: bytes, *, node: NodeId, names: Sequence[str], now: datetime) -> Issued:
        """As `Authority.sign_node`."""
        return replace(self.authority.sign_node(csr, node=node, names=names, now=now), ca=self.trusted)

    def is_due(self, now: datetime) -> bool:
        """Whether `renewed` would renew something for its age. Costs nothing."""
        return any(
            not _lasting(one.not_after, now) and one.not_after != self.authority.not_after for one in (self.server, self.admin)
        )

    def cautions(self, now: datetime) -> tuple[str, ...]:
        """What will need a person, as sentences: the node renews everything else by itself."""
        told = []
        if self.authority.not_after - now < _CA_WARNING:
            told.append(
                f"The authority ends on {self.authority.not_after:%Y-%m-%d}, and with it every certificate. Change it before: "
                "'keycache authority begin', which stops nothing."
            )
        if self.is_due(now):
            told.append(
                f"The node's own certificate ends on {min(self.server.not_after, self.admin.not_after):%Y-%m-%d} and is not renewed yet. "
                "If this stays so for a minute, its log says why."
            )
        return tuple(told)

    def renewed(self, now: datetime) -> NodePki:
        """This again, with certificates renewed that need it, and with what stands on disk now. Raises ConfigError."""
        return open_pki(self.directory, names=self.names, now=now, node=self.node)

    def report(
        self,
        node: NodeId,
        *,
        etcd_trusts: frozenset[str] | None = None,
        forgetting: bool = False,
        former_clients: frozenset[str] = frozenset(),
    ) -> AuthorityReport:
        """For `domain.rotation`, once the gRPC server shows these certificates.

        `etcd_trusts`: `trusted_ids` of when this node's etcd was started; None: it runs none. What only one of the two trusts does not
        count as trusted, or, where it is to be forgotten, still does.
        """
        etcd = self.trusted_ids if etcd_trusts is None else etcd_trusts
        return AuthorityReport(
            node=node,
            signing=self.authority.id,
            trusted=self.trusted_ids | etcd if forgetting else self.trusted_ids & etcd,
            shown=self.authority.id,
            former_clients=former_clients,
        )


def open_pki(directory: Path, *, names: Sequence[str], now: datetime, node: NodeId | None = None) -> NodePki:
    """Load a node's certificates; make what is missing, renew what has less than a third of its life left.

    `names`: host names and IP addresses under which the node is reached, beside those of this machine itself. `node`: its id, if it
    belongs to a cluster. Raises ConfigError when the authority is damaged, half lost, out of its own time, or somebody else's.
    """
    joining.settle(directory)
    warnings = [files.private_directory(directory)]
    rotation.recover(directory)
    wanted = tuple(dict.fromkeys(str(server_name(name).value) for name in (*LOCAL_NAMES, *names)))
    authority = _authority(directory, wanted[-1], now, warnings)
    trusted, trusted_ids = rotation.trusted(directory)

    def issue_server() -> Identity:
        return authority.issue_server(wanted, now=now) if node is None else authority.issue_node(node, wanted, now=now)

    def issue_admin() -> Identity:
        return authority.issue_client(Role.ADMIN, ADMIN_NAME, now=now)

    server_names = wanted if node is None else tuple(str(name.value) for name in node_names(node, wanted))
    admin_names = (f"{ROLE_URI}{Role.ADMIN.value}",)
    server = _own(directory / "server", authority, issue_server, server_names, now, warnings)
    admin = _own(directory / "admin", authority, issue_admin, admin_names, now, warnings)
    _keep(directory / rotation.TRUSTED, trusted, files.write_public)
    if node is not None:
        _keep(directory / ETCD, server.key.pem + server.certificate, files.write_private)
    else:
        files.remove(directory / ETCD)
    return NodePki(
        directory=directory,
        names=wanted,
        node=node,
        authority=authority,
        server=replace(server, ca=trusted),
        admin=replace(admin, ca=trusted),
        trusted=trusted,
        trusted_ids=trusted_ids,
        step=rotation.step_on_disk(directory),
        former=files.read(directory / rotation.FORMER),
        warnings=tuple(warning for warning in warnings if warning),
    )


def _keep(path: Path, content: bytes, write: Callable[[Path, bytes], None]) -> None:
    """Written only when it differs: etcd and people look at the time of a file."""
    if files.read(path) != content:
        write(path, content)


def _authority(directory: Path, name: str, now: datetime, warnings: list[str]) -> Authority:
    """Key first, certificate second: a key alone is an interrupted first start, a certificate alone is a loss."""
    key_file, certificate_file = directory / rotation.CA_KEY, directory / rotation.CA
    key, certificate = _private_key(key_file, warnings), files.read(certificate_file)
    anew = f"Restore {directory} from a backup. To begin anew, move it away: every client then needs a new certificate."
    if certificate is None:
        if key is None:
            key = PrivateKey.generate()
            files.write_private(key_file, key.pem)
        authority = Authority.create(key, name=name, now=now)
        files.write_public(certificate_file, authority.pem)
        return authority
    if key is None:
        raise ConfigError(f"{key_file} is missing, but {certificate_file} is here.", hint=anew)
    try:
        authority = Authority(certificate, key)
    except ConfigError as error:
        raise ConfigError(f"{error.text} ({directory})", hint=anew) from error
    if not authority.not_before <= now <= authority.not_after:
        raise ConfigError(
            f"The node's authority ({certificate_file}) is valid from {authority.not_before:%Y-%m-%d} to "
            f"{authority.not_after:%Y-%m-%d}, but this machine's clock says {now:%Y-%m-%d %H:%M} UTC.",
            hint="Check the clock. If it is right: move the directory away and issue every client a new certificate.",
        )
    return authority


def _own(
    stem: Path,
    authority: Authority,
    issue: Callable[[], Identity],
    names: Sequence[str],
    now: datetime,
    warnings: list[str],
) -> Identity:
    """A certificate that can be made again at will: taken from disk if it still serves, else made and written."""
    key_file, certificate_file = stem.with_suffix(".key"), stem.with_suffix(".pem")
    key, certificate = _private_key(key_file, warnings), files.read(certificate_file)
    if key is not None and certificate is not None:
        identity = _serving(certificate, key, authority, names, now)
        if identity is not None:
            return identity
    identity = issue()
    files.write_private(key_file, identity.key.pem)
    files.write_public(certificate_file, identity.certificate)
    return identity


def _serving(certificate: bytes, key: PrivateKey, authority: Authority, names: Sequence[str], now: datetime) -> Identity | None:
    """The pair if it belongs together, is ours, names every name and has a third of its life left; else None."""
    try:
        parsed = x509.load_pem_x509_certificate(certificate)
        fits = key.fits(parsed)
        alternatives = parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, ConfigError, x509.ExtensionNotFound):
        return None
    start, end = parsed.not_valid_before_utc, parsed.not_valid_after_utc
    named = {str(name.value) for name in alternatives}
    roles = {name for name in named if name.startswith("urn:")}
    if not fits or not authority.vouches_for(parsed) or not named.issuperset(names) or not roles.issubset(names):
        return None
    fresh = start <= now and _lasting(end, now)
    # The authority's own end cannot be put off: what ends with it would be made anew at every start, for nothing.
    if not fresh and not (start <= now <= end == authority.not_after):
        return None
    return Identity(certificate=certificate, key=key, ca=authority.pem, not_after=end)


def _lasting(end: datetime, now: datetime) -> bool:
    """Whether a third of a certificate's life is left."""
    return (end - now) * RENEW_BELOW >= LEAF_LIFE


def _private_key(path: Path, warnings: list[str]) -> PrivateKey | None:
    pem = files.read(path)
    if pem is None:
        return None
    warnings.append(files.close_to_others(path, files.PRIVATE_FILE))
    return PrivateKey(pem)


def machine_names() -> tuple[str, ...]:
    """This machine's own host name, if a certificate can hold it."""
    try:
        return (str(server_name(socket.gethostname()).value),)
    except ConfigError:
        return ()
