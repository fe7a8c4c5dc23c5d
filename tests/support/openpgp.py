"""OpenPGP keys for tests.

`Maker` writes keys packet by packet, at whatever time and however wrong a test needs them; it knows nothing of the code under
test. `Gpg` is GnuPG in a home of its own: a foreign maker, and a foreign judge of what we keep.
"""

from __future__ import annotations

import base64
import hashlib
import re
import shutil
import subprocess
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

T0 = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
"""The instant that tests call now, unless they say otherwise."""

BIRTH = T0 - timedelta(days=100)
"""When keys are made, unless a test says otherwise."""

DAY = timedelta(days=1)

_HASHES = {2: "sha1", 8: "sha256", 10: "sha512"}
_ED25519_OID = bytes.fromhex("092b06010401da470f01")
_CV25519_OID = bytes.fromhex("0a2b060104019755010501")


def instant(moment: datetime) -> bytes:
    return int(moment.timestamp()).to_bytes(4, "big")


def packet(tag: int, body: bytes) -> bytes:
    """With a header in the new format and a length of five octets."""
    return bytes((0xC0 | tag,)) + b"\xff" + len(body).to_bytes(4, "big") + body


def old_packet(tag: int, body: bytes) -> bytes:
    """With a header in the old format and a length of four octets, as gpg writes it."""
    return bytes((0x80 | tag << 2 | 2,)) + len(body).to_bytes(4, "big") + body


def subpacket(kind: int, body: bytes, *, critical: bool = False) -> bytes:
    return b"\xff" + (len(body) + 1).to_bytes(4, "big") + bytes((kind | 0x80 * critical,)) + body


def armour(data: bytes, kind: str = "PUBLIC KEY BLOCK", *, headers: str = "", crc: str = "") -> bytes:
    lines = base64.encodebytes(data).decode()
    return f"-----BEGIN PGP {kind}-----\n{headers}\n{lines}{crc}-----END PGP {kind}-----\n".encode()


def _mpi(number: bytes) -> bytes:
    number = number.lstrip(b"\x00")
    bits = len(number) * 8 - (8 - number[0].bit_length()) if number else 0
    return bits.to_bytes(2, "big") + number


class Maker:
    """One primary key and what it signs. Equal seeds give equal keys. `version`: 4 (EdDSA, ECDH) or 6 (Ed25519, X25519).

    Methods return packets; a certificate is their concatenation (RFC 9580 section 10.1).
    """

    def __init__(self, seed: str = "alice", *, version: int = 4, created: datetime = BIRTH) -> None:
        self.version = version
        self.created = created
        self._secret = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(seed.encode()).digest())
        self._seed = seed
        public = self._secret.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        self.body = self._key_body(22, 27, _ED25519_OID, public, created, kdf=b"")
        framed = self._framed(self.body)
        self.fingerprint = (hashlib.sha1(framed) if version == 4 else hashlib.sha256(framed)).hexdigest()
        self.key_id = self.fingerprint[-16:] if version == 4 else self.fingerprint[:16]
        self.primary = packet(6, self.body)
        self.secret_primary = packet(5, self.body + b"\x00" + self._secret_material())

    def _key_body(self, old: int, new: int, oid: bytes, public: bytes, created: datetime, *, kdf: bytes) -> bytes:
        if self.version == 6:
            return b"\x06" + instant(created) + bytes((new,)) + len(public).to_bytes(4, "big") + public
        return b"\x04" + instant(created) + bytes((old,)) + oid + _mpi(b"\x40" + public) + kdf

    def _secret_material(self) -> bytes:
        seed = hashlib.sha256(self._seed.encode()).digest()
        if self.version == 6:
            return seed
        number = _mpi(seed)
        return number + (sum(number) % 65536).to_bytes(2, "big")

    def secret_bytes(self) -> bytes:
        """The private number, which must turn up nowhere."""
        return hashlib.sha256(self._seed.encode()).digest()

    def subkey_body(self, name: str = "encryption", *, created: datetime | None = None) -> bytes:
        secret = X25519PrivateKey.from_private_bytes(hashlib.sha256(f"{self._seed} {name}".encode()).digest())
        public = secret.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        return self._key_body(18, 25, _CV25519_OID, public, created or self.created, kdf=b"\x03\x01\x08\x07")

    def signing_subkey_body(self, *, created: datetime | None = None) -> bytes:
        secret = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(f"{self._seed} signing".encode()).digest())
        public = secret.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        return self._key_body(22, 27, _ED25519_OID, public, created or self.created, kdf=b"")

    def _framed(self, body: bytes) -> bytes:
        if self.version == 6:
            return b"\x9b" + len(body).to_bytes(4, "big") + body
        return b"\x99" + len(body).to_bytes(2, "big") + body

    def signature(
        self,
        kind: int,
        over: bytes = b"",
        *,
        at: datetime | None = None,
        hashed: bytes = b"",
        unhashed: bytes = b"",
        hash_id: int = 8,
        issuer: str | None = None,
        on: bytes | None = None,
    ) -> bytes:
        """A signature packet over the primary key `on` (ours) and `over` (framed). `issuer`: fingerprint it claims; "" for none."""
        claimed = self.fingerprint if issuer is None else issuer
        area = subpacket(2, instant(at or self.created)) + hashed
        if claimed:
            area += subpacket(33, bytes((6 if len(claimed) == 64 else 4,)) + bytes.fromhex(claimed))
            if self.version == 4:
                unhashed = subpacket(16, bytes.fromhex(claimed[-16:])) + unhashed
        wide = 4 if self.version == 6 else 2
        algorithm = 27 if self.version == 6 else 22
        head = bytes((self.version, kind, algorithm, hash_id)) + len(area).to_bytes(wide, "big") + area
        salt = hashlib.sha256(head).digest()[:16] if self.version == 6 else b""
        trailer = bytes((self.version, 0xFF)) + len(head).to_bytes(4, "big")
        digest = hashlib.new(
            _HASHES[hash_id], salt + self._framed(self.body if on is None else on) + over + head + trailer
        ).digest()
        made = self._secret.sign(digest)
        value = made if self.version == 6 else _mpi(made[:32]) + _mpi(made[32:])
        salt = bytes((len(salt),)) + salt if self.version == 6 else b""
        return packet(2, head + len(unhashed).to_bytes(wide, "big") + unhashed + digest[:2] + salt + value)

    def user_id(self, text: str | bytes) -> bytes:
        return packet(13, text.encode() if isinstance(text, str) else text)

    def _over_user_id(self, text: str | bytes) -> bytes:
        body = text.encode() if isinstance(text, str) else text
        return b"\xb4" + len(body).to_bytes(4, "big") + body

    def certify(
        self,
        text: str | bytes,
        *,
        at: datetime | None = None,
        lives: timedelta | None = None,
        signature_lives: timedelta | None = None,
        primary: bool = False,
        flags: int | None = 0x03,
        extra: bytes = b"",
        **fields: object,
    ) -> bytes:
        """A self-signature on a user ID. `lives`: the key, counted from its creation; `signature_lives`: the signature itself."""
        hashed = self._properties(flags, lives, signature_lives) + (subpacket(25, b"\x01") if primary else b"") + extra
        return self.signature(0x13, self._over_user_id(text), at=at, hashed=hashed, **fields)  # type: ignore[arg-type]

    def _properties(self, flags: int | None, lives: timedelta | None, signature_lives: timedelta | None) -> bytes:
        parts = b"" if flags is None else subpacket(27, bytes((flags,)))
        if lives is not None:
            parts += subpacket(9, int(lives.total_seconds()).to_bytes(4, "big"))
        if signature_lives is not None:
            parts += subpacket(3, int(signature_lives.total_seconds()).to_bytes(4, "big"))
        return parts

    def direct(
        self, *, at: datetime | None = None, lives: timedelta | None = None, flags: int | None = 0x03, **fields: object
    ) -> bytes:
        return self.signature(0x1F, at=at, hashed=self._properties(flags, lives, None), **fields)  # type: ignore[arg-type]

    def bind(
        self,
        body: bytes,
        *,
        at: datetime | None = None,
        lives: timedelta | None = None,
        flags: int | None = 0x0C,
        **fields: object,
    ) -> bytes:
        """The binding of a subkey; `lives` from the subkey's creation."""
        hashed = self._properties(flags, lives, None)
        return self.signature(0x18, self._framed(body), at=at, hashed=hashed, **fields)  # type: ignore[arg-type]

    def revoke_user_id(self, text: str | bytes, *, at: datetime, **fields: object) -> bytes:
        return self.signature(0x30, self._over_user_id(text), at=at, hashed=subpacket(29, b"\x20"), **fields)  # type: ignore[arg-type]

    def revoke(self, *, at: datetime, reason: int | None = 0, **fields: object) -> bytes:
        hashed = b"" if reason is None else subpacket(29, bytes((reason,)))
        return self.signature(0x20, at=at, hashed=hashed, **fields)  # type: ignore[arg-type]

    def revoke_subkey(self, body: bytes, *, at: datetime, reason: int = 0, **fields: object) -> bytes:
        return self.signature(0x28, self._framed(body), at=at, hashed=subpacket(29, bytes((reason,))), **fields)  # type: ignore[arg-type]

    def certify_other(self, other: Maker, text: str, *, at: datetime | None = None, exportable: bool = True) -> bytes:
        """What we say of somebody else's user ID."""
        hashed = b"" if exportable else subpacket(4, b"\x00")
        return self.signature(0x10, self._over_user_id(text), at=at, hashed=hashed, on=other.body)

    def certificate(
        self,
        *user_ids: str,
        at: datetime | None = None,
        lives: timedelta | None = None,
        subkey_lives: timedelta | None = None,
        before: bytes = b"",
    ) -> bytes:
        """A usual one: each user ID self-signed, one subkey for encryption. `before`: packets right after the primary key."""
        body = self.subkey_body()
        if self.version == 6:
            before += self.direct(at=at, lives=lives)
        return (
            self.primary
            + before
            + b"".join(self.user_id(text) + self.certify(text, at=at, lives=lives) for text in user_ids)
            + packet(14, body)
            + self.bind(body, at=at, lives=subkey_lives)
        )

    def secret_certificate(self, *user_ids: str) -> bytes:
        return self.secret_primary + self.certificate(*user_ids)[len(self.primary) :]


class Gpg:
    """GnuPG with a home of its own. Use as a context manager: leaving it ends its agent and removes the home."""

    def __init__(self) -> None:
        # Not below pytest's folders: the agent's socket must fit in 108 bytes (sun_path).
        self.home = Path(tempfile.mkdtemp(prefix="kcgpg"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        subprocess.run(["gpgconf", "--homedir", str(self.home), "--kill", "all"], check=False, capture_output=True)
        shutil.rmtree(self.home, ignore_errors=True)

    @staticmethod
    def is_here() -> bool:
        return shutil.which("gpg") is not None

    def run(self, *arguments: str, data: bytes | None = None, at: datetime | None = T0, answers: str | None = None) -> bytes:
        """Standard output. Raises CalledProcessError. `at`: what gpg takes for the present; `answers`: to its questions."""
        command = ["gpg", "--homedir", str(self.home), "--no-tty", "--quiet", "--pinentry-mode", "loopback", "--passphrase", ""]
        command += ["--trust-model", "always"]
        if at is not None:
            command += ["--faked-system-time", f"{int(at.timestamp())}!"]  # "!": it stands still
        if answers is None:
            command += ["--batch", "--yes"]
        else:
            command += ["--command-fd", "0"]
            data = answers.encode()
        done = subprocess.run([*command, *arguments], input=data, capture_output=True, check=False, timeout=60)
        if done.returncode:
            raise subprocess.CalledProcessError(done.returncode, command, done.stdout, done.stderr)
        return done.stdout

    def generate(
        self,
        user_id: str,
        algorithm: str = "ed25519",
        encryption: str | None = "cv25519",
        *,
        at: datetime = BIRTH,
        expire: str = "never",
    ) -> str:
        """The fingerprint of a new key with one subkey for encryption (`encryption` None: without)."""
        self.run("--quick-generate-key", user_id, algorithm, "sign,cert", expire, at=at)
        fingerprint = self.fingerprint(user_id)
        if encryption:
            self.run("--quick-add-key", fingerprint, encryption, "encr", expire, at=at)
        return fingerprint

    def fingerprint(self, user_id: str) -> str:
        listing = self.run("--with-colons", "--list-keys", f"={user_id}").decode()
        found = re.search(r"^fpr:+([0-9A-F]+):", listing, re.MULTILINE)
        assert found
        return found[1].lower()

    def export(self, which: str, *options: str) -> bytes:
        return self.run("--export-options", "no-export-minimal", *options, "--export", which)

    def revoke(self, fingerprint: str, *, at: datetime, reason: int = 1) -> None:
        """1: compromised, 2: superseded (gpg's menu). Imports the revocation it makes."""
        made = self.run("--gen-revoke", fingerprint, at=at, answers=f"y\n{reason}\n\ny\n")
        self.run("--import", data=made, at=at)

    def encrypt_to(self, material: bytes, address: str, text: bytes, *, at: datetime = T0) -> bytes:
        """A message encrypted, in yet another home, to a key that knows nothing but `material`."""
        with Gpg() as other:
            other.run("--import", data=material, at=at)
            return other.run("--encrypt", "--recipient", address, data=text, at=at)

    def decrypt(self, message: bytes, *, at: datetime = T0) -> bytes:
        return self.run("--decrypt", data=message, at=at)
