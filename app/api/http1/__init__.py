"""HTTP/1.1 from the socket to a request, and back: one request at a time on each connection.

| module | what it does |
|---|---|
| `head` | reads a request line and headers; decides how the body is framed |
| `body` | reads a body by its length or in chunks |
| `connection` | a client's connection: limits, clocks, the order of answers, and how it ends |
| `clocks` | one timer for all connections that wait equally long |
| `asgi` | answers a request by the ASGI application |
| `fast_path` | answers a plain `POST /predict` without ASGI |
| `shedding` | rejects a request under overload for as little as possible |

`head` and `body` do no input or output. `connection` knows no paths; `fast_path` and `shedding` are handed to it.

What it relies on of uvicorn, none of it documented: `uvicorn.Config` calls its `http` class with the keywords `config`,
`server_state`, `app_state` and `_loop`; `config.loaded_app`; and of `server_state` the sets `connections` and `tasks`
and the list `default_headers`, which uvicorn replaces every second with the new date. `uvicorn.Server.shutdown` calls
`shutdown()` of every member of `connections`.
"""
