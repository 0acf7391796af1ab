"""uvicorn as this service uses it: the only package that knows uvicorn's internals.

uvicorn runs the event loop's servers, the application's lifespan and the date header. Connections (`app.api.http1`) and
the start and end of a worker are this service's own. For that the package relies on names that uvicorn does not
document, and pyproject.toml allows only the versions that were tested with them:

| of | what is relied on |
|---|---|
| `Config` | calls its `http` with the keywords `config`, `server_state`, `app_state`, `_loop`; has `loaded_app` |
| `ServerState` | the sets `connections` and `tasks`, and the list `default_headers`, replaced every second |
| `Server` | `serve` calls `capture_signals`, `startup`, `main_loop`, `shutdown`; `on_tick` renews the date |
| `Server` | the attributes `servers`, `server_state` and `lifespan`, which has `state` and `shutdown` |
| `config` | the exit code `STARTUP_FAILURE` |

`tests/process/test_uvicorn_names.py` fails if one of them is gone, and names it.
"""
