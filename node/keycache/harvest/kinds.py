"""What a part of a mail may hold that concerns keys, by its type and its file name."""

from __future__ import annotations

from enum import Enum

from keycache.domain.entry import Protocol
from keycache.harvest.mime import Part


class Kind(Enum):
    """What to do with a part. NOTHING: its content is not looked at."""

    NOTHING = "NOTHING"
    SIGNED = "SIGNED"
    ENCRYPTED = "ENCRYPTED"
    CMS = "CMS"
    CMS_SIGNATURE = "CMS_SIGNATURE"
    CERTIFICATES = "CERTIFICATES"
    PGP_KEYS = "PGP_KEYS"
    PGP_SIGNATURE = "PGP_SIGNATURE"
    TEXT = "TEXT"


# RFC 8551 section 3.2.1 with appendix C (the x- types), RFC 3156 sections 4, 5 and 7, RFC 2585 section 4, RFC 1847.
_BY_TYPE = {
    "multipart/signed": Kind.SIGNED,
    "multipart/encrypted": Kind.ENCRYPTED,
    "application/pkcs7-mime": Kind.CMS,
    "application/x-pkcs7-mime": Kind.CMS,
    "application/pkcs7-signature": Kind.CMS_SIGNATURE,
    "application/x-pkcs7-signature": Kind.CMS_SIGNATURE,
    "application/pkix-cert": Kind.CERTIFICATES,
    "application/x-x509-user-cert": Kind.CERTIFICATES,
    "application/x-x509-email-cert": Kind.CERTIFICATES,
    "application/x-x509-ca-cert": Kind.CERTIFICATES,
    "application/x-pkcs7-certificates": Kind.CERTIFICATES,
    "application/x-pem-file": Kind.CERTIFICATES,
    "application/pgp-keys": Kind.PGP_KEYS,
    "application/pgp-signature": Kind.PGP_SIGNATURE,
    "application/pgp-encrypted": Kind.ENCRYPTED,
    "application/pgp": Kind.TEXT,
}

# For application/octet-stream and other types that say nothing (RFC 8551 section 3.2.1: receivers should go by the name then).
_BY_SUFFIX = {
    "p7m": Kind.CMS,
    "p7z": Kind.CMS,
    "p7s": Kind.CMS_SIGNATURE,
    "p7c": Kind.CERTIFICATES,
    "p7b": Kind.CERTIFICATES,
    "cer": Kind.CERTIFICATES,
    "crt": Kind.CERTIFICATES,
    "der": Kind.CERTIFICATES,
    "pem": Kind.CERTIFICATES,
    "asc": Kind.TEXT,
    "gpg": Kind.PGP_KEYS,
    "pgp": Kind.PGP_KEYS,
    "sig": Kind.NOTHING,
}
_VAGUE = frozenset({"application/octet-stream", "application/x-octet-stream", "application/binary", "application/unknown"})

_CMS = frozenset({Kind.CMS, Kind.CMS_SIGNATURE, Kind.CERTIFICATES})


def kind_of(part: Part) -> Kind:
    """HTML is left out: a key block in it is the text part's again, or pasted and broken by tags."""
    kind = _BY_TYPE.get(part.type.type)
    if kind is not None:
        return kind
    suffix = part.filename.rpartition(".")[2].strip().lower()
    if part.type.type in _VAGUE:
        return _BY_SUFFIX.get(suffix, Kind.NOTHING)
    if part.type.type.startswith("text/") and part.type.type != "text/html":
        return Kind.TEXT
    return Kind.NOTHING


def protocol_of(kind: Kind) -> Protocol:
    return Protocol.SMIME if kind in _CMS else Protocol.OPENPGP


def is_smime_protocol(protocol: str) -> bool:
    """Of multipart/signed's `protocol` parameter."""
    return protocol.strip().lower() in {"application/pkcs7-signature", "application/x-pkcs7-signature"}


def is_pgp_protocol(protocol: str) -> bool:
    return protocol.strip().lower() == "application/pgp-signature"
