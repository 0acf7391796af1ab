"""Run an application on a listener until it is ordered to drain."""

import asyncio
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, cast

import uvicorn
from fastapi import FastAPI
from uvicorn.config import STARTUP_FAILURE

from app.api.http1.connection import Connection
from app.process.listener import Listener, OpenConnections
from app.settings import Settings

__all__ = ["STARTUP_FAILURE", "DrainingServer", "uvicorn_config"]


def uvicorn_config(settings: Settings, app: FastAPI) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_config=None,
        log_level="warning",
        loop="uvloop",
        http=Connection,
        access_log=False,
        lifespan="on",
        server_header=False,
        proxy_headers=False,  # a middleware around every request, for a client address that is not used here
        timeout_graceful_shutdown=settings.shutdown_grace_s,
    )


class DrainingServer(uvicorn.Server, ABC):
    """uvicorn's server. A subclass decides how it starts and ends."""

    def __init__(self, settings: Settings, app: FastAPI) -> None:
        super().__init__(uvicorn_config(settings, app))
        self.connections = OpenConnections()
        self.server_state.connections = self.connections
        self._draining = asyncio.Event()

    def run_on(self, listener: socket.socket, loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
        """Serve on the listener until `drain` is called and `end` has returned."""
        with asyncio.Runner(loop_factory=loop) as runner:
            runner.run(self.serve([listener]))

    def drain(self) -> None:
        """Accept no more connections, and end."""
        self._draining.set()

    @abstractmethod
    def begin(self) -> None:
        """Prepare, on the event loop and before the lifespan of the application begins."""

    @abstractmethod
    def take_connections(self) -> None:
        """Called when the first connections can be accepted."""

    @abstractmethod
    async def end(self, listeners: list[Listener]) -> None:
        """Close the listeners, wait until requests are answered, and end the lifespan."""

    @property
    def application_state(self) -> dict[str, Any]:
        """The state that the lifespan of the application has yielded."""
        return cast("dict[str, Any]", self.lifespan.state)

    @property
    def tasks(self) -> set[asyncio.Task[None]]:
        """The tasks in which the application answers requests."""
        return self.server_state.tasks

    async def end_lifespan(self) -> None:
        await self.lifespan.shutdown()

    # Called by uvicorn

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Install no signal handlers: the supervisor's orders arrive by a socket."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self.begin()
        await super().startup(sockets)
        self.take_connections()

    async def main_loop(self) -> None:
        """Serve until ordered to drain, and renew the date header every second."""
        while not self._draining.is_set():
            await self.on_tick(0)
            with suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await self._draining.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await self.end(cast("list[Listener]", self.servers))
        for sock in sockets or []:
            sock.close()
