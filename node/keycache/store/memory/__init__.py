"""The fakes that ship: a log, a replica and an outbox of plain dictionaries. Simple enough to be seen to be right; the contract suites
compare the real ones with them. Nothing outlives the process."""

from keycache.store.memory.log import MemoryLog
from keycache.store.memory.outbox import MemoryOutbox
from keycache.store.memory.replica import MemoryReplica

__all__ = ["MemoryLog", "MemoryOutbox", "MemoryReplica"]
