"""Gives this process a network of its own, in which it may create interfaces.

No port of the machine is used, and users without privileges can create interfaces and namespaces.
Needs Linux and the program `ip` of iproute2.
"""

import ctypes
import os
import shutil
import subprocess
import sys
from pathlib import Path

from shared.errors import SettingsError

CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000
ADDRESS = "10.77.0.1"
"""IP address of this process in its namespace. Simulated remote hosts connect to it."""


def enter_own_namespace() -> None:
    """Move this process into a new network namespace with the address `ADDRESS`.

    If the process lacks the privilege to do so, it also moves into a new user namespace. Must be
    called before the process starts threads.

    Raises:
        SettingsError: the machine doesn't allow new namespaces, or a program is missing.
    """
    for program in ("ip", "nsenter", "unshare"):
        if sys.platform != "linux" or shutil.which(program) is None:
            raise SettingsError(
                f"faults of the network need Linux and {program}: "
                "apt-get install iproute2 util-linux"
            )
    user, group = os.getuid(), os.getgid()
    if _unshare(CLONE_NEWNET):
        reason = _unshare(CLONE_NEWUSER | CLONE_NEWNET)
        if reason:
            raise SettingsError(f"faults of the network need a network namespace: {reason}")
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    run("ip", "link", "set", "lo", "up")
    run("ip", "address", "add", f"{ADDRESS}/32", "dev", "lo")


def _unshare(flags: int) -> str | None:
    """Move this process into new namespaces. Return the reason if this fails."""
    failed = ctypes.CDLL(None, use_errno=True).unshare(flags)
    return os.strerror(ctypes.get_errno()) if failed else None


def run(*command: str) -> None:
    """Run a command that changes the network.

    Raises:
        SettingsError: the command failed. The message contains its output.
    """
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SettingsError(f"{' '.join(command)}: {done.stderr.strip()}")
