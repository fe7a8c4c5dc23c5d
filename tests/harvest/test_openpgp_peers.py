"""Foreign makers and judges: GnuPG, Sequoia and PGPy agree with what we read, keep and say."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from datetime import datetime

import pytest
from pysequoia import Cert, CipherSuite, Profile, SigningAlgorithm, Tsk, encrypt
from pysequoia import encrypt as sequoia_encrypt

from keycache.domain.entry import Defect, Key
from keycache.domain.names import EmailAddress
from keycache.domain.verdict import Verdict
from keycache.harvest.openpgp import examine_keys, keys_in_signature, merge
from support.openpgp import BIRTH, DAY, T0, Gpg, Maker, armour, packet

ALICE = EmailAddress.parse("alice@example.org")
NAME = "Alice <alice@example.org>"
SECOND = DAY / 86400

pytestmark = pytest.mark.skipif(not Gpg.is_here(), reason="gpg is not installed")

PRESENT = datetime.fromisoformat("2100-01-01T00:00:00+00:00")
"""Later than any system clock that runs the tests: keys that Sequoia makes are made at the system's present."""


@pytest.fixture(scope="module")
def gpg() -> Iterator[Gpg]:
    with Gpg() as one:
        one.generate(NAME)
        yield one


@pytest.fixture
def fresh() -> Iterator[Gpg]:
    with Gpg() as one:
        yield one


def passed(blob: bytes, sender: EmailAddress | None = ALICE, now: datetime = T0) -> Key:
    (finding,) = examine_keys(blob, sender, now)
    assert (finding.verdict, finding.key is None) == (None, False), finding.detail
    assert finding.key is not None
    return finding.key


@pytest.mark.parametrize(
    ("algorithm", "encryption", "name"),
    [
        ("rsa3072", "rsa3072", "RSA 3072"),
        ("rsa2048", "cv25519", "RSA 2048/X25519"),
        ("ed25519", "cv25519", "Ed25519/X25519"),
        ("nistp256", "nistp384", "P-256/P-384"),
        ("nistp521", "nistp521", "P-521"),
        ("ed25519", "brainpoolP256r1", "Ed25519/brainpoolP256r1"),
    ],
)
def test_gpg_encrypts_to_what_we_keep_of_its_keys(fresh: Gpg, algorithm: str, encryption: str, name: str) -> None:
    fingerprint = fresh.generate(NAME, algorithm, encryption)
    key = passed(fresh.export(fingerprint))
    assert (key.fingerprint.text, key.algorithm, key.not_before, key.not_after) == (fingerprint, name, BIRTH, None)
    assert passed(fresh.export(fingerprint, "--armor")) == key
    assert fresh.decrypt(fresh.encrypt_to(key.material, "alice@example.org", b"hello")) == b"hello"


@pytest.mark.parametrize(
    ("algorithm", "encryption", "verdict"),
    [
        ("rsa1024", "rsa1024", Verdict.WEAK_KEY),
        ("rsa1024", "cv25519", Verdict.WEAK_KEY),
        ("ed25519", "rsa1024", Verdict.WEAK_KEY),
        ("dsa2048", "elg2048", Verdict.WEAK_KEY),
        ("ed25519", None, Verdict.NO_ENCRYPTION_KEY),
        ("brainpoolP256r1", "brainpoolP256r1", Verdict.ADDRESS_MISMATCH),
    ],
)
def test_keys_of_gpg_that_nobody_should_use_are_refused(
    fresh: Gpg, algorithm: str, encryption: str | None, verdict: Verdict
) -> None:
    (finding,) = examine_keys(fresh.export(fresh.generate(NAME, algorithm, encryption)), ALICE, T0)
    assert finding.verdict is verdict


def test_a_key_of_gpg_serves_until_its_expiry_and_when_extended_until_the_next(fresh: Gpg) -> None:
    fingerprint = fresh.generate(NAME, expire="120d")
    short = fresh.export(fingerprint)
    assert passed(short).not_after == BIRTH + 120 * DAY - SECOND
    (finding,) = examine_keys(short, ALICE, BIRTH + 120 * DAY)
    assert finding.verdict is Verdict.KEY_EXPIRED
    fresh.run("--quick-set-expire", fingerprint, "300d", at=BIRTH + DAY)
    fresh.run("--quick-set-expire", fingerprint, "300d", "*", at=BIRTH + DAY)
    extended = passed(fresh.export(fingerprint))
    assert extended.not_after == BIRTH + 301 * DAY - SECOND
    assert merge(extended, passed(short), T0).not_after == extended.not_after


def test_a_key_that_gpg_revoked_is_refused_and_learnt(fresh: Gpg) -> None:
    fingerprint = fresh.generate(NAME)
    before = passed(fresh.export(fingerprint))
    fresh.revoke(fingerprint, at=T0 - DAY, reason=2)
    (finding,) = examine_keys(fresh.export(fingerprint), ALICE, T0)
    assert (finding.verdict, "superseded" in finding.detail) == (Verdict.KEY_REVOKED, True)
    assert finding.key is not None
    merged = merge(finding.key, before, T0)
    assert merged.defect is Defect.REVOKED
    with Gpg() as other:
        other.run("--import", data=merged.material)
        assert b"\npub:r:" in b"\n" + other.run("--with-colons", "--list-keys", fingerprint)


def test_a_user_id_that_gpg_revoked_is_not_bound(fresh: Gpg) -> None:
    fingerprint = fresh.generate(NAME)
    fresh.run("--quick-add-uid", fingerprint, "Alice <alice@work.example>", at=BIRTH + DAY)
    work = EmailAddress.parse("alice@work.example")
    assert passed(fresh.export(fingerprint), None).addresses == (ALICE, work)
    fresh.run("--quick-revoke-uid", fingerprint, NAME, at=BIRTH + 2 * DAY)
    assert passed(fresh.export(fingerprint), None).addresses == (work,)
    (finding,) = examine_keys(fresh.export(fingerprint), ALICE, T0)
    assert finding.verdict is Verdict.ADDRESS_MISMATCH


def test_what_others_signed_is_not_kept(fresh: Gpg) -> None:
    fingerprint = fresh.generate(NAME)
    plain = fresh.export(fingerprint)
    fresh.generate("bob@example.org")
    fresh.run("--default-key", "bob@example.org", "--quick-sign-key", fingerprint, at=BIRTH + DAY)
    signed = fresh.export(fingerprint)
    assert len(signed) > len(plain)
    assert passed(signed) == passed(plain)


def test_the_secret_key_that_gpg_exports_is_refused(gpg: Gpg) -> None:
    for options in ((), ("--armor",)):
        secret = gpg.run(*options, "--export-secret-keys", NAME)
        (finding,) = examine_keys(secret, ALICE, T0)
        assert (finding.verdict, finding.key) == (Verdict.SECRET_KEY, None)


@pytest.mark.parametrize("options", [(), ("--armor",)], ids=["binary", "armoured"])
def test_the_key_that_gpg_puts_into_a_signature_is_found(gpg: Gpg, options: tuple[str, ...]) -> None:
    signature = gpg.run(*options, "--include-key-block", "--local-user", NAME, "--detach-sign", data=b"mail")
    (finding,) = keys_in_signature(signature, ALICE, T0, label="signature")
    assert (finding.verdict, finding.label) == (None, "signature")
    assert finding.key == passed(gpg.export(NAME))
    (other,) = keys_in_signature(signature, EmailAddress.parse("bob@example.org"), T0)
    assert other.verdict is Verdict.ADDRESS_MISMATCH


def test_a_signature_without_a_key_brings_none(gpg: Gpg) -> None:
    signature = gpg.run("--local-user", NAME, "--detach-sign", data=b"mail")
    assert keys_in_signature(signature, ALICE, T0) == ()
    assert keys_in_signature(b"", ALICE, T0) == ()
    assert keys_in_signature(armour(b"x", "SIGNATURE"), ALICE, T0) == ()
    assert keys_in_signature(gpg.export(NAME), ALICE, T0) == ()


def test_gpg_reads_the_keys_the_tests_make(fresh: Gpg) -> None:
    """So that what the other tests build by hand means what it should."""
    maker = Maker()
    fresh.run("--import", data=maker.certificate(NAME, lives=200 * DAY))
    assert fresh.fingerprint(NAME) == maker.fingerprint
    assert fresh.run("--encrypt", "--recipient", "alice@example.org", data=b"x")
    fresh.run("--import", data=maker.primary + maker.revoke(at=T0 - DAY))
    assert b"\npub:r:" in b"\n" + fresh.run("--with-colons", "--list-keys", maker.fingerprint)


SUITES = [
    (Profile.RFC4880, CipherSuite.Cv25519, "Ed25519/X25519"),
    (Profile.RFC4880, CipherSuite.RSA2k, "RSA 2048"),
    (Profile.RFC4880, CipherSuite.P384, "P-384"),
    (Profile.RFC9580, CipherSuite.Cv25519, "Ed25519/X25519"),
    (Profile.RFC9580, CipherSuite.Cv448, "Ed448/X448"),
    (Profile.RFC9580, CipherSuite.MLDSA65_Ed25519, "ML-DSA-65+Ed25519/ML-KEM-768+X25519"),
    (Profile.RFC9580, CipherSuite.MLDSA87_Ed448, "ML-DSA-87+Ed448/ML-KEM-1024+X448"),
]


@pytest.mark.parametrize(("profile", "suite", "name"), SUITES)
def test_sequoia_encrypts_to_what_we_keep_of_its_keys(profile: Profile, suite: CipherSuite, name: str) -> None:
    made = Tsk.generate(NAME, profile=profile, cipher_suite=suite, validity_seconds=3600)
    public = made.extract_certificate()
    (finding,) = examine_keys(bytes(public), ALICE, _present(public))
    assert finding.key is not None
    assert (finding.verdict, finding.key.algorithm, finding.key.fingerprint.text) == (None, name, public.fingerprint)
    assert finding.key.not_after == public.expiration - SECOND
    kept = Cert.from_bytes(finding.key.material)
    assert (kept.expiration, [str(one) for one in kept.user_ids]) == (public.expiration, [NAME])
    assert encrypt(b"hello", recipients=[kept])


def test_a_key_with_the_largest_signatures_there_are_passes_the_limits() -> None:
    public = Tsk.generate(NAME, profile=Profile.RFC9580, signing_algorithm=SigningAlgorithm.SLHDSA128f).extract_certificate()
    (finding,) = examine_keys(bytes(public), ALICE, _present(public))
    assert finding.key is not None
    assert (finding.verdict, finding.key.algorithm) == (None, "SLH-DSA-128f/X25519")


def _present(public: Cert) -> datetime:
    """An instant at which a key that Sequoia made just now lives."""
    from pysequoia.packet import PacketPile

    return next(iter(PacketPile.from_bytes(bytes(public)))).key_created


@pytest.mark.parametrize("version", [4, 6])
def test_sequoia_agrees_on_expiry_and_user_ids(version: int) -> None:
    """Where it judges whole keys at the system's present, on keys whose facts do not change with it."""
    maker = Maker(version=version)
    body = maker.subkey_body()
    tail = packet(14, body) + maker.bind(body)
    direct = maker.direct(lives=40_000 * DAY)
    other = "Alice <alice@work.example>"
    cases = [
        maker.certificate(NAME, lives=40_000 * DAY),
        maker.primary + direct + maker.user_id(NAME) + maker.certify(NAME) + tail,
        maker.primary + direct + maker.user_id(NAME) + maker.certify(NAME, at=BIRTH + DAY, lives=30_000 * DAY) + tail,
        maker.primary
        + (direct if version == 6 else b"")
        + maker.user_id(NAME)
        + maker.certify(NAME, lives=30_000 * DAY)
        + maker.user_id(other)
        + maker.certify(other, lives=20_000 * DAY, primary=True)
        + tail,
        maker.certificate(NAME, other) + maker.user_id("x") + Maker("bob", version=version).certify("x", on=maker.body),
        maker.primary
        + (direct if version == 6 else b"")
        + maker.user_id(NAME)
        + maker.certify(NAME)
        + maker.revoke_user_id(NAME, at=T0)
        + maker.user_id(other)
        + maker.certify(other)
        + tail,
    ]
    for number, blob in enumerate(cases):
        theirs = Cert.from_bytes(blob)
        ours = passed(blob, None, T0)
        expected = None if theirs.expiration is None else theirs.expiration - SECOND
        assert (number, ours.not_after) == (number, expected)
        assert (number, sorted(ours.names)) == (number, sorted(str(one) for one in theirs.user_ids))
        assert sequoia_encrypt(b"", recipients=[Cert.from_bytes(ours.material)])


def test_pgpy_verifies_what_we_keep(fresh: Gpg) -> None:
    fingerprint = fresh.generate(NAME, "rsa2048", "rsa2048")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pgpy

        key, _ = pgpy.PGPKey.from_blob(passed(fresh.export(fingerprint)).material)
        assert key.fingerprint.lower() == fingerprint
        assert [str(one.email) for one in key.userids] == ["alice@example.org"]
        assert bool(key.verify(key.userids[0]))
        assert all(bool(key.verify(subkey)) for subkey in key.subkeys.values())
