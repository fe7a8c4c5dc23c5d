"""Whether a CMS signature was made by a certificate's key over the content (RFC 5652 5.4 to 5.6).

SHA-256, SHA-384, SHA-512 with RSA (PKCS #1 v1.5 and PSS), ECDSA, Ed25519 and Ed448 (RFC 8419). SHA-1 and MD5 are refused as
too weak (RFC 8550 section 6), whether in the digest, in the signature or in a mask.
"""

from __future__ import annotations

import hashlib

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa

from keycache.domain.verdict import Verdict
from keycache.harvest.cms import DATA, Cms, SignerInfo
from keycache.harvest.smime_asn1 import INTEGER, OID, SEQUENCE, SET, Asn1Limits, Element, Unacceptable, parse
from keycache.harvest.x509 import Certificate

_SHAKE256 = "2.16.840.1.101.3.4.2.12"
_DIGESTS: dict[str, hashes.HashAlgorithm] = {
    "2.16.840.1.101.3.4.2.1": hashes.SHA256(),
    "2.16.840.1.101.3.4.2.2": hashes.SHA384(),
    "2.16.840.1.101.3.4.2.3": hashes.SHA512(),
}
_WEAK = {
    "1.2.840.113549.2.2": "MD2",
    "1.2.840.113549.2.5": "MD5",
    "1.3.14.3.2.26": "SHA-1",
    "1.2.840.113549.1.1.2": "MD2",
    "1.2.840.113549.1.1.4": "MD5",
    "1.2.840.113549.1.1.5": "SHA-1",
    "1.3.14.3.2.29": "SHA-1",
    "1.2.840.10045.4.1": "SHA-1",
    "1.2.840.10040.4.1": "DSA",
    "1.2.840.10040.4.3": "DSA with SHA-1",
    "2.16.840.1.101.3.4.3.1": "DSA",
    "2.16.840.1.101.3.4.3.2": "DSA",
}
# Signature algorithm to its digest; None: as the digest algorithm says (RFC 3370 3.2; the bare EC key OID is seen in the field).
_RSA = {
    "1.2.840.113549.1.1.1": None,
    "1.2.840.113549.1.1.11": "2.16.840.1.101.3.4.2.1",
    "1.2.840.113549.1.1.12": "2.16.840.1.101.3.4.2.2",
    "1.2.840.113549.1.1.13": "2.16.840.1.101.3.4.2.3",
}
_ECDSA = {
    "1.2.840.10045.2.1": None,
    "1.2.840.10045.4.3.2": "2.16.840.1.101.3.4.2.1",
    "1.2.840.10045.4.3.3": "2.16.840.1.101.3.4.2.2",
    "1.2.840.10045.4.3.4": "2.16.840.1.101.3.4.2.3",
}
_PSS, _MGF1 = "1.2.840.113549.1.1.10", "1.2.840.113549.1.1.8"
_ED25519, _ED448 = "1.3.101.112", "1.3.101.113"
_EDWARDS_DIGESTS = {_ED25519: "2.16.840.1.101.3.4.2.3", _ED448: _SHAKE256}  # RFC 8419 section 2.3
_LIMITS = Asn1Limits(elements=32, depth=8)


def refuse_algorithms(signer: SignerInfo) -> None:
    """Raises Unacceptable (WEAK_KEY) for algorithms that prove nothing any more."""
    for name in (signer.digest, signer.signature_algorithm):
        if name in _WEAK:
            raise Unacceptable(Verdict.WEAK_KEY, f"The signature uses {_WEAK[name]}, which can be forged today.")


def check_digest(cms: Cms, signer: SignerInfo, content: bytes) -> None:
    """The content is what was signed, as far as its digest tells (RFC 5652 5.4, 11.1, 11.2). Raises Unacceptable."""
    if signer.attributes is None:
        _check_bare(cms, content)
        return
    if signer.attributes.content_type != cms.content_type:
        raise _invalid("The signed content type is not that of the content.")
    if _digest(signer.digest, content) != signer.attributes.message_digest:
        raise _invalid("The content is not what was signed: its digest differs.")


def _check_bare(cms: Cms, content: bytes) -> None:
    """Without signed attributes the content must be plain data (RFC 5652 5.3).

    And it must not be what a set of signed attributes looks like: the signature may be of another message, over just those.
    """
    if cms.content_type != DATA:
        raise _invalid("A signature over something else than plain data must have signed attributes.")
    if content[:1] == bytes((SET,)):
        try:
            is_set = len(parse(content, Asn1Limits()).raw) == len(content)
        except Unacceptable:
            is_set = False
        if is_set:
            raise _invalid("The content is itself a set of signed attributes, taken from another message.")


def check_signature(signer: SignerInfo, content: bytes, certificate: Certificate) -> None:
    """The certificate's key made the signature. Raises Unacceptable: SIGNATURE_INVALID or WEAK_KEY."""
    messages = signer.attributes.encodings if signer.attributes is not None else (content,)
    for message in messages:
        try:
            _verify(signer, message, certificate)
        except InvalidSignature:
            continue
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise _invalid("The signature's algorithm and the signer's key do not fit.") from error
        return
    raise _invalid("The signature was not made by the key of the signer's certificate, or was altered.")


def _verify(signer: SignerInfo, message: bytes, certificate: Certificate) -> None:
    key, name = certificate.public_key, signer.signature_algorithm
    match key:
        case rsa.RSAPublicKey() if name in _RSA and certificate.key_oid != _PSS:
            key.verify(signer.signature, message, padding.PKCS1v15(), _hash(_RSA[name], signer))
        case rsa.RSAPublicKey() if name == _PSS:
            scheme, digest = _pss(signer)
            key.verify(signer.signature, message, scheme, digest)
        case ec.EllipticCurvePublicKey() if name in _ECDSA:
            key.verify(signer.signature, message, ec.ECDSA(_hash(_ECDSA[name], signer)))
        case ed25519.Ed25519PublicKey() if name == _ED25519:
            _check_edwards(signer)
            key.verify(signer.signature, message)
        case ed448.Ed448PublicKey() if name == _ED448:
            _check_edwards(signer)
            key.verify(signer.signature, message)
        case _:
            raise _invalid(f"The signature's algorithm {name} does not fit the signer's key ({certificate.algorithm}).")


def _check_edwards(signer: SignerInfo) -> None:
    if signer.attributes is not None and signer.digest != _EDWARDS_DIGESTS[signer.signature_algorithm]:
        raise _invalid("The digest algorithm is not the one that belongs to the signature's (RFC 8419).")


def _hash(own: str | None, signer: SignerInfo) -> hashes.HashAlgorithm:
    """The digest inside the signature, which must be that over the content, too (RFC 5754 section 3)."""
    if own is not None and own != signer.digest:
        raise _invalid("The digest algorithm is not the one that the signature's algorithm names.")
    return _algorithm(signer.digest)


def _algorithm(oid: str) -> hashes.HashAlgorithm:
    if oid in _WEAK:
        raise Unacceptable(Verdict.WEAK_KEY, f"The signature uses {_WEAK[oid]}, which can be forged today.")
    if oid not in _DIGESTS:
        raise _invalid(f"The digest algorithm {oid} is not known here.")
    return _DIGESTS[oid]


def _digest(oid: str, content: bytes) -> bytes:
    if oid == _SHAKE256:
        return hashlib.shake_256(content).digest(64)  # RFC 8419 section 2.3: 512 bits
    return hashlib.new(_algorithm(oid).name, content).digest()


def _pss(signer: SignerInfo) -> tuple[padding.PSS, hashes.HashAlgorithm]:
    """RSASSA-PSS-params (RFC 4055 3.1). Absent fields mean SHA-1, which is refused."""
    fields: dict[int, Element] = {}
    if signer.signature_parameters:
        sequence = parse(signer.signature_parameters, _LIMITS).expect(SEQUENCE, "the PSS parameters")
        fields = {child.tag: child for child in sequence.children}
    sha1 = "1.3.14.3.2.26"
    digest = _oid_at(fields[0xA0], 0) if 0xA0 in fields else sha1
    mask = sha1
    if 0xA1 in fields:
        generator = fields[0xA1].child(0, SEQUENCE, "the mask generation")
        if generator.child(0, OID, "the mask generation").oid("the mask generation") != _MGF1:
            raise _invalid("The mask generation of the signature is not known here.")
        mask = _oid_at(generator, 1)
    salt = int.from_bytes(fields[0xA2].child(0, INTEGER, "the salt length").contents[:4], "big") if 0xA2 in fields else 20
    scheme, chosen = padding.PSS(padding.MGF1(_algorithm(mask)), salt), _algorithm(digest)
    if digest != signer.digest:
        raise _invalid("The digest algorithm is not the one that the signature's parameters name.")
    return scheme, chosen


def _oid_at(element: Element, index: int) -> str:
    what = "an algorithm of the PSS parameters"
    return element.child(index, SEQUENCE, what).child(0, OID, what).oid(what)


def _invalid(text: str) -> Unacceptable:
    return Unacceptable(Verdict.SIGNATURE_INVALID, text)
