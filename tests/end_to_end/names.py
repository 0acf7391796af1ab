"""A name server that answers every question for an IPv4 address alike, as Docker's does for the name of a service."""

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_HEADER = struct.Struct("!6H")
_A = 1
_RESPONSE, _NO_SUCH_NAME = 0x8180, 0x8183


@contextmanager
def name_server(addresses: set[str]) -> Iterator[str]:
    """Yield the address of a server that tells `addresses` as they are when it is asked."""
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        host, port = sock.getsockname()
        thread = threading.Thread(target=_serve, args=(sock, addresses))
        thread.start()
        try:
            yield f"{host}:{port}"
        finally:
            sock.sendto(b"", (host, port))
            thread.join()


def _serve(sock: socket.socket, addresses: set[str]) -> None:
    while True:
        query, asker = sock.recvfrom(512)
        if not query:
            return
        sock.sendto(_answer(query, sorted(addresses)), asker)


def _answer(query: bytes, addresses: list[str]) -> bytes:
    end = query.index(b"\0", _HEADER.size) + 5  # after the name, its type and its class
    (kind,) = struct.unpack_from("!H", query, end - 4)
    told = addresses if kind == _A else []
    header = _HEADER.pack(
        int.from_bytes(query[:2], "big"), _RESPONSE if addresses else _NO_SUCH_NAME, 1, len(told), 0, 0
    )
    records = [b"\xc0\x0c" + struct.pack("!HHIH", _A, 1, 0, 4) + socket.inet_aton(address) for address in told]
    return b"".join([header, query[_HEADER.size : end], *records])
