"""A real S3 server, SeaweedFS, for the tests of object storage."""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx

BUCKET = "models"
"""SeaweedFS makes a bucket when the first object is written to it."""
KEYS = {"first-key": "first-secret-word", "second-key": "second-secret-word"}
"""Access keys with their secrets; the server takes both."""
_START_S = 60


class S3Server:
    """One process on ports of its own choosing; its data survive `outage`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ports = _free_ports(4)
        self._process: subprocess.Popen[bytes] | None = None
        self.endpoint = f"http://127.0.0.1:{self._ports[3]}"
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
        master, volume, filer, s3 = self._ports
        options = {
            "dir": self._folder / "data",
            "filer": "true",
            "filer.port": filer,
            "ip": "127.0.0.1",
            "ip.bind": "127.0.0.1",
            "master.port": master,
            "master.volumeSizeLimitMB": 64,
            "s3": "true",
            "s3.config": self._folder / "s3.json",
            "s3.port": s3,
            "s3.port.iceberg": 0,
            "s3.port.lance": 0,
            "volume.max": 8,
            "volume.port": volume,
        }
        weed = Path(sys.executable).with_name("weed")
        with (self._folder / "log").open("ab") as log:
            command = [str(weed), "server", *(f"-{name}={value}" for name, value in options.items())]
            self._process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        patience = time.monotonic() + _START_S
        while True:
            try:
                if httpx.get(f"{self.endpoint}/", timeout=2).status_code:
                    return
            except httpx.TransportError:
                assert self._process.poll() is None, (self._folder / "log").read_text()[-2000:]
                assert time.monotonic() < patience, (self._folder / "log").read_text()[-2000:]
                time.sleep(0.1)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()  # a plain end would wait for its own parts for 20 s
            self._process.wait()

    @contextmanager
    def outage(self) -> Iterator[None]:
        """Have nothing answer at the endpoint while the block runs."""
        self.stop()
        try:
            yield
        finally:
            self.start()


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
