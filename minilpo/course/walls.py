"""Walls around a process, as far as Linux allows them to somebody who isn't its administrator.

In a world of its own, a process is a user without rights, sees no other process and no network, and
can write nothing but a small folder in memory, which is gone with it.
"""

import ctypes
import os
import signal
import struct

NEW_USER, NEW_PROCESSES, NEW_NETWORK = 0x10000000, 0x20000000, 0x40000000
NEW_IPC, NEW_MOUNTS = 0x08000000, 0x00020000
WORLD = NEW_USER | NEW_PROCESSES | NEW_NETWORK | NEW_IPC | NEW_MOUNTS
NOBODY = 65534  # who a process is in its own world
FOLDER_MEGABYTES = 64
DIE_WITH_PARENT, SET_DUMPABLE, NO_NEW_RIGHTS = 1, 4, 38  # of prctl
MOUNT_SETATTR, HERE, RECURSIVE = 442, -100, 0x8000
READ_ONLY, PRIVATE = 1, 1 << 18
CAPABILITIES = 0x20080522  # the version of the call


def own_world(folder: str) -> list[str]:
    """Moves this process into a world of its own; its next child is the first process there.

    Args:
        folder: the one that can be written, empty.

    Returns:
        What is its own now, in words.

    Raises:
        OSError: if the system doesn't allow it. The process is then of no further use.
    """
    user, group = os.geteuid(), os.getegid()
    _checked(_libc().unshare(WORLD))
    who = {"uid_map": f"{NOBODY} {user} 1", "gid_map": f"{NOBODY} {group} 1"}
    for name, line in {"setgroups": "deny", **who}.items():
        with open(f"/proc/self/{name}", "w") as file:
            file.write(line)
    built = ["its own user, processes and network"]
    # All that is mounted becomes read-only, in this world alone: Linux 5.12 or later.
    attributes = struct.pack("=QQQQ", READ_ONLY, 0, PRIVATE, 0)
    if _libc().syscall(MOUNT_SETATTR, HERE, b"/", RECURSIVE, attributes, len(attributes)) == 0:
        built.append("files that it can't change")
    options = f"size={FOLDER_MEGABYTES}m,mode=700".encode()
    _checked(_libc().mount(b"tmpfs", folder.encode(), b"tmpfs", 0, options))
    return built


def settle_in() -> None:
    """Called by the first process of a new world: it sees only itself, and loses all rights.

    Raises:
        OSError: if it can't lose them.
    """
    # Where it is forbidden, /proc goes on showing others, but they are out of reach.
    _libc().mount(b"proc", b"/proc", b"proc", 0, None)
    _checked(_libc().capset(struct.pack("=Ii", CAPABILITIES, 0), bytes(24)))


def die_with_parent() -> None:
    """Asks the system to end this process when its parent ends."""
    _checked(_libc().prctl(DIE_WITH_PARENT, signal.SIGKILL, 0, 0, 0))


def gain_nothing() -> None:
    """No program that is started from here gets more rights, sudo neither."""
    _checked(_libc().prctl(NO_NEW_RIGHTS, 1, 0, 0, 0))


def set_readable(is_readable: bool) -> None:
    """Whether other processes of the same user may read this one's memory and environment."""
    _checked(_libc().prctl(SET_DUMPABLE, int(is_readable), 0, 0, 0))


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _checked(result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
