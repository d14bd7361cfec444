"""Recognises the formats of bytes that are not JSON, and says what to send instead. Pure."""

import re
from typing import Final

_COMPRESSED: Final = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x04\x22\x4d\x18": "lz4",
    b"\xff\x06\x00\x00sNaPpY": "snappy",
}
_SERIALIZED: Final = {b"\xac\xed\x00\x05": "a serialized Java object", b"\x80\x04\x95": "a Python pickle"}
_NEXT_STEPS: Final = {  # by what the parser says
    "trailing characters": ": send one document a record, and nothing behind it",
    "trailing comma": ": leave it out",
    "hex escape": ": an escaped surrogate needs its other half",
    "control character": ": escape it",
    "recursion limit": ": nest at most 200 deep",
    "out of range": ": an integer has at most 4300 digits",
    "EOF": ": the value is cut off, send it whole",
}
_UTF_16: Final = (b"\xff\xfe", b"\xfe\xff")
_SCHEMA_ID_BYTES: Final = 5  # a zero, and the id in four bytes
_SINGLE_QUOTED: Final = re.compile(rb"\s*\{\s*'")
_EVERY_OTHER_BYTE_ZERO: Final = re.compile(rb"\x00[\x09-\x7e]\x00|[\x09-\x7e]\x00[\x09-\x7e]\x00")


def remark(value: bytes, parser: str) -> str:
    """What they are and what to send instead. `parser`: the JSON parser's message."""
    said = _by_beginning(value) or _by_content(value)
    if said:
        return f"the value {said}"
    step = next((step for sign, step in _NEXT_STEPS.items() if sign in parser), "")
    return parser + step


def _by_beginning(value: bytes) -> str | None:
    if value.startswith(b"\xef\xbb\xbf"):
        return "begins with a byte order mark (EF BB BF): write UTF-8 without one"
    if value.startswith(_UTF_16) or _EVERY_OTHER_BYTE_ZERO.match(value):
        return "is UTF-16: write UTF-8"
    if value[:1] == b"\x00" and len(value) > _SCHEMA_ID_BYTES:
        return _with_schema_id(value)
    for beginning, name in _COMPRESSED.items():
        if value.startswith(beginning):
            return f"is compressed with {name}: write JSON, and let the producer compress (compression.type)"
    for beginning, name in _SERIALIZED.items():
        if value.startswith(beginning):
            return f"is {name}: write JSON"
    return "is XML or HTML: write JSON" if value.lstrip().startswith(b"<") else None


def _with_schema_id(value: bytes) -> str:
    schema_id = int.from_bytes(value[1:_SCHEMA_ID_BYTES], "big")
    rest = value[_SCHEMA_ID_BYTES:].lstrip()
    inside = "JSON" if rest.startswith((b"{", b"[")) else "Avro or Protobuf"
    return (
        f"begins with the prefix of a schema registry (a zero byte, schema id {schema_id}) before {inside}:"
        " write plain JSON, with a serializer for strings or bytes"
    )


def _by_content(value: bytes) -> str | None:
    if not value.strip():
        return "is white space only: send the order as JSON"
    try:
        value.decode()
    except UnicodeDecodeError as error:
        return f"is not UTF-8 at byte {error.start + 1}: write UTF-8"
    if _SINGLE_QUOTED.match(value):
        return "has single quotes, like a dict of Python or an object of JavaScript: write JSON"
    return None
