"""A workload: a bundle, the pictures to send to it, and the numbers of connections."""

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from app.contract.store import ModelStore
from benchmarks.harness.errors import BenchmarkError
from benchmarks.harness.request import batches, multipart_post, raw_post

WorkloadName = Literal["mnist", "mobilenet", "resnet50", "lite0", "phone"]
WORKLOADS: tuple[WorkloadName, ...] = get_args(WorkloadName)

HERE = Path(__file__).parents[1]
WORK = HERE / ".work"
_MOST_PICTURES = 64
_PHONE_PICTURES = 8
_PHONE = (4000, 3000)
_ORIENTATION = 0x0112


@dataclass(frozen=True)
class Workload:
    """`store` holds nothing but the bundle; requests are whole HTTP requests, one file each.

    `requests` and `raw_requests` send the pictures one by one, `batch_requests` BATCH_PICTURES at once.
    """

    name: WorkloadName
    bundle: Path
    store: Path
    pictures: tuple[bytes, ...]
    requests: tuple[Path, ...]
    raw_requests: tuple[Path, ...]
    batch_requests: tuple[Path, ...]
    connections: tuple[int, ...]
    batch_size: int
    """The largest batch that contestants may make, suited to the model on a CPU."""
    batch_connections: tuple[int, ...] = ()
    """Connections that send `batch_requests`; none if one such request takes a good part of a second."""
    patience: float = 1
    """The factor by which a load at many connections lasts longer: requests in flight at its end do not count, and a
    slow model has many."""

    @property
    def main_connections(self) -> int:
        """The number of connections at which contestants are compared first."""
        return self.connections[1]

    def describe(self) -> str:
        sizes = [len(picture) for picture in self.pictures]
        return f"{len(sizes)} pictures of {min(sizes):,} to {max(sizes):,} bytes"


def mnist(pictures: Sequence[bytes]) -> Workload:
    """The first `mnist`: its preprocessing has no step that peers do not have. The bundled one finds the drawing."""
    bundle = ModelStore(HERE.parent / "tests" / "data" / "bundles").newest("mnist")
    return _workload("mnist", bundle, pictures, connections=(1, 64, 256), batch_size=64, batch_connections=(4, 8))


def mobilenet(pictures: Sequence[bytes]) -> Workload:
    return _workload("mobilenet", _built("mobilenet"), pictures, connections=(1, 32), batch_size=8, patience=2)


def resnet50(pictures: Sequence[bytes]) -> Workload:
    return _workload("resnet50", _built("resnet50"), pictures, connections=(1, 16), batch_size=8, patience=2)


def lite0(pictures: Sequence[bytes]) -> Workload:
    return _workload("lite0", _built("lite0"), pictures, connections=(1, 32), batch_size=8, patience=2)


def phone(pictures: Sequence[bytes]) -> Workload:
    """The pictures as a phone takes them: JPEGs of 12 megapixels, turned by their EXIF orientation."""
    large = [of_12_megapixels(picture) for picture in pictures[:_PHONE_PICTURES]]
    return _workload("phone", _built("lite0-reduced"), large, connections=(1, 16), batch_size=8, patience=4)


def pictures_of_folder(folder: Path) -> list[bytes]:
    """Return the first PNG and JPEG files of a folder, or, if it holds only folders, some from all of them."""
    files = _pictures(folder.iterdir())
    if not files:
        below = _pictures(folder.rglob("*"))
        files = below[:: max(1, len(below) // _MOST_PICTURES)]
    if not files:
        raise BenchmarkError(f"{folder} holds no .png, .jpg or .jpeg files.")
    return [file.read_bytes() for file in files[:_MOST_PICTURES]]


def _pictures(files: Iterable[Path]) -> list[Path]:
    return sorted(file for file in files if file.suffix.lower() in {".png", ".jpg", ".jpeg"})


def pictures_of_npz(file: Path) -> list[bytes]:
    """Return the first test pictures of MNIST's mnist.npz as PNG."""
    with np.load(file) as arrays:
        images = arrays["x_test"][:_MOST_PICTURES]
    return [cv2.imencode(".png", image)[1].tobytes() for image in images]


def write_requests(folder: Path, requests: Sequence[bytes]) -> tuple[Path, ...]:
    """Write each request into a file of its own, and nothing else into `folder`."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    files = tuple(folder / f"{index:02}.http" for index in range(len(requests)))
    for file, request in zip(files, requests, strict=True):
        file.write_bytes(request)
    return files


def store_of(name: str, bundle: Path | None = None) -> Path:
    """Return a store that holds nothing but a bundle, by default the built one of that name."""
    bundle = bundle or _built(name)
    store = WORK / "stores" / name
    shutil.rmtree(store, ignore_errors=True)
    shutil.copytree(bundle, store / bundle.parent.name / bundle.name)
    return store


def of_12_megapixels(picture: bytes) -> bytes:
    image = Image.open(BytesIO(picture)).convert("RGB")
    if image.height > image.width:
        image = image.transpose(Image.Transpose.ROTATE_90)
    large = np.asarray(image.resize(_PHONE, Image.Resampling.BICUBIC), np.int16)
    exif = Image.Exif()
    exif[_ORIENTATION] = 6  # the phone was held upright
    jpeg = BytesIO()
    Image.fromarray(np.clip(large + _sensor_noise(), 0, 255).astype(np.uint8)).save(jpeg, "JPEG", quality=90, exif=exif)
    return jpeg.getvalue()


@cache
def _sensor_noise() -> NDArray[np.float32]:
    """Return the noise of a sensor, without which a file of 12 megapixels is far too small."""
    width, height = _PHONE
    return np.random.default_rng(0).normal(0, 2, (height, width, 3)).astype(np.float32)


def _built(name: str) -> Path:
    store = ModelStore(WORK / "model_store")
    if name not in store.names():
        raise BenchmarkError(f"The bundle {name} is not built yet. Run: python -m benchmarks models")
    return store.newest(name)


def _workload(
    name: WorkloadName,
    bundle: Path,
    pictures: Sequence[bytes],
    *,
    connections: tuple[int, ...],
    batch_size: int,
    batch_connections: tuple[int, ...] = (),
    patience: float = 1,
) -> Workload:
    store = store_of(name, bundle)
    folder = WORK / "requests" / name
    return Workload(
        name=name,
        bundle=store / bundle.parent.name / bundle.name,
        store=store,
        pictures=tuple(pictures),
        requests=write_requests(folder / "multipart", [multipart_post(picture) for picture in pictures]),
        raw_requests=write_requests(folder / "raw", [raw_post(picture) for picture in pictures]),
        batch_requests=write_requests(folder / "batch", batches(pictures)),
        connections=connections,
        batch_size=batch_size,
        batch_connections=batch_connections,
        patience=patience,
    )
