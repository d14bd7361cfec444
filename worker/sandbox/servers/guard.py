"""Becomes the given command; on Linux the kernel then kills it as soon as the thread that started it is gone.

    python -I -S guard.py PARENT_PID [--pretend UID | --account UID:GID] -- COMMAND…

A program of its own, because nothing but `exec` is safe between fork and exec in a process with threads.
Standard library only: it runs without site-packages.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1
_CLONE_NEWUSER = 0x10000000
_libc = ctypes.CDLL(None, use_errno=True)


def main(arguments: list[str]) -> None:
    separator = arguments.index("--")
    parent, options, command = int(arguments[0]), arguments[1:separator], arguments[separator + 1 :]
    if options:
        _change_user(*options)
    if sys.platform == "linux":
        # After the change of user, which would clear the wish again.
        _check(_libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0))
    if os.getppid() != parent:
        sys.exit("the parent died before its child was ready")
    os.execv(command[0], command)  # noqa: S606 - there is to be no shell


def _change_user(option: str, value: str) -> None:
    if option == "--pretend":
        _pretend_to_be(int(value))
    else:
        user, group = (int(number) for number in value.split(":"))
        os.setgroups([])
        os.setgid(group)
        os.setuid(user)


def _pretend_to_be(user: int) -> None:
    """The same user for every file, but called `user`, in a user namespace: PostgreSQL refuses root."""
    outer_user, outer_group = os.geteuid(), os.getegid()
    _check(_libc.unshare(_CLONE_NEWUSER))
    _write("/proc/self/setgroups", "deny")
    _write("/proc/self/gid_map", f"{user} {outer_group} 1")
    _write("/proc/self/uid_map", f"{user} {outer_user} 1")


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


def _check(result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


if __name__ == "__main__":
    main(sys.argv[1:])
