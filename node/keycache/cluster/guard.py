"""Becomes the program it is told to, which then dies with the process that started it, whatever that one dies of.

`python -I -S -E guard.py PARENT PROGRAM ARGUMENT...`, by its path, not as a module: it must start at once and imports nothing of ours.
An own program, because the same lines run between fork and exec of a process with threads (gRPC's) may hang for ever.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1
"""prctl(2). It outlives exec, and goes by the *thread* that forked: the node starts it from the thread of its event loop."""


def main() -> None:
    parent, program, *arguments = sys.argv[1:]
    # SIGKILL, not SIGTERM: certain, even of a process that is stopped or hangs; etcd's log on disk is made for it.
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0):
        sys.exit(f"prctl(PR_SET_PDEATHSIG): {os.strerror(ctypes.get_errno())}: what is started must not outlive the node")
    if os.getppid() != int(parent):  # it died before the line above took effect
        sys.exit(0)
    os.umask(0o077)
    os.execv(program, [program, *arguments])  # noqa: S606 -- no shell is wanted


if __name__ == "__main__":
    main()
