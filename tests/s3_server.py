"""A real S3 server, SeaweedFS, for the tests of object storage."""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx

BUCKET = "models"
"""SeaweedFS makes a bucket when the first object is written to it."""
KEYS = {"first-key": "first-secret-word", "second-key": "second-secret-word"}
"""Access keys with their secrets; the server takes both."""
_START_S = 60


class S3Server:
    """A store of files, and the gateway that speaks S3, on ports of their own choosing.

    `address` is the gateway's: one that containers can reach, too, is the host's on a network of theirs.
    """

    def __init__(self, folder: Path, address: str = "127.0.0.1") -> None:
        self._folder = folder
        self._address = address
        self._ports = _free_ports(4)
        self._files: subprocess.Popen[bytes] | None = None
        self._gateway: subprocess.Popen[bytes] | None = None
        self.endpoint = f"http://{address}:{self._ports[3]}"
        credentials = [{"accessKey": key, "secretKey": secret} for key, secret in KEYS.items()]
        identity = {"name": "tests", "credentials": credentials, "actions": ["Admin", "Read", "List", "Write"]}
        (folder / "data").mkdir()
        (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))

    @property
    def environment(self) -> dict[str, str]:
        """What points a client of S3 at this server."""
        key, secret = next(iter(KEYS.items()))
        return {
            "AWS_ACCESS_KEY_ID": key,
            "AWS_SECRET_ACCESS_KEY": secret,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_REGION": "us-east-1",
        }

    def start(self) -> None:
        master, volume, filer, _ = self._ports
        self._files = self._run(
            "server",
            {
                "dir": self._folder / "data",
                "filer": "true",
                "filer.port": filer,
                "ip": "127.0.0.1",
                "ip.bind": "127.0.0.1",
                "master.port": master,
                "master.volumeSizeLimitMB": 64,
                "volume.max": 8,
                "volume.port": volume,
            },
        )
        self._start_gateway()

    def stop(self) -> None:
        for process in (self._gateway, self._files):
            if process is not None:
                process.kill()
                process.wait()

    @contextmanager
    def outage(self) -> Iterator[None]:
        """Have nothing answer at the endpoint while the block runs."""
        assert self._gateway is not None
        self._gateway.kill()
        self._gateway.wait()
        try:
            yield
        finally:
            self._start_gateway()

    def _start_gateway(self) -> None:
        _, _, filer, s3 = self._ports
        options = {"filer": f"127.0.0.1:{filer}", "config": self._folder / "s3.json", "ip.bind": self._address}
        self._gateway = self._run("s3", {**options, "port": s3, "port.iceberg": 0, "port.lance": 0})
        patience = time.monotonic() + _START_S
        while True:
            try:
                if httpx.get(f"{self.endpoint}/", timeout=2).status_code:
                    return
            except httpx.TransportError:
                assert self._gateway.poll() is None, self._log()
                assert time.monotonic() < patience, self._log()
                time.sleep(0.1)

    def _run(self, part: str, options: Mapping[str, object]) -> "subprocess.Popen[bytes]":
        weed = str(Path(sys.executable).with_name("weed"))
        command = [weed, part, *(f"-{name}={value}" for name, value in options.items())]
        with (self._folder / "log").open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def _log(self) -> str:
        return (self._folder / "log").read_text()[-2000:]


def _free_ports(count: int) -> list[int]:
    """Return ports that are free now, also 10000 above each: SeaweedFS listens there for gRPC."""
    found: list[int] = []
    with ExitStack() as held:
        while len(found) < count:
            one = held.enter_context(socket.socket())
            one.bind(("127.0.0.1", 0))
            port = one.getsockname()[1]
            if port + 10_000 > 65_535:
                port -= 20_000
            try:
                for each in (port, port + 10_000):
                    if each != one.getsockname()[1]:
                        held.enter_context(socket.socket()).bind(("127.0.0.1", each))
            except OSError:
                continue
            found.append(port)
    return found
