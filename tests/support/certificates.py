"""Certificates for TLS on this machine, each its own authority, made by openssl."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

NO_OPENSSL = "no openssl to make certificates with: install it"


class Certificate(NamedTuple):
    """Files in PEM."""

    certificate: Path
    key: Path


Issue = Callable[..., Certificate]
"""`issue(name, of, password="", is_out_of_date=False)`: `of` is a subjectAltName, a password the key's"""


def issuing_in(folder: Path) -> Issue:
    """Makes certificates in the folder. Without openssl it skips the test, and in CI fails it."""
    if shutil.which("openssl") is None:
        if os.environ.get("CI"):
            pytest.fail(NO_OPENSSL, pytrace=False)
        pytest.skip(NO_OPENSSL)

    def issue(
        name: str, of: str = "IP:127.0.0.1", password: str = "", *, is_out_of_date: bool = False
    ) -> Certificate:
        made = Certificate(folder / f"{name}.crt", folder / f"{name}.key")
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-days", "2", "-subj", f"/CN={name}"]
        key = ["-passout", f"pass:{password}"] if password else ["-nodes"]
        files = ["-keyout", str(made.key), "-out", str(made.certificate)]
        subprocess.run(
            [*command, *key, *files, "-addext", f"subjectAltName={of}"], check=True, capture_output=True
        )
        if is_out_of_date:
            ended = [
                "openssl",
                "x509",
                "-in",
                str(made.certificate),
                "-signkey",
                str(made.key),
                "-days",
                "-1",
            ]
            subprocess.run([*ended, "-out", str(made.certificate)], check=True, capture_output=True)
        return made

    return issue
