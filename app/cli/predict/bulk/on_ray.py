"""Work on shards in a Ray cluster.

Each shard is a task of one core; if its node is lost, Ray runs it again elsewhere. Shards are files with journals, so a
task that is run again resumes at the point at which the lost one ended. They are plain tasks, not a data set of Ray
Data, which writes rows from its object store and has no journal to resume from.
"""

import logging
import os
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path

from app.cli.predict.bulk.answers import Classify
from app.cli.predict.bulk.here import ModelHere
from app.cli.predict.bulk.shard import Finished, Shard, Target, work_on
from app.cli.predict.bulk.worker_pool import Signals, WorkerPool
from app.errors import EngineUnavailable, WorkerEnded
from app.system.invocation import installs

LOCAL = "local"
"""The address of a cluster that is started here and ends with the command."""
_LOCAL_STORE_BYTES = 100_000_000
"""Only a shard's names and counts go through Ray's object store, which would otherwise take a third of the memory."""


@contextmanager
def cluster(model: ModelHere, target: Target, signals: Signals, address: str) -> Iterator[WorkerPool]:
    """Open a pool with one worker per core of the cluster. Every node must see the files under the same paths.

    Raises EngineUnavailable if Ray is not installed or no cluster answers.
    """
    try:
        import ray
        from ray.exceptions import RayError, RayTaskError
    except ImportError as exc:
        raise EngineUnavailable(f"--engine ray needs Ray, which is not installed: {installs('ray')}.") from exc
    local = {"object_store_memory": _LOCAL_STORE_BYTES} if address == LOCAL else {}
    try:
        _check_that_it_listens(address)
        ray.init(address, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR, **local)
    except (OSError, RuntimeError, ValueError) as exc:
        raise EngineUnavailable(f"No Ray cluster answers at {address}. Start one with `ray start --head`.") from exc
    place = Path.cwd()
    whole_target = replace(target, folder=target.folder.resolve())
    run = ray.remote(num_cpus=1)(_work_there)

    def work(shard: Shard) -> Finished:
        try:
            finished: Finished = ray.get(run.remote(shard, whole_target, model, place))
        except RayTaskError as exc:
            raise exc.cause from None
        except RayError as exc:
            raise WorkerEnded(
                f"The process that worked on shard {shard.number} was killed repeatedly, perhaps because memory ran "
                "out. Run the command again with --resume."
            ) from exc
        signals.advance(finished.pictures)
        return finished

    size = max(1, int(ray.cluster_resources().get("CPU", 1)))
    # A job submits two shards for each core, so that no core waits for the next one. None waits for a thread.
    with ThreadPoolExecutor(2 * size, thread_name_prefix="shard") as executor:
        try:
            yield WorkerPool(size, executor, work)
        finally:
            signals.stopping.set()
            ray.shutdown()  # ends the tasks under way, for which the executor's threads wait


def _check_that_it_listens(address: str) -> None:
    """Raise OSError if nothing listens at host:port. Ray would try for minutes."""
    host, _, port = address.rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=10).close()


def _work_there(shard: Shard, target: Target, model: ModelHere, place: Path) -> Finished:
    os.chdir(place)  # pictures are named from there
    return work_on(shard, target, _opened(model), lambda _pictures: None)


@cache
def _opened(model: ModelHere) -> Classify:
    """Load the model once in each process, which Ray reuses for further shards."""
    return model.open()
