"""Judges a certificate at a given instant: which signatures are good, who is bound, what is revoked, when it can encrypt.

Sequoia decides whether a signature is good and whether the primary key's algorithm is strong enough (`openpgp_verify`). This file
decides everything that depends on time, from the signed fields, at the `now` it is given. So the same input has the same outcome
on every machine, and a key may be judged as of any day.

Rules: the newest good self-signature counts (RFC 9580 section 5.2.3.10). A revocation of a key or subkey is for ever, also a soft
one once its time has come (Sequoia would let a newer self-signature lift a soft one; for a cache it is safer not to); that of a
user ID can be lifted by a newer self-signature, as people do return to an address. Designated revokers are not heeded: their
keys are not at hand.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from keycache.domain.names import EmailAddress
from keycache.harvest.openpgp_keys import Certificate, Component
from keycache.harvest.openpgp_packets import Packet, PublicKey, Signature, SignatureType, Tag
from keycache.harvest.openpgp_userid import address_of
from keycache.harvest.openpgp_verify import Claim, Verifier

FOR_EVER = 1 << 40
"""Seconds since the epoch, beyond anything a key can say (32 bits of creation plus 32 bits of span)."""

RSA_BITS = 2048
"""NIST SP 800-131A revision 2 section 6; RFC 9580 section 12.4 wants 3072 of new keys and lets 2048 pass."""

_WEAK_HASHES = frozenset({1, 2, 3})
"""MD5, SHA-1, RIPEMD-160 (RFC 9580 section 9.5)."""

_ENCRYPT_FLAGS = 0x04 | 0x08
"""RFC 9580 section 5.2.3.29."""

_CERTIFICATIONS = range(SignatureType.GENERIC, SignatureType.POSITIVE + 1)


@dataclass(frozen=True, slots=True)
class Window:
    """From `start` to before `end`, in seconds since the epoch."""

    start: int
    end: int

    def __and__(self, other: Window) -> Window:
        return Window(max(self.start, other.start), min(self.end, other.end))

    @property
    def is_empty(self) -> bool:
        return self.end <= self.start

    def holds(self, now: int) -> bool:
        return self.start <= now < self.end


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """One user ID or subkey. `binding`: the self-signature that counts at the instant of judging, else the next to come, else
    the last that ended; None: there is no good one. `is_weak`: there is one, but its hash is too weak to count.
    """

    packet: Packet
    key: PublicKey | None
    address: EmailAddress | None
    binding: Signature | None
    revocations: tuple[Signature, ...]
    is_revoked: bool
    is_weak: bool
    window: Window


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """A certificate as of one instant. `window`: the primary key's own. `direct`: its direct-key signature that counts."""

    primary: PublicKey
    direct: Signature | None
    revocations: tuple[Signature, ...]
    is_revoked: bool
    user_ids: tuple[Judged, ...]
    subkeys: tuple[Judged, ...]
    main: Judged | None
    flags: int
    window: Window
    refusal: str

    @property
    def bound(self) -> tuple[Judged, ...]:
        """User IDs that bind an address."""
        return tuple(one for one in self.user_ids if one.address and one.binding and not one.is_revoked)

    @property
    def encrypting(self) -> tuple[tuple[PublicKey, Window], ...]:
        """Keys that may encrypt and are not revoked, whatever the time, and the window of each."""
        found = [(self.primary, self.window)] if self.primary.can_encrypt and self.flags & _ENCRYPT_FLAGS else []
        found += [(one.key, one.window & self.window) for one in self.subkeys if one.key and _may_encrypt(one)]
        return tuple(found)


def seconds(moment: datetime) -> int:
    return int(moment.timestamp())


def moment(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def judge(certificate: Certificate, now: int) -> Judgement:
    """`now` in seconds since the epoch. Never raises."""
    primary = certificate.primary
    verifier = Verifier(primary.packet)
    verifier.expect(_claims(certificate, now))
    revocations = _good(verifier, None, certificate.signatures, (SignatureType.KEY_REVOCATION,))
    direct, _ = _newest(verifier, None, certificate.signatures, (SignatureType.DIRECT_KEY,), now)
    user_ids = tuple(_user_id(verifier, primary, one, now) for one in certificate.components if one.packet.tag == Tag.USER_ID)
    subkeys = tuple(_subkey(verifier, one, now) for one in certificate.components if one.key is not None)
    main = _main(user_ids)
    # Key-wide properties: of the main user ID's self-signature, else of the direct-key signature (RFC 9580 section 5.2.3.10).
    # Version 6 wants them in the latter, Sequoia reads the former first: where they differ the key ends with the earlier.
    sources = [one for one in (main.binding if main else None, direct) if one is not None]
    key_spans = [one.key_span for one in sources if one.key_span is not None]
    span = (min(key_spans) if primary.version == 6 else key_spans[0]) if key_spans else None
    flags = next((one.flags for one in sources if one.flags is not None), 0)
    ends = [FOR_EVER if span is None else primary.created + span, *_future_ends(revocations, now)]
    return Judgement(
        primary=primary,
        direct=direct,
        revocations=revocations,
        is_revoked=_is_revoked(revocations, now),
        user_ids=user_ids,
        subkeys=subkeys,
        main=main,
        flags=flags,
        window=Window(primary.created, min(ends)),
        refusal=verifier.refusal(),
    )


def weakness(key: PublicKey) -> str:
    """Why mail should not be encrypted to this key; empty if it may."""
    if key.algorithm in (1, 2, 3) and key.bits < RSA_BITS:
        return f"{key.name} is below {RSA_BITS} bits"
    if key.algorithm == 16:
        return f"{key.name}: ElGamal is given up, and Sequoia does not encrypt to it"
    if not key.is_known:
        return f"{key.name} is not supported"
    return ""


def _may_encrypt(one: Judged) -> bool:
    if one.key is None or one.binding is None or one.is_revoked:
        return False
    return one.key.can_encrypt and bool((one.binding.flags or 0) & _ENCRYPT_FLAGS)


def _user_id(verifier: Verifier, primary: PublicKey, component: Component, now: int) -> Judged:
    binding, is_weak = _newest(verifier, component.packet, component.signatures, _CERTIFICATIONS, now)
    revocations = _good(verifier, component.packet, component.signatures, (SignatureType.CERTIFICATION_REVOCATION,))
    since = binding.created if binding and binding.created is not None else 0
    return Judged(
        packet=component.packet,
        key=None,
        address=address_of(component.packet.body),
        binding=binding,
        revocations=revocations,
        is_revoked=any((one.created or 0) <= now and (one.created or 0) >= since for one in revocations),
        is_weak=is_weak,
        window=_window(primary.created, binding, now),
    )


def _subkey(verifier: Verifier, component: Component, now: int) -> Judged:
    binding, is_weak = _newest(verifier, component.packet, component.signatures, (SignatureType.SUBKEY_BINDING,), now)
    revocations = _good(verifier, component.packet, component.signatures, (SignatureType.SUBKEY_REVOCATION,))
    created = component.key.created if component.key else 0
    window = _window(created, binding, now)
    if binding is not None and binding.key_span is not None:
        window &= Window(0, created + binding.key_span)
    window &= Window(0, min(_future_ends(revocations, now), default=FOR_EVER))
    return Judged(
        packet=component.packet,
        key=component.key,
        address=None,
        binding=binding,
        revocations=revocations,
        is_revoked=_is_revoked(revocations, now),
        is_weak=is_weak,
        window=window,
    )


def _window(created: int, binding: Signature | None, now: int) -> Window:
    """When a component is bound: from its creation, or from its self-signature's where that is still to come."""
    if binding is None or binding.created is None:
        return Window(0, 0)
    start = max(created, binding.created) if binding.created > now else created
    return Window(start, binding.expires or FOR_EVER)


def _main(user_ids: Iterable[Judged]) -> Judged | None:
    """The primary user ID: marked as such, newest (RFC 9580 section 5.2.3.27); a revoked one only if there is no other."""
    candidates = [one for one in user_ids if one.binding]
    return max(candidates, key=_main_rank, default=None)


def _main_rank(one: Judged) -> tuple[bool, bool, int, bytes]:
    binding = one.binding
    return (not one.is_revoked, bool(binding and binding.is_primary), (binding.created or 0) if binding else 0, one.packet.body)


def _is_revoked(revocations: Iterable[Signature], now: int) -> bool:
    return any(one.is_hard or (one.created or 0) <= now for one in revocations)


def _future_ends(revocations: Iterable[Signature], now: int) -> list[int]:
    """When soft revocations that are dated in the future will take effect."""
    return [one.created for one in revocations if one.created is not None and one.created > now]


def _claims(certificate: Certificate, now: int) -> list[Claim]:
    """Those that will be asked for if all are good: the first candidate for each component. User IDs in the order in which
    Sequoia writes them, subkeys in their own."""
    claims: list[Claim] = [(None, one) for one in _expected(certificate.signatures, (SignatureType.DIRECT_KEY,), now)]
    for tag, kinds in ((Tag.USER_ID, _CERTIFICATIONS), (Tag.PUBLIC_SUBKEY, (SignatureType.SUBKEY_BINDING,))):
        for component in sorted(certificate.components, key=lambda one: one.packet.body if one.key is None else b""):
            if component.packet.tag == tag:
                claims += [(component.packet, one) for one in _expected(component.signatures, kinds, now)]
    return claims


def _expected(signatures: Iterable[Signature], kinds: Iterable[int], now: int) -> list[Signature]:
    return [one for one in _candidates(signatures, kinds, now) if one.hash not in _WEAK_HASHES][:1]


def _candidates(signatures: Iterable[Signature], kinds: Iterable[int], now: int) -> list[Signature]:
    """Self-signatures in the order in which they would count."""

    def order(one: Signature) -> tuple[int, int, tuple[bytes, bytes]]:
        created = one.created or 0
        if created > now:
            return (1, created, one.identity)  # to come: the next one first
        if one.expires is not None and one.expires <= now:
            return (2, -one.expires, one.identity)  # over: the last one first
        return (0, -created, one.identity)

    kinds = frozenset(kinds)
    return sorted((one for one in signatures if one.kind in kinds and one.created is not None and one.is_understood), key=order)


def _newest(
    verifier: Verifier, component: Packet | None, signatures: Iterable[Signature], kinds: Iterable[int], now: int
) -> tuple[Signature | None, bool]:
    """The self-signature that counts, and whether a good one was passed over because its hash is weak.

    Candidates are tried in the order in which they would count, so that as a rule one verification is all it takes.
    """
    is_weak = False
    for one in _candidates(signatures, kinds, now):
        weak = one.hash in _WEAK_HASHES
        if (weak and is_weak) or not verifier.is_good(component, one):
            continue
        if not weak:
            return one, is_weak
        is_weak = True
    return None, is_weak


def _good(
    verifier: Verifier, component: Packet | None, signatures: Iterable[Signature], kinds: Iterable[int]
) -> tuple[Signature, ...]:
    """All good revocations, whatever their hash or time: what the owner once withdrew stays known. Each once, in a fixed order."""
    kinds = frozenset(kinds)
    found: dict[tuple[bytes, bytes], Signature] = {}
    for one in sorted(signatures, key=lambda one: (one.created or 0, one.identity, one.packet.body)):
        if one.kind in kinds and one.identity not in found and verifier.is_good(component, one):
            found[one.identity] = one
    return tuple(found.values())
