"""What is wrong with TLS, in words that name the file or the certificate."""

import os
import ssl
from collections.abc import Iterable
from pathlib import Path


def reason_of_tls(error: ssl.SSLError) -> str:
    """A short text for people."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the server's certificate is refused: {error.verify_message.rstrip('.').lower()}"
    return (error.reason or str(error)).replace("_", " ").lower()


def unreadable(files: Iterable[tuple[str, Path | str]]) -> str | None:
    """The first of these files, each with the name of what it is set by, that cannot be read, and why."""
    for name, path in files:
        try:
            with open(path, "rb") as file:
                file.read(1)
        except OSError as error:
            return f"{name}={path}: {os.strerror(error.errno or 0).lower()}"
    return None
