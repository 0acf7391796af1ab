"""A name server that tells every address of a name, as Docker's does for the name of a service."""

import socket
import struct
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

_HEADER = struct.Struct("!6H")
_A = 1
_RESPONSE, _NO_SUCH_NAME = 0x8180, 0x8183


@contextmanager
def name_server(names: Mapping[str, set[str]]) -> Iterator[str]:
    """Yield the address of a server that tells the IPv4 addresses of `names` as they are when it is asked."""
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        host, port = sock.getsockname()
        thread = threading.Thread(target=_serve, args=(sock, names))
        thread.start()
        try:
            yield f"{host}:{port}"
        finally:
            sock.sendto(b"", (host, port))
            thread.join()


def _serve(sock: socket.socket, names: Mapping[str, set[str]]) -> None:
    while True:
        query, asker = sock.recvfrom(512)
        if not query:
            return
        sock.sendto(_answer(query, names), asker)


def _answer(query: bytes, names: Mapping[str, set[str]]) -> bytes:
    end = query.index(b"\0", _HEADER.size) + 5  # after the name, its type and its class
    (kind,) = struct.unpack_from("!H", query, end - 4)
    addresses = sorted(names.get(_name(query[_HEADER.size : end - 5]), ()))
    told = addresses if kind == _A else []
    code = _RESPONSE if addresses else _NO_SUCH_NAME
    header = _HEADER.pack(int.from_bytes(query[:2], "big"), code, 1, len(told), 0, 0)
    records = [b"\xc0\x0c" + struct.pack("!HHIH", _A, 1, 0, 4) + socket.inet_aton(address) for address in told]
    return b"".join([header, query[_HEADER.size : end], *records])


def _name(labels: bytes) -> str:
    """Return the name that is written as labels, each after its length."""
    words = []
    while labels:
        length = labels[0]
        words.append(labels[1 : 1 + length].decode("ascii"))
        labels = labels[1 + length :]
    return ".".join(words)
