"""The gRPC server: TLS that takes no strangers, limits, health, reflection, and an end that finishes what was begun."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc
from grpc_reflection.v1alpha import reflection

from keycache.cache import KeyCache
from keycache.domain.authority import Authorities
from keycache.domain.errors import ConfigError
from keycache.domain.forming import Forming
from keycache.domain.joining import Admitter
from keycache.domain.ports import Clock
from keycache.domain.removal import FindRemoval, none_removed
from keycache.logs import get_logger
from keycache.metrics import Metrics
from keycache.pki import Identity
from keycache.services import admin, cluster, health, key_cache
from keycache.services.admin import AdminService, Signer
from keycache.services.calls import Calls
from keycache.services.cluster import ClusterService
from keycache.services.former import FormerClients
from keycache.services.health import HealthService
from keycache.services.join import JoinPort
from keycache.services.key_cache import KeyCacheService
from keycache.services.limits import ByteBudget

MIB = 1 << 20
FRAME_ROOM = MIB
"""Above the message limit: room for the envelope, so that a message a little over it still gets its verdict."""
HANDS = 8
"""Messages of the greatest size that a node has in hand at once; ordinary mail is a three-hundredth of it."""
MAX_CALLS = 4_096
"""Calls in flight. Beyond it gRPC refuses; a lookup takes a third of a millisecond, so a queue of a second fits."""

LINGER_STEP, LINGER_QUIET, LINGER_STEPS = 0.05, 4, 40
"""Seconds between two looks, looks without a new call that are enough, and looks at most: 0.2 s for a node at rest, 2 s for one whose
clients do not heed its health."""

_HOUR_MS = 3_600_000
_log = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """`listen`: addresses as host:port, IPv6 in brackets, port 0 for any free one. `join`: such an address for nodes that join, or None.
    `message_limit`: bytes of one mail."""

    listen: tuple[str, ...] = ("127.0.0.1:7640",)
    join: str | None = None
    message_limit: int = 25 * MIB
    max_calls: int = MAX_CALLS


if TYPE_CHECKING:
    _AnyHandler = grpc.GenericRpcHandler[Any, Any]  # generic in the stubs alone
else:
    _AnyHandler = grpc.GenericRpcHandler


class _Arrivals(_AnyHandler):
    """Asked first for every call that is begun, serves none, and counts."""

    def __init__(self) -> None:
        self.count = 0

    def service(self, _call: grpc.HandlerCallDetails) -> None:
        self.count += 1


class Certificates:
    """What the server shows at a handshake. gRPC asks at every new connection, so a renewed certificate needs no restart."""

    def __init__(self, identity: Identity) -> None:
        self.replace(identity)

    def replace(self, identity: Identity) -> None:
        self._configuration = _configuration(identity)
        self._join_configuration = _join_configuration(identity)

    def credentials(self) -> grpc.ServerCredentials:
        """ORDER: client certificates are required HERE; nothing behind it asks whether there is one."""
        return grpc.dynamic_ssl_server_credentials(
            self._configuration, lambda: self._configuration, require_client_authentication=True
        )

    def join_credentials(self) -> grpc.ServerCredentials:
        """For nodes that join: no client certificate is asked for, so only `join.JoinPort` may use them."""
        return grpc.dynamic_ssl_server_credentials(
            self._join_configuration, lambda: self._join_configuration, require_client_authentication=False
        )


def _configuration(identity: Identity) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(identity.key.pem, identity.certificate)], root_certificates=identity.ca)


def _join_configuration(identity: Identity) -> grpc.ServerCertificateConfiguration:
    """The authorities stand in the chain: a joiner knows the hash of one, and has none (`pki.bootstrap`)."""
    return grpc.ssl_server_certificate_configuration([(identity.key.pem, identity.certificate + identity.ca)])


class Server:
    """Built, started, stopped once. `ports`: what `listen` became; `join_port`: what `join` did.

    `admitter`: the host's side of joins; without one there is no port for them. `forming`: how this node makes and enters
    clusters. `authorities`: how its authority is changed. `removed`: finds nodes that were removed.
    """

    def __init__(
        self,
        *,
        cache: KeyCache,
        signer: Signer,
        identity: Identity,
        clock: Clock,
        metrics: Metrics,
        options: ServerOptions,
        admitter: Admitter | None = None,
        forming: Forming | None = None,
        authorities: Authorities | None = None,
        removed: FindRemoval = none_removed,
    ) -> None:
        self.certificates = Certificates(identity)
        self.ports: tuple[int, ...] = ()
        self._options = options
        self._calls = Calls(metrics, removed)
        self._join = None if options.join is None or admitter is None else JoinPort(options.join, admitter, self._calls)
        self._budget = ByteBudget(HANDS * options.message_limit)
        self._health = HealthService((key_cache.NAME, admin.NAME, cluster.NAME))
        services = {
            key_cache.NAME: KeyCacheService(cache, self._budget).handlers(self._calls),
            admin.NAME: AdminService(cache, signer, clock).handlers(self._calls),
            cluster.NAME: ClusterService(cache, forming, authorities).handlers(self._calls),
            health.NAME: self._health.handlers(self._calls),
        }
        self._server = grpc.aio.server(options=_channel_options(options), maximum_concurrent_rpcs=options.max_calls)
        self._arrivals = _Arrivals()
        self._server.add_generic_rpc_handlers((self._arrivals,))
        self._server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler(name, handlers) for name, handlers in services.items()]
        )
        reflection.enable_server_reflection((*services, reflection.SERVICE_NAME), self._server)

    async def start(self) -> None:
        """Listen and answer; health says NOT_SERVING until `ready`. Raises ConfigError when an address cannot be had."""
        ports = []
        for address in self._options.listen:
            try:
                ports.append(self._server.add_secure_port(address, self.certificates.credentials()))
            except RuntimeError as error:
                raise ConfigError(
                    f"Cannot listen on {address}.",
                    hint="Check that the address is this machine's and that no other program, or node, uses the port.",
                ) from error
        self.ports = tuple(ports)
        await self._server.start()
        if self._join is not None:
            await self._join.start(self.certificates.join_credentials())

    @property
    def former_clients(self) -> FormerClients:
        """Who still comes by a certificate of an authority that is about to be forgotten."""
        return self._calls.former

    @property
    def join_port(self) -> int | None:
        return None if self._join is None else self._join.port

    def ready(self, *, serving: bool = True) -> None:
        """What health tells from now on."""
        self._health.set(serving=serving)

    async def linger(self) -> None:
        """Say that we stop, and begin what has come in: calls that were not begun when gRPC's core is shut down it ends with a bare
        CANCELLED, which tells a mail processor nothing. Returns once no call came in for a moment."""
        self._health.set(serving=False)
        quiet, before = 0, self._arrivals.count
        for _ in range(LINGER_STEPS):
            await asyncio.sleep(LINGER_STEP)
            quiet, before = (quiet + 1 if self._arrivals.count == before else 0), self._arrivals.count
            if quiet == LINGER_QUIET:
                return

    async def stop(self, grace: float) -> None:
        """Finish: health says NOT_SERVING, watches end, new calls are refused, calls in flight get `grace` seconds."""
        self._health.set(serving=False)
        await asyncio.sleep(0)  # those who watch health hear of it before their watch ends
        self._calls.stop()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._server.stop(grace))
            if self._join is not None:
                group.create_task(self._join.stop(grace))
        _log.info("no more calls are taken", ports=self.ports)


def _channel_options(options: ServerOptions) -> tuple[tuple[str, int], ...]:
    size = options.message_limit + FRAME_ROOM
    return (
        ("grpc.max_receive_message_length", size),
        ("grpc.max_send_message_length", -1),  # a batch of 1,000 addresses with large keys is ours to answer
        ("grpc.so_reuseport", 0),  # two nodes on one port would each get half of the calls
        ("grpc.keepalive_time_ms", 60_000),  # finds clients that vanished while their watch is silent
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),  # let clients look for us as well
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.max_connection_age_ms", _HOUR_MS),  # a new handshake an hour, without breaking calls: see auth, rule 3
    )
