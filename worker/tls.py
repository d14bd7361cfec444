"""TLS with Kafka from files that may be renewed, and TLS errors that name the file at fault."""

import os
import re
import socket
import ssl
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from worker.secret_files import CredentialError

_CA: Final = "ORDER_WORKER_KAFKA_SSL_CAFILE"
_CERTIFICATE: Final = "ORDER_WORKER_KAFKA_SSL_CERTFILE"
_KEY: Final = "ORDER_WORKER_KAFKA_SSL_KEYFILE"
_PEM: Final = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_SEQUENCE: Final = 0x30
_SHORT_YEAR: Final = 0x17
_OUT_OF_DATE: Final = frozenset({9, 10})  # OpenSSL's "not yet valid" and "has expired"
_LOOK_SECONDS: Final = 2.0

Files = Iterable[tuple[str, Path | str]]
"""each with the name of what it is set by"""


class ClientTls:
    """The TLS files of a Kafka client. A renewed file is used from the next connection on."""

    def __init__(
        self,
        authority: Path | None,
        certificate: Path | None,
        key: Path | None,
        key_password: Callable[[], str] | None,
    ) -> None:
        """`authority`: default the system's. `key_password` is only called for an encrypted key."""
        named = ((_CA, authority), (_CERTIFICATE, certificate), (_KEY, key))
        self.files: dict[str, Path] = {name: path for name, path in named if path}
        self._password = key_password or str
        self._context: ssl.SSLContext | None = None
        self._seen: object = None

    def context(self) -> ssl.SSLContext:
        """A context from the current files. Raises CredentialError, which names variable and file."""
        seen = [_state(path) for path in self.files.values()]
        if self._context is None or seen != self._seen:
            self._context, self._seen = self._load(), seen
        return self._context

    def _load(self) -> ssl.SSLContext:
        if why := unreadable(self.files.items()):
            raise CredentialError(f"cannot read the TLS files for Kafka: {why}")
        names = _CA
        try:
            context = ssl.create_default_context(cafile=self.files.get(_CA))
            if certificate := self.files.get(_CERTIFICATE):
                names = f"{_CERTIFICATE}, {_KEY} and …_KEY_PASSWORD"
                # Without a password, OpenSSL would ask at the terminal.
                context.load_cert_chain(certificate, self.files.get(_KEY), self._password)
        except CredentialError:
            raise
        except (OSError, ValueError) as error:
            why = reason_of_tls(error) if isinstance(error, ssl.SSLError) else str(error)
            raise CredentialError(f"cannot use the TLS files for Kafka ({why}): look at {names}") from None
        return context


def _state(path: Path) -> tuple[int, int, int] | None:
    """A value that changes when a file changes."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def reason_of_tls(error: ssl.SSLError) -> str:
    """A short text for people."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the server's certificate is refused: {error.verify_message.rstrip('.').lower()}"
    return (error.reason or str(error)).replace("_", " ").lower()


def is_of_time(error: BaseException | None) -> bool:
    """Whether the server's certificate is refused because it has expired or is not valid yet."""
    return getattr(error, "verify_code", None) in _OUT_OF_DATE


def served_dates(host: str, port: int, greeting: bytes = b"") -> str:
    """` (valid from … to …)` of the server's certificate; empty if it shows none.

    Connects once more and blocks: call it in a thread. `greeting`: what is sent before TLS begins.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # read, not trusted
    try:
        with socket.create_connection((host, port), timeout=_LOOK_SECONDS) as plain:
            if greeting:
                plain.sendall(greeting)
                plain.recv(1)
            with context.wrap_socket(plain, server_hostname=host) as secured:
                begins, ends = _validity(secured.getpeercert(binary_form=True) or b"")
    except (OSError, ValueError, IndexError):
        return ""
    return f" (valid from {begins:%Y-%m-%d} to {ends:%Y-%m-%d %H:%M}Z)"


def unreadable(files: Files) -> str | None:
    """The first of these files, each with the name of what it is set by, that cannot be read, and why."""
    for name, path in files:
        try:
            with open(path, "rb") as file:
                file.read(1)
        except OSError as error:
            return f"{name}={path}: {os.strerror(error.errno or 0).lower()}"
    return None


def expired(files: Files, now: datetime) -> str | None:
    """The first of these files whose certificates are all out of date, and since when."""
    for name, path in files:
        try:
            found = _PEM.findall(Path(path).read_text(encoding="ascii", errors="replace"))
            ends = [_validity(ssl.PEM_cert_to_DER_cert(pem))[1] for pem in found]
        except (OSError, ValueError, IndexError):
            continue  # no certificates: a key, or a file that is checked elsewhere
        if ends and max(ends) < now:
            return f"{name}={path} expired on {max(ends):%Y-%m-%d %H:%M}Z"
    return None


def _validity(certificate: bytes) -> tuple[datetime, datetime]:
    """The validity of an X.509 certificate in DER; ssl reports it for trusted certificates only."""
    ((_, content),) = _elements(certificate)
    _, signed = next(_elements(content))
    # Algorithm, issuer and validity are the first sequences.
    validity = [value for tag, value in _elements(signed) if tag == _SEQUENCE][2]
    begins, ends = (_time(tag, value.decode("ascii")) for tag, value in _elements(validity))
    return begins, ends


def _time(tag: int, text: str) -> datetime:
    if tag == _SHORT_YEAR:
        text = ("19" if text >= "50" else "20") + text
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)


def _elements(der: bytes) -> Iterator[tuple[int, bytes]]:
    """Tag and content of each element, in order."""
    at = 0
    while at < len(der):
        tag, length, at = der[at], der[at + 1], at + 2
        if length & 0x80:
            size = length & 0x7F
            length, at = int.from_bytes(der[at : at + size], "big"), at + size
        yield tag, der[at : at + length]
        at += length
