"""Names normalise once, at the border: two spellings of one address, domain or fingerprint are one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keycache.domain.errors import InvalidInput
from keycache.domain.names import ADDRESS_LIMIT, Domain, EmailAddress, Fingerprint
from support.entries import addresses
from support.properties import bounded


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("Bob@Example.ORG", "Bob@example.org"),
        ("  bob@example.org\n", "bob@example.org"),
        ("bob@example.org.", "bob@example.org"),
        ("o'neil+tag@x.example", "o'neil+tag@x.example"),
        ("jürgen@bücher.example", "jürgen@xn--bcher-kva.example"),
        ("jürgen@XN--BCHER-KVA.example", "jürgen@xn--bcher-kva.example"),
        ("a@BÜCHER.example", "a@xn--bcher-kva.example"),
        ("a@straße.example", "a@xn--strae-oqa.example"),  # not strasse.example: another domain (RFC 5894 section 7.2)
        ("a@βόλος.example", "a@xn--nxasmm1c.example"),  # a final sigma
        ("a@localhost", "a@localhost"),
        ("a@_x.example", "a@_x.example"),
        ('"bob"@example.org', "bob@example.org"),  # quotes that are not needed mean nothing
        ('"bob..x"@example.org', '"bob..x"@example.org'),
        ('".bob"@example.org', '".bob"@example.org'),
        ('"a"', None),
    ],
)
def test_an_address_keeps_its_local_part_as_written_and_has_one_spelling_of_its_domain(written: str, text: str | None) -> None:
    if text is None:
        with pytest.raises(InvalidInput):
            EmailAddress.parse(written)
        return
    parsed = EmailAddress.parse(written)
    assert parsed.text == str(parsed) == text
    assert parsed.index == text.lower()
    assert parsed.domain == text.rpartition("@")[2]
    assert EmailAddress.parse(parsed.text) == parsed


@pytest.mark.parametrize(
    "written",
    [
        "",
        "@",
        "bob",
        "bob@",
        "@example.org",
        "bob@@example.org",
        "a@b@example.org",
        '""@example.org',
        '"a"b"@example.org',
        '"a@b"@example.org',
        "bob smith@example.org",
        "bob\x00@example.org",
        "bob\n@example.org",
        "<bob@example.org>",
        "bob@example.org, eve@example.org",
        "bob;eve@example.org",
        "bob\\@example.org",
        "bob:eve@example.org",
        "bob\udc80@example.org",  # half a character: it cannot be written down
        "bob@exa\udc80mple.org",
        "bob@exa mple.org",
        "bob@-example.org",
        "bob@example-.org",
        "bob@example..org",
        "bob@.",
        f"bob@{'a' * 64}.org",
        "bob@" + ".".join(["a" * 60] * 5),
        f"{'b' * ADDRESS_LIMIT}@example.org",
        "ü" * 160 + "@e.org",
        "bob@[127.0.0.1]",
    ],
)
def test_what_is_no_address_is_refused(written: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        EmailAddress.parse(written)
    assert len(refused.value.text) < 500


def test_an_address_of_the_greatest_length_is_accepted_and_one_octet_more_is_not() -> None:
    domain = "d" * 60 + ".example"
    local = "l" * (ADDRESS_LIMIT - len(domain) - 1)
    assert EmailAddress.parse(f"{local}@{domain}").text == f"{local}@{domain}"
    with pytest.raises(InvalidInput):
        EmailAddress.parse(f"{local}x@{domain}")


@bounded()
@given(text=st.text(max_size=40) | st.builds("{}@{}".format, st.text(max_size=10), st.text(max_size=10)))
def test_any_text_is_an_address_that_stays_the_same_or_is_refused(text: str) -> None:
    try:
        parsed = EmailAddress.parse(text)
    except InvalidInput:
        return
    assert EmailAddress.parse(parsed.text) == parsed
    assert parsed.domain.isascii()
    assert parsed.domain == parsed.domain.lower()
    parsed.text.encode()


@bounded(300)
@given(text=st.from_regex(r"[A-Za-z0-9._+@-]{1,8}@[A-Za-z0-9._-]{1,12}", fullmatch=True))
def test_an_address_that_needs_no_change_is_read_as_any_other(text: str) -> None:
    """A blank before it is dropped, and keeps it from the short way."""

    def outcome(written: str) -> str | None:
        try:
            return EmailAddress.parse(written).text
        except InvalidInput:
            return None

    assert outcome(text) == outcome(f" {text}")


@bounded()
@given(address=addresses(), upper=st.booleans())
def test_addresses_that_differ_in_case_alone_have_one_index(address: EmailAddress, upper: bool) -> None:
    other = EmailAddress.parse(address.text.upper() if upper else address.text.lower())
    assert other.index == address.index


def test_a_domain_covers_its_own_addresses_and_not_those_of_sub_domains() -> None:
    domain = Domain.parse(" @Example.ORG ")
    assert domain == Domain("example.org")
    assert domain.covers(EmailAddress.parse("a@EXAMPLE.org"))
    assert not domain.covers(EmailAddress.parse("a@sub.example.org"))
    assert not domain.covers(EmailAddress.parse("a@notexample.org"))
    assert Domain.parse("Bücher.example") == Domain.parse("xn--bcher-kva.example")


@pytest.mark.parametrize("text", ["", "@", "a b", "a/b", "-a.example", "*", "a\udc80"])
def test_what_is_no_domain_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        Domain.parse(text)


@pytest.mark.parametrize("length", [40, 64])
def test_a_fingerprint_is_read_in_every_customary_spelling(length: int) -> None:
    plain = ("0123456789abcdef" * 4)[:length]
    spaced = " ".join(plain[i : i + 4] for i in range(0, length, 4)).upper()
    colons = ":".join(plain[i : i + 2] for i in range(0, length, 2))
    for written in (plain, plain.upper(), spaced, colons, "0x" + plain, f" {plain}\n"):
        assert Fingerprint.parse(written) == Fingerprint(plain)


@pytest.mark.parametrize("text", ["", "abc", "g" * 40, "a" * 39, "a" * 41, "a" * 63, "a" * 65, "0x", "٠" * 40])
def test_what_is_no_fingerprint_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        Fingerprint.parse(text)
