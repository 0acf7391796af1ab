"""HTTP/1.1 from the socket to a request, and back: one request at a time on each connection.

| module | what it does |
|---|---|
| `head` | reads a request line and headers; decides how the body is framed |
| `body` | reads a body by its length or in chunks |
| `connection` | a client's connection: limits, clocks, the order of answers, and how it ends |
| `clocks` | one timer for all connections that wait equally long |
| `asgi` | answers a request by the ASGI application |
| `fast_path` | answers plain requests of lean routes without ASGI |
| `shedding` | rejects a request under overload for as little as possible |

`head` and `body` do no input or output. `connection` knows no paths; `fast_path` and `shedding` are handed to it.

The server that makes connections, and what this package relies on of it, is described by `connection.ServerConfig` and
`connection.ServerState`. Today it is uvicorn: see `app.process.http_server`.
"""
