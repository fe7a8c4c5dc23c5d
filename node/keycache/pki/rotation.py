"""The files of a change of authority (`domain.rotation` decides the steps), and the functions that go each step. All may be repeated.

    SETTLED     ca.key ca.pem
    SPREAD      ca.key ca.pem   next-ca.key next-ca.pem     announce
    SWITCHED    ca.key ca.pem   former-ca.pem               switch
    SETTLED     ca.key ca.pem                               forget_former

`trusted.pem` is what a node trusts: the authority that signs, the next and the former one, in this order. gRPC takes it up with the next
handshake. etcd reads certificate and key at every handshake, but its bundle only when it starts (etcd#11555, open), so after
`announce` and after `forget_former` etcd is restarted, one member after the other; after `switch` it is not.

ORDER of a switch, which a crash may cut anywhere: former-ca.pem is written FIRST; from then on, as long as next-ca.pem is there, every
start finishes it. Whatever else is half done shows in no step.

While the authority changes nobody joins: tokens pin the former one, and what a joiner gets knows one authority only.

The next authority's key goes to the other nodes over their own authenticated connections, never through the log: etcd's files and backups
are read by more people than those keys are for.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from cryptography import x509

from keycache.domain.errors import ConfigError, Refused
from keycache.domain.rotation import Step
from keycache.pki import files
from keycache.pki.authority import Authority
from keycache.pki.identity import PrivateKey, key_hash

CA_KEY, CA = "ca.key", "ca.pem"
NEXT_KEY, NEXT = "next-ca.key", "next-ca.pem"
FORMER = "former-ca.pem"
TRUSTED = "trusted.pem"


def new_authority(name: str, *, now: datetime) -> Authority:
    """The next authority of the cluster `name`. Its subject tells it from the present one: TLS stacks look authorities up by it."""
    return Authority.create(PrivateKey.generate(), name=f"{name[:40]} since {now:%Y-%m-%d}", now=now)


def step_on_disk(directory: Path) -> Step:
    """Where this node is. Raises ConfigError."""
    if files.read(directory / FORMER) is not None:
        return Step.SWITCHED
    return Step.SETTLED if files.read(directory / NEXT) is None else Step.SPREAD


def announce(directory: Path, following: Authority) -> None:
    """SETTLED to SPREAD: trust the next authority, and keep its key until it is used. ORDER: key before certificate.

    Raises Refused while another change is under way, ConfigError.
    """
    recover(directory)
    known = [authority_id(directory / name) for name in (CA, NEXT)]
    if following.id in known:
        return
    if step_on_disk(directory) is not Step.SETTLED:
        raise Refused(
            "Another change of the cluster's authority is under way.",
            hint="Finish it, or withdraw it, before you begin the next.",
        )
    files.write_private(directory / NEXT_KEY, following.key.pem)
    files.write_public(directory / NEXT, following.pem)


def withdraw(directory: Path) -> None:
    """SPREAD back to SETTLED: allowed while no node has switched."""
    recover(directory)
    files.remove(directory / NEXT)
    files.remove(directory / NEXT_KEY)


def switch(directory: Path) -> None:
    """SPREAD to SWITCHED: the next authority signs from now on. Raises Refused when there is none, ConfigError."""
    recover(directory)
    step = step_on_disk(directory)
    if step is Step.SWITCHED:
        return
    if step is Step.SETTLED:
        raise Refused("There is no next authority to change to.", hint="Announce one first.")
    files.write_public(directory / FORMER, _read(directory / CA))
    recover(directory)


def forget_former(directory: Path) -> None:
    """SWITCHED to SETTLED: certificates of the former authority are worth nothing here any more."""
    recover(directory)
    files.remove(directory / FORMER)


def recover(directory: Path) -> None:
    """Finish a switch that was begun; clear away a key whose certificate never came. Raises ConfigError."""
    following, key = files.read(directory / NEXT), files.read(directory / NEXT_KEY)
    if following is None:
        files.remove(directory / NEXT_KEY)
        return
    if files.read(directory / FORMER) is None:
        return
    if key is None:
        raise ConfigError(f"{directory / NEXT_KEY} is missing.", hint=f"Restore {directory} from a backup.")
    files.write_private(directory / CA_KEY, Authority(following, PrivateKey(key)).key.pem)
    files.write_public(directory / CA, following)
    files.remove(directory / NEXT)
    files.remove(directory / NEXT_KEY)


def trusted(directory: Path) -> tuple[bytes, frozenset[str]]:
    """The bundle in PEM, the signing authority first, and the ids in it. Raises ConfigError when a certificate cannot be read."""
    paths = [path for path in (directory / name for name in (CA, NEXT, FORMER)) if files.read(path) is not None]
    return b"".join(_read(path) for path in paths), frozenset(filter(None, map(authority_id, paths)))


def find_authority(directory: Path, wanted: str) -> Authority | None:
    """The next one or the one that signs, with its key, if it is that one. Raises ConfigError."""
    for certificate, key in ((NEXT, NEXT_KEY), (CA, CA_KEY)):
        if authority_id(directory / certificate) == wanted:
            return Authority(_read(directory / certificate), PrivateKey(_read(directory / key)))
    return None


def _read(path: Path) -> bytes:
    content = files.read(path)
    if content is None:
        raise ConfigError(f"{path} is missing.", hint=f"Restore {path.parent} from a backup.")
    return content if content.endswith(b"\n") else content + b"\n"


def authority_id(path: Path) -> str | None:
    """Of a CA's certificate in PEM (`Authority.id`); None without a file. Raises ConfigError."""
    content = files.read(path)
    if content is None:
        return None
    try:
        return key_hash(x509.load_pem_x509_certificate(content).public_key()).hex()
    except ValueError as error:
        raise ConfigError(f"{path} is not a certificate in PEM.", hint=f"Restore {path.parent} from a backup.") from error
