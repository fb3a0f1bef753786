"""Runs a command with the system calls that a systemd unit lets it make, as systemd would.

python3 unit-filter.py UNIT COMMAND [ARGUMENT...]
"""

import ctypes
import errno
import os
import subprocess
import sys

ALLOW = 0x7FFF0000
ERRNO = 0x00050000


def expand(name):
    if not name.startswith("@"):
        return {name}
    text = subprocess.run(
        ["systemd-analyze", "syscall-filter", name], check=True, capture_output=True, text=True
    ).stdout
    words = [line.strip() for line in text.splitlines()[1:]]
    return set().union(*(expand(word) for word in words if word and not word.startswith("#")))


def allowed(unit):
    # What systemd itself and every program needs.
    found = expand("@default")
    for line in open(unit):
        key, _, value = line.strip().partition("=")
        if key != "SystemCallFilter":
            continue
        takes = value.startswith("~")
        names = set().union(*(expand(word) for word in value.lstrip("~").split()))
        found = found - names if takes else found | names
    return found | {"execve"}


def load(names):
    lib = ctypes.CDLL("libseccomp.so.2")
    lib.seccomp_init.restype = ctypes.c_void_p
    filter_ = ctypes.c_void_p(lib.seccomp_init(ctypes.c_uint32(ERRNO | errno.EPERM)))
    for name in sorted(names):
        number = lib.seccomp_syscall_resolve_name(name.encode())
        if number >= 0:
            lib.seccomp_rule_add(filter_, ctypes.c_uint32(ALLOW), number, 0)
    if lib.seccomp_load(filter_) != 0:
        sys.exit("cannot load the filter")


load(allowed(sys.argv[1]))
os.execvp(sys.argv[2], sys.argv[2:])
