"""Text forms of keys: PEM for certificates (RFC 7468 section 5), ASCII armour for OpenPGP (RFC 9580 section 6)."""

from __future__ import annotations

import base64

_CRC24_INIT = 0xB704CE
_CRC24_POLY = 0x1864CFB
# RFC 9580 section 6.1.1. The checksum is optional there, but readers of RFC 4880 want it.


def pem(der: bytes) -> str:
    return f"-----BEGIN CERTIFICATE-----\n{_wrapped(der)}-----END CERTIFICATE-----\n"


def armoured(key: bytes) -> str:
    checksum = base64.b64encode(_crc24(key).to_bytes(3, "big")).decode("ascii")
    return f"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n{_wrapped(key)}={checksum}\n-----END PGP PUBLIC KEY BLOCK-----\n"


def _wrapped(data: bytes) -> str:
    text = base64.b64encode(data).decode("ascii")
    return "".join(f"{text[start : start + 64]}\n" for start in range(0, len(text), 64))


def _crc24(data: bytes) -> int:
    crc = _CRC24_INIT
    for octet in data:
        crc ^= octet << 16
        for _ in range(8):
            crc <<= 1
            if crc & 0x1000000:
                crc ^= _CRC24_POLY
    return crc
