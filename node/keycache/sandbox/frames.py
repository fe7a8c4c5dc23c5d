"""One message on a pipe: four bytes of length, big-endian, then that many bytes. An empty frame from a worker: ready."""

from __future__ import annotations

import struct

LENGTH = struct.Struct(">I")

ANSWER_LIMIT = 64 * 1024 * 1024
"""Bytes of an answer: all keys of a file of 25 MiB, with two kilobytes of words on each of 10,000. More is a worker gone mad."""


MEMORY = "MEMORY"
"""An answer's `error` when memory ran out; every other is the name of an exception's type."""


def frame(payload: bytes) -> bytes:
    return LENGTH.pack(len(payload)) + payload
