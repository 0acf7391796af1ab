"""HTTP/1.1 connections, from bytes to requests and back; each handles one request at a time.

| module | what it does |
|---|---|
| `head` | reads a request line and headers; decides how the body is framed |
| `body` | reads a body by its length or in chunks |
| `connection` | a client's connection: limits, clocks, the order of answers, and how it ends |
| `clocks` | one timer for all connections that wait equally long |
| `asgi` | answers a request by the ASGI application |
| `fast_path` | answers plain requests to fast routes without ASGI |
| `shedding` | rejects a request under overload as cheaply as possible |

`head` and `body` do no input or output. `connection` knows no paths; `fast_path` and `shedding` are handed to it.

The server makes the connections. This package uses the server only through `connection.ServerConfig` and
`connection.ServerState`. The server is uvicorn: see `app.process.http_server`.
"""
