from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from app.contract.bundle import Bundle, open_bundle
from app.contract.fingerprint import fingerprint_of
from app.contract.preprocessing import Image
from app.contract.store import ModelStore
from app.engines.loading import LoadedModel
from app.engines.proof import Proof
from app.engines.registry import EngineName
from app.errors import BundleTampered
from app.serving.tuning import Tuning
from app.serving.versions import TunedModel


class Versioned:
    """An engine whose first probability tells which version it is of."""

    name: EngineName = "openvino"

    def __init__(self, version: int) -> None:
        self.version = version
        self.closed = False
        self.before_predict: Callable[[], object] = lambda: None

    def predict(self, batch: Image) -> NDArray[np.float32]:
        self.before_predict()
        answers = np.zeros((len(batch), 10), np.float32)
        answers[:, 0] = self.version
        return answers

    def prepare(self, batch_size: int) -> None:
        pass

    def close(self) -> None:
        self.closed = True


class FolderLoader:
    """Stands for `Loader`: a version is a folder whose manifest.json says "good", or why it is refused."""

    def __init__(self, store: ModelStore, bundle: Bundle) -> None:
        self.store = store
        self.loads: list[tuple[str, int]] = []
        self.engines: dict[tuple[str, int], Versioned] = {}
        self.before_load: Callable[[], object] = lambda: None
        self.on_event_loop = True
        self.inline_decode_pixels = 1000
        self._bundle = bundle

    def publish(self, name: str, version: int, manifest: str = "good") -> Path:
        folder = self.store.path(name, version)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "manifest.json").write_text(manifest)
        return folder

    def load(
        self, name: str, version: int, *, like: TunedModel | None = None, pause: Callable[[], None] = lambda: None
    ) -> TunedModel:
        self.loads.append((name, version))
        self.before_load()
        folder = self.store.path(name, version)
        fingerprint = fingerprint_of(folder)
        text = (folder / "manifest.json").read_text()
        if text == "trouble":
            raise RuntimeError(text)
        if not text.startswith("good"):
            raise BundleTampered(text)
        engine = self.engines[name, version] = Versioned(version)
        manifest = self._bundle.manifest.model_copy(
            update={"name": name, "version": version, "training": {"text": text}}
        )
        loaded = LoadedModel(Bundle(self._bundle.path, manifest), engine, "as a test", Proof(16, 0.0))
        tuning = Tuning({1: 0.001}, on_event_loop=self.on_event_loop, inline_decode_pixels=self.inline_decode_pixels)
        return TunedModel(loaded, tuning, fingerprint)

    def is_still(self, model: TunedModel) -> bool:
        text = (self.store.path(model.name, model.version) / "manifest.json").read_text()
        if not text.startswith("good"):
            raise BundleTampered(text)
        return model.loaded.bundle.manifest.training == {"text": text}


@pytest.fixture
def folder_loader(trained_store: Path, tmp_path: Path) -> FolderLoader:
    """A loader of the empty store tmp_path/store."""
    (tmp_path / "store").mkdir()
    return FolderLoader(ModelStore(tmp_path / "store"), open_bundle(trained_store / "digits" / "1"))
