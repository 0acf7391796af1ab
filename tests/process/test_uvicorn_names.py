"""uvicorn's undocumented names that the service relies on are there, and are called as they were.

If this fails after an upgrade of uvicorn, app/process/http_server says what each name is for.
"""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from uvicorn import config
from uvicorn.lifespan.on import LifespanOn
from uvicorn.server import Server, ServerState

from app.process import http_server


def _parameters(function: Callable[..., Any]) -> list[str]:
    return list(inspect.signature(function).parameters)


def _source(function: Callable[..., Any]) -> str:
    return inspect.getsource(function)


async def _app(_scope: Any, _receive: Any, _send: Any) -> None: ...


_SERVER = Server(uvicorn.Config(_app))
_LIFESPAN = LifespanOn(uvicorn.Config(_app, log_config=None))
_SERVE = _source(Server.serve) + _source(Server._serve)

NAMES: dict[str, bool] = {
    "Config.loaded_app": "loaded_app" in _source(uvicorn.Config),
    "Config(http=a class) keeps the class": "http_protocol_class = self.http" in _source(uvicorn.Config.load),
    "http(config=, server_state=, app_state=, _loop=)": all(
        f"{name}=" in _source(Server.startup) for name in ("config", "server_state", "app_state", "_loop")
    ),
    "ServerState.connections": isinstance(ServerState().connections, set),
    "ServerState.tasks": isinstance(ServerState().tasks, set),
    "ServerState.default_headers": isinstance(ServerState().default_headers, list),
    "Server.serve(sockets)": "sockets" in _parameters(Server.serve),
    "Server.serve calls capture_signals()": "self.capture_signals()" in _SERVE,
    "Server.serve calls startup(sockets)": "self.startup(sockets=sockets)" in _SERVE,
    "Server.serve calls main_loop()": "self.main_loop()" in _SERVE,
    "Server.serve calls shutdown(sockets)": "self.shutdown(sockets=sockets)" in _SERVE,
    "Server.on_tick(counter)": _parameters(Server.on_tick) == ["self", "counter"],
    "Server.on_tick renews default_headers": "default_headers" in _source(Server.on_tick),
    "Server.servers": "self.servers" in _source(Server.startup),
    "Server.server_state": hasattr(_SERVER, "server_state"),
    "Server.lifespan": "self.lifespan" in _source(Server._serve),
    "lifespan.state": isinstance(_LIFESPAN.state, dict),
    "lifespan.shutdown()": inspect.iscoroutinefunction(LifespanOn.shutdown),
    "config.STARTUP_FAILURE": isinstance(config.STARTUP_FAILURE, int),
}


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_the_service_relies_on_is_there(name: str) -> None:
    assert NAMES[name], (
        f"uvicorn {uvicorn.__version__} no longer has '{name}', which app.process.http_server relies on."
    )


def test_nothing_else_of_the_service_imports_uvicorn() -> None:
    app = Path(http_server.__file__).parents[2]
    importing = {
        file.relative_to(app).parts[:2]
        for file in app.rglob("*.py")
        if any(line.startswith(("import uvicorn", "from uvicorn")) for line in file.read_text("utf-8").splitlines())
    }
    assert importing == {("process", "http_server")}
