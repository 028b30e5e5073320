"""Names for processes, so that a lease tells who holds it and whether that process can still come back.

A lease ends by time. On one machine a killed process need not be waited for: its name says which process it was, and
the system says whether that one still lives. About a process elsewhere nothing is claimed.
"""

from __future__ import annotations

import os
import platform
from pathlib import Path


def this_process() -> str:
    """`machine:pid:start` of this process. Two processes never share it, even when the pid is used again."""
    return f"{_machine()}:{os.getpid()}:{_started(os.getpid()) or 0}"


def is_gone(owner: str) -> bool:
    """Whether `owner` was a process of this machine and lives no more. False whenever that cannot be known."""
    machine, _, rest = owner.rpartition(":")[0].rpartition(":")
    if machine != _machine() or not rest.isdecimal():
        return False
    started = _started(int(rest))
    if started is None:
        return not _exists(int(rest))
    return str(started) != owner.rpartition(":")[2]


def _machine() -> str:
    """The host and its process numbering: containers may share a host name and still count pids apart."""
    try:
        numbering = str(Path("/proc/self/ns/pid").stat().st_ino)
    except OSError:
        numbering = "0"
    return f"{platform.node()}/{numbering}"


def _started(pid: int) -> int | None:
    """When a process began, in the kernel's ticks; None where the system does not say or there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()  # the name before it may hold spaces and brackets
    if fields[0] in ("Z", "X"):
        return -1  # dead, and only not yet collected by its parent
    return int(fields[19])


def _exists(pid: int) -> bool:
    if os.name != "posix":
        return True  # os.kill(pid, 0) is no question there
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
