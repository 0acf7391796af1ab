"""Classify encoded pictures by one live model. It knows nothing of HTTP or of other models."""

import asyncio
from collections.abc import Callable, Collection, Coroutine, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from time import monotonic, time
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from app.contract.bundle import CLASS_MAPS
from app.contract.header import ImageHeader, read_header
from app.contract.limits import check_size
from app.contract.preprocessing import Image, jpeg_divisor, preprocess
from app.contract.structure import jpeg_coefficient_bytes
from app.engines.engine import GivesOutputs
from app.engines.loading import LoadedModel
from app.engines.proof import proven_outputs
from app.errors import DeadlineExceeded, MalformedRequest
from app.metrics import Metrics
from app.serving.admission import Admission, Lease
from app.serving.batcher import Batcher, Meters, Reply, RowFuture, Rows, row_for, stopping_error
from app.serving.explanation import Explanation, ExplanationOptions, Rise, View, view_of
from app.serving.predictions import Predictions
from app.serving.tuning import Tuning
from app.tracing.trace import trace_batch
from app.waiting import wait_all

_Made = TypeVar("_Made")
_DECODED_CHANNELS = 3
"""Bytes counted for a decoded pixel. Alpha or 16 bits may take more for a moment. A JPEG of several scans takes about
as much at any scale."""

_FEWEST_PLACES = 4
"""The least number of places along each side of class maps that are shown: the 2×2 places of a network for 28×28 pixels
say hardly anything."""
_SHARE_OF_TIME = 0.5
_FEWEST_MASKS, _MOST_MASKS = 32, 1000
"""An explanation by masks takes at most this share of the time until its deadline, and as many masks as fit."""


@dataclass(frozen=True)
class Limits:
    """The configured limits of a picture and a batch, for any model."""

    max_pixels: int
    max_pending: int
    accepted_formats: frozenset[str]
    inference_timeout_s: float


class WithOutput(NamedTuple):
    """One picture's probabilities (K,), and what another output of the network has for this picture."""

    probabilities: NDArray[np.float32]
    output: NDArray[np.float32]


class Classifier:
    """Owns its engine and its batchers; `aclose` and `close` end them.

    Pictures for which only the probabilities are requested share one batcher. Each other output gets a batcher of its
    own when it is first requested: it costs nothing before, and never delays requests that do not need it.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        tuning: Tuning,
        *,
        decode_pool: Executor,
        limits: Limits,
        admission: Admission,
        metrics: Metrics,
        give_up: Callable[[], None],
        outputs: Sequence[str] = (),
    ) -> None:
        """`outputs` are proven already: pictures can be put for them from the start."""
        self.loaded = loaded
        self.tuning = tuning
        self.manifest = loaded.bundle.manifest
        self.name = self.manifest.name
        self.version = str(self.manifest.version)
        self.card = loaded.bundle.card()
        self._loaded_at = monotonic()
        self._decode_pool = decode_pool
        self._tasks: dict[Reply, asyncio.Task[None]] = {}
        self._closing = False
        self._limits = limits
        self._admission = admission
        self.observe_read = metrics.stage(self.name, "read").observe
        self._observe_decode = metrics.stage(self.name, "decode").observe
        self._observe_decode_of_version = metrics.version_seconds(self.name, self.version, "decode").observe
        self._expired = metrics.dropped("expired").add
        self._cancelled = metrics.dropped("cancelled").add
        observe_inference = metrics.stage(self.name, "inference").observe
        observe_size = metrics.batch_size(self.name).observe
        observe_queue = metrics.stage(self.name, "queue").observe
        observe_queue_of_version = metrics.version_seconds(self.name, self.version, "queue").observe
        self._predictions = Predictions(metrics, self.name, self.manifest.labels)
        add_pictures = metrics.version_pictures(self.name, self.version).add
        set_last_inference = metrics.version_last_inference(self.name, self.version).set
        batches = {size: metrics.version_batch_seconds(self.name, self.version, size) for size in tuning.plan.sizes}

        def waited(reply: Reply, seconds: float) -> None:
            observe_queue(seconds)
            observe_queue_of_version(seconds)
            if reply.trace is not None:
                reply.trace.stage("queue", seconds)

        def ran(replies: Collection[Reply], seconds: float) -> None:
            items = len(replies)
            observe_size(items)
            observe_inference(seconds)
            batches[tuning.plan.size_of(items)].observe(seconds)
            add_pictures(items)
            set_last_inference(time())
            if traces := [reply.trace for reply in replies if reply.trace is not None]:
                trace_batch(traces, seconds, size=items, model=self.name, version=self.version)

        def gave(rows: Rows, items: int) -> None:
            probabilities = (
                rows
                if isinstance(rows, np.ndarray)
                else np.array([row.probabilities for row in rows])  # of `WithOutput`
            )
            self._predictions.add(probabilities[:items])

        def batcher(run: Callable[[Image], Rows], slots: int) -> _PictureBatcher:
            return Batcher(
                run,
                prepare=self._prepare,
                item_shape=self.manifest.preprocessing.shape,
                item_dtype=np.uint8,
                plan=tuning.plan,
                max_waiting=limits.max_pending,
                meters=Meters(waited=waited, ran=ran, gave=gave, expired=self._expired, cancelled=self._cancelled),
                run_timeout_s=limits.inference_timeout_s,
                give_up=give_up,
                slots=slots,
            )

        self._batcher = batcher(loaded.engine.predict, 0 if tuning.on_event_loop else 1)
        self._batcher_of = batcher
        self._batchers: dict[str | None, _PictureBatcher] = {None: self._batcher}
        self._preparing: dict[str, asyncio.Task[None]] = {}
        for output in outputs:
            self._add_batcher(output)

    @property
    def age_s(self) -> float:
        """Seconds since this version went live in this process."""
        return monotonic() - self._loaded_at

    @property
    def explained_by(self) -> str | None:
        """The output that a label's heat map is made from; None if the network has none that is worth showing."""
        maps = (tensor for tensor in self.manifest.signature.other_outputs if tensor.name == CLASS_MAPS)
        sizes = next((tensor.shape[1:3] for tensor in maps), ())
        return CLASS_MAPS if sizes and all(size is not None and size >= _FEWEST_PLACES for size in sizes) else None

    async def classify(self, data: bytes, *, deadline: float | None = None) -> NDArray[np.float32]:
        """Return the probabilities (K,) of one encoded picture, in the labels' order; see `put` for the errors."""
        probabilities: NDArray[np.float32] = await row_for(
            lambda reply: self.put(data, reply, deadline=deadline), self.withdraw
        )
        return probabilities

    def is_ready_for(self, output: str | None) -> bool:
        """Say whether this output of the network is proven; None means the probabilities, which always are."""
        return output in self._batchers

    async def make_ready_for(self, output: str) -> None:
        """Prove on the golden pictures, in a thread, that the engine gives this output as training did.

        The manifest has to list the output. Raises EngineUnavailable or SelfCheckFailed if the proof fails.
        """
        preparing = self._preparing.get(output)
        if preparing is None:
            preparing = self._preparing[output] = asyncio.create_task(self._prove_and_add(output))
        await asyncio.shield(preparing)

    async def _ready_batcher(self, output: str | None, deadline: float | None) -> "_PictureBatcher":
        """Return the batcher of an output once it is proven. Raises DeadlineExceeded, or as `make_ready_for`."""
        if output is not None and not self.is_ready_for(output):
            try:
                async with asyncio.timeout_at(deadline):
                    await self.make_ready_for(output)
            except TimeoutError:
                self._expired()
                raise DeadlineExceeded(
                    "The model's further output was not ready before the deadline. Try again."
                ) from None
        return self._batchers[output]

    async def _prove_and_add(self, output: str) -> None:
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._decode_pool, proven_outputs, self.loaded.bundle, self.loaded.engine)
        if self._closing:
            raise stopping_error()
        self._add_batcher(output)

    def _add_batcher(self, output: str) -> None:
        engine = cast(GivesOutputs, self.loaded.engine)
        probabilities = self.manifest.signature.output.name

        def run(batch: Image) -> Rows:
            outputs = engine.outputs(batch)
            return list(map(WithOutput, outputs[probabilities], outputs[output]))

        self._batchers[output] = self._batcher_of(run, 1)

    def put(self, data: bytes, reply: Reply, *, deadline: float | None = None, output: str | None = None) -> None:
        """Classify one encoded picture; `reply` gets the probabilities (K,), or an exception.

        With `output` it gets a `WithOutput`; the first such call waits until that output is verified. `deadline` is in
        seconds of the event loop's clock. ImageTooLarge and UnsupportedFormat, Overloaded and ShuttingDown are raised
        here; UndecodableImage, DeadlineExceeded, InferenceFailed and the errors of `make_ready_for` go to `reply`.
        """
        header = read_header(data, accepted=self._limits.accepted_formats)
        check_size(data, header, max_pixels=self._limits.max_pixels)
        batcher = self._batchers.get(output)
        if batcher is not None and header.pixels <= self.tuning.inline_decode_pixels:
            batcher.put(_Encoded(data, header, reply), reply, deadline=deadline)
        else:

            async def decode_and_put(_: Lease) -> None:
                ready = batcher or await self._ready_batcher(output, deadline)
                spec = self.manifest.preprocessing
                image = await self._in_pool(lambda: preprocess(data, spec, header=header), reply, deadline)
                if not reply.done():
                    ready.put(image, reply, deadline=deadline)

            self._begin(reply, decode_and_put, size=self._decoded_bytes(data, header))

    def put_image(
        self, image: Image, reply: Reply, *, deadline: float | None = None, output: str | None = None
    ) -> None:
        """Classify a picture that is preprocessed already, (H, W, C) in the manifest's shape; else as `put`."""
        batcher = self._batchers.get(output)
        if batcher is not None:
            batcher.put(image, reply, deadline=deadline)
        else:

            async def put_when_ready(_: Lease) -> None:
                ready = await self._ready_batcher(output, deadline)
                if not reply.done():
                    ready.put(image, reply, deadline=deadline)

            self._begin(reply, put_when_ready, size=image.nbytes)

    def explain(
        self,
        data: bytes,
        reply: Reply,
        *,
        options: ExplanationOptions,
        deadline: float | None = None,
        output: str | None = None,
    ) -> None:
        """Classify and explain one encoded picture; `reply` gets an `Explanation`; else as `put`.

        `output` is `explained_by`. If it is None, the network is run on masked pictures, more of them the later the
        `deadline` is; each runs while no other picture is queued. Raises MalformedRequest if the model does not have
        the requested label.
        """
        labels = self.manifest.labels
        if options.label is not None and options.label not in labels:
            raise MalformedRequest(
                f"'{options.label}' is not a label of the model '{self.name}'. Labels: {', '.join(labels)}."
            )
        header = read_header(data, accepted=self._limits.accepted_formats)
        check_size(data, header, max_pixels=self._limits.max_pixels)

        async def look_and_explain(lease: Lease) -> None:
            spec = self.manifest.preprocessing
            view = await self._in_pool(lambda: view_of(data, spec, header=header, drawn=options.drawn), reply, deadline)
            lease.end()
            explain = self._by_masks if output is None else self._by_class_maps
            began = monotonic()
            explanation = await explain(view, reply, options, deadline)
            if reply.trace is not None:
                reply.trace.stage("explain", monotonic() - began)
            if options.drawn:
                png = await asyncio.get_running_loop().run_in_executor(self._decode_pool, explanation.drawn_over, view)
                explanation = explanation._replace(png=png)
            if not reply.done():
                reply.set_result(explanation)

        self._begin(reply, look_and_explain, size=self._decoded_bytes(data, header))

    async def _by_class_maps(
        self, view: View, reply: Reply, options: ExplanationOptions, deadline: float | None
    ) -> Explanation:
        batcher = await self._ready_batcher(CLASS_MAPS, deadline)
        row: WithOutput = await self._row(batcher, view.tensor, reply, deadline)
        index = options.index_in(self.manifest.labels, row.probabilities)
        return Explanation(row.probabilities, index, "cam", 0, np.ascontiguousarray(row.output[..., index]), view.box)

    async def _by_masks(
        self, view: View, reply: Reply, options: ExplanationOptions, deadline: float | None
    ) -> Explanation:
        """Explain by as many masks as there is time for, each run while the batcher is idle."""
        probabilities = await self._row(self._batcher, view.tensor, reply, deadline)
        index = options.index_in(self.manifest.labels, probabilities)
        loop = asyncio.get_running_loop()
        until = None if deadline is None else loop.time() + _SHARE_OF_TIME * (deadline - loop.time())
        rise = Rise(view.tensor)
        try:
            async with asyncio.timeout_at(until):
                while rise.masks < _MOST_MASKS:
                    masked = await self._batcher.submit(rise.next_picture(), idle=True)
                    rise.count(float(masked[index]))
        except TimeoutError:
            if rise.masks < _FEWEST_MASKS:
                self._expired()
                raise DeadlineExceeded(
                    "The service is too busy to explain the answer in time. Try again, or allow it more time."
                ) from None
        return Explanation(probabilities, index, "rise", rise.masks, rise.grid, view.box)

    async def _row(self, batcher: "_PictureBatcher", tensor: Image, reply: Reply, deadline: float | None) -> Any:
        """Return the row of a tensor; `reply` gets its times."""
        times = RowFuture()
        times.trace = reply.trace
        batcher.put(tensor, times, deadline=deadline)
        try:
            return await times
        finally:
            batcher.withdraw(times)
            reply.queued_s, reply.ran_s = times.queued_s, times.ran_s

    def run_waiting(self) -> None:
        """See `Batcher.run_waiting`."""
        self._batcher.run_waiting()

    def withdraw(self, reply: Reply) -> None:
        """Forget a caller that has gone: work for it that has not begun is dropped."""
        if self._tasks and (task := self._tasks.get(reply)) is not None and task.cancel():
            self._cancelled()
        for batcher in self._batchers.values():
            batcher.withdraw(reply)

    async def aclose(self, grace_s: float = 0.0) -> None:
        """Give accepted pictures `grace_s` seconds to finish, and fail the rest with ShuttingDown."""
        self._closing = True
        loop = asyncio.get_running_loop()
        end = loop.time() + grace_s
        try:
            await wait_all([*self._tasks.values(), *self._preparing.values()], timeout_s=grace_s)
            for batcher in self._batchers.values():
                await batcher.aclose(max(0.0, end - loop.time()))
        finally:
            self.close()

    def close(self) -> None:
        """End now, and cut short the grace of a waiting `aclose`: accepted pictures fail with ShuttingDown."""
        self._closing = True
        for task in self._tasks.values():
            task.cancel()
        for preparing in self._preparing.values():
            preparing.cancel()
        for batcher in self._batchers.values():
            batcher.close()
        self._predictions.flush()
        self.loaded.engine.close()

    def _decoded_bytes(self, data: bytes, header: ImageHeader) -> int:
        spec, size = self.manifest.preprocessing, header.pixels * _DECODED_CHANNELS
        is_reduced = header.format == "jpeg" and spec.jpeg_scale == "reduced" and not jpeg_coefficient_bytes(data)
        return size // jpeg_divisor(header, spec) ** 2 if is_reduced else size

    def _decoded(self, reply: Reply, seconds: float) -> None:
        reply.prepared_s = seconds
        self._observe_decode(seconds)
        self._observe_decode_of_version(seconds)
        if reply.trace is not None:
            reply.trace.stage("decode", seconds)

    def _prepare(self, item: "Image | _Encoded") -> Image:
        if isinstance(item, _Encoded):
            began = monotonic()
            image = preprocess(item.data, self.manifest.preprocessing, header=item.header)
            self._decoded(item.reply, monotonic() - began)
            return image
        return item

    def _begin(self, reply: Reply, work: Callable[[Lease], Coroutine[Any, Any, None]], *, size: int) -> None:
        """Run `work` for a reply in a task, which holds `size` bytes until it ends, or until it ends the lease.

        Its exception goes to the reply. `withdraw` cancels it.
        """
        if self._closing:
            raise stopping_error()
        working = _Working()
        lease = self._admission.hold(working, size)

        async def answer() -> None:
            try:
                await work(lease)
            except Exception as exc:  # noqa: BLE001 - any exception goes to this caller
                if not reply.done():
                    reply.set_exception(exc)

        def ended(task: asyncio.Task[None]) -> None:
            working.is_over = True
            lease.end()
            self._tasks.pop(reply, None)
            if task.cancelled() and not reply.done():  # it may not have begun
                reply.set_exception(stopping_error())

        task = asyncio.get_running_loop().create_task(answer())
        self._tasks[reply] = task
        task.add_done_callback(ended)

    async def _in_pool(self, decode: Callable[[], _Made], reply: Reply, deadline: float | None) -> _Made:
        """Run `decode` in the pool, and return its result. Raises DeadlineExceeded."""

        def timed() -> tuple[_Made, float]:
            began = monotonic()
            return decode(), monotonic() - began

        try:
            async with asyncio.timeout_at(deadline):
                made, seconds = await asyncio.get_running_loop().run_in_executor(self._decode_pool, timed)
        except TimeoutError:
            self._expired()
            raise DeadlineExceeded("The picture could not be decoded before its deadline. Try again.") from None
        self._decoded(reply, seconds)  # here, not in the thread: each metric has one writer
        return made


class _Working:
    """Owns the bytes of a picture while a task decodes it, even if its caller has gone."""

    is_over = False

    def done(self) -> bool:
        return self.is_over


class _Encoded(NamedTuple):
    """A picture that is decoded when its batch is filled."""

    data: bytes
    header: ImageHeader
    reply: Reply


_PictureBatcher = Batcher[Image | _Encoded]
