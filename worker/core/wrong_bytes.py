"""Recognises the formats of bytes that are not JSON, and says what to send instead. Pure."""

import re
from typing import Final

_COMPRESSED: Final = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x04\x22\x4d\x18": "lz4",
    b"\xff\x06\x00\x00sNaPpY": "snappy",
    b"\x82SNAPPY\x00": "snappy",  # as Java frames it
    **dict.fromkeys((b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda"), "zlib"),
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"PK\x03\x04": "zip",
}
_SERIALIZED: Final = {
    b"\xac\xed\x00\x05": "a serialized Java object",
    b"\x80\x04\x95": "a Python pickle",
    b"Obj\x01": "an Avro file",
    b"\xc3\x01": "an Avro message with the fingerprint of its schema",
}
_NEXT_STEPS: Final = {  # by what the parser says
    "trailing characters": ": send one document a record, and nothing behind it",
    "trailing comma": ": leave it out",
    "hex escape": ": an escaped surrogate needs its other half",
    "control character": ": escape it",
    "recursion limit": ": a value lies inside at most 200 arrays and objects",
    "out of range": ": a number has at most 4300 digits before its point or exponent",
    "EOF": ": the value is cut off, send it whole",
}
_AS_JSON: Final = ": write the order as one JSON object (RFC 8259)"
_UTF_16: Final = (b"\xff\xfe", b"\xfe\xff")
_UTF_32: Final = re.compile(
    rb"\xff\xfe\x00\x00|\x00\x00\xfe\xff|(\x00\x00\x00[\x09-\x7e]){2}|([\x09-\x7e]\x00\x00\x00){2}"
)
_SCHEMA_ID_BYTES: Final = 5  # a zero, and the id in four bytes
# By the first byte: how many bytes a schema registry's prefix may have.
_PREFIXES: Final = {
    0: (_SCHEMA_ID_BYTES, 9),  # an id of four bytes, or of eight
    1: (17,),  # a GUID
    3: (18,),  # AWS Glue: how it is compressed, and a UUID
}
_JSON: Final = (b"{", b"[")
_BASE64: Final = re.compile(rb"\s*e[wy][A-Za-z0-9+/_-]{20,}={0,2}\s*")  # of what begins with a {
_CONTROL: Final = re.compile(rb"[\x00-\x08\x0e-\x1f]")
_SINGLE_QUOTED: Final = re.compile(rb"\s*\{\s*'")
_EVERY_OTHER_BYTE_ZERO: Final = re.compile(rb"\x00[\x09-\x7e]\x00|[\x09-\x7e]\x00[\x09-\x7e]\x00")


def remark(value: bytes, parser: str) -> str:
    """What they are and what to send instead. `parser`: the JSON parser's message."""
    said = _by_beginning(value) or _by_content(value)
    if said:
        return f"the value {said}"
    if not _is_like_json(value):
        return parser + _AS_JSON
    return parser + next((step for sign, step in _NEXT_STEPS.items() if sign in parser), _AS_JSON)


def is_base64(text: bytes) -> bool:
    """Whether it looks like a JSON object in base64."""
    return _BASE64.fullmatch(text) is not None


def _by_beginning(value: bytes) -> str | None:
    if value.startswith(b"\xef\xbb\xbf"):
        return "begins with a byte order mark (EF BB BF): write UTF-8 without one"
    if _UTF_32.match(value):
        return "is UTF-32: write UTF-8"
    if value.startswith(_UTF_16) or _EVERY_OTHER_BYTE_ZERO.match(value):
        return "is UTF-16: write UTF-8"
    if said := _by_prefix(value):
        return said
    for beginning, name in _COMPRESSED.items():
        if value.startswith(beginning):
            return f"is compressed with {name}: write JSON, and let the producer compress (compression.type)"
    for beginning, name in _SERIALIZED.items():
        if value.startswith(beginning):
            return f"is {name}: write JSON"
    return "is XML or HTML: write JSON" if value.lstrip().startswith(b"<") else None


def _by_prefix(value: bytes) -> str | None:
    """Of a schema registry, before JSON; or before anything, where it is the usual one."""
    sizes = _PREFIXES.get(value[0], ())
    to_json = next((size for size in sizes if value[size:].lstrip().startswith(_JSON)), None)
    if to_json is None and (value[0] or len(value) <= _SCHEMA_ID_BYTES):
        return None
    size = to_json or _SCHEMA_ID_BYTES
    what = f"{size} bytes" if value[0] else f"a zero byte, schema id {int.from_bytes(value[1:size], 'big')}"
    return (
        f"begins with the prefix of a schema registry ({what})"
        f" before {'JSON' if to_json else 'Avro or Protobuf'}:"
        " write plain JSON, with a serializer for strings or bytes"
    )


def _by_content(value: bytes) -> str | None:
    if not value.strip():
        return "is white space only: send the order as JSON"
    bad_byte = _first_byte_not_utf_8(value)
    if not _is_like_json(value) and (bad_byte or _CONTROL.search(value[:64])):
        return (
            f"is binary, like Avro, Protobuf or MessagePack (it begins with {value[:4].hex(' ').upper()}):"
            " write JSON, with a serializer for strings or bytes"
        )
    if bad_byte:
        return f"is not UTF-8 at byte {bad_byte}: write UTF-8"
    if _SINGLE_QUOTED.match(value):
        return "has single quotes, like a dict of Python or an object of JavaScript: write JSON"
    if is_base64(value):
        return "is base64: send the JSON itself"
    return None


def _is_like_json(value: bytes) -> bool:
    return value.lstrip().startswith((*_JSON, b'"'))


def _first_byte_not_utf_8(value: bytes) -> int | None:
    """Counted from 1; None: all of it is UTF-8."""
    try:
        value.decode()
    except UnicodeDecodeError as error:
        return error.start + 1
    return None
