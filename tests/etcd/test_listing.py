from __future__ import annotations

import random

from contract.log_words import committed, listed
from keycache.domain.entry import Protocol
from keycache.domain.log import Transaction, entry_key
from keycache.etcd.keys import STRETCH
from support.entries import fingerprint_of
from support.etcd import shared_etcd
from support.etcd_log import founded

AROUND = ("audit/1", "entries/openpgp/", "entries/smime/zz", "entriez", "settings", "witnesses/9")
"""Before, between, among and behind the stretches."""


async def test_a_listing_in_stretches_tells_every_key_once_in_order_and_at_one_revision() -> None:
    keys = [entry_key(protocol, fingerprint_of(number, protocol)) for protocol in Protocol for number in range(STRETCH + 100)]
    keys += AROUND
    random.Random(1).shuffle(keys)
    async with founded(shared_etcd().endpoints) as log:
        for start in range(0, len(keys), 100):
            revision = await committed(log, Transaction(compare={}, puts=dict.fromkeys(keys[start : start + 100], b"x")))
        pages = await listed(log, page_size=700)
        assert [record.key for page in pages for record in page.records] == sorted(keys)
        assert {page.revision for page in pages} == {revision}
        assert max(len(page.records) for page in pages) == 700
