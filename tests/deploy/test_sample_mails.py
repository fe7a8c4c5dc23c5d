"""The sample mails are what they claim to be, in the eyes of programs that are not ours: openssl and PGPy."""

from __future__ import annotations

import email
import re
import subprocess
import sys
import warnings
from base64 import b64decode
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sample_mails import MANAGED_DOMAIN, sample_mails, write

from keycache.domain.lookup import MissCode
from keycache.domain.verdict import Verdict

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import pgpy

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
SAMPLES = sample_mails(NOW)
MAILS = {mail.name: mail for mail in SAMPLES.mails}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("mails")
    write(SAMPLES, made)
    return made


def openssl(folder: Path, name: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = ["openssl", "cms", "-verify", "-in", f"{name}.eml", "-CAfile", "ca.pem", "-out", "/dev/null", "-attime"]
    return subprocess.run(
        [*command, str(int(NOW.timestamp())), *options], cwd=folder, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    "name", ["smime-clear-signed", "smime-opaque-signed", "smime-two-certificates", "smime-wrong-address", "smime-outbound"]
)
def test_what_is_signed_well_verifies_up_to_the_sample_authority(folder: Path, name: str) -> None:
    done = openssl(folder, name)

    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("smime-forged", "verification failure"),
        ("smime-expired", "certificate has expired"),
        ("smime-unknown-issuer", "unable to get local issuer certificate"),
        ("smime-self-signed", "self-signed certificate"),
    ],
)
def test_what_must_not_be_trusted_fails_for_the_reason_it_is_meant_to_show(folder: Path, name: str, complaint: str) -> None:
    done = openssl(folder, name)

    assert done.returncode != 0
    assert complaint in done.stderr


@pytest.mark.parametrize("name", ["smime-expired", "smime-unknown-issuer", "smime-self-signed"])
def test_but_for_that_reason_the_signature_would_be_good(folder: Path, name: str) -> None:
    done = openssl(folder, name, "-noverify")

    assert done.returncode == 0, done.stderr


def test_the_attached_keys_are_a_public_and_a_secret_one_of_their_senders() -> None:
    found = {}
    for name in ("openpgp-attached-key", "openpgp-secret-key"):
        attachment = email.message_from_bytes(MAILS[name].message).get_payload()[1]
        key, _ = pgpy.PGPKey.from_blob(attachment.get_payload())
        found[name] = (key.is_public, [user.email for user in key.userids])

    assert found == {"openpgp-attached-key": (True, ["dora@example.net"]), "openpgp-secret-key": (False, ["karl@example.com"])}


def test_the_autocrypt_header_holds_the_senders_key() -> None:
    mail = MAILS["openpgp-autocrypt"]
    header = email.message_from_bytes(mail.message)["Autocrypt"]
    address, prefer, keydata = re.fullmatch(r"addr=(\S+); prefer-encrypt=(\S+); keydata=([\s\S]+)", header).groups()
    key, _ = pgpy.PGPKey.from_blob(b64decode(keydata))

    assert (address, prefer, key.fingerprint.replace(" ", "").lower()) == (mail.sender, "mutual", mail.fingerprint)


def test_every_mail_is_from_its_sender_and_to_us_unless_it_goes_out() -> None:
    for mail in SAMPLES.mails:
        parsed = email.message_from_bytes(mail.message)
        ours = parsed["From" if mail.direction == "outbound" else "To"]

        assert mail.sender in parsed["From"]
        assert ours.endswith(f"@{MANAGED_DOMAIN}")
        assert mail.message.count(b"\n") == mail.message.count(b"\r\n")


def test_a_key_is_promised_exactly_where_the_verdict_serves_one() -> None:
    assert {mail.name for mail in SAMPLES.mails if (mail.miss is None) != mail.verdict.is_served} == set()
    assert {mail.name for mail in SAMPLES.mails if (mail.miss is None) != bool(mail.fingerprint)} == set()
    assert {mail.name for mail in SAMPLES.mails if mail.miss is MissCode.HELD} == {
        mail.name for mail in SAMPLES.mails if mail.verdict in {Verdict.UNTRUSTED_ISSUER, Verdict.SELF_SIGNED}
    }


def test_the_command_writes_every_mail_and_the_authority(tmp_path: Path) -> None:
    script = Path(sys.modules["sample_mails"].__file__ or "")

    subprocess.run([sys.executable, script, tmp_path / "out"], check=True)

    assert {path.name for path in (tmp_path / "out").iterdir()} == {"ca.pem", *(f"{name}.eml" for name in MAILS)}
