"""Certificates without a signature: files that an administrator imports, and what a mail processor found elsewhere.

PEM with any number of blocks, one DER certificate, or a PKCS #7 bag (.p7b, .p7c) in DER, BER or base64.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from keycache.domain.examination import Finding
from keycache.domain.names import EmailAddress
from keycache.domain.verdict import Verdict
from keycache.harvest.cms import SmimeLimits, read_cms
from keycache.harvest.paths import PathJudge
from keycache.harvest.smime_asn1 import INTEGER, OID, Unacceptable, malformed, parse
from keycache.harvest.smime_gates import CERTIFICATE_GATES, GateLog, assess, nameless
from keycache.harvest.x509 import Certificate, read_certificate

FILE_CERTIFICATES = 1_000
"""Certificates in one file: a second or two to judge. A directory's export can be split."""
AUTHORITIES = 64
"""Authorities of one file that help to build paths; as many as one signature may bring (`SmimeLimits`)."""
_BAG_LIMITS = SmimeLimits(certificates=FILE_CERTIFICATES)
_PRIVATE_BLOCK = re.compile(rb"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY-----")
_PEM = re.compile(rb"-----BEGIN ([A-Z0-9 #]{1,40})-----([^-]*)-----END \1-----")
_CERTIFICATE_LABELS = frozenset({b"CERTIFICATE", b"X509 CERTIFICATE", b"TRUSTED CERTIFICATE"})
_BAG_LABELS = frozenset({b"PKCS7", b"PKCS #7 SIGNED DATA", b"CMS"})
_PRIVATE = "A private key does not belong here; it was not stored. Whoever could read this file has it: consider it lost."
_BASE64 = re.compile(rb"[A-Za-z0-9+/=\s]+")


@dataclass(slots=True)
class _Material:
    """`ders`: as they stand in the blob, each once. `problems`: what is not a certificate, in sentences."""

    ders: dict[bytes, None] = field(default_factory=dict)
    problems: list[Unacceptable] = field(default_factory=list)

    def add(self, der: bytes) -> None:
        if len(self.ders) >= FILE_CERTIFICATES:
            raise Unacceptable(Verdict.TOO_COMPLEX, f"The file holds more than {FILE_CERTIFICATES} certificates; split it.")
        self.ders[der] = None


def read_certificates(blob: bytes, addresses: Sequence[EmailAddress], judge: PathJudge, now: datetime) -> tuple[Finding, ...]:
    """One finding for each certificate of a person in `blob`; with `addresses`, only those that name one of them are accepted.

    Authorities in it serve to build paths, and are reported only where nothing else is there. Never raises for what the blob
    holds; without anything readable there is one finding that says so.
    """
    material = _Material()
    try:
        _collect(blob, material)
    except Unacceptable as error:
        material.problems.append(error)
    certificates: list[Certificate] = []
    findings: list[Finding] = []
    for der in material.ders:
        try:
            certificates.append(read_certificate(der))
        except Unacceptable as error:
            findings.append(_problem(error, hashlib.sha256(der).hexdigest()))
    people = [one for one in certificates if one.addresses or not one.is_ca] or certificates
    helpers = tuple(one.der for one in certificates if one.is_ca or one.is_v1)[:AUTHORITIES]
    findings.extend(assess(one, helpers, addresses, judge, now).finding(()) for one in people)
    findings.extend(_problem(error, "certificate file") for error in material.problems)
    return tuple(findings) or (_problem(malformed("it holds no certificate"), "certificate file"),)


def _problem(error: Unacceptable, label: str) -> Finding:
    return nameless(error.verdict, error.text, label, GateLog(CERTIFICATE_GATES).all())


def _collect(blob: bytes, material: _Material) -> None:
    """Raises Unacceptable where the blob as a whole is none of the known formats, or holds too much."""
    if b"-----BEGIN " in blob:
        if _PRIVATE_BLOCK.search(blob):
            material.problems.append(Unacceptable(Verdict.SECRET_KEY, _PRIVATE))
        for label, der in _pem_blocks(blob, material):
            if label in _CERTIFICATE_LABELS:
                material.add(parse(der, _BAG_LIMITS.asn1).raw)
            else:
                _collect_bag(der, material)
        return
    if _BASE64.fullmatch(blob):
        blob = _decoded(blob)
    _collect_der(blob, material)


def _pem_blocks(blob: bytes, material: _Material) -> Iterator[tuple[bytes, bytes]]:
    """Label and contents of each block (RFC 7468); headers before the base64 are skipped (RFC 1421 had them)."""
    for match in _PEM.finditer(blob):
        label, body = match.groups()
        if label not in _CERTIFICATE_LABELS | _BAG_LABELS:
            continue
        try:
            yield label, _decoded(body.rpartition(b"\n\n")[2] if b":" in body else body)
        except Unacceptable as error:
            material.problems.append(error)


def _decoded(text: bytes) -> bytes:
    try:
        return base64.b64decode(b"".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise malformed("its base64 is broken") from error


def _collect_der(blob: bytes, material: _Material) -> None:
    first = next(iter(parse(blob, _BAG_LIMITS.asn1).children), None)
    if first is not None and first.tag == OID:
        _collect_bag(blob, material)
    elif first is not None and first.tag == INTEGER:  # PKCS #12 (RFC 7292) and private keys begin with a version
        raise Unacceptable(Verdict.SECRET_KEY, _PRIVATE)
    else:
        material.add(parse(blob, _BAG_LIMITS.asn1).raw)


def _collect_bag(blob: bytes, material: _Material) -> None:
    for der in read_cms(blob, _BAG_LIMITS).certificates:
        material.add(der)
