"""Reads a database URL as libpq 18 does: parameters for the driver, the session, and without effect. Pure.

Source: PostgreSQL's manual, "Parameter Key Words" of libpq.
"""

import re
import shlex
from collections.abc import Mapping
from typing import Final, NamedTuple
from urllib.parse import parse_qs, quote, unquote, urlsplit

# asyncpg reads these itself.
_OF_THE_DRIVER: Final = frozenset(
    [
        *("host", "port", "dbname", "database", "user", "password", "passfile", "service", "krbsrvname"),
        *("gsslib", "target_session_attrs", "sslmode", "sslcert", "sslkey", "sslrootcert", "sslcrl"),
        *("sslpassword", "sslnegotiation", "ssl_min_protocol_version", "ssl_max_protocol_version"),
    ]
)
_FILES: Final = frozenset({"sslrootcert", "sslcert", "sslkey", "sslcrl"})
# Ignored: the connection is as safe without them.
_WITHOUT_EFFECT: Final = frozenset(
    [
        *("hostaddr", "client_encoding", "keepalives", "keepalives_idle", "keepalives_interval"),
        *("keepalives_count", "tcp_user_timeout", "sslcompression", "sslsni", "sslkeylogfile"),
        *("load_balance_hosts", "gssdelegation", "gssencmode", "channel_binding", "sslcertmode"),
        *("requiressl", "replication", "min_protocol_version", "max_protocol_version"),
        *("scram_client_key", "scram_server_key", "servicefile", "oauth_issuer", "oauth_client_id"),
        *("oauth_client_secret", "oauth_scope", "fallback_application_name"),
    ]
)
# Refused, not ignored: the connection would be less safe than was asked for, or of another kind.
_REFUSED: Final = frozenset(
    {
        *(("channel_binding", "require"), ("gssencmode", "require"), ("sslcertmode", "require")),
        *(("requiressl", "1"), ("replication", "database")),
        *(("replication", yes) for yes in ("true", "on", "yes", "1")),
    }
)
_REFUSED_ALWAYS: Final = frozenset({"require_auth", "requirepeer", "sslcrldir", "ssl"})
_INSTEAD: Final = {"requiressl": "write sslmode=require", "ssl": "write sslmode=require"}
# The system's certificates: the driver would read these values as a file's name.
_SYSTEM: Final = ("sslrootcert", "system")
NO_LIMIT_SECONDS: Final = 86_400.0
_OPTIONS: Final = "options are read as -c NAME=VALUE or --NAME=VALUE"
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*")


_FORM: Final = "postgresql://user:password@host:port/name"


class InvalidUrlError(ValueError):
    """The URL asks for something unsupported; the message names it and holds no secret."""


class UnreadableUrlError(InvalidUrlError):
    """The driver cannot read the URL, or a file that it names."""

    def __init__(self) -> None:
        super().__init__(
            f"cannot be read: write {_FORM} and percent-encode special characters in the password"
        )


class DatabaseUrl(NamedTuple):
    """`dsn` is for asyncpg. `settings` are those of the session, by PostgreSQL's names.

    `connect_timeout_seconds` is None where the URL has none. `without_effect` names the parameters that are
    ignored. `trusts_the_system`: the server's certificate has to be of an authority and for a name that
    this machine trusts.
    """

    dsn: str
    settings: Mapping[str, str]
    connect_timeout_seconds: float | None
    without_effect: tuple[str, ...]
    trusts_the_system: bool = False


def read_url(database_url: str) -> DatabaseUrl:
    """`postgresql+asyncpg://…`, as SQLAlchemy users write it, is read as well.

    Any other parameter is taken for a setting of PostgreSQL's. Raises InvalidUrlError, also for what is no
    text, as a variable that is not set.
    """
    if not isinstance(database_url, str):
        raise InvalidUrlError(f"is {type(database_url).__name__}, not text: write {_FORM}")
    scheme, separator, rest = database_url.partition("://")
    address, _, query = rest.partition("?")
    address = address.replace("#", "%23")  # it ends nothing, as in a password
    address, kept = _hosts_apart(address)
    settings: dict[str, str] = {}
    without_effect: list[str] = []
    timeout: float | None = None
    has_host = bool(kept or address.rpartition("@")[2].partition("/")[0])
    # Not as a form of HTML: a "+" is a "+".
    for name, value in (map(unquote, each.partition("=")[::2]) for each in query.split("&") if each):
        _require_possible(name, value)
        if name == "connect_timeout":
            timeout = _seconds(name, value)
        elif name == "options":
            settings |= _options(value)
        elif name == "hostaddr" and not has_host:
            kept.append(("host", _in_brackets(value)))
        elif name in _OF_THE_DRIVER:
            has_host |= name == "host"
            kept.append((name, _in_brackets(value) if name == "host" else value))
        elif name in _WITHOUT_EFFECT:
            without_effect.append(name)
        else:
            settings[name] = value
    is_system = _SYSTEM in kept
    if is_system:
        kept = [(name, value) for name, value in kept if name not in ("sslrootcert", "sslmode")]
    dsn = f"{scheme.partition('+')[0]}{separator}{address}"
    if kept:
        dsn += "?" + "&".join(f"{name}={quote(value, safe='/:,[]')}" for name, value in kept)
    return DatabaseUrl(dsn, settings, timeout, tuple(without_effect), is_system)


def has_password(database_url: str) -> bool:
    """Whether the URL itself holds a password, where it can be read."""
    try:
        parts = urlsplit(read_url(database_url).dsn)
        return parts.password is not None or "password" in parse_qs(parts.query)
    except ValueError:
        return False


def tls_files(database_url: str) -> list[tuple[str, str]]:
    """The files that the URL names for TLS, each with its parameter; none where it cannot be read."""
    try:
        query = read_url(database_url).dsn.partition("?")[2]
    except InvalidUrlError:
        return []
    named = (map(unquote, each.partition("=")[::2]) for each in query.split("&"))
    return [(name, path) for name, path in named if name in _FILES and path]


def _require_possible(name: str, value: str) -> None:
    if not _NAME.fullmatch(name):
        # Not quoted: behind a "?" in a password it is a piece of that.
        raise InvalidUrlError("a parameter has no name; percent-encode special characters in the password")
    if name in _REFUSED_ALWAYS or (name, value.lower()) in _REFUSED:
        instead = _INSTEAD.get(name, "leave it out")
        raise InvalidUrlError(f"{name} cannot be had, for the driver does not know it; {instead}")


def _hosts_apart(address: str) -> tuple[str, list[tuple[str, str]]]:
    """Several hosts, where one is an IPv6 address, as a parameter: urllib takes it as the first one only."""
    login, is_login, place = address.rpartition("@")
    hosts, is_named, name = place.partition("/")
    if "," not in hosts or "[" not in hosts:
        return address, []
    return f"{login}{is_login}{is_named}{name}", [("host", hosts)]


def _in_brackets(hosts: str) -> str:
    """IPv6 addresses, which libpq takes without them here: the driver would look for a port."""
    return ",".join(
        f"[{host}]" if host.count(":") > 1 and "[" not in host else host for host in hosts.split(",")
    )


def _seconds(name: str, value: str) -> float:
    try:
        return float(int(value)) if int(value) > 0 else NO_LIMIT_SECONDS
    except ValueError:
        raise InvalidUrlError(f"{name} is no whole number of seconds") from None


def _options(value: str) -> dict[str, str]:
    """`-c name=value` and `--name=value`, as the server's command line takes them."""
    settings = {}
    try:
        words = iter(shlex.split(value))
    except ValueError:
        raise InvalidUrlError(_OPTIONS) from None
    for word in words:
        if word == "-c":
            word = next(words, "")
        elif word.startswith("-c"):
            word = word[2:]
        elif word.startswith("--"):
            word = word[2:].partition("=")[0].replace("-", "_") + "=" + word.partition("=")[2]
        name, is_there, setting = word.partition("=")
        if not is_there or not name or name.startswith("-"):
            raise InvalidUrlError(_OPTIONS)
        settings[name] = setting
    return settings
