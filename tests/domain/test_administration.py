"""Blocks: of a key or of an address, with or without an end."""

from __future__ import annotations

from datetime import timedelta

from keycache.domain.administration import Block, BlockKind, BlockList
from keycache.domain.names import EmailAddress
from support.entries import T0, fingerprint_of

US = timedelta(microseconds=1)
END = T0 + timedelta(days=1)


def test_a_block_holds_until_its_end_and_not_at_it() -> None:
    block = Block(kind=BlockKind.ADDRESS, value="a@example.org", until=END, at=T0)
    assert (block.holds(T0), block.holds(END - US), block.holds(END)) == (True, True, False)
    assert Block(kind=BlockKind.ADDRESS, value="a@example.org", at=T0).holds(END + timedelta(days=10_000))


def test_a_key_and_an_address_are_found_by_what_was_blocked_of_them() -> None:
    key = Block(kind=BlockKind.FINGERPRINT, value=fingerprint_of(1).text, at=T0)
    address = Block(kind=BlockKind.ADDRESS, value="bob@example.org", until=END, at=T0)
    blocks = BlockList((key, address))
    assert blocks.of_fingerprint(fingerprint_of(1), T0) == key
    assert blocks.of_fingerprint(fingerprint_of(2), T0) is None
    assert blocks.of_address(EmailAddress.parse("BOB@Example.org"), T0) == address
    assert blocks.of_address(EmailAddress.parse("BOB@Example.org"), END) is None
    assert blocks.of_address(EmailAddress.parse("alice@example.org"), T0) is None


def test_no_blocks_block_nothing() -> None:
    assert BlockList().of_fingerprint(fingerprint_of(1), T0) is None
    assert BlockList() == BlockList(())
