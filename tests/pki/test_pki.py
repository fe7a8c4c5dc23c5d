"""The node's own public key infrastructure. The foreign judge is the openssl command."""

from __future__ import annotations

import shutil
import stat
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from keycache.domain.errors import ConfigError, InvalidInput, PermissionDenied
from keycache.pki import NodePki, Peer, PrivateKey, Role, new_request, open_pki, read_peer
from keycache.pki.authority import BACKDATE, CA_LIFE, CLIENT_LIFE, LEAF_LIFE

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
FILES = {"ca.key", "ca.pem", "server.key", "server.pem", "admin.key", "admin.pem", "trusted.pem"}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "data" / "pki"


def opened(place: Path, *names: str, now: datetime = NOW) -> NodePki:
    return open_pki(place, names=names, now=now)


def contents(place: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in place.iterdir()}


def judge(place: Path, certificate: bytes, purpose: str, *, at: datetime = NOW, more: tuple[str, ...] = ()) -> str:
    """What `openssl verify` says of it: 'OK' or its complaint."""
    openssl = shutil.which("openssl")
    assert openssl, "these tests need the openssl command"
    file = place.parent / "judged.pem"
    file.write_bytes(certificate)
    command = [openssl, "verify", "-x509_strict", "-CAfile", str(place / "ca.pem"), "-purpose", purpose]
    command += ["-attime", str(int(at.timestamp())), *more, str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return "OK" if done.returncode == 0 else done.stderr


def test_a_first_start_makes_everything_and_lets_nobody_else_read_it(place: Path) -> None:
    pki = opened(place)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in place.iterdir()}
    assert set(modes) == FILES
    assert {name: mode for name, mode in modes.items() if name.endswith(".key")} == dict.fromkeys(
        ("ca.key", "server.key", "admin.key"), 0o600
    )
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    assert pki.warnings == ()


def test_a_second_start_changes_nothing(place: Path) -> None:
    opened(place, "cache.example.org")
    before = contents(place)
    opened(place, "CACHE.example.org", now=NOW + timedelta(days=100))
    assert contents(place) == before


def test_openssl_accepts_the_servers_certificate_under_each_of_its_names_and_no_other(place: Path) -> None:
    pki = opened(place, "cache.example.org", "192.0.2.7", "2001:DB8::7", "schlüssel.example")
    for host in ("localhost", "cache.example.org", "xn--schlssel-95a.example"):
        assert judge(place, pki.server.certificate, "sslserver", more=("-verify_hostname", host)) == "OK"
    for address in ("127.0.0.1", "::1", "192.0.2.7", "2001:db8::7"):
        assert judge(place, pki.server.certificate, "sslserver", more=("-verify_ip", address)) == "OK"
    assert "hostname mismatch" in judge(place, pki.server.certificate, "sslserver", more=("-verify_hostname", "example.org"))


def test_openssl_accepts_clients_as_clients_only_and_the_server_as_server_only(place: Path) -> None:
    pki = opened(place)
    _, csr = new_request("mta1")
    client = pki.sign_client(csr, role=Role.MAIL_PROCESSOR, name="mta1", now=NOW)
    assert judge(place, client.certificate, "sslclient") == "OK"
    assert judge(place, pki.admin.certificate, "sslclient") == "OK"
    for certificate, purpose in ((client.certificate, "sslserver"), (pki.server.certificate, "sslclient")):
        assert "unsuitable certificate purpose" in judge(place, certificate, purpose)


def test_every_certificate_ends_when_it_should(place: Path) -> None:
    pki = opened(place)
    _, csr = new_request("mta1")
    client = pki.sign_client(csr, role=Role.MAIL_PROCESSOR, name="mta1", now=NOW)
    assert pki.authority.not_after == NOW + CA_LIFE
    assert (pki.server.not_after, pki.admin.not_after) == (NOW + LEAF_LIFE, NOW + LEAF_LIFE)
    assert client.not_after == NOW + CLIENT_LIFE
    assert "expired" in judge(place, client.certificate, "sslclient", at=NOW + CLIENT_LIFE + timedelta(seconds=1))


def test_no_certificate_outlives_the_authority(place: Path) -> None:
    opened(place)
    late = NOW + CA_LIFE - timedelta(days=30)
    pki = opened(place, now=late)
    _, csr = new_request("mta1")
    client = pki.sign_client(csr, role=Role.MAIL_PROCESSOR, name="mta1", now=late)
    end = NOW + CA_LIFE
    assert (client.not_after, pki.server.not_after, pki.admin.not_after) == (end, end, end)
    assert [one.split(",")[0] for one in pki.cautions(late)] == ["The authority ends on 2036-03-01"]
    assert pki.cautions(NOW) == ()
    before = contents(place)
    opened(place, now=late + timedelta(days=29))
    assert contents(place) == before


@pytest.mark.parametrize(
    "kept", [set(), {"ca.key"}, {"ca.key", "ca.pem"}, {"ca.key", "ca.pem", "server.key"}, FILES - {"admin.pem"}]
)
def test_a_first_start_interrupted_anywhere_is_finished_by_the_next(place: Path, kept: set[str]) -> None:
    opened(place)
    whole = contents(place)
    for name in FILES - kept:
        (place / name).unlink()
    (place / "server.key.0a1b2c3d.new").write_bytes(b"half a k")
    pki = opened(place)
    assert set(contents(place)) == FILES
    assert {name: contents(place)[name] for name in kept & {"ca.key", "ca.pem"}} == {
        name: whole[name] for name in kept & {"ca.key", "ca.pem"}
    }
    assert judge(place, pki.server.certificate, "sslserver") == "OK"
    assert judge(place, pki.admin.certificate, "sslclient") == "OK"


def test_the_nodes_certificate_is_renewed_when_less_than_a_third_of_its_life_is_left(place: Path) -> None:
    first = opened(place)
    at_a_third = first.server.not_after - LEAF_LIFE / 3
    assert opened(place, now=at_a_third).server == first.server
    renewed = first.renewed(at_a_third + timedelta(seconds=1))
    assert renewed.server.not_after == at_a_third + timedelta(seconds=1) + LEAF_LIFE
    assert renewed.server.key != first.server.key
    assert renewed.authority.pem == first.authority.pem
    assert judge(place, renewed.server.certificate, "sslserver", at=renewed.server.not_after - timedelta(days=1)) == "OK"


def test_a_new_name_renews_the_nodes_certificate(place: Path) -> None:
    first = opened(place)
    second = opened(place, "cache.example.org")
    assert second.server.certificate != first.server.certificate
    assert second.admin == first.admin


def test_a_certificate_made_while_the_clock_was_ahead_serves_once_it_is_right(place: Path) -> None:
    opened(place)
    ahead = opened(place, "b.example", now=NOW + timedelta(days=501))
    assert judge(place, ahead.server.certificate, "sslserver", at=NOW) == "OK"
    assert opened(place, "b.example", now=NOW).server == ahead.server


@pytest.mark.parametrize("name", ["server", "admin"])
def test_a_certificate_whose_key_is_another_one_is_made_anew(place: Path, name: str) -> None:
    opened(place)
    (place / f"{name}.key").write_bytes(PrivateKey.generate().pem)
    opened(place)
    certificate = x509.load_pem_x509_certificate((place / f"{name}.pem").read_bytes())
    assert PrivateKey((place / f"{name}.key").read_bytes()).fits(certificate)


@pytest.mark.parametrize("name", ["server.pem", "server.key", "admin.pem"])
def test_an_unreadable_certificate_of_our_own_is_made_anew(place: Path, name: str) -> None:
    opened(place)
    (place / name).write_bytes(b"rubbish")
    pki = opened(place)
    assert judge(place, pki.server.certificate, "sslserver") == "OK"


def test_a_certificate_of_another_authority_is_made_anew(place: Path, tmp_path: Path) -> None:
    opened(place)
    stranger = opened(tmp_path / "other")
    (place / "server.pem").write_bytes(stranger.server.certificate)
    (place / "server.key").write_bytes(stranger.server.key.pem)
    assert judge(place, opened(place).server.certificate, "sslserver") == "OK"


def test_an_admin_certificate_of_another_role_is_made_anew(place: Path) -> None:
    pki = opened(place)
    lesser = pki.authority.issue_client(Role.MAIL_PROCESSOR, "mta1", now=NOW)
    (place / "admin.pem").write_bytes(lesser.certificate)
    (place / "admin.key").write_bytes(lesser.key.pem)
    assert read_peer(opened(place).admin.certificate).role is Role.ADMIN


def test_a_lost_authority_key_is_reported_and_nothing_is_made_in_its_place(place: Path) -> None:
    opened(place)
    (place / "ca.key").unlink()
    before = contents(place)
    with pytest.raises(ConfigError, match=r"ca\.key is missing.*Restore"):
        opened(place)
    assert contents(place) == before


@pytest.mark.parametrize("damage", [b"", b"rubbish", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
@pytest.mark.parametrize("name", ["ca.key", "ca.pem"])
def test_a_damaged_authority_is_reported_and_never_replaced(place: Path, name: str, damage: bytes) -> None:
    opened(place)
    (place / name).write_bytes(damage)
    before = contents(place)
    with pytest.raises(ConfigError, match="backup"):
        opened(place)
    assert contents(place) == before


def test_an_authority_whose_key_is_another_one_is_refused(place: Path) -> None:
    opened(place)
    (place / "ca.key").write_bytes(PrivateKey.generate().pem)
    with pytest.raises(ConfigError, match="do not belong together"):
        opened(place)


def test_a_certificate_that_is_no_authority_is_refused_as_one(place: Path) -> None:
    pki = opened(place)
    (place / "ca.pem").write_bytes(pki.server.certificate)
    (place / "ca.key").write_bytes(pki.server.key.pem)
    with pytest.raises(ConfigError, match="do not belong together"):
        opened(place)


@pytest.mark.parametrize("when", [NOW - BACKDATE - timedelta(seconds=1), NOW + CA_LIFE + timedelta(seconds=1)])
def test_an_authority_outside_its_time_names_the_clock(place: Path, when: datetime) -> None:
    opened(place)
    with pytest.raises(ConfigError, match="clock says"):
        opened(place, now=when)


@pytest.mark.parametrize("name", ["ca.key", "server.key", "admin.key", ""])
def test_what_others_could_read_is_closed_and_told(place: Path, name: str) -> None:
    opened(place)
    target = place / name
    target.chmod(0o755 if not name else 0o644)
    pki = opened(place)
    assert stat.S_IMODE(target.stat().st_mode) == (0o700 if not name else 0o600)
    assert len(pki.warnings) == 1
    assert str(target) in pki.warnings[0]


def test_a_place_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(b"a file where a directory should be")
    with pytest.raises(ConfigError, match="Cannot make"):
        opened(tmp_path / "data" / "pki")


@pytest.mark.parametrize("name", ["", "exa mple", "host:7640", "a" * 64 + ".example", "münchen\x00"])
def test_what_is_no_host_name_is_refused(place: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="neither a host name nor an IP address"):
        opened(place, name)


def requested(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey) -> bytes:
    """A request that asks for more than it should get."""
    wish = x509.Name(
        [x509.NameAttribute(NameOID.COMMON_NAME, "root of all"), x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Evil")]
    )
    builder = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(wish)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier("urn:keycache:role:admin")]), critical=False)
    )
    return builder.sign(key, None if isinstance(key, ed25519.Ed25519PrivateKey) else SHA256()).public_bytes(Encoding.PEM)


def test_a_request_gets_our_name_role_and_purposes_whatever_it_asks_for(place: Path) -> None:
    pki = opened(place)
    key = ec.generate_private_key(ec.SECP256R1())
    issued = pki.sign_client(requested(key), role=Role.MAIL_PROCESSOR, name="mta1", now=NOW)
    parsed = x509.load_pem_x509_certificate(issued.certificate)
    told = {
        "subject": parsed.subject.rfc4514_string(),
        "key": parsed.public_key() == key.public_key(),
        "basic": parsed.extensions.get_extension_for_class(x509.BasicConstraints),
        "san": parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value,
    }
    assert told == {
        "subject": "CN=mta1",
        "key": True,
        "basic": x509.Extension(x509.BasicConstraints.oid, True, x509.BasicConstraints(ca=False, path_length=None)),
        "san": x509.SubjectAlternativeName([x509.UniformResourceIdentifier("urn:keycache:role:mail-processor")]),
    }
    assert read_peer(issued.certificate) == Peer(role=Role.MAIL_PROCESSOR, name="mta1", not_after=NOW + CLIENT_LIFE)
    assert issued.ca == (place / "ca.pem").read_bytes()


def test_a_request_that_does_not_prove_its_key_is_refused(place: Path) -> None:
    pki = opened(place)
    _, csr = new_request("mta1")
    der = bytearray(x509.load_pem_x509_csr(csr).public_bytes(Encoding.DER))
    der[der.index(b"mta1")] ^= 1
    with pytest.raises(InvalidInput, match="nothing proves that you hold it"):
        pki.sign_client(bytes(der), role=Role.ADMIN, name="mta1", now=NOW)


@pytest.mark.parametrize(
    "csr", [b"", b"rubbish", b"-----BEGIN CERTIFICATE REQUEST-----\n!!!\n-----END CERTIFICATE REQUEST-----\n"]
)
def test_a_request_that_cannot_be_read_is_refused(place: Path, csr: bytes) -> None:
    with pytest.raises(InvalidInput, match="PKCS#10"):
        opened(place).sign_client(csr, role=Role.ADMIN, name="mta1", now=NOW)


@pytest.mark.parametrize(
    "key",
    [rsa.generate_private_key(65537, 1024), ed25519.Ed25519PrivateKey.generate(), ec.generate_private_key(ec.SECP192R1())],
    ids=["rsa1024", "ed25519", "p192"],
)
def test_a_key_that_is_weak_or_that_tls_here_cannot_use_is_refused(place: Path, key: ec.EllipticCurvePrivateKey) -> None:
    with pytest.raises(InvalidInput, match="cannot be certified"):
        opened(place).sign_client(requested(key), role=Role.ADMIN, name="mta1", now=NOW)


@pytest.mark.parametrize("name", ["", " ", "a" * 65, "a\nb", "a/b", "-a", "ä", "x\x00"])
def test_a_client_name_that_a_log_could_stumble_over_is_refused(place: Path, name: str) -> None:
    _, csr = new_request("mta1")
    with pytest.raises(InvalidInput, match="cannot be the name"):
        opened(place).sign_client(csr, role=Role.ADMIN, name=name, now=NOW)


def self_signed(*uris: str) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "somebody")])
    builder = x509.CertificateBuilder(name, name, key.public_key(), 7, NOW, NOW + timedelta(days=1))
    if uris:
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri) for uri in uris])
        builder = builder.add_extension(names, critical=False)
    return builder.sign(key, SHA256()).public_bytes(Encoding.PEM)


@pytest.mark.parametrize(
    "uris",
    [
        (),
        ("https://example.org",),
        ("urn:keycache:role:emperor",),
        ("urn:keycache:role:admin", "urn:keycache:role:node"),
        ("urn:keycache:role:",),
        ("urn:keycache:role:Admin",),
    ],
)
def test_a_certificate_without_exactly_one_known_role_is_nobodys(uris: tuple[str, ...]) -> None:
    with pytest.raises(PermissionDenied):
        read_peer(self_signed(*uris))


def test_a_uri_of_others_beside_the_role_does_not_matter() -> None:
    certificate = self_signed("https://example.org", "urn:keycache:role:node")
    assert read_peer(certificate) == Peer(role=Role.NODE, name="somebody", not_after=NOW + timedelta(days=1))


def test_private_keys_cannot_be_printed(place: Path) -> None:
    pki = opened(place)
    shown = f"{pki!r} {pki.server} {pki.admin.key} {pki.authority!r} {pki.server.key!r}"
    assert "PRIVATE" not in shown
    assert "PrivateKey(redacted)" in shown
