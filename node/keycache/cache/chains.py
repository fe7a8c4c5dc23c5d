"""How many intermediates are kept. Anybody may send a mail with hostile ones, so there is an end to their number and size."""

from __future__ import annotations

from collections.abc import Mapping

CHAIN_LIMIT = 10_000
"""Intermediates kept in all: far beyond the some 3,000 public ones known to browsers, and a bound for hostile mail."""

CHAIN_BYTES = 16 << 20
"""And their size: as many of the usual 1.6 KB. Each worker holds and indexes all of them, anew after every change, and
8,000 of the greatest size would end every worker at its first task, for good."""

HELD_CHAIN_LIMIT, HELD_CHAIN_BYTES = 1_000, 2 << 20
"""What there may be already when a mail that holds a HELD key still adds to it. Anybody can make authorities nobody trusts; they
must neither crowd out trusted ones nor cost a lot. What is left out comes again with the next mail after an approval."""


CHAIN_AT_ONCE = 64
"""New ones that one mail may add: twenty signers with chains of the usual three or four, and together with the key's own record within
etcd's 128 operations a transaction (FACTS 3)."""


def affordable(known: Mapping[str, bytes], new: Mapping[str, bytes], *, held: bool) -> dict[str, bytes]:
    """Those of `new` (by name: SHA-256) that are not known and that there is room for. `held`: they came with a HELD key."""
    new = {name: one for name, one in new.items() if name not in known}
    if not new:
        return {}
    number, size = (HELD_CHAIN_LIMIT, HELD_CHAIN_BYTES) if held else (CHAIN_LIMIT, CHAIN_BYTES)
    number, size = min(number - len(known), CHAIN_AT_ONCE), size - sum(map(len, known.values()))
    chosen: dict[str, bytes] = {}
    for name, one in new.items():
        if len(chosen) < number and len(one) <= size:
            chosen[name] = one
            size -= len(one)
    return chosen
