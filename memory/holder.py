"""Who holds a turn: this process, told apart from every other, and whether a holder on this machine is dead."""

import os
import secrets
import socket
from pathlib import Path


def new_holder() -> str:
    """A name that no other turn has: machine, process and a random part."""
    return f"{_machine()}|{os.getpid()}|{_started(os.getpid())}|{secrets.token_hex(8)}"


def is_dead(holder: str) -> bool:
    """Whether the holder was a process of this machine that is no more. False wherever this cannot be known."""
    machine, pid, started, _ = holder.split("|")
    if machine != _machine():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return started != _started(int(pid))


def _machine() -> str:
    """Host and process namespace: a process number says nothing in another container."""
    try:
        namespace = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        namespace = ""
    return f"{socket.gethostname()}{namespace}"[:120]


def _started(pid: int) -> str:
    """When a process started, in the kernel's ticks: a number used again belongs to another process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""
