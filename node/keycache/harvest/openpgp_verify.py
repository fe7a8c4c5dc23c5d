"""Asks Sequoia whether signatures are good, without a clock.

Sequoia judges whole certificates at the system's present and takes no time from its caller. One question it answers without a
clock: "did the owner make this signature on this component?" Reading a certificate it verifies every self-signature, leaves the
good ones at their component and moves the others behind the last one. So we lay before it a certificate of just what is in
question, with a sentinel as last component: what still stands at its place is good.

The usual key, all of whose signatures are good, takes one such reading; where something is amiss each signature gets its own.
"""

from __future__ import annotations

from collections.abc import Sequence

from pysequoia import Cert

from keycache.harvest.openpgp_packets import Packet, Signature, Tag, spans

_SENTINEL = Packet(Tag.PUBLIC_SUBKEY, b"\xff\x00\x00\x00\x00\x01")
"""A subkey of no known version: Sequoia keeps it, behind all known components and before all bad signatures."""

_TOGETHER_LIMIT = 24
"""Signatures read in one go. Beyond, a bad one makes Sequoia try each signature on each component."""

Claim = tuple[Packet | None, Signature]
"""That the primary key made this signature on this component; None: on itself."""


class Verifier:
    """Verifies signatures of one primary key; remembers what it found."""

    def __init__(self, primary: Packet) -> None:
        self._primary = primary
        self._known: dict[tuple[Packet | None, bytes], bool] = {}
        self._cert: Cert | None = None

    def expect(self, claims: Sequence[Claim]) -> None:
        """Verify these together, as a preparation: if all are good, `is_good` answers from memory.

        In the order of a certificate: signatures on the key itself, then user IDs, then subkeys.
        """
        if 0 < len(claims) <= _TOGETHER_LIMIT:
            cert = _read(self._primary, claims)
            if cert is not None:
                self._cert = cert
                self._known.update(((component, signature.packet.body), True) for component, signature in claims)

    def is_good(self, component: Packet | None, signature: Signature) -> bool:
        key = (component, signature.packet.body)
        if key not in self._known:
            cert = _read(self._primary, [(component, signature)])
            self._known[key] = cert is not None
            if self._cert is None:
                self._cert = cert
        return self._known[key]

    def refusal(self) -> str:
        """Why Sequoia's policy takes the primary key for too weak; empty if it does not.

        Only a positive word on strength counts. Its other complaints ("no binding signature at time ...") depend on the system's
        clock, and what they are about is judged by our own time.
        """
        if self._cert is None:
            return ""
        try:
            _ = self._cert.user_ids
        except Exception as error:  # noqa: BLE001 -- a foreign library on hostile input; whatever it says is its answer
            lines = [line.strip() for line in str(error).split("Stack backtrace:")[0].splitlines()]
            return next((line for line in lines if "not considered secure" in line), "")
        return ""


def _read(primary: Packet, claims: Sequence[Claim]) -> Cert | None:
    """The certificate of these claims if all of them hold, else None."""
    parts: list[tuple[Packet, Signature | None]] = [(primary, None)]
    place: Packet | None = None
    for component, claimed in claims:
        if component is not place and component is not None:
            parts.append((component, None))
        place = component
        parts.append((claimed.packet, claimed))
    parts.append((_SENTINEL, None))
    try:
        cert = Cert.from_bytes(b"".join(packet.encode() for packet, _ in parts))
        data = bytes(cert)
        found = list(spans(data))
    except Exception:  # noqa: BLE001 -- a foreign library on hostile input; what it cannot read it does not vouch for
        return None
    if len(found) != len(parts):
        return None
    for (packet, signature), span in zip(parts, found, strict=True):
        body = data[span.body : span.end]
        # Of a signature the signed part and the value must be the same; Sequoia may add to the rest.
        same = (
            body == packet.body if signature is None else body.startswith(signature.signed) and body.endswith(signature.value)
        )
        if span.tag != packet.tag or not same:
            return None
    return cert
