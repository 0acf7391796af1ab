"""Replicas of the service behind the proxies of deploy/: as processes of this machine, or as Compose runs them."""

import csv
import io
import json
import os
import re
import shutil
import signal
import subprocess
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from app.contract.bundle import MANIFEST
from app.contract.store import ModelStore
from tests.end_to_end.callers import free_port, until
from tests.end_to_end.compose import ComposeProject
from tests.end_to_end.draining import DrainingService
from tests.end_to_end.names import name_server

REPOSITORY = Path(__file__).parents[2]
HAPROXY = REPOSITORY / "deploy" / "haproxy"
REPLICAS = 2


class Fleet(ABC):
    """What can happen to replicas behind a proxy; each call returns when `REPLICAS` of them take requests again."""

    url: str
    store: Path
    """The model store that all replicas read."""

    @abstractmethod
    def kill_one(self) -> int:
        """End a replica by SIGKILL and put another one in its place. Return how many requests it took to its grave."""

    @abstractmethod
    def stop_one(self) -> None:
        """End a replica by SIGTERM and put another one in its place."""

    @abstractmethod
    def roll(self) -> None:
        """Replace every replica, each when the one that takes its place is ready."""

    @abstractmethod
    def restart_workers(self) -> None:
        """Have every replica replace its workers, by SIGHUP."""

    @abstractmethod
    def reload_proxy(self) -> None:
        """Have the proxy read its configuration again."""


def publish_again(store: Path, version: int) -> None:
    """Publish the model mnist once more, as a newer version."""
    building = store / f".{version}"
    shutil.copytree(store / "mnist" / "1", building)
    manifest = json.loads((building / MANIFEST).read_bytes())
    (building / MANIFEST).write_text(json.dumps({**manifest, "version": version}), encoding="utf-8")
    ModelStore(store).publish(building, "mnist", version, held_back=None)


class Statistics:
    """What an HAProxy of deploy/haproxy tells of the servers of a backend."""

    def __init__(self, operations: str, backend: str = "replicas") -> None:
        self._operations = operations
        self._backend = backend

    def servers(self) -> list[dict[str, str]]:
        """Return the row of each server that the proxy knows."""
        rows = [row for row in self._rows() if row["svname"] != "BACKEND"]
        return [server for server in rows if not server["status"].startswith("MAINT")]

    def queued(self) -> int:
        """Return how many requests wait for a server."""
        return int(self._row("BACKEND")["qcur"])

    def unanswered_after(self, kill: Callable[[], object], address: str) -> int:
        """Kill a server, and return how many requests it has got by then and not answered."""
        [name] = [server["svname"] for server in self.servers() if server["addr"] == address]
        before = self._row(name)
        kill()
        until(lambda: self._row(name)["status"] != "UP" and self._row(name)["scur"] == "0")
        return _unanswered(self._row(name)) - (_unanswered(before) - int(before["scur"]))

    def wait_for_servers(self, count: int) -> None:
        """Return when the proxy knows that many, and all of them are up."""
        until(lambda: [server["status"] for server in self.servers()] == ["UP"] * count)

    @contextmanager
    def another_process(self) -> Iterator[None]:
        """Wait at the end of the block until another process of the proxy answers."""
        before = self._process()
        yield
        until(lambda: self._process() != before)

    def _process(self) -> str:
        found = re.search(r"for pid (\d+)", httpx.get(f"{self._operations}/stats", trust_env=False).text)
        assert found
        return found[1]

    def _row(self, name: str) -> dict[str, str]:
        return next(row for row in self._rows() if row["svname"] == name)

    def _rows(self) -> list[dict[str, str]]:
        page = httpx.get(f"{self._operations}/stats;csv", trust_env=False).text
        rows = csv.DictReader(io.StringIO(page.removeprefix("# ")))
        return [row for row in rows if row["pxname"] == self._backend]


def _unanswered(server: dict[str, str]) -> int:
    """Return how many requests have reached a server and got no answer, with those that it still holds."""
    answered = sum(int(server[f"hrsp_{status}xx"]) for status in range(1, 6))
    return int(server["stot"]) - int(server["wredis"]) - answered


@contextmanager
def running(
    command: Sequence[str | Path], log: Path, url: str, **environment: str
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a proxy, and yield it when it answers."""
    with (
        log.open("wb") as output,
        subprocess.Popen(command, env=environment, stdout=output, stderr=output) as process,
    ):
        try:
            until(lambda: process.poll() is not None or answers(url))
            assert process.poll() is None, log.read_text()
            yield process
        finally:
            process.terminate()
            process.wait(30)


def answers(url: str) -> bool:
    try:
        httpx.get(url, trust_env=False)
    except httpx.TransportError:
        return False
    return True


@dataclass
class HaProxy:
    """A running HAProxy with the configuration of deploy/haproxy, as its image runs it."""

    url: str
    operations: str
    process: subprocess.Popen[bytes]


@contextmanager
def haproxy(
    program: str, requests_go: str, folder: Path, names: Mapping[str, set[str]], **variables: object
) -> Iterator[HaProxy]:
    """Run HAProxy with replicas.cfg and the file that says where requests go. `names` are the addresses of names."""
    listen, operations = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    with name_server(names) as nameserver:
        given = {"LISTEN": listen, "OPERATIONS": operations, "NAMESERVER": nameserver, **variables}
        environment = {name: str(value) for name, value in given.items()}
        command = (program, "-W", "-db", "-f", HAPROXY / "replicas.cfg", "-f", HAPROXY / requests_go)
        with running(command, folder / "haproxy.log", f"http://{operations}/ready", **environment) as process:
            yield HaProxy(f"http://{listen}", f"http://{operations}", process)


class HostFleet(Fleet):
    """Each replica is a service with one worker on a loopback address of its own."""

    def __init__(self, store: Path, proxy: HaProxy, known: set[str], port: int) -> None:
        self.store = store
        self.url = proxy.url
        self.statistics = Statistics(proxy.operations)
        self._proxy = proxy.process
        self._known = known  # the addresses that the name server tells
        self._port = port
        self._replicas: dict[str, DrainingService] = {}

    def start(self) -> None:
        starting = [threading.Thread(target=self._start_at, args=(f"127.0.0.{2 + n}",)) for n in range(REPLICAS)]
        for thread in starting:
            thread.start()
        for thread in starting:
            thread.join()
        self.statistics.wait_for_servers(REPLICAS)

    def stop(self) -> None:
        for replica in self._replicas.values():
            replica.process.send_signal(signal.SIGTERM)
        for replica in self._replicas.values():
            assert replica.process.wait(60) == 0

    def kill_one(self) -> int:
        address, replica = self._replicas.popitem()
        held = self.statistics.unanswered_after(lambda: kill(replica), f"{address}:{self._port}")
        self._known.discard(address)
        self._add()
        return held

    def stop_one(self) -> None:
        self._stop(*self._replicas.popitem())
        self._add()

    def roll(self) -> None:
        for address in list(self._replicas):
            self._add()
            self._stop(address, self._replicas.pop(address))

    def restart_workers(self) -> None:
        for replica in self._replicas.values():
            before = replica.children
            replica.process.send_signal(signal.SIGHUP)
            until(_replaced(replica, before))

    def reload_proxy(self) -> None:
        with self.statistics.another_process():
            self._proxy.send_signal(signal.SIGUSR2)
        self.statistics.wait_for_servers(REPLICAS)

    def _add(self) -> None:
        self._start_at(next(address for n in range(2, 100) if (address := f"127.0.0.{n}") not in self._known))
        self.statistics.wait_for_servers(len(self._replicas))

    def _start_at(self, address: str) -> None:
        self._replicas[address] = DrainingService(
            self.store, host=address, port=self._port, engine="openvino", shutdown_delay_s=2
        )
        self._known.add(address)

    def _stop(self, address: str, replica: DrainingService) -> None:
        assert replica.stop() == 0
        self._known.discard(address)
        self.statistics.wait_for_servers(len(self._replicas))


def kill(replica: DrainingService) -> None:
    """Send SIGKILL to a service as it comes to a container: to its first process, and then to all others."""
    workers = replica.children
    replica.process.kill()
    replica.process.wait()
    for process in workers:
        os.kill(process, signal.SIGKILL)


def _replaced(replica: DrainingService, before: list[int]) -> Callable[[], bool]:
    return lambda: len(replica.children) == len(before) and set(replica.children).isdisjoint(before)


@contextmanager
def host_fleet(program: str, model_store: Path, folder: Path) -> Iterator[HostFleet]:
    """Run replicas behind HAProxy."""
    store = Path(shutil.copytree(model_store, folder / "model_store"))
    known: set[str] = set()
    port = free_port()
    with haproxy(program, "clients.cfg", folder, {"replica": known}, REPLICAS_PORT=port) as proxy:
        fleet = HostFleet(store, proxy, known, port)
        try:
            fleet.start()
            yield fleet
        finally:
            fleet.stop()


class ComposeFleet(Fleet):
    """The containers of `docker compose up proxy`."""

    def __init__(self, project: ComposeProject) -> None:
        self._project = project
        self.store = project.model_store
        self.url = project.url
        [self._proxy] = project.containers("proxy")
        self.statistics = Statistics(f"http://{address_in_docker(self._proxy)}:8405")

    def kill_one(self) -> int:
        replica, *_ = self._project.containers("replica")
        held = self.statistics.unanswered_after(lambda: docker("kill", replica), f"{address_in_docker(replica)}:8000")
        self._complete()
        return held

    def stop_one(self) -> None:
        replica, *_ = self._project.containers("replica")
        docker("stop", replica)
        self._complete()

    def roll(self) -> None:
        self._project.call([str(HAPROXY / "roll.sh")])
        self.statistics.wait_for_servers(REPLICAS)

    def restart_workers(self) -> None:
        for replica in self._project.containers("replica"):
            before = docker("logs", replica).count('"restarted"')
            docker("kill", "--signal", "HUP", replica)
            until(_restarted(replica, before))

    def reload_proxy(self) -> None:
        with self.statistics.another_process():
            docker("kill", "--signal", "USR2", self._proxy)
        self.statistics.wait_for_servers(REPLICAS)

    def _complete(self) -> None:
        self._project.run("--profile", "replicas", "up", "--detach", "--wait", "--no-recreate", "--no-deps", "replica")
        self.statistics.wait_for_servers(REPLICAS)


def address_in_docker(container: str) -> str:
    return docker("inspect", "--format", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", container)


def _restarted(replica: str, before: int) -> Callable[[], bool]:
    return lambda: docker("logs", replica).count('"restarted"') > before


def docker(*arguments: str) -> str:
    """Run `docker` and return what it printed, logs of a container included."""
    command = ["docker", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60, check=True)
    return done.stdout.strip()
