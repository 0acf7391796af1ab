"""The gRPC server of a worker: the port shared by all workers, limits, health service, shutdown."""

from types import TracebackType
from typing import Self

import grpc
from grpc.aio import Server
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from app.api.protocols.open_inference.rpc import SERVICE, OpenInferenceService

_MARGIN_BYTES = 64 * 1024
"""Bytes that a message may hold besides its pictures."""


class RpcServer:
    """An async context manager that listens while it is open; the kernel distributes connections among workers.

    Create it on the event loop. At most `max_calls` may be in flight.
    """

    def __init__(self, service: OpenInferenceService, *, address: str, max_message_bytes: int, max_calls: int) -> None:
        self._server: Server = grpc.aio.server(
            options=[
                ("grpc.so_reuseport", 1),
                ("grpc.max_receive_message_length", min(max_message_bytes + _MARGIN_BYTES, (1 << 31) - 1)),
            ],
            maximum_concurrent_rpcs=max_calls,
        )
        self._server.add_generic_rpc_handlers((service.handlers(),))
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        self._server.add_insecure_port(address)

    async def __aenter__(self) -> Self:
        await self._server.start()
        for service in ("", SERVICE):
            await self._health.set(service, health_pb2.HealthCheckResponse.SERVING)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop(0.0)

    async def say_not_serving(self) -> None:
        """Report NOT_SERVING by the health service; calls are still answered."""
        await self._health.enter_graceful_shutdown()

    async def stop(self, grace_s: float) -> None:
        """Accept no new calls, and give those in flight this many seconds."""
        await self._server.stop(grace_s)
