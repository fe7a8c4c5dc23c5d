"""Which clients still come by certificates of an authority that is about to be forgotten.

Only while there is one is a call's certificate looked at for this: it takes 12 microseconds of gRPC's, and a third of a lookup's budget.
"""

from __future__ import annotations

from time import monotonic

from cryptography import x509

from keycache.services.auth import Context, peer_of

LATELY_SECONDS = 24 * 3600.0
"""A client that was not seen by such a certificate for a day does not use it, or calls so seldom that only a person knows."""


class FormerClients:
    """`watched`: the former authority's key identifier; None: there is none."""

    def __init__(self) -> None:
        self.watched: bytes | None = None
        self._seen: dict[str, float] = {}

    def watch(self, former: bytes | None) -> None:
        """From now on, for this authority (PEM), or for none."""
        identifier = None
        if former is not None:
            parsed = x509.load_pem_x509_certificate(former)
            identifier = parsed.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
        if identifier != self.watched:
            self.watched = identifier
            self._seen.clear()

    def see(self, context: Context) -> None:
        """Called for every call while there is something to watch for."""
        peer = peer_of(context)
        if peer.issuer == self.watched:
            self._seen[peer.name] = monotonic()
        else:
            self._seen.pop(peer.name, None)

    def names(self) -> frozenset[str]:
        """Of those that came lately."""
        since = monotonic() - LATELY_SECONDS
        return frozenset(name for name, at in self._seen.items() if at >= since)
