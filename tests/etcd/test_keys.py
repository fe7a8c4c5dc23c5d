from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keycache.domain.errors import InvalidInput
from keycache.etcd.keys import KeySpace

KEYS = KeySpace("mail-1")
names = st.text(min_size=1).filter(lambda name: name not in {"identity", "barrier"} and name.isprintable())


@given(name=names)
def test_a_key_comes_back_as_it_went(name: str) -> None:
    encoded = KEYS.encode(name)
    assert KEYS.first < encoded < KEYS.end
    assert KEYS.decode(encoded) == name


@given(one=names, other=names)
def test_keys_are_ordered_in_etcd_as_they_are_as_text(one: str, other: str) -> None:
    assert (one < other) == (KEYS.encode(one) < KEYS.encode(other))


def test_the_range_of_a_cluster_ends_before_a_cluster_with_a_longer_name() -> None:
    longer = KeySpace("mail-10")
    assert not KEYS.first <= longer.encode("a") < KEYS.end


@pytest.mark.parametrize(
    "key", [b"/keycache/mail-1/", b"/keycache/mail-1/identity", b"/keycache/mail-1/barrier", b"/keycache/mail-1/\xff"]
)
def test_what_is_no_record_of_ours_has_no_name(key: bytes) -> None:
    assert KEYS.decode(key) is None


@pytest.mark.parametrize("name", ["", "a/b", "..", "-x", "a b", "ä", "x" * 64, "a\n"])
def test_a_name_that_would_leave_its_place_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput):
        KeySpace(name)
