"""The model store's versions and which of them are live, in Triton's terms."""

import asyncio
from collections.abc import Mapping
from typing import Any

from app.contract.store import ModelStore
from app.errors import BundleNotFound, MalformedRequest
from app.serving.catalogue import Catalogue
from app.serving.control import ModelControl


class Repository:
    """The store that a catalogue follows, and its control."""

    def __init__(self, store: ModelStore, catalogue: Catalogue, control: ModelControl) -> None:
        self._store = store
        self._catalogue = catalogue
        self._control = control

    async def load(self, name: str, parameters: Mapping[str, Any]) -> None:
        """See `ModelControl.load`. Raises MalformedRequest if the request supplies a model's configuration or files."""
        for parameter in parameters:
            if parameter == "config" or parameter.startswith("file:"):
                raise MalformedRequest(
                    f"'{parameter[:40]}' is not supported: a model is served as configured by its bundle in the store."
                )
        await self._control.load(name)

    async def unload(self, name: str) -> None:
        """See `ModelControl.unload`."""
        await self._control.unload(name)

    async def index(self, *, only_ready: bool) -> list[dict[str, Any]]:
        """Return every version in the store and every served one, with its state and the reason if it is not served."""
        versions: dict[tuple[str, int], str] = {} if only_ready else await asyncio.to_thread(self._stored)
        served = {(model.name, model.manifest.version) for model in self._catalogue.answering}
        rejected = {(rejection.name, rejection.version): rejection.code for rejection in self._catalogue.rejections}

        return [
            {
                "name": name,
                "version": str(version),
                "state": "READY" if (name, version) in served else "UNAVAILABLE",
                "reason": "" if (name, version) in served else rejected.get((name, version)) or versions[name, version],
            }
            for name, version in sorted(served | versions.keys())
        ]

    def _stored(self) -> dict[tuple[str, int], str]:
        """Return the versions in the store, each with the reason why it is not served, if it is not."""

        def why(name: str, version: int) -> str:
            if self._store.is_unloaded(name):
                return "unloaded"
            return "held back" if version in self._store.held_back(name) else "another version is served"

        try:
            return {
                (name, version): why(name, version)
                for name in self._store.names()
                for version in self._store.versions(name)
            }
        except BundleNotFound:  # the store was removed while the service runs: only models in memory are left
            return {}
