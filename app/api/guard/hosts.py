"""Reject requests for unknown host names, so that no website can reach the service by DNS rebinding."""

from app.api.guard.keys import RawHeaders
from app.errors import InvalidSetting, UnknownHost


class AllowedHosts:
    """Comma-separated host names; `*.example.com` means all subdomains of example.com. Ports are ignored.

    Raises InvalidSetting for an invalid host name.
    """

    def __init__(self, names: str) -> None:
        given = [name.strip().lower() for name in names.split(",") if name.strip()]
        for name in given:
            bare = name.removeprefix("*.")
            if not bare.isascii() or "*" in bare or set(bare) & set("/ @"):
                raise InvalidSetting(
                    f"IMAGECLASS_ALLOWED_HOSTS has {name!r}. Give names as example.com or *.example.com."
                )
        if not given:
            raise InvalidSetting("IMAGECLASS_ALLOWED_HOSTS names no host. Name one, or unset it for any.")
        self._exact = frozenset(_without_port(name.encode()) for name in given if not name.startswith("*."))
        self._below = tuple(name[1:].encode() for name in given if name.startswith("*."))

    def check(self, headers: RawHeaders) -> None:
        """Raise UnknownHost unless the request is for one of these names."""
        named = [_without_port(value.strip().lower()) for name, value in headers if name == b"host"]
        if not named or not all(self._has(name) for name in named):
            raise UnknownHost("The service does not answer to this host name. Use the one that its operator gave you.")

    def _has(self, name: bytes) -> bool:
        return name in self._exact or (name.endswith(self._below) and not name.startswith(b"."))


def _without_port(host: bytes) -> bytes:
    """Return a host without its port: `[::1]:8000` is `[::1]`, `example.com.` is `example.com`."""
    name, colon, port = host.rpartition(b":")
    if colon and not host.endswith(b"]") and (port.isdigit() or not port) and (b":" not in name or name.endswith(b"]")):
        host = name
    return host.removesuffix(b".")
