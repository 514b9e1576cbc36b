"""A system-call filter (seccomp) that allows threads but no processes.

Memory limits apply per process, so each new process would get the full amount again. The filter also refuses memory
that no limit counts, ways out of the sandbox, and parts of the kernel that model-written programs do not need. Linux
numbers the calls differently on each processor architecture.
"""

from __future__ import annotations

import errno
import platform
import struct

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _KIND, _FIRST_ARGUMENT = 0, 4, 16
"""Offsets in the filter's input: struct seccomp_data."""
_ALLOW, _KILL, _ERROR = 0x7FFF0000, 0x80000000, 0x00050000
_CLONE_THREAD = 0x10000
_X32 = 0x40000000
"""From here on the numbers belong to x32, another interface of x86-64."""
_CLONE3 = 435
"""A filter cannot read its flags; if it is missing, the C library uses clone."""

_KINDS = {
    # AUDIT_ARCH_*, clone, and in turn: fork and vfork (only on x86), unshare, setns, shmget, msgget, semget,
    # memfd_create, memfd_secret, ptrace, process_vm_readv and _writev, add_key, request_key, keyctl, bpf,
    # perf_event_open, userfaultfd, io_uring_setup
    "x86_64": (0xC000003E, 56, (
        57, 58, 272, 308, 29, 68, 64, 319, 447, 101, 310, 311, 248, 249, 250, 321, 298, 323, 425,
    )),
    "aarch64": (0xC00000B7, 220, (
        97, 268, 194, 186, 190, 279, 447, 117, 270, 271, 217, 218, 219, 280, 241, 282, 425,
    )),
}  # fmt: skip


def no_new_processes() -> bytes | None:
    """Return the filter for this machine's processor in the kernel's format; None for other processors."""
    if platform.machine() not in _KINDS:
        return None
    kind, clone, refused = _KINDS[platform.machine()]

    def result(code: int) -> tuple[int, int, int, int]:
        return _RETURN, 0, 0, code

    no, missing = result(_ERROR | errno.EPERM), result(_ERROR | errno.ENOSYS)
    # Each step: operation, number of steps to skip if true and if false, value.
    steps = [
        (_LOAD, 0, 0, _KIND), (_EQUAL, 1, 0, kind), result(_KILL),
        (_LOAD, 0, 0, _NUMBER), (_AT_LEAST, 0, 1, _X32), no,
        (_EQUAL, 0, 1, _CLONE3), missing,
    ]  # fmt: skip
    for number in refused:
        steps += [(_EQUAL, 0, 1, number), no]
    steps += [
        (_EQUAL, 0, 3, clone), (_LOAD, 0, 0, _FIRST_ARGUMENT), (_ANY_BIT, 1, 0, _CLONE_THREAD), no, result(_ALLOW),
    ]  # fmt: skip
    return b"".join(struct.pack("=HBBI", *step) for step in steps)
