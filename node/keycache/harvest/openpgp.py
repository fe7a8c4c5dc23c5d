"""OpenPGP keys in mails and files: from a blob to findings, and from two copies of one key to one.

A key enters for an address only if a user ID that names this very address carries a good self-signature (DESIGN 2.9); that the
key came in the sender's mail proves nothing by itself. Nothing here raises for bad input: every key gets a verdict, and the gates
it passed or failed. Whose job is what: `openpgp_armour`, `openpgp_packets` and `openpgp_keys` read and limit, `openpgp_verify`
and `openpgp_judge` verify, `openpgp_material` chooses what to keep; this file asks the questions in their order and words the answers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from keycache.domain.entry import Defect, Key, Protocol, Trust
from keycache.domain.examination import Finding, Gate
from keycache.domain.merge import join_addresses
from keycache.domain.names import EmailAddress, Fingerprint
from keycache.domain.verdict import Verdict
from keycache.harvest import openpgp_armour as armour
from keycache.harvest.openpgp_judge import FOR_EVER, Judged, Judgement, Window, judge, moment, seconds, weakness
from keycache.harvest.openpgp_keys import (
    HARVEST_LIMITS,
    IMPORT_LIMITS,
    Certificate,
    Found,
    Malformed,
    OpenPgpLimits,
    Secret,
    TooLarge,
    read,
)
from keycache.harvest.openpgp_material import minimal, union
from keycache.harvest.openpgp_packets import MalformedPackets, Packet, Tag, read_signature, spans
from keycache.harvest.openpgp_userid import name_of

__all__ = [
    "HARVEST_LIMITS",
    "IMPORT_LIMITS",
    "OpenPgpLimits",
    "examine_keys",
    "find_armoured_blocks",
    "keys_in_signature",
    "merge",
]

GATES = ("no secret key", "size", "well-formed", "not revoked", "user ID", "strength", "encryption", "validity")
"""The questions in their order. Those after the first that failed were not asked."""

_BLOCKS_LIMIT = 64
"""Armoured blocks looked for in one text; see `OpenPgpLimits.keys`."""

_SIGNATURES_LIMIT = 16
"""Signature packets looked into for key blocks. A mail is signed by one person, rarely by two."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    """For whom keys are looked at. `addresses` empty: for everybody they name. `label`: what the blob is called."""

    addresses: frozenset[str]
    now: int
    evidence_at: datetime | None
    prefer_encrypt: bool
    label: str


@dataclass(slots=True)
class _Course:
    """The gates of one key, as they are passed."""

    label: str
    passed: list[Gate] = field(default_factory=list)

    def ok(self, name: str, detail: str = "") -> None:
        self.passed.append(Gate(name=name, passed=True, detail=detail))

    def stop(self, name: str, verdict: Verdict, detail: str, key: Key | None = None) -> Finding:
        gates = (*self.passed, Gate(name=name, passed=False, detail=detail), *_skipped(GATES[len(self.passed) + 1 :]))
        return Finding(protocol=Protocol.OPENPGP, key=key, verdict=verdict, detail=detail, label=self.label, gates=gates)

    def end(self, key: Key, detail: str) -> Finding:
        gates = tuple(self.passed)
        return Finding(protocol=Protocol.OPENPGP, key=key, verdict=None, detail=detail, label=self.label, gates=gates)


def _skipped(names: Iterable[str]) -> tuple[Gate, ...]:
    return tuple(Gate(name=name, passed=None) for name in names)


def examine_keys(
    blob: bytes,
    sender: EmailAddress | None,
    now: datetime,
    *,
    addresses: Sequence[EmailAddress] = (),
    evidence_at: datetime | None = None,
    prefer_encrypt: bool = False,
    label: str = "",
    limits: OpenPgpLimits | None = None,
) -> tuple[Finding, ...]:
    """One finding for each key in `blob`: binary keys or keyring, or armoured blocks with text around them.

    With `sender`, a key passes only if it names this address, and is bound to it alone. Without, `addresses` are those accepted.
    Both empty: an import; every address the key names is bound, and the limits are those of a keyring.
    A revoked key, whatever it names, comes with its Key (addresses: those asked for that it names or named), so that the
    revocation is learnt; of a secret key nothing is kept. At least one finding; never raises.
    """
    accepted = (sender,) if sender is not None else tuple(addresses)
    if limits is None:
        limits = HARVEST_LIMITS if accepted else IMPORT_LIMITS
    wanted = _Wanted(
        addresses=frozenset(address.index for address in accepted),
        now=seconds(now),
        evidence_at=evidence_at,
        prefer_encrypt=prefer_encrypt,
        label=label,
    )
    findings = tuple(_examine_one(found, wanted) for found in _found_in(blob, limits))
    return findings or (_examine_one(Malformed(text="there is no OpenPGP key in it"), wanted),)


def keys_in_signature(
    blob: bytes,
    sender: EmailAddress | None,
    now: datetime,
    *,
    addresses: Sequence[EmailAddress] = (),
    evidence_at: datetime | None = None,
    prefer_encrypt: bool = False,
    label: str = "",
    limits: OpenPgpLimits | None = None,
) -> tuple[Finding, ...]:
    """As `examine_keys`, of the key that came along inside a signature (subpacket 38, gpg's --include-key-block); () if none did.

    `blob`: an OpenPGP signature, armoured or binary. It need not be verified for this: the proof lies in the key.
    """
    limits = limits or HARVEST_LIMITS
    findings: list[Finding] = []
    for key_block in _key_blocks(blob, limits):
        findings += examine_keys(
            key_block,
            sender,
            now,
            addresses=addresses,
            evidence_at=evidence_at,
            prefer_encrypt=prefer_encrypt,
            label=label,
            limits=limits,
        )
    return tuple(findings)


def find_armoured_blocks(text: bytes) -> tuple[bytes, ...]:
    """Armoured public and secret keys that stand in a text at the beginning of a line, each to be given to `examine_keys`."""
    found: list[bytes] = []
    for block in armour.blocks(text):
        if block.kind in (armour.PUBLIC, armour.PRIVATE):
            found.append(block.text)
            if len(found) == _BLOCKS_LIMIT:
                break
    return tuple(found)


def merge(known: Key, seen: Key, now: datetime) -> Key:
    """Two copies of one key become one, with the facts judged anew at `now`.

    Nothing of either is lost but what the other supersedes: revocations stay, the newest self-signatures count, addresses stay as
    long as they are validly bound. Commutative and idempotent. Raises ValueError if the keys are two.
    """
    if known.fingerprint != seen.fingerprint or known.protocol is not seen.protocol:
        raise ValueError("only copies of one key can be merged")
    newer = max(known, seen, key=_evidence)
    copies = [copy for key in (known, seen) for copy in read(key.material, IMPORT_LIMITS) if isinstance(copy, Certificate)]
    copies = [copy for copy in copies if copy.primary.fingerprint == known.fingerprint.text]
    judgement = judge(union(copies), seconds(now)) if copies else None
    revoked = Defect.REVOKED in (known.defect, seen.defect)
    if judgement is None:  # stored by another version, or damaged: what the copies said of themselves stands
        return replace(
            newer, addresses=join_addresses(known.addresses, seen.addresses), defect=Defect.REVOKED if revoked else newer.defect
        )
    indexes = frozenset(address.index for address in (*known.addresses, *seen.addresses))
    wanted = _Wanted(
        addresses=indexes,
        now=seconds(now),
        evidence_at=newer.evidence_at,
        prefer_encrypt=newer.prefer_encrypt,
        label="",
    )
    bound = [one for one in judgement.bound if one.address and one.address.index in indexes]
    key = _key(judgement, bound, wanted, keep=[one.packet.body for one in judgement.user_ids])
    return replace(key, defect=Defect.REVOKED if revoked else key.defect, extra=known.extra or seen.extra)


def _evidence(key: Key) -> tuple[float, bool]:
    return (float("-inf") if key.evidence_at is None else key.evidence_at.timestamp(), key.prefer_encrypt)


def _found_in(blob: bytes, limits: OpenPgpLimits) -> Iterator[Found]:
    if not armour.is_armoured(blob):
        yield from read(blob, limits)
        return
    if len(blob) > 2 * limits.blob_bytes:  # base64 and line ends make a third more, comments are short
        yield TooLarge(text=f"{len(blob):,} bytes of armoured keys; the limit is {2 * limits.blob_bytes:,}")
        return
    count = 0
    for block in armour.blocks(blob):
        if block.kind not in (armour.PUBLIC, armour.PRIVATE):
            continue
        count += 1
        if count > limits.keys:
            yield TooLarge(text=f"more than {limits.keys:,} keys in one place; the rest was not looked at")
            return
        yield from _in_block(block, limits)


def _in_block(block: armour.Block, limits: OpenPgpLimits) -> Iterator[Found]:
    try:
        found = tuple(read(armour.decode(block), limits))
    except armour.BadArmour as error:
        found = (Malformed(text=str(error)),)
    if block.kind == armour.PRIVATE and not any(isinstance(one, Secret) for one in found):
        yield Secret()  # its header says so; that we cannot read it does not make it harmless
    else:
        yield from found


def _key_blocks(blob: bytes, limits: OpenPgpLimits) -> Iterator[bytes]:
    if len(blob) > 2 * limits.key_bytes:
        return
    try:
        if armour.is_armoured(blob):
            datas = [armour.decode(block) for block in armour.blocks(blob) if block.kind == armour.SIGNATURE]
        else:
            datas = [blob]
        count = 0
        for data in datas:
            for span in spans(data):
                if span.tag != Tag.SIGNATURE or count == _SIGNATURES_LIMIT:
                    return
                count += 1
                signature = read_signature(Packet(span.tag, data[span.body : span.end]))
                yield from signature.key_blocks[:1] if signature else ()
    except (armour.BadArmour, MalformedPackets):
        return  # a signature that cannot be read carries no key


def _examine_one(found: Found, wanted: _Wanted) -> Finding:
    if isinstance(found, Certificate):
        return _examine_certificate(found, wanted)
    course = _Course(label=wanted.label or found.fingerprint)
    which = f"Key {found.fingerprint}" if found.fingerprint else "The key"
    if isinstance(found, Secret):
        return course.stop(GATES[0], Verdict.SECRET_KEY, f"{which} is a SECRET key. Nothing of it was kept.")
    course.ok(GATES[0])
    if isinstance(found, TooLarge):
        return course.stop(GATES[1], Verdict.KEY_TOO_LARGE, f"{which} was not read: {found.text}.")
    course.ok(GATES[1])
    return course.stop(GATES[2], Verdict.MALFORMED_KEY, f"{which} cannot be read: {found.text}.")


def _examine_certificate(certificate: Certificate, wanted: _Wanted) -> Finding:
    fingerprint = certificate.primary.fingerprint
    which = f"Key {fingerprint}"
    course = _Course(label=wanted.label or fingerprint)
    for name in GATES[:2]:
        course.ok(name)
    course.ok(GATES[2], f"{which}, {certificate.primary.name}, version {certificate.primary.version}")
    judgement = judge(certificate, wanted.now)
    bound = [one for one in judgement.bound if one.address and (not wanted.addresses or one.address.index in wanted.addresses)]
    key = _key(judgement, bound, wanted, keep=[one.packet.body for one in bound])
    if judgement.is_revoked:
        hard = "" if any(one.is_hard for one in judgement.revocations) else " (superseded or retired)"
        return course.stop(GATES[3], Verdict.KEY_REVOKED, f"{which} was revoked by its owner{hard}.", key)
    course.ok(GATES[3])
    if not bound:
        return _unbound(course, judgement, wanted, which)
    course.ok(GATES[4], "bound to " + ", ".join(address.text for address in key.addresses[:5]))
    if judgement.refusal:
        return course.stop(GATES[5], Verdict.WEAK_KEY, f"{which} is too weak: {judgement.refusal}.", key)
    encrypting = judgement.encrypting
    weaknesses = [weakness(one) for one, _ in encrypting]
    if encrypting and all(weaknesses):
        return course.stop(GATES[5], Verdict.WEAK_KEY, f"{which} is too weak to encrypt to: {weaknesses[0]}.", key)
    course.ok(GATES[5], key.algorithm)
    if not encrypting:
        return course.stop(GATES[6], Verdict.NO_ENCRYPTION_KEY, f"{which} has no part that may encrypt.", key)
    course.ok(GATES[6])
    return _in_time(course, key, wanted.now, which)


def _unbound(course: _Course, judgement: Judgement, wanted: _Wanted, which: str) -> Finding:
    """Why no user ID binds the key to the address: which one comes nearest says most."""
    near = [
        one for one in judgement.user_ids if one.address and (not wanted.addresses or one.address.index in wanted.addresses)
    ]
    if any(one.is_weak for one in near if not one.binding):
        return course.stop(
            GATES[4], Verdict.WEAK_KEY, f"{which} names the address only under a signature with MD5, SHA-1 or RIPEMD-160."
        )
    if any(one.is_revoked for one in near):
        detail = f"{which}: its owner revoked the user ID that names the address."
    elif near and not judgement.primary.is_known:
        detail = f"{which}: signatures of its algorithm ({judgement.primary.name}) cannot be checked here."
    elif near:
        detail = f"{which}: the user ID that names the address carries no good signature of the key itself."
    elif any(one.address for one in judgement.user_ids):
        detail = f"{which} names other addresses only."
    else:
        detail = f"{which} names no mail address."
    return course.stop(GATES[4], Verdict.ADDRESS_MISMATCH, detail)


def _in_time(course: _Course, key: Key, now: int, which: str) -> Finding:
    if key.not_before is not None and seconds(key.not_before) > now:
        return course.stop(GATES[7], Verdict.NOT_YET_VALID, f"{which} is valid only from {_day(key.not_before)} on.", key)
    if key.not_after is not None and seconds(key.not_after) < now:
        return course.stop(GATES[7], Verdict.KEY_EXPIRED, f"{which} has expired on {_day(key.not_after)}.", key)
    course.ok(GATES[7], f"until {_day(key.not_after)}" if key.not_after else "does not expire")
    return course.end(key, f"{which}, {key.algorithm}")


def _day(instant: datetime) -> str:
    return instant.strftime("%Y-%m-%d %H:%M:%S UTC")


def _key(judgement: Judgement, bound: Sequence[Judged], wanted: _Wanted, keep: Sequence[bytes]) -> Key:
    usable = [(key, window) for key, window in judgement.encrypting if not weakness(key)]
    ids = _any_of([one.window for one in bound], wanted.now) if bound else Window(0, FOR_EVER)
    window = _any_of([window & ids for _, window in usable], wanted.now) if usable else judgement.window & ids
    primary = judgement.primary
    best = max(usable, key=lambda one: (one[1].holds(wanted.now), one[1].end, one[0].fingerprint), default=None)
    names = [primary.name, *([best[0].name] if best and best[0].name != primary.name else [])]
    defect = Defect.REVOKED if judgement.is_revoked else (None if usable else Defect.NO_ENCRYPTION_KEY)
    return Key(
        protocol=Protocol.OPENPGP,
        fingerprint=Fingerprint(primary.fingerprint),
        material=minimal(judgement, keep),
        addresses=join_addresses((), (one.address for one in bound if one.address)),
        names=tuple(sorted({name_of(one.packet.body) for one in bound})),
        trust=Trust.BOUND,
        not_before=moment(window.start),
        # An OpenPGP key ends before its expiry, a Key's window with its last instant (RFC 9580 section 5.2.3.13).
        not_after=None if window.end >= FOR_EVER else moment(window.end - 1),
        defect=defect,
        evidence_at=wanted.evidence_at,
        prefer_encrypt=wanted.prefer_encrypt,
        algorithm="/".join(names),
    )


def _any_of(windows: Sequence[Window], now: int) -> Window:
    """One window out of several: the stretch without gaps that holds `now`; else the next to come; else the last that ended.

    An impossible one (it would end before it begins) is over: it says when it would have ended.
    """
    current = [one for one in windows if one.holds(now)]
    if not current:
        coming = [one for one in windows if one.start > now and not one.is_empty]
        if coming:
            return min(coming, key=lambda one: (one.start, -one.end))
        last = max(windows, key=lambda one: (one.end, one.start))
        return Window(min(last.start, last.end), last.end)
    start, end = min(one.start for one in current), max(one.end for one in current)
    for one in sorted(windows, key=lambda one: one.start):
        if one.start <= end:
            end = max(end, one.end)
    return Window(start, end)
