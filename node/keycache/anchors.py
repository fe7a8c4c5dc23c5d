"""Certificates and revocation lists from the files and folders of the configuration, as DER."""

from __future__ import annotations

import base64
import re
import warnings as warnings_of_parsers
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.utils import CryptographyDeprecationWarning

from keycache.domain.errors import ConfigError

SUFFIXES = frozenset({".pem", ".crt", ".cer", ".der", ".crl"})
"""What counts in a folder; a file that is named itself counts whatever its name."""

_PEM = re.compile(rb"-----BEGIN (CERTIFICATE|TRUSTED CERTIFICATE|X509 CERTIFICATE|X509 CRL)-----.*?-----END \1-----", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """`warnings`: what could not be read, as sentences; everything else is in `der`, each once, in the order of the paths."""

    der: tuple[bytes, ...]
    warnings: tuple[str, ...]


def load_certificates(paths: Iterable[Path]) -> Loaded:
    """Roots. Raises ConfigError when a named file holds no certificate at all; one bad certificate in a bundle is a warning."""
    return _load(paths, "certificate", lambda der: x509.load_der_x509_certificate(der).public_bytes(Encoding.DER))


def load_crls(paths: Iterable[Path]) -> Loaded:
    """Revocation lists. Raises ConfigError as above."""
    return _load(paths, "revocation list", lambda der: x509.load_der_x509_crl(der).public_bytes(Encoding.DER))


def _load(paths: Iterable[Path], what: str, parse: Callable[[bytes], bytes]) -> Loaded:
    found: dict[bytes, None] = {}
    warnings: list[str] = []
    for path in paths:
        before = len(found)
        for file in _files(path):
            for der in _blocks(file):
                try:
                    with warnings_of_parsers.catch_warnings():
                        # Public bundles hold old roots with odd serial numbers; they are judged when a path ends in them.
                        warnings_of_parsers.simplefilter("ignore", CryptographyDeprecationWarning)
                        found[parse(der)] = None
                except ValueError as error:
                    warnings.append(f"A {what} in {file} cannot be read and was passed over: {error}.")
        if len(found) == before and path.is_file():
            raise ConfigError(f"{path} holds no {what} that can be read.", hint="It must be PEM or DER. Correct [trust].")
    return Loaded(der=tuple(found), warnings=tuple(warnings))


def _files(path: Path) -> Iterator[Path]:
    if path.is_dir():
        yield from sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES and file.is_file())
    elif path.is_file():
        yield path


def _blocks(file: Path) -> Iterator[bytes]:
    try:
        content = file.read_bytes()
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}.", hint="Check its owner and mode.") from error
    if b"-----BEGIN " not in content:
        yield content
        return
    for block in _PEM.finditer(content):
        yield _der(block[0])


def _der(pem: bytes) -> bytes:
    body = b"".join(line for line in pem.splitlines() if line and not line.startswith(b"-----") and b":" not in line)
    try:
        return base64.b64decode(body, validate=True)
    except ValueError:
        return b""
