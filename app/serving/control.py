"""Load and unload models while the service runs, if the settings allow it.

A request writes a mark to the store, and every worker follows the store. So it applies to all workers, and to those
that are started later. A mark that would leave no model to serve is not followed.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from app.contract.store import ModelStore
from app.errors import BundleNotFound, DeadlineExceeded, ModelControlOff, ModelControlRefused, ModelNotFound
from app.serving.catalogue import Catalogue
from app.serving.store_watcher import Watcher

_PATIENCE_S = 60.0


class ModelControl:
    """Writes marks to the store that a watcher follows."""

    def __init__(self, store: ModelStore, catalogue: Catalogue, watcher: Watcher, *, allowed: bool) -> None:
        self._store = store
        self._catalogue = catalogue
        self._watcher = watcher
        self._allowed = allowed

    async def load(self, name: str) -> None:
        """Load a model, and return when its version is live in this worker; the others follow by themselves.

        Raises ModelControlOff, ModelNotFound, DeadlineExceeded, ShuttingDown, or ModelControlRefused if the version
        fails its check.
        """
        self._check_allowed()
        await self._mark(name, unloaded=False)
        looks = 0
        async with _patience(name):
            while (wanted := await asyncio.to_thread(self._wanted, name)) != self._live(name):
                # A rejected version may have been replaced: its rejection counts only after two scans.
                if looks >= 2:
                    self._raise_rejection(name, wanted)
                await self._watcher.next_look()
                looks += 1

    async def unload(self, name: str) -> None:
        """Unload a model, and return when this worker does not serve it any more; the others follow by themselves.

        Raises ModelControlOff, ModelNotFound, DeadlineExceeded, ShuttingDown, or ModelControlRefused if no model would
        be left.
        """
        self._check_allowed()
        self._check_may_unload(name)
        await self._mark(name, unloaded=True)
        async with _patience(name):
            while self._live(name) is not None:
                try:
                    self._check_may_unload(name)  # another request may have unloaded all the others meanwhile
                except ModelControlRefused:
                    await self._mark(name, unloaded=False)
                    raise
                await self._watcher.next_look()

    def _check_allowed(self) -> None:
        if not self._allowed:
            raise ModelControlOff(
                "Loading and unloading models on request is turned off; the service follows its model store. "
                "IMAGECLASS_MODEL_CONTROL=true turns it on."
            )

    def _check_may_unload(self, name: str) -> None:
        if self._live(name) is not None and not self._catalogue.may_remove(name):
            raise ModelControlRefused(
                f"'{name}' is the only model, or the one that IMAGECLASS_MODEL names, and answers requests that name "
                "none. It cannot be unloaded."
            )

    def _live(self, name: str) -> int | None:
        return next((model.manifest.version for model in self._catalogue.models if model.name == name), None)

    async def _mark(self, name: str, *, unloaded: bool) -> None:
        def mark() -> None:
            self._wanted(name)
            self._store.mark(name, unloaded=unloaded)

        try:
            await asyncio.to_thread(mark)
        except OSError as exc:
            raise ModelControlRefused(
                "The service may not write to its model store. Give it write access, or change the store by hand."
            ) from exc

    def _wanted(self, name: str) -> int:
        try:
            versions = self._store.versions(name)
            order = self._store.serving_order(name, self._store.pinned(name)) if versions else []
        except BundleNotFound as exc:
            raise ModelControlRefused(
                f"The store's versions of '{name}' cannot be read. The service's log says why."
            ) from exc
        if not versions:
            raise ModelNotFound(f"There is no model '{name[:64]}' in the model store.")
        if not order:
            raise ModelControlRefused(f"Every version of '{name}' is held back. Promote one in the model store.")
        return order[0]

    def _raise_rejection(self, name: str, version: int) -> None:
        for rejection in self._catalogue.rejections:
            if (rejection.name, rejection.version) == (name, version):
                raise ModelControlRefused(
                    f"Version {version} of '{name}' is rejected: {rejection.code}. The service's log says why."
                )


@asynccontextmanager
async def _patience(name: str) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(_PATIENCE_S):
            yield
    except TimeoutError:
        raise DeadlineExceeded(
            f"'{name}' did not change within {_PATIENCE_S:.0f} s. It may still change; ask for its status."
        ) from None
