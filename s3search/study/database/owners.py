"""Which process is which, on this machine and others, now and after a restart.

A process id alone says little: it is used again, and every container counts its own from 1.
So a machine is its name with the boot and the process namespace (Linux), and a process is its id
with the time that it started.
"""

import hashlib
import os
import secrets
import socket
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_STATE, _START = 0, 19  # places behind the name in /proc/PID/stat
_ENDED = ("Z", "X")  # a zombie writes nothing any more


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """A driver's process; ``token`` tells two drivers of one process apart."""

    token: str
    host: str
    machine: str  # 32 hex digits
    pid: int
    process_start: str  # "" where the system does not say


def new_owner() -> Owner:
    """This process, with a token of its own."""
    return Owner(
        token=secrets.token_hex(16),
        host=socket.gethostname()[:200],
        machine=_machine(),
        pid=os.getpid(),
        process_start=_start(os.getpid()) or "",
    )


def is_gone(owner: Owner) -> bool:
    """Whether the process certainly ended; False for one on another machine."""
    if owner.machine != _machine() or os.name != "posix":
        return False
    try:
        os.kill(owner.pid, 0)  # sends nothing; asks whether the process is there
    except ProcessLookupError:
        return True
    except PermissionError:  # it is there, and another user's
        return False
    start = _start(owner.pid)
    return start is not None and start != owner.process_start


def is_running(owner: Owner) -> bool:
    """Whether the process certainly runs on this machine, be it paused."""
    is_here = owner.machine == _machine() and owner.process_start != ""
    return is_here and _start(owner.pid) == owner.process_start


def _machine() -> str:
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text())
    with suppress(OSError):
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def _start(pid: int) -> str | None:
    """When the process started, in the kernel's ticks; "ended" for a zombie, None if unknown."""
    try:
        behind_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return "ended" if behind_name[_STATE] in _ENDED else behind_name[_START]
