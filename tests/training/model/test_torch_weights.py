"""Weights of torch's old format are read without torch, and nothing else of a pickle is."""

import pickle
import struct
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from training.model.torch_weights import read_torch_weights

MAGIC, VERSION = 0x1950A86A20F9469CFC6C, 1001
MACHINE = {"protocol_version": VERSION, "little_endian": True, "type_sizes": {"long": 4}}


class _Global:
    """Stands in a pickle for a name of a module that is not here."""

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name


class _Call:
    def __init__(self, function: _Global, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments


class _Storage:
    def __init__(self, kind: _Global, key: str, size: int, view: Any = None) -> None:
        self.id = ("storage", kind, key, "cpu", size, view)


def written(content: Any) -> bytes:
    """Pickle what torch would, by hand: the classes that it names need not exist."""

    def push(value: Any) -> bytes:
        match value:
            case _Global():
                return b"c" + f"{value.module}\n{value.name}\n".encode()
            case _Call():
                return push(value.function) + push(value.arguments) + b"R"
            case _Storage():
                return push(value.id) + b"Q"
            case tuple():
                return b"(" + b"".join(map(push, value)) + b"t"
            case OrderedDict():
                pairs = b"".join(push(key) + push(each) + b"s" for key, each in value.items())
                return push(_Global("collections", "OrderedDict")) + b")R" + pairs
            case _:
                return pickle.dumps(value, 2)[2:-1]

    return b"\x80\x02" + push(content) + b"."


FLOATS = _Global("torch", "FloatStorage")
REBUILD = _Global("torch._utils", "_rebuild_tensor_v2")


def tensor(
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    *,
    offset: int = 0,
    key: str = "1",
    size: int = 6,
    kind: _Global = FLOATS,
) -> _Call:
    return _Call(REBUILD, _Storage(kind, key, size), offset, shape, strides, False, OrderedDict())


def file_of(tmp_path: Path, state: Any, *, values: bytes = np.arange(6, dtype="<f4").tobytes(), count: int = 6) -> Path:
    parts = [pickle.dumps(part, 2) for part in (MAGIC, VERSION, MACHINE)]
    parts += [written(state), pickle.dumps(["1"], 2), struct.pack("<q", count), values]
    file = tmp_path / "weights.pth"
    file.write_bytes(b"".join(parts))
    return file


def test_tensors_are_read_with_their_strides_and_offsets(tmp_path: Path) -> None:
    state = OrderedDict(a=tensor((2, 3), (3, 1)), b=tensor((3, 2), (1, 3)), c=tensor((2,), (1,), offset=4))
    found = read_torch_weights(file_of(tmp_path, state))
    np.testing.assert_array_equal(found["a"], [[0, 1, 2], [3, 4, 5]])
    np.testing.assert_array_equal(found["b"], [[0, 3], [1, 4], [2, 5]])
    np.testing.assert_array_equal(found["c"], [4, 5])
    assert all(array.dtype == np.float32 and array.flags.writeable for array in found.values())


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (OrderedDict(a=_Call(_Global("os", "system"), "touch harmed")), "it asks for os.system"),
        (OrderedDict(a=_Call(_Global("builtins", "eval"), "1")), "it asks for builtins.eval"),
        (OrderedDict(a=tensor((2,), (1,), kind=_Global("torch", "Tensor"))), "it asks for torch.Tensor"),
        (OrderedDict(a=tensor((2, 4), (4, 1))), "outside of its storage"),
        (OrderedDict(a=tensor((2,), (-1,), offset=3)), "outside of its storage"),
        (OrderedDict(a=tensor((2,), (1,), offset=-1)), "outside of its storage"),
        (OrderedDict(a=tensor((2,), (1,), size=5)), "a storage of 5 values has 6"),
        (OrderedDict(a=1), "does not hold a network's weights"),
        (3, "does not hold a network's weights"),
    ],
)
def test_anything_else_is_refused_and_nothing_is_run(
    state: Any, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=said):
        read_torch_weights(file_of(tmp_path, state))
    assert not (tmp_path / "harmed").exists()


def test_a_file_that_ends_early_or_is_none_is_refused(tmp_path: Path) -> None:
    whole = file_of(tmp_path, OrderedDict(a=tensor((6,), (1,)))).read_bytes()
    file = tmp_path / "cut.pth"
    for end in range(len(whole)):
        file.write_bytes(whole[:end])
        with pytest.raises(ValueError, match="does not hold a network's weights"):
            read_torch_weights(file)
    file.write_bytes(b"\x89PNG\r\n")
    with pytest.raises(ValueError, match="does not hold a network's weights"):
        read_torch_weights(file)
