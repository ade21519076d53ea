"""Protocol buffer messages as they stand in a file: fields by number, integers and strings.

The encoding is that of https://protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

_MOST_NUMBER, _MOST_LENGTH = (1 << 29) - 1, (1 << 31) - 1  # of fields, https://protobuf.dev/programming-guides/proto3/
_VARINT_BYTES, _KEY_BYTES = 10, 5
DEEPEST = 16  # graphs inside graphs; protobuf's own readers end at about 33

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5  # wire types


@dataclass(frozen=True)
class Field:
    """One field of a message: its number and wire type, its whole encoding, and what it holds."""

    number: int
    wire_type: int
    encoded: memoryview
    value: memoryview


def texts(message: memoryview, number: int) -> Iterator[str]:
    """Yield the strings that a message holds under a field number."""
    return (str(field.value, "utf-8") for field in fields(message) if field.number == number)


def text(message: memoryview, number: int) -> str:
    """Return the first string that a message holds under a field number; empty: there is none."""
    return next(texts(message, number), "")


def fields(message: memoryview) -> Iterator[Field]:
    """Yield a message's fields as they are.

    What protobuf's own readers would understand differently (a key or a length of more bits than they keep) is refused, so that
    nothing can be hidden from a search here.

    Raises:
        IndexError, ValueError: the bytes are not a protocol buffer message.
    """
    position = 0
    while position < len(message):
        start = position
        key, position = read_varint(message, position)
        wire_type, value = key & 7, position
        if position - start > _KEY_BYTES or not 0 < key >> 3 <= _MOST_NUMBER:
            raise ValueError(f"an invalid field key at byte {start}")
        if wire_type == VARINT:
            _, position = read_varint(message, position)
        elif wire_type == LENGTH:
            length, value = read_varint(message, position)
            if length > _MOST_LENGTH:
                raise ValueError(f"a field at byte {start} reaches beyond its message")
            position = value + length
        elif wire_type in (FIXED64, FIXED32):
            position += 8 if wire_type == FIXED64 else 4
        else:
            raise ValueError(f"wire type {wire_type} at byte {start}")
        if position > len(message):
            raise ValueError(f"a field at byte {start} reaches beyond its message")
        yield Field(key >> 3, wire_type, message[start:position], message[value:position])


def read_varint(message: memoryview, position: int) -> tuple[int, int]:
    """Return the number that is encoded at a position, and the position after it.

    Raises:
        IndexError, ValueError: the message ends too early, or the number has more than ten bytes, which 64 bits never need.
    """
    value = 0
    for shift in range(0, 7 * _VARINT_BYTES, 7):
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError(f"a number of more than {_VARINT_BYTES} bytes at byte {position - _VARINT_BYTES}")


def encoded_varint(value: int) -> bytes:
    """Return the encoding of a number that is not negative."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def children(message: memoryview, *numbers: int) -> Iterator[memoryview]:
    """Yield the messages that lie inside a message along a path of field numbers."""
    if not numbers:
        yield message
        return
    for part in fields(message):
        if part.number == numbers[0]:
            yield from children(part.value, *numbers[1:])


def string(part: Field) -> str:
    """Return the string in a field; bytes that are no UTF-8 become replacement characters."""
    return str(part.value, "utf-8", "replace")


def integer(part: Field) -> int:
    """Return the integer in a field, with its sign."""
    return _signed(read_varint(part.value, 0)[0])


def integers(parts: Iterator[Field] | list[Field], number: int) -> list[int]:
    """Return the integers under a field number, one per field or many packed into one."""
    found: list[int] = []
    for part in parts:
        if part.number != number:
            continue
        if part.wire_type != LENGTH:
            found.append(integer(part))
            continue
        position = 0
        while position < len(part.value):
            value, position = read_varint(part.value, position)
            found.append(_signed(value))
    return found


def _signed(value: int) -> int:
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >> 63 else value
