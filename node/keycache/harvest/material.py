"""Files of keys: PEM, DER, PKCS#7, armoured or binary OpenPGP keys and keyrings. Secret keys are named, never read."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import islice

from keycache.domain.entry import Protocol
from keycache.domain.examination import Finding
from keycache.domain.names import EmailAddress
from keycache.domain.verdict import Verdict
from keycache.harvest import openpgp, smime
from keycache.harvest.cms import read_cms
from keycache.harvest.fields import decode_base64
from keycache.harvest.paths import PathJudge
from keycache.harvest.smime_asn1 import Unacceptable
from keycache.harvest.x509 import read_certificate

OBJECTS_LIMIT = 1_000
"""Certificates told of one file, as many as `smime_material` judges of one."""

KEYS_LIMIT = 10_000
"""OpenPGP keys read of one file: some milliseconds and two kilobytes of answer each. Larger keyrings are to be split."""

# RFC 7468 and the older labels that programs still write; OpenPGP's armour is not among them.
_PEM = re.compile(rb"-----BEGIN ((?!PGP )[A-Z0-9][A-Z0-9 #]{0,40})-----")
_CERTIFICATES = frozenset(
    {
        b"CERTIFICATE",
        b"X509 CERTIFICATE",
        b"TRUSTED CERTIFICATE",
        b"PKCS7",
        b"PKCS #7 SIGNED DATA",
        b"CMS",
        b"CERTIFICATE CHAIN",
    }
)
_PGP = re.compile(rb"^-----BEGIN PGP (PUBLIC|PRIVATE) KEY BLOCK-----", re.MULTILINE)
_BARE_BASE64 = re.compile(rb"MI[A-Za-z0-9+/=\s]+")

_KEYRING_LIMITS = replace(openpgp.IMPORT_LIMITS, keys=KEYS_LIMIT)
_BAG_LIMITS = smime.SmimeLimits(certificates=OBJECTS_LIMIT)
_INTEGER, _OCTET_STRING, _OID, _SEQUENCE = 0x02, 0x04, 0x06, 0x30
_SECRET = "The file holds a SECRET key. Nothing of it was kept."  # noqa: S105 -- a sentence


def read_material(blob: bytes, addresses: Sequence[EmailAddress], judge: PathJudge, now: datetime) -> tuple[Finding, ...]:
    """One finding per key, at least one. `addresses` as in `domain.ports.Examiner.read_material`."""
    findings: list[Finding] = []
    is_pgp = blob[:1] >= b"\x80" or _PGP.search(blob) is not None
    if is_pgp:
        findings += openpgp.examine_keys(blob, None, now, addresses=addresses, limits=None if addresses else _KEYRING_LIMITS)
    if _is_bare_secret(blob):
        findings.append(Finding(protocol=Protocol.SMIME, key=None, verdict=Verdict.SECRET_KEY, detail=_SECRET))
    elif not is_pgp or _PEM.search(blob):
        findings += smime.read_certificates(blob, addresses, judge, now)
    return tuple(findings)


def holds_secret(blob: bytes) -> bool:
    """Whether it is, or has in it, a private key in PEM or DER, or a PKCS#12 file. (OpenPGP's are told by their reader.)"""
    return _is_bare_secret(blob) or any(label.endswith(b"PRIVATE KEY") for label in _PEM.findall(blob))


def certificates(blob: bytes) -> tuple[bytes, ...]:
    """DER of every X.509 certificate in PEM, DER or PKCS#7, each once, unjudged; what cannot be read is left out."""
    found: dict[bytes, None] = {}
    for der in islice(_objects(blob), OBJECTS_LIMIT):
        for certificate in _bundled(der):
            if len(found) >= OBJECTS_LIMIT:
                break
            try:
                read_certificate(certificate)
            except Unacceptable:
                continue
            found[certificate] = None
    return tuple(found)


def _bundled(der: bytes) -> tuple[bytes, ...]:
    """The certificates of a PKCS#7 bundle; else the object itself, to be tried as one."""
    if _tag_at(der, _content_start(der)) != _OID:
        return (der,)
    try:
        return read_cms(der, _BAG_LIMITS).certificates
    except Unacceptable:
        return ()


def _objects(blob: bytes) -> Iterator[bytes]:
    """The DER or BER objects in PEM blocks, in bare base64, or one after the other."""
    if blob[:1] == b"\x30":
        yield from _consecutive(blob)
    elif _BARE_BASE64.fullmatch(blob.strip()):
        yield decode_base64(blob)
    else:
        yield from _armoured(blob)


def _armoured(blob: bytes) -> Iterator[bytes]:
    position = 0
    while begin := _PEM.search(blob, position):
        label = begin[1]
        end = blob.find(b"-----END " + label + b"-----", begin.end())
        if end < 0:
            return
        position = end
        if label in _CERTIFICATES:
            yield _one(decode_base64(blob[begin.end() : end]))


def _consecutive(blob: bytes) -> Iterator[bytes]:
    """DER objects in a row; one of indefinite length (BER) is the last."""
    position = 0
    while blob[position : position + 1] == b"\x30":
        end = _object_end(blob, position)
        yield blob[position:end]
        position = end


def _one(data: bytes) -> bytes:
    """The first object: OpenSSL's TRUSTED CERTIFICATE carries its own settings behind the certificate."""
    return data[: _object_end(data, 0)]


def _is_bare_secret(der: bytes) -> bool:
    """PKCS#12, PKCS#8, PKCS#1 and SEC 1 all begin with a version number, certificates and bundles never do; an encrypted PKCS#8
    (RFC 5958 section 3) is an algorithm and an octet string."""
    if der[:1] != b"\x30":
        return False
    start = _content_start(der)
    first = _tag_at(der, start)
    if first == _INTEGER:
        return True
    return first == _SEQUENCE and _tag_at(der, _object_end(der, start)) == _OCTET_STRING


def _tag_at(data: bytes, position: int) -> int:
    return data[position] if position < len(data) else 0


def _content_start(data: bytes, position: int = 0) -> int:
    """Behind tag and length (X.690 section 8.1)."""
    length = data[position + 1] if position + 1 < len(data) else 0
    return position + 2 + (length & 0x7F if length > 0x80 else 0)


def _object_end(data: bytes, position: int) -> int:
    """Behind the object at `position`; the end of the data for one of indefinite length, or one that was cut off."""
    start = _content_start(data, position)
    length = data[position + 1] if position + 1 < len(data) else 0
    if length == 0x80:
        return len(data)
    if length > 0x80:
        length = int.from_bytes(data[position + 2 : start], "big")
    return min(start + length, len(data))
