"""Reads the records of an unpacked batch byte by byte: whole, or up to where they are broken. Pure."""

from dataclasses import dataclass
from typing import Final

_VARINT_BYTES: Final = 10
_NAME_SHOWN: Final = 40  # bytes


class BrokenError(Exception):
    """The bytes are not a record."""


@dataclass(slots=True)
class RawBytes:
    """Reads bytes in sequence, and never past their end."""

    data: bytes
    at: int = 0

    @property
    def left(self) -> int:
        return len(self.data) - self.at

    def take(self, size: int, what: str) -> bytes:
        if not 0 <= size <= self.left:
            raise BrokenError(f"{what} claims {size} bytes where {self.left} are left")
        self.at += size
        return self.data[self.at - size : self.at]

    def take_nullable(self, what: str) -> bytes | None:
        size = self.varint()
        return None if size < 0 else self.take(size, what)

    def part(self, size: int, what: str) -> "RawBytes":
        return RawBytes(self.take(size, what))

    def varint(self) -> int:
        """A number in zigzag code, seven bits a byte."""
        value = 0
        for index, byte in enumerate(self.data[self.at : self.at + _VARINT_BYTES]):
            value |= (byte & 0x7F) << (7 * index)
            if byte < 0x80:
                self.at += index + 1
                return (value >> 1) ^ -(value & 1)
        raise BrokenError("a number does not end")


@dataclass(slots=True)
class RawRecord:
    timestamp_delta: int
    offset_delta: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]
    why: str
    """why a client would refuse it"""

    @classmethod
    def of(cls, reader: RawBytes) -> "RawRecord":
        """Raises BrokenError if key and value cannot be read."""
        reader.take(1, "a record's attributes")
        timestamp_delta, offset_delta = reader.varint(), reader.varint()
        key, value = reader.take_nullable("a key"), reader.take_nullable("a value")
        record = cls(timestamp_delta, offset_delta, key, value, [], "")
        try:
            record.why = _read_headers(reader, record.headers)
        except BrokenError as error:
            record.why = str(error)
        return record


def _read_headers(reader: RawBytes, headers: list[tuple[str, bytes | None]]) -> str:
    """Append the readable headers; returns what is wrong with them."""
    count = reader.varint()
    if count < 0:
        return f"it claims {count} headers"
    why = ""
    for _ in range(count):
        raw_name = reader.take_nullable("a header's name")
        if raw_name is None:
            why = why or "a header has no name"
        name = (raw_name or b"").decode("utf-8", "backslashreplace")
        if raw_name is not None and name.encode() != raw_name:
            why = why or f"the header name {repr(raw_name[:_NAME_SHOWN])[2:-1]} is not UTF-8"
        headers.append((name, reader.take_nullable("a header's value")))
    return why or (f"{reader.left} bytes behind its headers" if reader.left else "")
