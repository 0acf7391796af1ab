"""Parse tensors into pictures, and write probabilities as tensors, in JSON or as little-endian bytes.

It knows nothing of HTTP, of gRPC, or of models.
"""

import struct
from collections.abc import Iterable, Sequence
from itertools import chain
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.api.bodies.base64 import decode_base64
from app.errors import MalformedRequest
from app.system.wording import count_of

Pictures = list[bytes] | NDArray[np.uint8]
"""Encoded pictures, or preprocessed ones as an array (N, H, W, C)."""

_MOST_DIMENSIONS = 8
_LENGTH = struct.Struct("<I")


def shape_of(value: Any, where: str) -> tuple[int, ...]:
    """Return a shape. Raises MalformedRequest if it is not one."""
    if isinstance(value, (list, tuple)) and 1 <= len(value) <= _MOST_DIMENSIONS:
        for size in value:
            if type(size) is not int or not 0 <= size < 1 << 31:
                break
        else:
            return tuple(value)
    raise MalformedRequest(
        f"{where}: 'shape' must be a list of 1 to {_MOST_DIMENSIONS} whole numbers, such as [2] or [2, 28, 28, 1]."
    )


def pictures_of(shape: tuple[int, ...], where: str) -> int:
    """Return how many encoded pictures a BYTES tensor of this shape holds. Raises MalformedRequest."""
    if len(shape) == 1 or (len(shape) == 2 and shape[1] == 1):
        return shape[0]
    raise MalformedRequest(f"{where}: encoded pictures must have the shape [N] or [N, 1], not {list(shape)}.")


def encoded_from_binary(data: bytes, count: int, where: str) -> list[bytes]:
    """Return the elements of a BYTES tensor, each a 4-byte length and that many bytes. Raises MalformedRequest."""
    pictures: list[bytes] = []
    offset = 0
    for _ in range(count):
        begin = offset + _LENGTH.size
        if begin > len(data):
            raise MalformedRequest(f"{where}: the data ends after {len(pictures)} of {count_of(count, 'element')}.")
        offset = begin + _LENGTH.unpack_from(data, offset)[0]
        if offset > len(data):
            raise MalformedRequest(f"{where}: element {len(pictures)} is longer than the rest of the data.")
        pictures.append(data[begin:offset])
    if offset != len(data):
        raise MalformedRequest(
            f"{where}: {count_of(len(data) - offset, 'byte')} left over after {count_of(count, 'element')}."
        )
    return pictures


def encoded_from_json(data: Any, shape: tuple[int, ...], where: str) -> list[bytes]:
    """Return the pictures of a BYTES tensor in JSON; each is a base64 string. Raises MalformedRequest."""
    pictures = []
    for index, text in enumerate(_flat(data, shape, where)):
        try:
            pictures.append(decode_base64(text))
        except (TypeError, ValueError):
            raise MalformedRequest(
                f"{where}: element {index} is not base64 (standard or URL-safe, or a data URL of it). Send each "
                "picture as a base64 string, or as binary data."
            ) from None
    return pictures


def array_from_binary(data: bytes, shape: tuple[int, ...], where: str) -> NDArray[np.uint8]:
    """Return a UINT8 tensor. Raises MalformedRequest if the data does not fill its shape."""
    if len(data) != prod(shape):
        raise MalformedRequest(
            f"{where}: the shape {list(shape)} takes {count_of(prod(shape), 'byte')}, not {len(data):,}."
        )
    return np.frombuffer(data, np.uint8).reshape(shape)


def array_from_json(data: Any, shape: tuple[int, ...], where: str) -> NDArray[np.uint8]:
    """Return a UINT8 tensor whose JSON is flat or nested. Raises MalformedRequest."""
    return array_from_values(_flat(data, shape, where), shape, where)


def array_from_values(values: Iterable[Any], shape: tuple[int, ...], where: str) -> NDArray[np.uint8]:
    try:
        data = bytes(values)
    except (TypeError, ValueError):
        raise MalformedRequest(f"{where}: the values of a UINT8 tensor must be whole numbers from 0 to 255.") from None
    return array_from_binary(data, shape, where)


def bytes_to_binary(elements: Sequence[bytes]) -> bytes:
    """Return a BYTES tensor as binary data."""
    return b"".join(chain.from_iterable((_LENGTH.pack(len(element)), element) for element in elements))


def _flat(data: Any, shape: tuple[int, ...], where: str) -> list[Any]:
    """Flatten JSON data into one list."""
    if not isinstance(data, list):
        raise MalformedRequest(f"{where}: 'data' must be a list of values, flat or nested like the shape.")
    values: list[Any] = data
    for _ in range(_MOST_DIMENSIONS):
        if not values or not isinstance(values[0], list):
            break
        if not all(isinstance(part, list) for part in values):
            raise MalformedRequest(f"{where}: 'data' is nested unevenly.")
        values = list(chain.from_iterable(values))
    if len(values) != prod(shape):
        raise MalformedRequest(
            f"{where}: the shape {list(shape)} takes {count_of(prod(shape), 'value')}, not {len(values):,}."
        )
    return values
