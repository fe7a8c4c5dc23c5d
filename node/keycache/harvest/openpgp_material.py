"""What we keep of a certificate, and how two copies of it become one.

Kept: the primary key, its direct-key signature that counts, every good revocation; the chosen user IDs, the primary one (key-wide
properties such as the expiry stand in its self-signature) and revoked ones (so that the revocation outlives older copies), each
with the self-signature that counts; all subkeys whose algorithm can encrypt, with the binding that counts - whatever its flags or
expiry say now, since otherwise an older copy would bring back what a newer one withdrew.
Dropped: what others signed, user attributes, subkeys that can only sign or authenticate (a cache for encryption never verifies
anything with them), older self-signatures, and what anybody can write into the unsigned part of a signature.
The order is fixed, so that equal facts give equal bytes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from keycache.harvest.openpgp_judge import Judged, Judgement
from keycache.harvest.openpgp_keys import Certificate, Component
from keycache.harvest.openpgp_packets import Packet, Signature


def minimal(judgement: Judgement, keep: Collection[bytes]) -> bytes:
    """`keep`: bodies of the user IDs to keep besides the primary and the revoked ones."""
    packets: list[Packet] = [judgement.primary.packet]
    packets += _packets(judgement.direct, judgement.revocations)
    for one in sorted(judgement.user_ids, key=lambda one: one.packet.body):
        if (one.binding and (one is judgement.main or one.packet.body in keep)) or one.revocations:
            packets += [one.packet, *_packets(one.binding, one.revocations)]
    for one in sorted(judgement.subkeys, key=_subkey_order):
        if one.key and one.key.can_encrypt and (one.binding or one.revocations):
            packets += [one.packet, *_packets(one.binding, one.revocations)]
    return b"".join(packet.encode() for packet in packets)


def _packets(binding: Signature | None, revocations: Iterable[Signature]) -> list[Packet]:
    """Revocations first, as other programs write them."""
    return [one.packet for one in (*revocations, *([binding] if binding else []))]


def _subkey_order(one: Judged) -> tuple[int, str]:
    return (one.key.created, one.key.fingerprint) if one.key else (0, "")


def union(copies: Iterable[Certificate]) -> Certificate:
    """Of copies of one key (at least one): every component once, with every signature of every copy once."""
    first, *others = copies
    joined = Certificate(primary=first.primary, signatures=list(first.signatures))
    components: dict[Packet, Component] = {}
    for copy in (first, *others):
        if copy is not first:
            joined.signatures += copy.signatures
        for component in copy.components:
            known = components.setdefault(component.packet, Component(packet=component.packet, key=component.key))
            known.signatures += component.signatures
    joined.signatures = _distinct(joined.signatures)
    for component in components.values():
        component.signatures = _distinct(component.signatures)
    joined.components = list(components.values())
    return joined


def _distinct(signatures: Iterable[Signature]) -> list[Signature]:
    """Copies that differ in their unsigned part alone are one signature; of them the same one is taken in whatever order."""
    found: dict[tuple[bytes, bytes], Signature] = {}
    for one in signatures:
        other = found.get(one.identity)
        if other is None or one.packet.body > other.packet.body:
            found[one.identity] = one
    return list(found.values())
