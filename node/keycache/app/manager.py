"""What the service manager hears of the node: the protocol of sd_notify(3), which is one datagram a message."""

from __future__ import annotations

import os
import socket

from keycache import logs

READY, STOPPING = "READY=1", "STOPPING=1"

_log = logs.get_logger(__name__)


def tell_manager(message: str) -> None:
    """Nothing happens where no manager asked to be told. One that cannot be told is no reason to stop serving."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    # A name that begins with @ lies in the abstract namespace, whose names begin with a zero byte (unix(7)).
    target = f"\0{address[1:]}" if address.startswith("@") else address
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            channel.sendto(message.encode(), socket.MSG_DONTWAIT, target)
    except OSError as error:
        _log.warning("the service manager cannot be told", word=message, problem=error.strerror or str(error))
