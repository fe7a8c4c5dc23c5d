"""The token's text survives copying and typing; what is wrong with it is told before anything is sent."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keycache.domain.errors import InvalidInput, OutOfRange
from keycache.domain.join_token import (
    ENTROPY_BYTES,
    TTL_DEFAULT,
    TTL_MAX,
    TTL_MIN,
    HostPort,
    Joiner,
    JoinToken,
    TokenRecord,
    TokenState,
    TokenVerdict,
    judge,
    record_of,
)
from keycache.domain.names import NodeId
from keycache.domain.secret import Secret
from support.properties import bounded

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
ENTROPY, AUTHORITY = bytes(range(ENTROPY_BYTES)), hashlib.sha256(b"authority").digest()
HOST = HostPort("cache1.example.org", 7642)
TOKEN = JoinToken.new(ENTROPY, endpoints=(HOST, HostPort("2001:db8::7", 7642)), authority=AUTHORITY)
TEXT = TOKEN.reveal()
JOINER = Joiner(node=NodeId("b"), key=b"k" * 32)
RECORD = record_of(TOKEN, created_by="tester", now=NOW)

endpoints = st.builds(
    HostPort,
    st.sampled_from(["localhost", "a.example", "xn--schlssel-95a.example", "192.0.2.7", "::1", "2001:db8::7"]),
    st.integers(1, 65535),
)
tokens = st.builds(
    lambda entropy, places, authority: JoinToken.new(entropy, endpoints=places, authority=authority),
    st.binary(min_size=ENTROPY_BYTES, max_size=ENTROPY_BYTES),
    st.lists(endpoints, min_size=1, max_size=5),
    st.binary(min_size=32, max_size=32),
)


def test_a_token_reads_as_where_to_go_and_groups_of_four() -> None:
    version, places, code = TEXT.split("/")
    assert (version, places) == ("kc1", "cache1.example.org:7642,[2001:db8::7]:7642")
    assert [len(group) for group in code.split("-")] == [4] * 22
    assert len(JoinToken.new(ENTROPY, endpoints=(HOST,), authority=AUTHORITY).reveal()) == 137


@bounded(100)
@given(token=tokens)
def test_a_token_comes_back_from_its_text(token: JoinToken) -> None:
    assert JoinToken.parse(token.reveal()) == token


@pytest.mark.parametrize(
    "typed",
    [
        f"  {TEXT}\n",
        f"'{TEXT}'",
        TEXT.lower(),
        TEXT.upper(),
        TEXT[:50] + "\n   " + TEXT[50:],
        TEXT[:70] + "\u200b" + TEXT[70:],
        "/".join([*TEXT.split("/")[:2], TEXT.split("/")[2].replace("-", "")]),
        "/".join([*TEXT.split("/")[:2], TEXT.split("/")[2].replace("0", "O").replace("1", "l")]),
    ],
)
def test_how_a_token_is_typed_does_not_matter(typed: str) -> None:
    assert JoinToken.parse(typed) == TOKEN


def test_every_single_wrong_character_is_noticed() -> None:
    for at, right in enumerate(TEXT):
        for wrong in "7XQ":
            if right not in "-/" and right.upper() != wrong:
                with pytest.raises(InvalidInput, match="Nothing was sent"):
                    JoinToken.parse(TEXT[:at] + wrong + TEXT[at + 1 :])


def test_every_two_neighbours_that_changed_places_are_noticed() -> None:
    for at, (one, two) in enumerate(pairwise(TEXT)):
        if one != two and not {one, two} & set("-/"):
            with pytest.raises(InvalidInput, match="Nothing was sent"):
                JoinToken.parse(TEXT[:at] + two + one + TEXT[at + 2 :])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "This is not a token for joining a cluster: one begins with 'kc1/'."),
        ("hunter2", "This is not a token for joining a cluster: one begins with 'kc1/'."),
        (TEXT[:-1], "The token is too short: its last part has 87 of 88 letters and digits."),
        (TEXT + "0", "The token is too long: its last part has 89 of 88 letters and digits."),
        (TEXT[:-1] + "U", "The token is mistyped: 'U' stands in no token."),
        (TEXT.replace("7642", "76420"), "The token is mistyped: 'cache1.example.org:76420' does not name a host and a port"),
        (TEXT.replace("cache1", "cache2"), "The token is mistyped: a character of it is wrong, or two changed places."),
        (TEXT.replace("kc1", "kc2"), "This token is of a kind (kc2) that this version of Keycache does not know."),
    ],
)
def test_what_is_wrong_with_a_token_is_told(text: str, told: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        JoinToken.parse(text)
    assert refused.value.text.startswith(told)
    assert "Nothing was sent." in refused.value.hint
    assert TEXT.split("/")[2][:30] not in str(refused.value)


@bounded(200)
@given(text=st.text(max_size=200) | st.text("kc1/:-0123456789ABCDEF", max_size=200).map(lambda rest: "kc1/" + rest))
def test_any_text_is_a_token_or_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        JoinToken.parse(text)


def test_a_token_does_not_show_its_secret() -> None:
    shown = f"{TOKEN!r} {TOKEN} {TOKEN.secret} {RECORD!r}"
    assert "redacted" in shown
    secret = TOKEN.secret.reveal()
    for form in (repr(secret), secret.hex(), TEXT.split("/")[2][10:30]):
        assert form not in shown


def test_secrets_are_equal_by_their_bytes_and_unequal_to_anything_else() -> None:
    assert Secret(b"a") == Secret(b"a")
    assert hash(Secret(b"a")) == hash(Secret(b"a"))
    assert Secret(b"a") != Secret(b"b")
    assert Secret(b"a") != b"a"


@pytest.mark.parametrize("count", [0, 6])
def test_a_token_needs_an_address_and_carries_at_most_five(count: int) -> None:
    with pytest.raises(InvalidInput, match="1 to 5 addresses"):
        JoinToken.new(ENTROPY, endpoints=[HOST] * count, authority=AUTHORITY)


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("Cache.Example.ORG:7642", "cache.example.org:7642"),
        ("schlüssel.example:1", "xn--schlssel-95a.example:1"),
        ("[2001:DB8:0::7]:65535", "[2001:db8::7]:65535"),
        (" 192.0.2.7:7642 ", "192.0.2.7:7642"),
    ],
)
def test_an_address_is_normalised(text: str, whole: str) -> None:
    assert str(HostPort.parse(text)) == whole


@pytest.mark.parametrize(
    "text", ["", "host", "host:", ":1", "host:0", "host:65536", "host:07", "::1:7642", "[host]:1", "[192.0.2.7]:1", "a b:1"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="does not name a host and a port"):
        HostPort.parse(text)


def test_the_log_keeps_the_hash_of_the_secret_alone() -> None:
    whole = TokenRecord(
        id="00010203",
        secret_sha256=hashlib.sha256(ENTROPY[4:]).digest(),
        created_at=NOW,
        created_by="tester",
        expires_at=NOW + TTL_DEFAULT,
    )
    assert (RECORD, RECORD.state) == (whole, TokenState.UNUSED)


def verdict(
    record: TokenRecord | None, secret: Secret = TOKEN.secret, joiner: Joiner = JOINER, at: datetime = NOW
) -> TokenVerdict:
    return judge(record, secret=secret, joiner=joiner, now=at)


def test_a_token_lets_in_until_the_moment_it_expires() -> None:
    assert verdict(RECORD) is TokenVerdict.OK
    assert verdict(RECORD, at=RECORD.expires_at - timedelta(microseconds=1)) is TokenVerdict.OK
    assert verdict(RECORD, at=RECORD.expires_at) is TokenVerdict.EXPIRED


def test_an_unknown_token_lets_nobody_in() -> None:
    assert verdict(None) is TokenVerdict.UNKNOWN


def test_a_used_token_is_good_for_the_same_node_with_the_same_key_alone() -> None:
    used = replace(RECORD, used_by=JOINER, used_at=NOW)
    assert used.state is TokenState.USED
    assert verdict(used) is TokenVerdict.OK
    assert verdict(used, joiner=replace(JOINER, node=NodeId("c"))) is TokenVerdict.USED
    assert verdict(used, joiner=replace(JOINER, key=b"x" * 32)) is TokenVerdict.USED
    assert verdict(used, at=used.expires_at) is TokenVerdict.EXPIRED


@pytest.mark.parametrize("record", [RECORD, replace(RECORD, used_by=JOINER, used_at=NOW), replace(RECORD, expires_at=NOW)])
def test_who_does_not_hold_the_secret_learns_nothing_of_the_tokens_state(record: TokenRecord) -> None:
    assert verdict(record, secret=Secret(b"?" * 16)) is TokenVerdict.WRONG_SECRET
    assert verdict(record, secret=Secret(b"")) is TokenVerdict.WRONG_SECRET


def test_every_verdict_has_a_sentence_of_its_own() -> None:
    sentences = {verdict.sentence for verdict in TokenVerdict}
    assert len(sentences) == len(TokenVerdict)
    assert all(sentence.endswith(".") for sentence in sentences)


def test_a_record_that_says_used_names_by_whom() -> None:
    with pytest.raises(ValueError, match="names its user"):
        replace(RECORD, used_at=NOW)


@pytest.mark.parametrize("ttl", [TTL_MIN, TTL_DEFAULT, TTL_MAX])
def test_a_token_lives_as_long_as_asked(ttl: timedelta) -> None:
    assert record_of(TOKEN, created_by="a", now=NOW, ttl=ttl).expires_at == NOW + ttl


@pytest.mark.parametrize("ttl", [timedelta(), TTL_MIN - timedelta(microseconds=1), TTL_MAX + timedelta(seconds=1), -TTL_MIN])
def test_a_life_out_of_range_is_refused_with_the_range(ttl: timedelta) -> None:
    with pytest.raises(OutOfRange, match="from 1m to 7d"):
        record_of(TOKEN, created_by="a", now=NOW, ttl=ttl)
