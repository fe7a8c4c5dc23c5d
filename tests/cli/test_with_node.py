"""The command against a real node: documents, exit codes, and the way of a key through all of them."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from pysequoia import Cert

from support.command import Command, Node
from support.openpgp import Maker, armour
from support.smime import DAY, authority, person, signed_mail

RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6})?Z")
NOW = datetime.now(UTC)  # noqa: TID251 -- certificates for a real node must be in force in real time


def key_of(address: str) -> tuple[str, bytes]:
    """Fingerprint and armoured OpenPGP key of an address."""
    maker = Maker(address)
    return maker.fingerprint, armour(maker.certificate(f"Someone <{address}>"))


def key_mail(address: str) -> bytes:
    return (
        f"From: {address}\r\nTo: bob@ours.example\r\nMessage-ID: <{address}>\r\nMIME-Version: 1.0\r\n"
        "Content-Type: application/pgp-keys\r\n\r\n"
    ).encode() + key_of(address)[1]


def held_mail(address: str, root: str) -> bytes:
    times: dict[str, Any] = {"not_before": NOW - 10 * DAY, "not_after": NOW + 100 * DAY}
    return signed_mail(person(address, authority(root, **times), **times), sender=address)


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def harvest(cli: Command, tmp_path: Path, address: str) -> str:
    """Put an address's key into the cache; its fingerprint."""
    result = cli("harvest", "--direction", "inbound", write(tmp_path / "mail.eml", key_mail(address)), "--json")
    assert [one["verdict"] for one in result.json["results"]] == ["CACHED"]
    return key_of(address)[0]


def test_harvest_tells_each_file_s_verdict_and_goes_on_after_a_bad_one(cli: Command, tmp_path: Path) -> None:
    good = write(tmp_path / "good.eml", key_mail("harvest@one.example"))
    empty = write(tmp_path / "plain.eml", b"From: a@one.example\r\n\r\nhi\r\n")
    huge = write(tmp_path / "huge.eml", b"From: a@one.example\r\n\r\n" + b"x" * 25 * 1024 * 1024)
    result = cli("harvest", good, empty, huge, "--direction", "inbound", "--json")
    assert result.code == 0
    told = [(Path(one["file"]).name, one["direction"], one["verdict"]) for one in result.json["results"]]
    assert told == [
        ("good.eml", "INBOUND", "CACHED"),
        ("plain.eml", "INBOUND", "NO_KEY_MATERIAL"),
        ("huge.eml", "UNKNOWN", "MESSAGE_TOO_LARGE"),
    ]
    (key,) = result.json["results"][0]["keys"]
    assert {name: key[name] for name in ("fingerprint", "protocol", "addresses", "verdict")} == {
        "fingerprint": key_of("harvest@one.example")[0],
        "protocol": "OPENPGP",
        "addresses": ["harvest@one.example"],
        "verdict": "CACHED",
    }
    assert all(isinstance(one[name], str) for one in result.json["results"] for name in ("detail", "advice"))


def test_harvest_of_a_missing_file_tells_so_and_takes_the_others(cli: Command, tmp_path: Path) -> None:
    good = write(tmp_path / "good.eml", key_mail("missing@one.example"))
    result = cli("harvest", tmp_path / "no.eml", good, "--direction", "inbound", "--json")
    assert result.code == 1
    assert [one["verdict"] for one in result.json["results"]] == ["UNREADABLE_MESSAGE", "CACHED"]


def test_a_folder_is_no_mail_and_what_to_do_with_it_is_told(cli: Command, tmp_path: Path) -> None:
    result = cli("harvest", tmp_path, "", "--json")
    assert [(one["verdict"], one["detail"]) for one in result.json["results"]] == [
        ("UNREADABLE_MESSAGE", "It is a folder: name the mails in it, or take them all over with 'keycache import'."),
        ("UNREADABLE_MESSAGE", "It cannot be read: The name is empty."),
    ]


def test_a_stated_outbound_mail_is_not_harvested(cli: Command, tmp_path: Path) -> None:
    mail = write(tmp_path / "out.eml", key_mail("outbound@one.example"))
    result = cli("harvest", "--direction", "outbound", mail, "--json")
    assert [(one["direction"], one["verdict"]) for one in result.json["results"]] == [("OUTBOUND", "OUTBOUND_MESSAGE")]


def test_explain_shows_the_gates_and_keeps_nothing(cli: Command, tmp_path: Path) -> None:
    mail = write(tmp_path / "mail.eml", key_mail("explain@one.example"))
    shown = cli("explain", mail, "--direction", "inbound")
    assert shown.code == 0
    assert "passed" in shown.out
    assert "CACHED" in shown.out
    document = cli("explain", mail, "--direction", "inbound", "--json").json["results"][0]
    assert {gate["outcome"] for gate in document["gates"]} <= {"PASSED", "FAILED", "SKIPPED"}
    assert cli("lookup", "explain@one.example").code == 1


def test_lookup_gives_keys_with_their_times_and_misses_with_a_reason(cli: Command, tmp_path: Path) -> None:
    fingerprint = harvest(cli, tmp_path, "lookup@two.example")
    result = cli("lookup", "lookup@two.example", "nobody@two.example", "no address", "--json")
    assert result.code == 1
    found, miss, bad = result.json["results"]
    (key,) = found["keys"]
    assert (found["address"], found["miss"]) == ("lookup@two.example", None)
    assert [key[name] for name in ("fingerprint", "protocol", "trust", "origin", "not_after")] == [
        fingerprint,
        "OPENPGP",
        "BOUND",
        "HARVESTED",
        None,
    ]
    cached, refreshed, expires = (key[name] for name in ("cached_at", "refreshed_at", "expires_at"))
    assert all(RFC3339.fullmatch(text) for text in (cached, refreshed, expires))
    assert cached == refreshed
    assert datetime.fromisoformat(expires) - datetime.fromisoformat(refreshed) == timedelta(days=500)
    assert (miss["keys"], miss["miss"]["code"], bad["miss"]["code"]) == ([], "NOT_FOUND", "BAD_ADDRESS")
    assert miss["miss"]["detail"]


def test_lookup_by_fingerprint_and_with_filters(cli: Command, tmp_path: Path) -> None:
    fingerprint = harvest(cli, tmp_path, "filter@two.example")
    assert (
        cli("lookup", "--fingerprint", fingerprint.upper(), "--json").json["results"][0]["keys"][0]["fingerprint"]
        == fingerprint
    )
    assert cli("lookup", "filter@two.example", "--origin", "harvested", "--protocol", "openpgp").code == 0
    missed = cli("lookup", "filter@two.example", "--origin", "looked_up", "--json")
    assert (missed.code, missed.json["results"][0]["miss"]["code"]) == (1, "FILTERED")


def test_lookup_writes_keys_that_other_programs_read(cli: Command, tmp_path: Path) -> None:
    fingerprint = harvest(cli, tmp_path, "out/put@two.example")
    result = cli("lookup", "out/put@two.example", "--output", tmp_path / "keys")
    assert result.code == 0
    (file,) = (tmp_path / "keys").iterdir()
    assert file.name == f"out_put@two.example-{fingerprint[:16]}.asc"
    assert Cert.from_file(str(file)).fingerprint == fingerprint


def test_any_number_of_addresses_may_be_looked_up(cli: Command) -> None:
    addresses = [f"many{number}@two.example" for number in range(1001)]
    results = cli("lookup", *addresses, "--json").json["results"]
    assert [one["address"] for one in results] == addresses


def test_list_search_and_show_find_the_key(cli: Command, tmp_path: Path) -> None:
    fingerprint = harvest(cli, tmp_path, "listed@three.example")
    document = cli("list", "--domain", "three.example", "--json").json
    assert (document["total"], document["next_page_token"]) == (1, None)
    assert document["entries"][0]["fingerprint"] == fingerprint
    assert document["entries"][0]["sightings"][0]["origin"] == "HARVESTED"
    assert cli("search", "LISTED@thr", "--json").json["total"] == 1
    assert cli("search", "no such thing").code == 1
    by_prefix, by_address = cli("show", fingerprint[:12], "--json").json, cli("show", "listed@three.example", "--json").json
    assert by_prefix == by_address
    assert [one["fingerprint"] for one in by_prefix["entries"]] == [fingerprint]
    text = cli("show", fingerprint).out
    assert fingerprint in text
    assert "listed@three.example" in text
    assert cli("show", "0123456789").code == 1
    assert cli("show", "listed").code == 2


def test_a_listing_is_cut_into_pages_and_goes_on_where_it_says(cli: Command, tmp_path: Path) -> None:
    addresses = [f"page{number}@pages.example" for number in range(3)]
    for address in addresses:
        harvest(cli, tmp_path, address)
    first = cli("list", "--domain", "pages.example", "--limit", "2", "--json").json
    rest = cli("list", "--domain", "pages.example", "--page", first["next_page_token"], "--json").json
    assert [entry["addresses"][0] for page in (first, rest) for entry in page["entries"]] == addresses
    assert len(cli("list", "--domain", "pages.example", "--limit", "0", "--json").json["entries"]) == 3


def test_delete_asks_and_deletes_with_yes(cli: Command, tmp_path: Path) -> None:
    fingerprint = harvest(cli, tmp_path, "delete@four.example")
    asked = cli("delete", "delete@four.example")
    assert asked.code == 1
    assert "Delete 1 key" in asked.err
    assert "--yes" in asked.err
    assert cli("delete", "delete@four.example", "--yes", "--json").json == {"deleted": 1, "fingerprints": [fingerprint]}
    assert cli("delete", fingerprint, "--yes").code == 1


def test_purge_counts_first_and_removes_only_what_matches(cli: Command, tmp_path: Path) -> None:
    for address in ("a@purge.example", "b@purge.example", "c@kept.example"):
        harvest(cli, tmp_path, address)
    assert cli("purge", "--domain", "purge.example", "--dry-run", "--json").json == {
        "dry_run": True,
        "matched": 2,
        "removed": 0,
    }
    refused = cli("purge", "--domain", "purge.example")
    assert (refused.code, "Remove 2 keys?" in refused.err) == (1, True)
    removed = cli("--yes", "purge", "--domain", "purge.example", "--json").json
    assert (removed["matched"], removed["removed"]) == (2, 2)
    assert cli("lookup", "c@kept.example").code == 0


@pytest.mark.parametrize("arguments", [[], ["--all", "--domain", "x.example"], ["--all", "--confirm-held"]])
def test_purge_wants_to_know_exactly_what(cli: Command, arguments: list[str]) -> None:
    assert cli("purge", *arguments, "--yes").code == 2


def test_purge_can_release_what_is_held(cli: Command) -> None:
    assert cli("purge", "--confirm-held", "--yes", "--json").json["removed"] == 0
    nothing = "No expired key waits to be removed; there is nothing to confirm.\n"
    assert cli("purge", "--confirm-held").out == nothing  # and nobody is asked
    assert cli("purge", "--trust-clock").code == 1
    trusted = "The node's clock counts as right from now on; the next sweep removes what has expired.\n"
    assert cli("purge", "--trust-clock", "--yes").out == trusted


def test_blocks_are_added_listed_and_removed(cli: Command, tmp_path: Path) -> None:
    fingerprint = harvest(cli, tmp_path, "block@five.example")
    added = cli("block", "add", "block@five.example", fingerprint, "--until", "2999-01-01", "--reason", "test", "--json").json
    assert [(one["kind"], one["value"], one["until"]) for one in added["blocks"]] == [
        ("ADDRESS", "block@five.example", "2999-01-01T00:00:00Z"),
        ("FINGERPRINT", fingerprint, "2999-01-01T00:00:00Z"),
    ]
    assert cli("lookup", "block@five.example", "--json").json["results"][0]["miss"]["code"] == "BLOCKED"
    assert len(cli("block", "list", "--json").json["blocks"]) == 2
    assert cli("block", "remove", "block@five.example", fingerprint).code == 0
    assert cli("lookup", "block@five.example").code == 0
    assert cli("block", "remove", "block@five.example").code == 1


def test_settings_are_shown_changed_and_remembered(cli: Command, tmp_path: Path) -> None:
    shown = cli("settings", "show", "--json").json
    assert shown["timeouts"] == {"harvested": 43_200_000, "looked_up": 86_400, "imported": 86_313_600}
    assert shown["timeouts_text"] == {"harvested": "500d", "looked_up": "24h", "imported": "999d"}
    refused = cli("settings", "set", "looked-up=48h")
    assert (refused.code, "0 entries expire at once" in refused.err) == (1, True)
    changed = cli("settings", "set", "looked-up=48h", "--reason", "test", "--yes", "--json").json
    assert (changed["timeouts_text"]["looked_up"], changed["expired_at_once"]) == ("2d", 0)
    assert cli("settings", "set", "looked-up=48h").out == "The settings are so already; nothing was changed.\n"
    prefs = write(tmp_path / "prefs.xml", b"<p><key-lookup-cache-timeout>1440</key-lookup-cache-timeout></p>")
    assert cli("settings", "import-prefs", prefs, "--yes").code == 0
    changes = cli("settings", "history", "--json").json["changes"]
    assert len(changes) >= 2
    assert {"at", "actor", "name", "old", "new"} == set(changes[0])
    assert cli("settings", "show", "--json").json["timeouts"]["looked_up"] == 86_400


def test_settings_out_of_range_are_refused_with_the_range(cli: Command, tmp_path: Path) -> None:
    result = cli("settings", "set", "--harvested", "1000d", "--yes")
    assert (result.code, "1h (1 hour) and 999d (999 days)" in result.err) == (1, True)
    prefs = write(tmp_path / "prefs.xml", b"<p><key-lookup-cache-timeout>59</key-lookup-cache-timeout></p>")
    assert cli("settings", "import-prefs", prefs, "--yes").code == 1


def test_an_issuer_is_approved_and_its_key_served(cli: Command, tmp_path: Path) -> None:
    mail = write(tmp_path / "held.eml", held_mail("held@six.example", "Approved Root"))
    held = cli("harvest", mail, "--direction", "inbound", "--json").json["results"][0]
    assert held["verdict"] == "UNTRUSTED_ISSUER"
    missed = cli("lookup", "held@six.example", "--json").json["results"][0]["miss"]
    assert missed["code"] == "HELD"
    (issuer,) = [one for one in cli("issuers", "list", "--json").json["issuers"] if "Approved Root" in one["name"]]
    assert (issuer["state"], issuer["held"]) == ("UNDECIDED", 1)
    times: dict[str, Any] = {"not_before": NOW - 10 * DAY, "not_after": NOW + 100 * DAY}
    certificate = write(tmp_path / "root.pem", authority("Approved Root", **times).pem)
    refused = cli("issuers", "approve", issuer["id"][:6], "--certificate", certificate)
    assert (refused.code, "1 held key is then served" in refused.err) == (1, True)
    approved = cli("issuers", "approve", issuer["id"][:6], "--certificate", certificate, "--yes", "--json").json
    assert (approved["entries"], approved["state"]) == (1, "APPROVED")
    assert cli("lookup", "held@six.example").code == 0
    files = tmp_path / "keys"
    assert cli("lookup", "held@six.example", "--output", files).code == 0
    (file,) = files.iterdir()
    assert x509.load_pem_x509_certificate(file.read_bytes()).subject.rfc4514_string() == "CN=Held,O=Keycache Tests"


def test_an_issuer_is_rejected_and_its_keys_dropped(cli: Command, tmp_path: Path) -> None:
    mail = write(tmp_path / "held.eml", held_mail("reject@six.example", "Rejected Root"))
    cli("harvest", mail, "--direction", "inbound")
    (issuer,) = [one for one in cli("issuers", "list", "--json").json["issuers"] if "Rejected Root" in one["name"]]
    rejected = cli("issuers", "reject", issuer["id"], "--yes", "--json").json
    assert (rejected["entries"], rejected["state"]) == (1, "REJECTED")
    assert cli("list", "--address", "reject@six.example", "--json").json["total"] == 0
    assert cli("issuers", "approve", "ffff").code == 1


def test_what_is_exported_is_imported_as_it_was(cli: Command, tmp_path: Path) -> None:
    fingerprint = harvest(cli, tmp_path, "export@seven.example")
    file = tmp_path / "export.jsonl"
    assert cli("export", "--domain", "seven.example", "--output", file).code == 0
    assert file.stat().st_mode & 0o777 == 0o600
    (line,) = file.read_text().splitlines()
    before = json.loads(line)
    assert set(before["sightings"][0]) == {"origin", "source", "cached_at", "refreshed_at"}
    assert cli("delete", fingerprint, "--yes").code == 0
    assert cli("import", file, "--json").json == {"verdicts": {"CACHED": 1}, "failed": 0, "results": []}
    again = cli("export", "--domain", "seven.example")
    after = json.loads(again.out)
    assert {**after, "history": []} == {**before, "history": []}
    assert cli("import", file, "--json").json["verdicts"] == {"ALREADY_FRESH": 1}


def test_an_aged_entry_expires_exactly_at_its_origin_s_timeout(cli: Command, tmp_path: Path) -> None:
    """Imported with what is left of 500 days: an hour is served, a second past is not."""
    harvest(cli, tmp_path, "aged@seven.example")
    entry = json.loads(cli("export", "--address", "aged@seven.example").out)
    for left, code in ((timedelta(hours=1), 0), (-timedelta(seconds=1), 1)):
        assert cli("delete", "aged@seven.example", "--yes").code == 0
        then = (datetime.now(UTC) - timedelta(days=500) + left).isoformat()  # noqa: TID251 -- the node's clock is the machine's
        sighting = {**entry["sightings"][0], "cached_at": then, "refreshed_at": then}
        file = write(tmp_path / "aged.jsonl", json.dumps({**entry, "sightings": [sighting]}).encode())
        assert cli("import", file).code == 0
        assert cli("lookup", "aged@seven.example").code == code


def test_import_takes_keys_mail_and_folders_and_counts_verdicts(cli: Command, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    write(folder / "key.asc", key_of("asc@eight.example")[1])
    write(folder / "mail", key_mail("eml@eight.example"))
    mails = [b"From x Mon Mar  2 10:00:00 2026\r\n" + key_mail(f"mbox{number}@eight.example") for number in range(2)]
    write(folder / "mbox", b"\r\n".join(mails))
    write(folder / "plain.eml", b"From: nobody@eight.example\n\nhi\n")
    document = cli("import", folder, "--json").json
    assert (document["verdicts"], document["failed"]) == ({"CACHED": 4, "NO_KEY_MATERIAL": 1}, 0)
    listed = cli("list", "--domain", "eight.example", "--origin", "imported", "--json").json["entries"]
    assert sorted(address for entry in listed for address in entry["addresses"]) == [
        "asc@eight.example",
        "eml@eight.example",
        "mbox0@eight.example",
        "mbox1@eight.example",
    ]


def test_import_names_bad_lines_and_files_and_goes_on(cli: Command, tmp_path: Path) -> None:
    harvest(cli, tmp_path, "good@nine.example")
    good = cli("export", "--address", "good@nine.example").out
    bad = json.dumps({**json.loads(good), "protocol": "PGP"})
    forged = json.dumps({**json.loads(good), "fingerprint": "0" * 40})
    lines = write(tmp_path / "e.jsonl", f"{good}{bad}\n{forged}\n{good}".encode())
    junk = write(tmp_path / "junk.asc", b"junk")
    result = cli("import", lines, junk, tmp_path / "missing")
    assert result.code == 1
    told = " ".join(result.err.split())  # long paths are cut in the middle
    assert "INVALID" in told
    assert f"{lines.name}:2 'protocol': 'PGP' is none of SMIME, OPENPGP." in told
    assert f"{lines.name}:3" in told
    assert "MALFORMED_KEY junk.asc" in told
    assert "No such file or directory" in result.err
    assert re.search(r"ALREADY_FRESH +2", result.out)


def test_a_file_of_keys_has_the_verdict_of_its_best_key(cli: Command, tmp_path: Path) -> None:
    times: dict[str, Any] = {"not_before": NOW - 10 * DAY, "not_after": NOW + 100 * DAY}
    root = authority("Nine's Root", **times)
    good = person("both@nine.example", root, **times)
    expired = person("both@nine.example", root, not_before=NOW - 9 * DAY, not_after=NOW - DAY)
    both = write(tmp_path / "both.pem", expired.pem + good.pem)
    (result,) = cli("import", both, "--json").json["results"]
    verdicts = {key["verdict"]: key["detail"] for key in result["keys"]}
    assert set(verdicts) == {"CERTIFICATE_EXPIRED", "UNTRUSTED_ISSUER"}
    assert (result["verdict"], result["detail"]) == ("UNTRUSTED_ISSUER", verdicts["UNTRUSTED_ISSUER"])


def test_mail_without_keys_is_counted_by_an_import_and_not_listed(cli: Command, tmp_path: Path) -> None:
    result = cli("import", write(tmp_path / "plain.eml", b"From: nobody@nine.example\n\nhi\n"))
    assert (result.code, result.err) == (0, "")
    assert re.search(r"NO_KEY_MATERIAL +1", result.out)


def test_export_in_text_forms_holds_keys_of_one_protocol(cli: Command, tmp_path: Path) -> None:
    fingerprint = harvest(cli, tmp_path, "armour@ten.example")
    text = cli("export", "--domain", "ten.example", "--format", "armoured").out
    assert Cert.from_bytes(text.encode()).fingerprint == fingerprint
    pem = cli("export", "--domain", "ten.example", "--format", "pem")
    assert (pem.code, pem.out) == (0, "")
    assert "1 entries of the other protocol" in pem.err


def test_status_verdicts_and_audit_tell_how_things_are(cli: Command, tmp_path: Path) -> None:
    fingerprint = harvest(cli, tmp_path, "audit@eleven.example")
    cli("delete", fingerprint, "--yes")
    status = cli("status", "--json").json
    assert status["mode"] == "standalone"
    assert set(status["entries"]) == {"live", "expired", "held"}
    assert isinstance(status["applied_revision"], int)
    assert (status["purge"]["state"], status["purge"]["reason"]) == ("IDLE", "")
    assert status["node_id"]
    assert status["digest"]
    assert "standalone" in cli("status").out
    verdicts = cli("verdicts", "--limit", "5", "--json").json
    assert verdicts["counts"]["CACHED"] >= 1
    assert len(verdicts["recent"]) <= 5
    records = cli("audit", "--subject", fingerprint, "--json").json["records"]
    assert [record["action"] for record in records] == ["DELETE"]
    assert cli("audit").code == cli("verdicts").code == 0


def test_a_client_gets_a_certificate_that_works_for_its_role_only(cli: Command, node: Node, tmp_path: Path) -> None:
    out = tmp_path / "mta1"
    issued = cli("client", "issue", "--role", "mail-processor", "--name", "mta1", "--out", out, "--json").json
    assert issued["key"] == str(out / "mta1.key")
    assert (out / "mta1.key").stat().st_mode & 0o777 == 0o600
    options = ["--server", node.run_file["grpc"], "--ca", issued["ca"], "--cert", issued["certificate"], "--key", issued["key"]]
    assert cli("lookup", "nobody@twelve.example", *options, "--json").json["results"][0]["miss"]["code"] == "NOT_FOUND"
    refused = cli("status", *options)
    assert refused.code == 1
    assert "role" in refused.err
    again = cli("client", "issue", "--role", "mail-processor", "--name", "mta1", "--out", out)
    assert (again.code, "exist already" in again.err) == (1, True)


def test_every_table_fits_eighty_columns(cli: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    long = f"{'long.' * 9}name@thirteen.example"
    harvest(cli, tmp_path, long)
    mail = tmp_path / "mail.eml"
    commands = (
        ["status"],
        ["list", "--domain", "thirteen.example"],
        ["show", long],
        ["lookup", long],
        ["harvest", mail, "--direction", "inbound"],
        ["explain", mail, "--direction", "inbound"],
        ["settings", "show"],
        ["settings", "history"],
        ["issuers", "list"],
        ["block", "list"],
        ["audit"],
        ["verdicts"],
        ["verdicts", "--long"],
    )
    for arguments in commands:
        result = cli(*arguments)
        tables = [line for line in result.out.splitlines() if "hint" not in line]
        assert result.code == 0, arguments
        assert max(map(len, tables), default=0) <= 80, arguments
        assert "\x1b" not in result.out, arguments
