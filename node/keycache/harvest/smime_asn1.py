"""A bounded, iterative reader of BER and DER (X.690): bytes in, a tree of element positions out.

It runs before anything else looks at a signature, so that nesting, element count and lengths are known to be sane, and no
hostile structure can make a parser recurse or allocate. Indefinite lengths and constructed strings are understood.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from keycache.domain.errors import InvalidInput
from keycache.domain.verdict import Verdict

BOOLEAN, INTEGER, BIT_STRING, OCTET_STRING, OID = 0x01, 0x02, 0x03, 0x04, 0x06
UTF8_STRING, UTC_TIME, GENERALIZED_TIME = 0x0C, 0x17, 0x18
SEQUENCE, SET = 0x30, 0x31


class Unacceptable(InvalidInput):
    """What was sent cannot be taken; `verdict` says why. Raised and caught inside the S/MIME harvest only."""

    def __init__(self, verdict: Verdict, text: str) -> None:
        super().__init__(text)
        self.verdict = verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Asn1Limits:
    """`elements`: a streamed signature over a 25 MiB mail has 26,000 chunks of 1,000 octets, the shortest seen; fourfold.

    `depth`: a certificate inside a countersigned signature reaches 20; threefold, rounded.
    """

    elements: int = 100_000
    depth: int = 64


@dataclass(slots=True)
class Element:
    """One TLV. `tag`: the identifier octet (X.690 8.1.2), for tag numbers up to 30. Its bytes are data[start:stop].

    `body`, `end`: of its contents, without end-of-contents octets. `children`: of constructed elements.
    """

    data: bytes = field(repr=False)
    tag: int
    start: int
    body: int
    end: int = -1
    stop: int = -1
    indefinite: bool = False
    children: list[Element] = field(default_factory=list)

    @property
    def raw(self) -> bytes:
        """The element as it was sent."""
        return self.data[self.start : self.stop]

    @property
    def contents(self) -> bytes:
        return self.data[self.body : self.end]

    @property
    def constructed(self) -> bool:
        return bool(self.tag & 0x20)

    def expect(self, tag: int, what: str) -> Element:
        """Itself, if it has this tag. Raises Unacceptable."""
        if self.tag != tag:
            raise malformed(f"{what} is missing")
        return self

    def child(self, index: int, tag: int, what: str) -> Element:
        """The child at `index`, if it has this tag. Raises Unacceptable."""
        if index >= len(self.children):
            raise malformed(f"{what} is missing")
        return self.children[index].expect(tag, what)

    def octets(self) -> bytes:
        """The value of a string, whose chunks are joined if it is constructed (X.690 8.7.3)."""
        if not self.constructed:
            return self.contents
        parts: list[bytes] = []
        pending = [self]
        while pending:
            element = pending.pop()
            if element.constructed:
                pending.extend(reversed(element.children))
            elif element.tag == OCTET_STRING:
                parts.append(element.contents)
            else:
                raise malformed("a string is made of something else than strings")
        return b"".join(parts)

    def oid(self, what: str) -> str:
        """A dotted object identifier. Raises Unacceptable."""
        return dotted(self.expect(OID, what).contents)

    def is_definite(self) -> bool:
        """Whether no element in it has indefinite length, so that its bytes may be passed on as they are."""
        pending = [self]
        while pending:
            element = pending.pop()
            if element.indefinite:
                return False
            pending.extend(element.children)
        return True


def malformed(text: str) -> Unacceptable:
    return Unacceptable(Verdict.MALFORMED_KEY, f"The structure cannot be read: {text}.")


def _too_complex(text: str) -> Unacceptable:
    return Unacceptable(Verdict.TOO_COMPLEX, f"The structure is beyond the limits: {text}.")


def parse(data: bytes, limits: Asn1Limits) -> Element:
    """The first element in `data` as a tree; what follows it is ignored. Raises Unacceptable (MALFORMED_KEY, TOO_COMPLEX).

    Time and memory are linear in the number of elements, which is bounded.
    """
    root = _header(data, 0, len(data))
    if not root.constructed:
        return root
    stack = [root]
    bounds = [len(data) if root.indefinite else root.end]
    position, count = root.body, 1
    while stack:
        top, bound = stack[-1], bounds[-1]
        if top.indefinite and position + 2 <= bound and data[position] == 0 and data[position + 1] == 0:
            top.end, top.stop = position, position + 2
        elif not top.indefinite and position == top.end:
            top.stop = position
        else:
            count += 1
            if count > limits.elements:
                raise _too_complex(f"more than {limits.elements} elements")
            element = _header(data, position, bound)
            top.children.append(element)
            if element.constructed:
                stack.append(element)
                bounds.append(bound if element.indefinite else element.end)
                if len(stack) > limits.depth:
                    raise _too_complex(f"nested more than {limits.depth} deep")
                position = element.body
            else:
                position = element.stop
            continue
        stack.pop()
        bounds.pop()
        position = top.stop
    return root


def _header(data: bytes, start: int, bound: int) -> Element:
    """The element at `start` without its children; it must end by `bound`. `end` and `stop` stay open if of indefinite length."""
    if start + 2 > bound:
        raise malformed("it is cut short")
    tag, body = data[start], start + 2
    if tag & 0x1F == 0x1F:
        raise malformed("it has a tag that no signature or certificate uses")
    length = data[start + 1]
    if length == 0x80:
        if not tag & 0x20:
            raise malformed("a primitive element has no length")
        return Element(data, tag, start, body, indefinite=True)
    if length > 0x80:
        octets = length & 0x7F
        if octets > 4 or body + octets > bound:
            raise malformed("a length is out of bounds")
        length = int.from_bytes(data[body : body + octets], "big")
        body += octets
    end = body + length
    if end > bound:
        raise malformed("a length is out of bounds")
    return Element(data, tag, start, body, end, end)


def dotted(contents: bytes) -> str:
    """The object identifier whose contents octets these are (X.690 8.19). Raises Unacceptable."""
    if not contents or contents[-1] & 0x80 or len(contents) > 64:
        raise malformed("an object identifier is broken")
    arcs: list[int] = []
    value = 0
    for octet in contents:
        value = value << 7 | octet & 0x7F
        if not octet & 0x80:
            arcs.append(value)
            value = 0
    first = min(arcs[0] // 40, 2)
    return ".".join(str(arc) for arc in (first, arcs[0] - 40 * first, *arcs[1:]))


def encode(tag: int, contents: bytes) -> bytes:
    """One element in DER."""
    length = len(contents)
    if length < 0x80:
        return bytes((tag, length)) + contents
    octets = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(octets))) + octets + contents


def to_der(element: Element, tag: int | None = None) -> bytes:
    """The element in DER, under another tag if one is given: definite minimal lengths, joined strings, sorted SET OF.

    Recursion is bounded by the depth the tree was parsed with.
    """
    out_tag = element.tag if tag is None else tag
    if not element.constructed:
        return encode(out_tag, element.contents)
    if element.tag == OCTET_STRING | 0x20:
        return encode(OCTET_STRING, element.octets())
    parts = [to_der(child) for child in element.children]
    if out_tag == SET:
        parts.sort()
    return encode(out_tag, b"".join(parts))
