"""One message on a pipe: four bytes of length, big-endian, then that many bytes. An empty frame from a worker: ready."""

from __future__ import annotations

import struct

LENGTH = struct.Struct(">I")

ANSWER_LIMIT = 32 * 1024 * 1024
"""Bytes of an answer: what a worker may say of a message of 25 MiB whose keys it all repeats. More is a worker gone mad."""


MEMORY = "MEMORY"
"""An answer's `error` when memory ran out; every other is the name of an exception's type."""


def frame(payload: bytes) -> bytes:
    return LENGTH.pack(len(payload)) + payload
