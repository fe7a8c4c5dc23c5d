"""Becomes a command under the limits of a unit, as systemd would start it: a machine that runs the tests has no systemd at work.

`python confined.py UNIT WRITABLE COMMAND...`. Of the unit hold: SystemCallFilter, MemoryDenyWriteExecute, RestrictAddressFamilies,
RestrictNamespaces, NoNewPrivileges, CapabilityBoundingSet, LimitNOFILE, LimitCORE, and of ProtectSystem=strict that all but WRITABLE (its
StateDirectory) is for reading. As root, or where users may have namespaces.
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import socket
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.units import Unit, allowed_calls, read_unit

# Numbers of prctl(2), mount_setattr(2), mount(2), clone(2) and mmap(2).
_PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 24, 38
_MOUNT_SETATTR, _AT_RECURSIVE, _MOUNT_ATTR_RDONLY, _AT_FDCWD = 442, 0x8000, 1, -100
_MS_BIND, _MS_REC, _MS_PRIVATE = 0x1000, 0x4000, 0x40000
_CLONE_NEWNS, _CLONE_NEWUSER = 0x20000, 0x10000000
_NAMESPACES = 0x7E020080
"""All CLONE_NEW* that clone(2) can be asked for."""
_WRITE, _EXECUTE = 2, 4

# Of libseccomp.
_ALLOW, _ERRNO, _EQUAL, _MASKED_EQUAL = 0x7FFF0000, 0x00050000, 4, 7

_libc = ctypes.CDLL(None, use_errno=True)


class _Compare(ctypes.Structure):
    _fields_ = (("argument", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64))


class _Attributes(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_uint64) for name in ("set", "clear", "propagation", "userns"))


def _done(what: str, result: int) -> None:
    if result < 0:
        number = ctypes.get_errno() or -result
        sys.exit(f"confined: {what}: {os.strerror(number)}")


def _read_only_but(writable: Path) -> None:
    user, group = os.geteuid(), os.getegid()
    _done("unshare", _libc.unshare(_CLONE_NEWNS if user == 0 else _CLONE_NEWNS | _CLONE_NEWUSER))
    if user:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    place = os.fsencode(writable)
    _done("private mounts", _libc.mount(None, b"/", None, _MS_REC | _MS_PRIVATE, None))
    _done("bind", _libc.mount(place, place, None, _MS_BIND, None))
    for where, attributes in ((b"/", _Attributes(set=_MOUNT_ATTR_RDONLY)), (place, _Attributes(clear=_MOUNT_ATTR_RDONLY))):
        _done("mount_setattr", _libc.syscall(_MOUNT_SETATTR, _AT_FDCWD, where, _AT_RECURSIVE, ctypes.byref(attributes), 32))


def _no_capabilities() -> None:
    """Root without any is nobody in particular. Who is not root has none."""
    if os.geteuid() == 0:
        for number in range(int(Path("/proc/sys/kernel/cap_last_cap").read_text()) + 1):
            _done("capabilities", _libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0))


def _filter_calls(unit: Unit) -> None:
    library = ctypes.CDLL("libseccomp.so.2", use_errno=True)
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_init.argtypes = (ctypes.c_uint32,)
    library.seccomp_load.argtypes = (ctypes.c_void_p,)
    library.seccomp_rule_add_array.argtypes = (
        ctypes.c_void_p,
        ctypes.c_uint32,
        ctypes.c_int,
        ctypes.c_uint,
        ctypes.POINTER(_Compare),
    )
    context = library.seccomp_init(_ERRNO | errno.EPERM)

    def rule(action: int, name: str, *compares: _Compare) -> None:
        number = library.seccomp_syscall_resolve_name(name.encode())
        if number >= 0:  # else it is none of this machine's
            array = (_Compare * len(compares))(*compares)
            _done(name, library.seccomp_rule_add_array(context, action, number, len(compares), array))

    calls = set(allowed_calls(unit))
    if unit["Service.RestrictAddressFamilies"]:
        calls.discard("socket")
        for family in " ".join(unit["Service.RestrictAddressFamilies"]).split():
            rule(_ALLOW, "socket", _Compare(0, _EQUAL, getattr(socket, family), 0))
    if unit["Service.MemoryDenyWriteExecute"] == ["yes"]:
        calls -= {"mmap", "mprotect", "pkey_mprotect"}
        for protection in (0, _WRITE, _EXECUTE):
            rule(_ALLOW, "mmap", _Compare(2, _MASKED_EQUAL, _WRITE | _EXECUTE, protection))
        for name in ("mprotect", "pkey_mprotect"):
            rule(_ALLOW, name, _Compare(2, _MASKED_EQUAL, _EXECUTE, 0))
    if unit["Service.RestrictNamespaces"] == ["yes"]:
        calls -= {"clone", "clone3", "unshare", "setns"}
        rule(_ALLOW, "clone", _Compare(0, _MASKED_EQUAL, _NAMESPACES, 0))
        rule(_ERRNO | errno.ENOSYS, "clone3")  # its flags cannot be seen; who gets this answer takes clone
    for name in sorted(calls):
        rule(_ALLOW, name)
    _done("seccomp", library.seccomp_load(context))


def main() -> None:
    path, writable, *command = sys.argv[1:]
    unit = read_unit(Path(path))
    for key, which in (("LimitNOFILE", resource.RLIMIT_NOFILE), ("LimitCORE", resource.RLIMIT_CORE)):
        (value,) = unit[f"Service.{key}"]
        hard = resource.getrlimit(which)[1]  # only root may go beyond, and not in every container
        number = int(value) if hard == resource.RLIM_INFINITY else min(int(value), hard)
        resource.setrlimit(which, (number, number))
    _read_only_but(Path(writable))
    _no_capabilities()
    _done("no new privileges", _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    _filter_calls(unit)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
