"""What the model store holds, and which of it is served, in Triton's terms."""

import asyncio
from typing import Any

from app.contract.store import ModelStore
from app.errors import BundleNotFound
from app.serving.catalogue import Catalogue


class Repository:
    """The store that a catalogue follows."""

    def __init__(self, store: ModelStore, catalogue: Catalogue) -> None:
        self._store = store
        self._catalogue = catalogue

    async def index(self, *, only_ready: bool) -> list[dict[str, Any]]:
        """Return every version of the store and every one that is live, with its state and why it is not served."""
        live = {(model.name, model.manifest.version) for model in self._catalogue.models}
        refused = {(refusal.name, refusal.version): refusal.code for refusal in self._catalogue.refusals}
        versions = live if only_ready else live | await asyncio.to_thread(self._stored)
        return [
            {
                "name": name,
                "version": str(version),
                "state": "READY" if (name, version) in live else "UNAVAILABLE",
                "reason": "" if (name, version) in live else refused.get((name, version), "another version is served"),
            }
            for name, version in sorted(versions)
        ]

    def _stored(self) -> set[tuple[str, int]]:
        try:
            return {(name, version) for name in self._store.names() for version in self._store.versions(name)}
        except BundleNotFound:  # taken away while the service runs: what is in memory is all there is
            return set()
