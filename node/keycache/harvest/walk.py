"""Goes through a message's parts and lets each be examined that may hold keys of the sender.

Rules:
- What lies inside a forwarded message (message/rfc822) is not the sender's, and is named but not parsed.
- A signed part counts wherever it stands outside of those: a mailing list's footer makes the signed mail one part of several, and
  the signature over that part proves as much as before, since the key is bound to From by the certificate, not by its place.
- A signature is verified over the exact bytes, lines ended by CRLF; if that fails, over the bytes as they are stored, since some
  programs sign binary content without canonicalising it.
- Opaque layers are opened one after another (triple wrapping, RFC 2634), each judged by itself.
- Encrypted parts are noted, not entered.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from datetime import datetime

from keycache.domain.entry import Protocol
from keycache.domain.examination import Finding
from keycache.domain.names import EmailAddress
from keycache.domain.verdict import Verdict
from keycache.harvest import openpgp, smime
from keycache.harvest.budget import Budget, BudgetExceeded
from keycache.harvest.collect import Collection
from keycache.harvest.kinds import Kind, is_pgp_protocol, is_smime_protocol, kind_of, protocol_of
from keycache.harvest.material import certificates, holds_secret
from keycache.harvest.mime import Part, SplitMessage, canonical, split
from keycache.harvest.paths import PathJudge

_PUBLIC_BLOCK = b"-----BEGIN PGP PUBLIC KEY BLOCK-----"
_PRIVATE_BLOCK = b"-----BEGIN PGP PRIVATE KEY BLOCK-----"
_ENCRYPTED_TEXT = b"-----BEGIN PGP MESSAGE-----"
_FOUND_IN_FORWARDED = "It lies in a forwarded message, so it is not the sender's by any proof."


@dataclass(slots=True, kw_only=True)
class Walk:
    """One message's way. `date`: when it was written, as far as that can be believed. Raises BudgetExceeded from `run`."""

    sender: EmailAddress
    date: datetime
    now: datetime
    judge: PathJudge
    budget: Budget
    found: Collection
    chain: dict[bytes, None] = field(default_factory=dict)
    is_encrypted: bool = False
    _layers: deque[bytes] = field(default_factory=deque)
    _parts: int = 0
    _signatures: int = 0
    _key_blocks: int = 0
    _opened: int = 0

    def run(self, message: SplitMessage) -> None:
        self._enter(message)
        while self._layers:
            self._enter(split(self._layers.popleft(), self.budget))

    def _enter(self, message: SplitMessage) -> None:
        self._parts += len(message.parts)
        if self._parts > self.budget.parts:
            raise BudgetExceeded(f"The mail has more than {self.budget.parts:,} parts in all its layers.")
        done: set[int] = set()  # parts that were dealt with as part of another
        closed: set[int] = set()  # encrypted parts and everything inside them
        for part in message.parts:
            if part.parent in closed or (kind_of(part) is Kind.ENCRYPTED and not part.foreign):
                closed.add(part.index)
                self.is_encrypted = True
            elif part.index not in done:
                self._look_at(message, part, done)

    def _look_at(self, message: SplitMessage, part: Part, done: set[int]) -> None:
        kind = kind_of(part)
        if kind is Kind.NOTHING:
            return
        if part.foreign:
            self._name_foreign(message, part, kind)
            return
        match kind:
            case Kind.SIGNED:
                self._signed(message, part, done)
            case Kind.CMS:
                self._cms(message.content(part), part)
            case Kind.CMS_SIGNATURE:
                # Apart from its content: whoever took the mail to pieces broke the proof.
                self._cms(message.content(part), part)
            case Kind.CERTIFICATES:
                self._unsigned_certificates(message.content(part), part)
            case Kind.PGP_KEYS:
                self._pgp_keys(message.content(part), _name(part))
            case Kind.PGP_SIGNATURE:
                self._pgp_signature(message.content(part))
            case Kind.TEXT:
                self._text(message.content(part), _name(part))

    def _signed(self, message: SplitMessage, part: Part, done: set[int]) -> None:
        """RFC 1847 section 2.1: the first part is signed, the second is the signature, whose type tells where `protocol` does not."""
        children = [message.parts[index] for index in part.children]
        protocol = part.type.parameters.get("protocol", "")
        signature = children[1] if len(children) > 1 else None
        kind = Kind.NOTHING if signature is None else kind_of(signature)
        if kind is Kind.CMS_SIGNATURE or (is_smime_protocol(protocol) and kind is not Kind.PGP_SIGNATURE):
            if signature is None:
                detail = "The signature is missing; the mail was cut off or taken to pieces."
                self._report(Verdict.SIGNATURE_INVALID, detail, label="S/MIME signature")
                return
            done.add(signature.index)
            self._detached(message.raw(children[0]), message.content(signature))
        elif signature is not None and (kind is Kind.PGP_SIGNATURE or is_pgp_protocol(protocol)):
            done.add(signature.index)
            self._pgp_signature(message.content(signature))

    def _detached(self, content: bytes, signature: bytes) -> None:
        canonical_content = canonical(content)
        result = self._verify(signature, canonical_content)
        if canonical_content != content and any(one.verdict is Verdict.SIGNATURE_INVALID for one in result.findings):
            exact = self._verify(signature, content)
            if not any(one.verdict is Verdict.SIGNATURE_INVALID for one in exact.findings):
                result = exact
        self._take(result)

    def _cms(self, blob: bytes, part: Part) -> None:
        result = self._verify(blob, None)
        if result.kind is smime.CmsKind.ENVELOPED:
            self.is_encrypted = True
        elif result.kind is smime.CmsKind.CERTS_ONLY:
            self._unsigned_certificates(blob, part)
        elif result.kind is smime.CmsKind.SIGNED and result.content:
            self._opened += 1
            if self._opened > self.budget.layers:
                raise BudgetExceeded(f"The mail has more than {self.budget.layers} signed layers within each other.")
            self._layers.append(result.content)
        self._take(result)

    def _verify(self, signature: bytes, content: bytes | None) -> smime.SmimeResult:
        self._signatures += 1
        if self._signatures > self.budget.signatures:
            raise BudgetExceeded(f"The mail has more than {self.budget.signatures} signatures.")
        return smime.examine_signature(signature, content, self.sender, self.judge, self.now)

    def _take(self, result: smime.SmimeResult) -> None:
        self.found.add(result.findings)
        self.chain.update(dict.fromkeys(result.chain))

    def _unsigned_certificates(self, blob: bytes, part: Part) -> None:
        """RFC 8551 section 3.8: nothing proves whose they are or that the sender meant them."""
        if holds_secret(blob):
            self._report(
                Verdict.SECRET_KEY, f"A private key in {_quoted(_name(part))}. Nothing of it was kept.", label=_name(part)
            )
        count = len(certificates(blob))
        if count:
            what = "One certificate" if count == 1 else f"{count} certificates"
            name = _name(part)
            self._report(Verdict.UNSIGNED_CERTIFICATES, f"{what} in {_quoted(name)}, without a signature.", label=name)

    def _pgp_keys(self, blob: bytes, label: str) -> None:
        self._count_block()
        self.found.add(openpgp.examine_keys(blob, self.sender, self.now, evidence_at=self.date, label=label))

    def _pgp_signature(self, blob: bytes) -> None:
        self._count_block()
        self.found.add(openpgp.keys_in_signature(blob, self.sender, self.now, evidence_at=self.date))

    def _text(self, text: bytes, label: str) -> None:
        if _PUBLIC_BLOCK in text or _PRIVATE_BLOCK in text:
            for block in openpgp.find_armoured_blocks(text):
                self._pgp_keys(block, label)
        if text.startswith(_ENCRYPTED_TEXT) or b"\n" + _ENCRYPTED_TEXT in text:
            self.is_encrypted = True

    def _count_block(self) -> None:
        self._key_blocks += 1
        if self._key_blocks > self.budget.key_blocks:
            raise BudgetExceeded(f"The mail has more than {self.budget.key_blocks} OpenPGP key blocks.")

    def _name_foreign(self, message: SplitMessage, part: Part, kind: Kind) -> None:
        if kind in {Kind.SIGNED, Kind.ENCRYPTED, Kind.PGP_SIGNATURE}:
            return  # the signature beside it is named; an encrypted part shows no key
        if kind is Kind.TEXT and _PUBLIC_BLOCK not in message.content(part):
            return
        self._report(Verdict.NOT_FROM_SENDER, _FOUND_IN_FORWARDED, label=_name(part), protocol=protocol_of(kind))

    def _report(self, verdict: Verdict, detail: str, *, label: str = "", protocol: Protocol = Protocol.SMIME) -> None:
        self.found.add((Finding(protocol=protocol, key=None, verdict=verdict, detail=detail, label=label[:200]),))


def _name(part: Part) -> str:
    """What to call a part before people."""
    return part.filename or part.type.type


def _quoted(name: str) -> str:
    return repr(name[:80])
