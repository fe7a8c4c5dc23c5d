"""Chains from a certificate upwards: which certificates could vouch for which. Whether they may is judged in `paths`.

Certificates of a stranger's mail take part, so everything is bounded: links checked, length, and chains found. A link counts
only once the signature on it is verified, which leaves no room for the dead ends of forged look-alikes.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from keycache.harvest.smime_asn1 import Unacceptable
from keycache.harvest.x509 import CERTIFICATE_OCTETS, Certificate, key_identifiers, load_quietly, read_certificate, signed_by
from keycache.harvest.x509_names import name_key

CHAIN_LENGTH = 8
"""Certificates from leaf to anchor. S/MIME chains in the field have 3 or 4; PKITS' longest (4.6.13) has 6; bridges add some."""
LINK_CHECKS = 100
"""Signatures verified for one leaf: 30 to 300 microseconds each. A cross-certified bridge needs some 20."""
STEPS = 400
"""Chains looked at on the way, each some microseconds: a mesh of cross-certificates has more ways through than links."""
CHAIN_COUNT = 16
"""Chains to an anchor that are judged in full, milliseconds each."""

Accept: TypeAlias = Callable[[Certificate], bool]


@dataclass(frozen=True, slots=True)
class Chain:
    """Leaf first. `anchored`: the last one is an anchor. `broken`: it ends at a certificate whose alleged issuers, all known by
    name and key identifier, did not sign it. `cut`: it ends for being too long."""

    certificates: tuple[Certificate, ...]
    anchored: bool = False
    broken: bool = False
    cut: bool = False


@dataclass(slots=True)
class Pool:
    """Certificates by subject. Parsed no further than that until they are asked for."""

    unreadable: list[str] = field(default_factory=list)
    _by_subject: dict[bytes, list[bytes]] = field(default_factory=dict)
    _known: set[bytes] = field(default_factory=set)

    def __len__(self) -> int:
        return len(self._known)

    def add(self, der: bytes) -> None:
        """Whatever cannot be read is noted in `unreadable` and left out."""
        digest = hashlib.sha256(der).digest()
        if digest in self._known:
            return
        if len(der) > CERTIFICATE_OCTETS:
            self.unreadable.append(digest.hex())
            return
        try:
            subject = name_key(load_quietly(der).subject.public_bytes())
        except (ValueError, TypeError, Unacceptable):
            self.unreadable.append(digest.hex())
            return
        self._known.add(digest)
        self._by_subject.setdefault(subject, []).append(der)

    def holds(self, certificate: Certificate) -> bool:
        """This very certificate, byte for byte."""
        return bytes.fromhex(certificate.fingerprint.text) in self._known

    def of_subject(self, key: bytes) -> Iterator[Certificate]:
        for der in self._by_subject.get(key, ()):
            try:
                yield read_certificate(der)
            except Unacceptable:
                continue


@dataclass(slots=True)
class _Search:
    checks: int = LINK_CHECKS
    steps: int = STEPS
    signed: dict[tuple[str, str], bool | None] = field(default_factory=dict)

    def link(self, child: Certificate, issuer: Certificate) -> bool | None:
        """As `signed_by`, at most once per pair; False when the budget is used up."""
        pair = (child.fingerprint.text, issuer.fingerprint.text)
        if pair not in self.signed:
            if self.checks == 0:
                return False
            self.checks -= 1
            self.signed[pair] = signed_by(child, issuer)
        return self.signed[pair]


def chains(leaf: Certificate, anchors: Sequence[tuple[Pool, Accept]], others: Sequence[Pool]) -> tuple[Chain, ...]:
    """Chains to anchors, shortest first; if there is none at all, the dead ends, longest first. Never empty.

    `anchors`: pools, and which of their certificates may vouch for others. An anchor ends a chain. A dead end that is merely
    unknown comes before one that is cut or broken.
    """
    search = _Search()
    anchored: list[Chain] = []
    ends: list[Chain] = []
    queue: deque[tuple[Certificate, ...]] = deque([(leaf,)])
    while queue and len(anchored) < CHAIN_COUNT:
        chain = queue.popleft()
        search.steps -= 1
        if search.steps < 0:
            ends.append(Chain(chain, cut=True))
            break
        head = chain[-1]
        extended = broken = False
        for issuer, is_anchor in _candidates(chain, anchors, others):
            if search.link(head, issuer) is False:
                broken = True
                continue
            extended = True
            if is_anchor:
                anchored.append(Chain((*chain, issuer), anchored=True))
            elif len(chain) < CHAIN_LENGTH - 1:
                queue.append((*chain, issuer))
            else:
                ends.append(Chain(chain, cut=True))
        if not extended:
            is_top = head.self_issued and search.link(head, head) is True
            ends.append(Chain(chain, broken=broken and not is_top))
    if anchored:
        return tuple(anchored)
    return tuple(sorted(ends, key=lambda end: (end.broken, end.cut, -len(end.certificates))))


def _candidates(
    chain: tuple[Certificate, ...], anchors: Sequence[tuple[Pool, Accept]], others: Sequence[Pool]
) -> Iterator[tuple[Certificate, bool]]:
    """Who may have issued the last of the chain, each once, anchors first. No key takes part twice under one name."""
    head = chain[-1]
    seen = {(certificate.subject_key, certificate.spki) for certificate in chain[1:]}
    found: set[str] = set()
    pools = [*((pool, accept, True) for pool, accept in anchors), *((pool, _anybody, False) for pool in others)]
    for pool, accept, is_anchor in pools:
        for issuer in pool.of_subject(head.issuer_key):
            if issuer.fingerprint.text in found or not may_have_issued(issuer, head) or not accept(issuer):
                continue
            if (issuer.subject_key, issuer.spki) not in seen and issuer.der != chain[0].der:
                found.add(issuer.fingerprint.text)
                yield issuer, is_anchor


def _anybody(_: Certificate) -> bool:
    return True


def may_have_issued(issuer: Certificate, child: Certificate) -> bool:
    """Whether the names and, where both are given, the key identifiers fit (RFC 5280 4.2.1.1)."""
    if issuer.subject_key != child.issuer_key:
        return False
    return child.authority_key_id is None or issuer.key_id is None or child.authority_key_id == issuer.key_id


def issuer_id(name: bytes, key_id: bytes) -> str:
    """16 hex digits for an authority, from its comparable name and its key's identifier."""
    return hashlib.sha256(name + b"\0" + key_id).hexdigest()[:16]


def id_of_authority(certificate: Certificate) -> str:
    """The id of an authority whose certificate is known.

    Its own key identifier counts only where it is derived from the key; then certificates that merely point to it by authority
    key identifier get the same id. Otherwise anybody could take the id of another by copying name and identifier.
    """
    derived = key_identifiers(certificate)
    chosen = certificate.key_id if certificate.key_id in derived and certificate.key_id is not None else derived[0]
    return issuer_id(certificate.subject_key, chosen)


def id_of_unknown(child: Certificate) -> str:
    """The id of the authority that `child` names as its issuer, of which no certificate is known."""
    return issuer_id(child.issuer_key, child.authority_key_id or b"")


def id_of_self_signed(certificate: Certificate) -> str:
    """A self-signed certificate is a group of its own."""
    return hashlib.sha256(b"self-signed\0" + certificate.der).hexdigest()[:16]
