"""Runs a command that ends with its supervisor.

Called as `python -I -S launch.py PARENT_PID DEATH_SIGNAL USER COMMAND [ARGUMENT...]`: becomes USER (unless that is
empty), asks the kernel for DEATH_SIGNAL at the death of the thread that started it, and turns into COMMAND.

A program of its own because nothing but a plain exec is safe between fork and exec in a process with threads, and
because the new user may be unable to read the Python that starts it.
"""

import ctypes
import os
import pwd
import sys

PR_SET_PDEATHSIG = 1


def become(user: str) -> None:
    """Gives up root for `user`, with no supplementary groups but the user's own."""
    account = pwd.getpwnam(user)
    os.initgroups(user, account.pw_gid)
    os.setgid(account.pw_gid)
    os.setuid(account.pw_uid)
    os.environ.update(HOME=account.pw_dir, USER=user, LOGNAME=user)


def die_with(parent: int, death_signal: int) -> None:
    """Binds this process to `parent`, and exits if that one is gone already. Does nothing elsewhere than on Linux."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, death_signal)
        if os.getppid() != parent:
            sys.exit(1)


if __name__ == "__main__":
    parent, death_signal, user, *command = sys.argv[1:]
    if user:
        become(user)
    # A change of user clears the death signal, so it is set last.
    die_with(int(parent), int(death_signal))
    os.execv(command[0], command)  # noqa: S606
