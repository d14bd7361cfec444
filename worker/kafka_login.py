"""Logs each new connection to Kafka in with the current contents of secret files and token commands.

aiokafka reads password and TLS once, when a client is built. So the client's options carry a `KafkaLogin`,
and `_Connection` reads it at each connect.
"""

import asyncio
import os
import re
import shlex
import signal
import ssl
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from aiokafka import conn
from aiokafka.abc import AbstractTokenProvider
from aiokafka.errors import KafkaError, SaslAuthenticationFailed

from worker.errors import RefusedCredentialsError
from worker.secret_files import MAX_BYTES, CredentialError
from worker.tls import ClientTls, expired, is_of_time, reason_of_tls, served_dates

COMMAND_SECONDS: Final = 10.0
# A worker opens some ten connections at once; a command may ask a server for each token.
TOKEN_REUSED_SECONDS: Final = 5.0
_TOKEN: Final = re.compile(r"[!-~]+")
_OPTION: Final = "sasl_oauth_token_provider"

Secret = Callable[[], str]


class TokenCommand:
    """A token from a program's standard output: run without a shell, one at a time, and never logged."""

    def __init__(self, variable: str, command: str) -> None:
        self._variable = variable
        self._words = shlex.split(command)
        self._lock = asyncio.Lock()
        self._token = ""
        self._got_at = float("-inf")

    async def token(self) -> str:
        """Raises CredentialError, which names only the variable: the command may hold a secret."""
        async with self._lock:
            if time.monotonic() - self._got_at > TOKEN_REUSED_SECONDS:
                self._token, self._got_at = await self._run(), time.monotonic()
            return self._token

    async def _run(self) -> str:
        try:
            process = await asyncio.create_subprocess_exec(
                *self._words,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                # It may quote a secret.
                stderr=asyncio.subprocess.DEVNULL,
                # A group of its own, so that what it has started ends with it.
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            why = os.strerror(error.errno or 0).lower() if isinstance(error, OSError) else "no command"
            raise CredentialError(f"{self._variable} cannot be run: {why}") from None
        try:
            async with asyncio.timeout(COMMAND_SECONDS):
                return await self._output_of(process)
        except BaseException as error:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
            if isinstance(error, TimeoutError):
                raise CredentialError(f"{self._variable} gave no token in {COMMAND_SECONDS:g} s") from None
            raise

    async def _output_of(self, process: asyncio.subprocess.Process) -> str:
        assert process.stdout is not None
        output = b""
        while len(output) <= MAX_BYTES and (more := await process.stdout.read(MAX_BYTES)):
            output += more
        if len(output) > MAX_BYTES:
            raise CredentialError(f"{self._variable} wrote more than {MAX_BYTES // 1024} KiB")
        if code := await process.wait():
            raise CredentialError(f"{self._variable} ended with exit code {code}")
        return output.decode("utf-8", "replace").strip()


@dataclass(eq=False, repr=False)
class KafkaLogin(AbstractTokenProvider):  # type: ignore[misc]
    """The credentials of new connections. It is a token provider, because aiokafka passes one on unchanged.

    Until a login succeeds, `refusal` is the message of a broker that refused the credentials, and `trouble`
    what is wrong with TLS or a file. `set_by` names the variables and files, for messages.
    """

    set_by: str
    tls: ClientTls | None = None
    username: Secret | None = None
    password: Secret | None = None
    token_file: Secret | None = None
    token_command: TokenCommand | None = None
    refusal: str | None = None
    trouble: str | None = None

    async def token(self) -> str:
        if self.token_command:
            token = await self.token_command.token()
        else:
            assert self.token_file is not None
            token = self.token_file().strip()
        if not _TOKEN.fullmatch(token):
            raise CredentialError(f"{self.set_by}: it gives no token of printable characters")
        return token


def refused_login(options: Mapping[str, Any]) -> RefusedCredentialsError | None:
    """Kafka's message to the latest login of clients with these options, if it refused the credentials."""
    login = options.get(_OPTION)
    if not isinstance(login, KafkaLogin) or login.refusal is None:
        return None
    servers = options["bootstrap_servers"]
    return RefusedCredentialsError(
        f"Kafka at {servers} does not let us in ({login.refusal}): check {login.set_by}"
    )


def login_error(options: Mapping[str, Any]) -> Exception | None:
    """Why clients with these options could not log in; aiokafka itself reports only that they could not."""
    login = options.get(_OPTION)
    trouble = login.trouble if isinstance(login, KafkaLogin) else None
    return refused_login(options) or (ConnectionError(trouble) if trouble else None)


def forget_errors(options: Mapping[str, Any]) -> None:
    """Forget earlier refusals and troubles."""
    if isinstance(login := options.get(_OPTION), KafkaLogin):
        login.refusal = login.trouble = None


class _Connection(conn.AIOKafkaConnection):  # type: ignore[misc]
    """aiokafka's connection, which reads its `KafkaLogin`, if it has one."""

    async def connect(self) -> Any:
        login = self._sasl_oauth_token_provider
        if not isinstance(login, KafkaLogin):
            return await super().connect()
        try:
            if login.tls:
                self._ssl_context = login.tls.context()
            if login.username and login.password:
                self._sasl_plain_username, self._sasl_plain_password = login.username(), login.password()
            connected = await super().connect()
        except SaslAuthenticationFailed as refusal:
            said = str(refusal).partition(": ")[2].partition("\n")[0]
            login.refusal = f"user {self._sasl_plain_username}: {said}" if login.username else said
            raise
        except CredentialError as error:
            login.trouble = str(error)
            raise
        except (OSError, KafkaError) as error:
            if not login.tls or not (why := await self._trouble_with_tls(login.tls, error)):
                raise
            login.trouble = why
            raise ConnectionError(why) from None
        login.refusal = login.trouble = None
        return connected

    async def _trouble_with_tls(self, tls: ClientTls, error: BaseException) -> str | None:
        of_tls = next((e for e in (error, error.__cause__) if isinstance(e, ssl.SSLError)), None)
        # A broker need not say what it has against our certificate.
        old = expired(tls.files.items(), datetime.now(UTC))
        if of_tls is None and old is None:
            return None
        why = reason_of_tls(of_tls) if of_tls else "it ended the connection"
        if is_of_time(of_tls):
            why += await asyncio.to_thread(served_dates, self._host, self._port)
        return f"no TLS with Kafka at {self._host}:{self._port}: {why}{f'; {old}' if old else ''}"

    def authenticator_oauth(self) -> "_TokenAuthenticator":
        return _TokenAuthenticator(sasl_oauth_token_provider=self._sasl_oauth_token_provider)


class _TokenAuthenticator(conn.OAuthAuthenticator):  # type: ignore[misc]
    """Recognises a refused token: the broker sends an error as a further challenge, then fails (RFC 7628).

    aiokafka treats that challenge as a success, and then reports a lost connection.
    """

    async def step(self, payload: bytes | None) -> tuple[bytes, bool] | None:
        if payload:
            return b"\x01", True
        found: tuple[bytes, bool] | None = await super().step(payload)
        return found


# aiokafka's client builds its connections by this name, and takes no other class.
conn.AIOKafkaConnection = _Connection
