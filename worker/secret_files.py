"""Reads secrets from files, again at each use. No message shows the content of such a file."""

import errno
import os
import stat
from pathlib import Path
from typing import Final

# A key, a token or a URL has a few kilobytes at most.
MAX_BYTES: Final = 64 * 1024
_NOT_THERE: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG})


class CredentialError(OSError):
    """A credential cannot be read now, for example while it is renewed: try again.

    The message names variable and file, never their content.
    """


def read_secret(variable: str, path: Path) -> str:
    """The content of the file as text, without one newline at its end. Raises CredentialError."""
    try:
        # Not blocking: with a named pipe, opening would wait for a writer.
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            is_regular = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
            content = file.read(MAX_BYTES + 1) if is_regular else b""
    except OSError as error:
        is_there = error.errno not in _NOT_THERE
        raise _unusable(variable, path, os.strerror(error.errno or 0).lower(), is_there=is_there) from None
    except ValueError:  # a NUL in the name
        raise _unusable(variable, path, "no such file or directory", is_there=False) from None
    if not is_regular:
        raise _unusable(variable, path, "no regular file")
    return _text(variable, path, content)


def _text(variable: str, path: Path, content: bytes) -> str:
    if len(content) > MAX_BYTES:
        raise _unusable(variable, path, f"larger than {MAX_BYTES // 1024} KiB")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        raise _unusable(variable, path, "not UTF-8 text") from None
    text = text.removesuffix("\n").removesuffix("\r") if text.endswith("\n") else text
    if not text:
        raise _unusable(variable, path, "empty")
    if "\0" in text:
        raise _unusable(variable, path, "binary, not text")
    return text


def _unusable(variable: str, path: Path, why: str, *, is_there: bool = True) -> CredentialError:
    return CredentialError(f"{named(variable, path, is_there=is_there)}: {why}")


def named(variable: str, path: Path, *, is_there: bool = True) -> str:
    """`VARIABLE=file`, or only the variable if its value may be the secret itself, set by mistake."""
    name = str(path)
    # pathlib makes one slash of two.
    is_shown = is_there or ("/" in name and ":/" not in name and "\0" not in name)
    if not is_shown:
        return f"{variable} (not shown: it may be the secret itself, and has to be the name of a file)"
    return f"{variable}={name if name.isprintable() else ascii(name)}"
