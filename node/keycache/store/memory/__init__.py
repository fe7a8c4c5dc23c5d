"""The fakes that ship: a log and a replica of plain dictionaries. Simple enough to be seen to be right; the contract suites compare
the real ones with them. Nothing outlives the process."""

from keycache.store.memory.log import MemoryLog
from keycache.store.memory.replica import MemoryReplica

__all__ = ["MemoryLog", "MemoryReplica"]
