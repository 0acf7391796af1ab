"""A workload: a bundle, the pictures that are sent to it, and the numbers of connections that send them."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import cv2
import numpy as np

from app.contract.store import ModelStore
from benchmarks.errors import BenchmarkError

WorkloadName = Literal["mnist", "mobilenet"]
WORKLOADS: tuple[WorkloadName, ...] = get_args(WorkloadName)

HERE = Path(__file__).parent
WORK = HERE / ".work"
_MOST_PICTURES = 64
_BOUNDARY = b"----imageclass-benchmark-7MA4YWxkTrZu0gW"


@dataclass(frozen=True)
class Workload:
    """`store` holds nothing but the bundle; `requests` are whole HTTP requests, one file for each picture."""

    name: WorkloadName
    bundle: Path
    store: Path
    pictures: tuple[bytes, ...]
    requests: tuple[Path, ...]
    connections: tuple[int, ...]
    batch_size: int
    """The largest batch that contestants may make: what suits the model on a CPU."""

    @property
    def main_connections(self) -> int:
        """The number of connections at which contestants are compared first."""
        return self.connections[1]

    def describe(self) -> str:
        sizes = [len(picture) for picture in self.pictures]
        return f"{len(sizes)} pictures of {min(sizes):,} to {max(sizes):,} bytes"


def mnist(pictures: Sequence[bytes]) -> Workload:
    bundle = ModelStore(HERE.parent / "model_store").newest("mnist")
    return _workload("mnist", bundle, pictures, connections=(1, 64, 256), batch_size=64)


def mobilenet(pictures: Sequence[bytes]) -> Workload:
    store = ModelStore(WORK / "model_store")
    if "mobilenet" not in store.names():
        raise BenchmarkError("The MobileNetV2 bundle is not built yet. Run: python -m benchmarks models")
    return _workload("mobilenet", store.newest("mobilenet"), pictures, connections=(1, 32), batch_size=8)


def pictures_of_folder(folder: Path) -> list[bytes]:
    """Return the first PNG and JPEG files of a folder."""
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in {".png", ".jpg", ".jpeg"})
    if not files:
        raise BenchmarkError(f"{folder} holds no .png, .jpg or .jpeg files.")
    return [file.read_bytes() for file in files[:_MOST_PICTURES]]


def pictures_of_npz(file: Path) -> list[bytes]:
    """Return the first test pictures of MNIST's mnist.npz as PNG."""
    with np.load(file) as arrays:
        images = arrays["x_test"][:_MOST_PICTURES]
    return [cv2.imencode(".png", image)[1].tobytes() for image in images]


def _workload(
    name: WorkloadName, bundle: Path, pictures: Sequence[bytes], *, connections: tuple[int, ...], batch_size: int
) -> Workload:
    store = WORK / "stores" / name
    copy = store / bundle.parent.name / bundle.name
    shutil.rmtree(store, ignore_errors=True)
    shutil.copytree(bundle, copy)
    folder = WORK / "requests" / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    requests = []
    for index, picture in enumerate(pictures):
        file = folder / f"{index:02}.http"
        file.write_bytes(_multipart_post(picture))
        requests.append(file)
    return Workload(name, copy, store, tuple(pictures), tuple(requests), connections, batch_size)


def _multipart_post(picture: bytes) -> bytes:
    """Return the request as curl -F would send it."""
    kind = b"png" if picture.startswith(b"\x89PNG") else b"jpeg"
    body = b"".join(
        [
            b"--%b\r\n" % _BOUNDARY,
            b'Content-Disposition: form-data; name="file"; filename="picture.%b"\r\n' % kind,
            b"Content-Type: image/%b\r\n\r\n" % kind,
            picture,
            b"\r\n--%b--\r\n" % _BOUNDARY,
        ]
    )
    head = (
        b"POST /predict HTTP/1.1\r\n"
        b"Host: 127.0.0.1\r\n"
        b"Accept: */*\r\n"
        b"Content-Type: multipart/form-data; boundary=%b\r\n"
        b"Content-Length: %d\r\n\r\n"
    )
    return head % (_BOUNDARY, len(body)) + body
