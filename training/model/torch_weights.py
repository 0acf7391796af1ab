"""Read a file of weights that `torch.save` wrote before torch 1.6, without torch.

Such a file is a row of pickles (a magic number, the version, facts about the machine, the state, the keys of the
storages), then the storages: for each, the count of its values as int64, and the values. Pickles can run any code, so
this reader allows only the few names that tensors are made of.
"""

import pickle
from collections import OrderedDict
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

_MAGIC = 0x1950A86A20F9469CFC6C
_VERSION = 1001
_COUNT = np.dtype("<i8")
_DTYPES = {
    "FloatStorage": np.dtype("<f4"),
    "DoubleStorage": np.dtype("<f8"),
    "HalfStorage": np.dtype("<f2"),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
}

Arrays = dict[str, NDArray[Any]]


def read_torch_weights(file: Path) -> Arrays:
    """Return the arrays of a state dictionary by name. Raises ValueError for any other file, or OSError."""
    with file.open("rb") as stream:
        try:
            return _read(stream)
        except (pickle.UnpicklingError, EOFError, AttributeError, KeyError, IndexError, TypeError, ValueError) as exc:
            raise ValueError(f"{file} does not hold a network's weights: {exc}.") from exc


def _read(stream: IO[bytes]) -> Arrays:
    if _load(stream) != _MAGIC or _load(stream) != _VERSION:
        raise ValueError("it is not in torch's old format")
    if not _load(stream)["little_endian"]:
        raise ValueError("its numbers are big-endian")
    storages: dict[str, _Storage] = {}
    state = _load(stream, storages)
    for key in _load(stream):
        storages[key].read(stream)
    return {str(name): tensor.array() for name, tensor in state.items()}


class _Storage:
    """Values that one or several tensors show."""

    def __init__(self, dtype: np.dtype[Any], size: int) -> None:
        self._dtype, self._size = dtype, size
        self.values: NDArray[Any] = np.empty(0, dtype)

    def read(self, stream: IO[bytes]) -> None:
        (count,) = np.frombuffer(stream.read(_COUNT.itemsize), _COUNT)
        if count != self._size:
            raise ValueError(f"a storage of {self._size} values has {count}")
        self.values = np.frombuffer(stream.read(self._size * self._dtype.itemsize), self._dtype)
        if len(self.values) != self._size:
            raise ValueError("it ends early")


class _Tensor:
    """A view of a storage, whose values come after all tensors."""

    def __init__(self, storage: _Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> None:
        self._storage, self._offset, self._shape, self._strides = storage, offset, shape, strides

    def array(self) -> NDArray[Any]:
        values = self._storage.values
        steps = zip(self._shape, self._strides, strict=True)
        last = self._offset + sum((side - 1) * stride for side, stride in steps)
        if min((self._offset, *self._strides, *(side - 1 for side in self._shape))) < 0 or last >= len(values):
            raise ValueError("a tensor lies outside of its storage")
        strides = [stride * values.itemsize for stride in self._strides]
        view = np.lib.stride_tricks.as_strided(values[self._offset :], self._shape, strides, writeable=False)
        return np.array(view, order="C")


def _rebuild(storage: _Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: Any) -> _Tensor:
    return _Tensor(storage, offset, shape, strides)


class _Reader(pickle.Unpickler):
    def __init__(self, stream: IO[bytes], storages: dict[str, _Storage]) -> None:
        super().__init__(stream)
        self._storages = storages

    def find_class(self, module: str, name: str) -> Any:
        match module, name:
            case "collections", "OrderedDict":
                return OrderedDict
            case "torch._utils", "_rebuild_tensor_v2":
                return _rebuild
            case "torch", storage if storage in _DTYPES:
                return _DTYPES[storage]
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key, _, size, view = pid
        if kind != "storage" or view is not None or not isinstance(dtype, np.dtype):
            raise pickle.UnpicklingError("it holds more than tensors")
        return self._storages.setdefault(key, _Storage(dtype, size))


def _load(stream: IO[bytes], storages: dict[str, _Storage] | None = None) -> Any:
    return _Reader(stream, {} if storages is None else storages).load()
