"""Text forms of keys, judged by other programs' readers."""

import base64
import ssl

import pytest
from pysequoia import Cert

from keycache.cli.armour import armoured, pem
from support import openpgp


@pytest.mark.parametrize("size", [1, 47, 48, 49, 1000])
def test_pem_is_what_openssl_writes(size: int) -> None:
    der = (bytes(range(256)) * 4)[:size]
    assert pem(der) == ssl.DER_cert_to_PEM_cert(der)


def test_armour_is_read_by_sequoia() -> None:
    maker = openpgp.Maker("armour")
    assert Cert.from_bytes(armoured(maker.primary).encode()).fingerprint == maker.fingerprint


def test_armour_carries_the_checksum_of_the_rfc_s_example() -> None:
    """RFC 4880 section 6.6, of which only data and checksum are taken."""
    data = base64.b64decode("yDgBO22WxBHv7O8X7O/jygAEzol56iUKiXmV+XmpCtmpqQUKiQrFqclFqUDBovzSvBSFjNSiVHsuAA==")
    assert armoured(data).split("\n")[2:5] == [
        "yDgBO22WxBHv7O8X7O/jygAEzol56iUKiXmV+XmpCtmpqQUKiQrFqclFqUDBovzS",
        "vBSFjNSiVHsuAA==",
        "=njUN",
    ]
