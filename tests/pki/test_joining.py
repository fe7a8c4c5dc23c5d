"""The certificates of a node that joins and leaves, cut off anywhere."""

from __future__ import annotations

import shutil
import stat
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from keycache.domain.errors import KeycacheError, Refused
from keycache.domain.names import NodeId
from keycache.pki import NodePki, PrivateKey, open_pki, read_peer
from keycache.pki.joining import (
    JoinRequest,
    abandon_join,
    accept_admission,
    prepare_join,
    return_to_own,
    settle,
    take_admission,
)

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
HOST, JOINER = NodeId("host"), NodeId("joiner")


@pytest.fixture
def host(tmp_path: Path) -> NodePki:
    return open_pki(tmp_path / "host" / "pki", names=(), now=NOW, node=HOST)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "data" / "pki"


def request(place: Path) -> JoinRequest:
    return prepare_join(place, JOINER)


def accept(place: Path, host: NodePki, **changes: object) -> None:
    answer = {
        "node": JOINER,
        "certificate": host.sign_node(request(place).csr, node=JOINER, names=("b.example",), now=NOW).certificate,
        "ca": host.authority.pem,
        "ca_key": host.authority.key,
        "authority": bytes.fromhex(host.authority.id),
        "now": NOW,
    }
    accept_admission(place, **{**answer, **changes})  # type: ignore[arg-type]


def take(place: Path, host: NodePki) -> None:
    take_admission(place, authority=bytes.fromhex(host.authority.id))


def authority_of(place: Path) -> str:
    return open_pki(place, names=(), now=NOW).authority.id


def test_a_join_puts_the_cluster_in_the_place_of_the_nodes_own_and_leaving_gives_it_back(place: Path, host: NodePki) -> None:
    own = open_pki(place, names=(), now=NOW)
    accept(place, host)
    assert authority_of(place) == own.authority.id, "nothing changes before the admission is taken"
    take(place, host)
    joined = open_pki(place, names=(), now=NOW, node=JOINER)
    assert (joined.authority.id, joined.trusted) == (host.authority.id, host.trusted)
    assert read_peer(joined.server.certificate).node == JOINER
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in place.iterdir() if path.suffix == ".key"}
    assert modes == dict.fromkeys(("ca.key", "server.key", "admin.key"), 0o600)
    assert return_to_own(place)
    back = open_pki(place, names=(), now=NOW)
    assert (back.server, back.admin, back.authority.pem) == (own.server, own.admin, own.authority.pem)
    assert [path.name for path in place.parent.iterdir()] == ["pki"]


def test_the_certificate_that_the_host_signed_is_used_as_it_is(place: Path, host: NodePki) -> None:
    names = ("localhost", "127.0.0.1", "::1", "b.example")
    certificate = host.sign_node(request(place).csr, node=JOINER, names=names, now=NOW).certificate
    accept(place, host, certificate=certificate)
    take(place, host)
    assert open_pki(place, names=("b.example",), now=NOW, node=JOINER).server.certificate == certificate


def test_a_request_that_is_made_again_is_for_the_same_key_until_the_join_is_abandoned(place: Path) -> None:
    first = request(place)
    assert request(place).key == first.key
    abandon_join(place)
    assert request(place).key != first.key


def test_a_node_that_never_ran_alone_can_join(place: Path, host: NodePki) -> None:
    accept(place, host)
    take(place, host)
    assert authority_of(place) == host.authority.id


def test_a_node_that_founded_its_cluster_has_nothing_to_go_back_to_and_begins_anew(place: Path) -> None:
    founded = open_pki(place, names=(), now=NOW, node=HOST)
    assert not return_to_own(place)
    assert authority_of(place) != founded.authority.id


def test_a_node_that_joins_another_cluster_without_leaving_keeps_its_own_first_authority(
    place: Path, host: NodePki, tmp_path: Path
) -> None:
    own = authority_of(place)
    accept(place, host)
    take(place, host)
    second = open_pki(tmp_path / "second" / "pki", names=(), now=NOW, node=HOST)
    accept(place, second)
    take(place, second)
    assert authority_of(place) == second.authority.id
    assert return_to_own(place)
    assert authority_of(place) == own


@dataclass
class Answers:
    host: NodePki
    other: NodePki
    place: Path

    def of_another_key(self) -> dict[str, object]:
        stranger = prepare_join(self.place.with_name("stranger"), JOINER)
        return {"certificate": self.host.sign_node(stranger.csr, node=JOINER, names=(), now=NOW).certificate}

    def of_another_node(self) -> dict[str, object]:
        return {"certificate": self.host.sign_node(request(self.place).csr, node=HOST, names=(), now=NOW).certificate}

    def of_the_right_authority_but_signed_by_another(self) -> dict[str, object]:
        return {"certificate": self.other.sign_node(request(self.place).csr, node=JOINER, names=(), now=NOW).certificate}

    def of_a_client(self) -> dict[str, object]:
        return {"certificate": self.host.admin.certificate}

    def of_another_authority(self) -> dict[str, object]:
        signed = self.other.sign_node(request(self.place).csr, node=JOINER, names=(), now=NOW).certificate
        return {"certificate": signed, "ca": self.other.authority.pem, "ca_key": self.other.authority.key}

    def of_another_key_of_the_authority(self) -> dict[str, object]:
        return {"ca_key": PrivateKey.generate()}

    def that_is_rubbish(self) -> dict[str, object]:
        return {"certificate": b"rubbish"}

    def under_a_clock_that_is_off(self) -> dict[str, object]:
        return {"now": NOW - timedelta(days=4000)}


@pytest.mark.parametrize("which", [name for name in vars(Answers) if name.startswith(("of_", "that_", "under_"))])
def test_an_answer_is_refused_and_changes_nothing(which: str, place: Path, host: NodePki, tmp_path: Path) -> None:
    own = authority_of(place)
    other = open_pki(tmp_path / "other" / "pki", names=(), now=NOW, node=HOST)
    changes = getattr(Answers(host, other, place), which)()
    with pytest.raises(Refused):
        accept(place, host, **changes)
    with pytest.raises(Refused, match="No host has admitted"):
        take(place, host)
    assert authority_of(place) == own


CUTS = {
    "a request made": ("pki", "pki.joining?"),
    "admitted": ("pki", "pki.joining"),
    "own one put by": ("pki.before-join", "pki.joining"),
    "own one put by before, a cluster's on its way out": ("pki.before-join", "pki.leaving", "pki.joining"),
    "taken": ("pki.before-join", "pki"),
    "taken, another cluster's on its way out": ("pki.before-join", "pki.leaving", "pki"),
}
"""Directories that a join may leave behind when it is cut off: after each of its renames."""


@pytest.mark.parametrize("cut", CUTS)
def test_a_join_that_is_cut_off_anywhere_is_whole_before_or_after_and_goes_on(
    cut: str, place: Path, host: NodePki, tmp_path: Path
) -> None:
    own = lay_out(place, host, CUTS[cut], tmp_path)
    if authority_of(place) == own:
        assert cut in {"a request made", "admitted"}, "nothing was changed yet"
        accept(place, host)
    take(place, host)
    assert authority_of(place) == host.authority.id
    assert not place.with_name("pki.leaving").exists()
    assert return_to_own(place)
    assert authority_of(place) == own
    assert [path.name for path in place.parent.iterdir()] == ["pki"]


@pytest.mark.parametrize("cut", [("pki.before-join", "pki.leaving"), ("pki", "pki.leaving")])
def test_leaving_that_is_cut_off_is_finished_by_the_next_start_and_leaves_no_key(
    cut: tuple[str, ...], place: Path, host: NodePki, tmp_path: Path
) -> None:
    own = lay_out(place, host, cut, tmp_path)
    assert authority_of(place) == own
    assert [path.name for path in place.parent.iterdir()] == ["pki"]


def lay_out(place: Path, host: NodePki, names: tuple[str, ...], tmp_path: Path) -> str:
    """Directories of these names: the node's own authority, one that a host gave, one of a cluster it was in. The id of its own."""
    made = tmp_path / "made" / "pki"
    own = authority_of(made)
    accept(made, host)
    left = tmp_path / "left" / "pki"
    authority_of(left)
    sources = {"pki.before-join": made, "pki.joining": made.with_name("pki.joining"), "pki.leaving": left}
    sources["pki"] = made.with_name("pki.joining") if "pki.before-join" in names else made
    place.parent.mkdir(parents=True)
    for name in names:
        if name.endswith("?"):
            request(place)
        else:
            shutil.copytree(sources[name], place.with_name(name))
    return own


def test_settling_when_nothing_was_cut_off_does_nothing(place: Path) -> None:
    own = authority_of(place)
    before = {path: path.read_bytes() for path in place.iterdir()}
    settle(place)
    assert {path: path.read_bytes() for path in place.iterdir()} == before
    assert authority_of(place) == own


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(b"a file where a directory should be")
    with pytest.raises(KeycacheError, match="Cannot make"):
        request(tmp_path / "data" / "pki")
