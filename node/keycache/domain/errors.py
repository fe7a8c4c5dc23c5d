"""One tree for everything Keycache refuses or cannot do.

    KeycacheError              code, text, hint
    +-- InvalidInput           the caller sent something malformed; nothing changed
    |   +-- OutOfRange         a number outside its documented range
    +-- NotFound               what was named is not here
    +-- Refused                understood, but a rule forbids it
    |   +-- ConfirmationNeeded a person must say yes first
    |   +-- PermissionDenied   the caller's role may not do this
    +-- Conflict               somebody else changed it first; try again
    +-- Unavailable            a part we depend on does not answer now
    |   +-- LogUnavailable     the entry log takes no writes now
    |   |   +-- LogFull        it has reached its quota
    |   |   +-- LogOverloaded  it has too much to do: back off, no more
    |   +-- LogCompacted       the log no longer holds that revision: list again
    |   +-- OutboxFull         what waits for the log is as much as this node may keep
    +-- RecordTooLarge         one record is larger than the log takes
    +-- ForeignLog             the log is another one than the replica was filled from, or went back in time
    +-- StoreError             the database on disk
    |   +-- StoreCorrupt       unreadable; never overwritten
    |   +-- StoreTooNew        written by a later version
    +-- ConfigError            the configuration file or the data directory

`text` says what happened and to what; `hint` says what to do next. Both are for administrators and never hold secrets
or mail content. Edges translate by class in one table each.
"""

from __future__ import annotations


class KeycacheError(Exception):
    """Base of the tree. `text`: what happened, to what. `hint`: what to do next (may be empty)."""

    code = "INTERNAL"

    def __init__(self, text: str, *, hint: str = "") -> None:
        super().__init__(text)
        self.text = text
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.text} {self.hint}".strip()


class InvalidInput(KeycacheError):
    code = "INVALID_INPUT"


class OutOfRange(InvalidInput):
    code = "OUT_OF_RANGE"


class NotFound(KeycacheError):
    code = "NOT_FOUND"


class Refused(KeycacheError):
    code = "REFUSED"


class ConfirmationNeeded(Refused):
    code = "CONFIRMATION_NEEDED"


class PermissionDenied(Refused):
    code = "PERMISSION_DENIED"


class Conflict(KeycacheError):
    code = "CONFLICT"


class Unavailable(KeycacheError):
    code = "UNAVAILABLE"


class LogUnavailable(Unavailable):
    code = "LOG_UNAVAILABLE"


class LogFull(LogUnavailable):
    code = "LOG_FULL"


class LogOverloaded(LogUnavailable):
    code = "LOG_OVERLOADED"


class LogCompacted(Unavailable):
    """Raised by a watch that starts below `compacted`; the remedy is to list again, never to skip."""

    code = "LOG_COMPACTED"

    def __init__(self, text: str, *, compacted: int, hint: str = "") -> None:
        super().__init__(text, hint=hint)
        self.compacted = compacted


class OutboxFull(Unavailable):
    code = "OUTBOX_FULL"


class RecordTooLarge(KeycacheError):
    code = "RECORD_TOO_LARGE"


class ForeignLog(KeycacheError):
    code = "FOREIGN_LOG"


class StoreError(KeycacheError):
    code = "STORE"


class StoreCorrupt(StoreError):
    code = "STORE_CORRUPT"


class StoreTooNew(StoreError):
    code = "STORE_TOO_NEW"


class ConfigError(KeycacheError):
    code = "CONFIG"
