"""What the values of settings have in common: bounds, and nothing in them that cannot be seen.

A secret of Kubernetes that was made with `echo`, or a YAML block, ends with a line break. As part of a name
it would be another consumer group, another schema or another host.
"""

import unicodedata
from collections.abc import Callable
from typing import Annotated, Final

from pydantic import AfterValidator, Field, SecretStr

# Kafka and PostgreSQL count milliseconds in 32 bits, and some of ours are added up before they are sent.
DAY_SECONDS: Final = 86_400
DAY_MS: Final = DAY_SECONDS * 1_000
MOST_PORT: Final = 65_535
GIBIBYTE: Final = 1 << 30


def _visible(text: str) -> str:
    _bare(text)
    if hidden := next((c for c in text if not c.isprintable()), None):
        raise ValueError(f"holds a character that cannot be seen (U+{ord(hidden):04X})")
    return text


def _bare(text: str) -> str:
    _ends_well(text)
    if text != text.strip():
        raise ValueError("begins or ends with a space")
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        raise ValueError("is in quotes, which belong to it as `docker --env-file` reads it: leave them out")
    return text


def _ends_well(text: str) -> str:
    """All that is known to be wrong in a password."""
    if any(unicodedata.category(end) == "Cc" for end in (text[:1] or " ", text[-1:] or " ")):
        raise ValueError("begins or ends with a line break; write it with `printf`, for `echo` adds one")
    return text


def _servers(text: str) -> str:
    for server in _visible(text).split(","):
        if not server.strip() or "/" in server:
            raise ValueError("is not host:port[,host:port…]")
    return text


def _in_secret(check: Callable[[str], str]) -> AfterValidator:
    def checked(secret: SecretStr) -> SecretStr:
        check(secret.get_secret_value())
        return secret

    return AfterValidator(checked)


Name = Annotated[str, AfterValidator(_visible)]
Servers = Annotated[str, AfterValidator(_servers)]
Address = Annotated[SecretStr, _in_secret(_bare)]
Password = Annotated[SecretStr, _in_secret(_ends_well)]
Port = Annotated[int, Field(ge=0, le=MOST_PORT)]
TopicName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9._-]{1,249}$")]
InstanceId = Annotated[str, Field(pattern=r"^[^\s@\x00-\x1f\x7f]{0,200}$")]
