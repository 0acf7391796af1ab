"""The `POST` routes that can be answered without ASGI. Each module of routes lists its own as `FastRoute`s."""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from app.api.inference import Question

_NAME = rb"([A-Za-z0-9._-]+)"
_MOST_PATHS = 256
_MOST_PATH_BYTES = 256
"""The paths of a service's models are few and short. Others are searched for each time, so that memory is bounded."""

Ask = Callable[[Sequence[str], bytes, Mapping[bytes, bytes]], Question | None]
"""Makes the question of a request from the names in its path, its query, and its headers by name.

None leaves the request to the application.
"""


class FastRoute(NamedTuple):
    """`template` is the path in FastAPI's form, such as "/v2/models/{model}/infer"."""

    template: str
    ask: Ask


class MatchedPath(NamedTuple):
    """A path that a fast route answers, the names in it, and the route's template."""

    path: str
    names: Sequence[str]
    template: str


class FastRoutes:
    """Finds the fast route of a path. A path with percent-encoding has none."""

    def __init__(self, routes: Sequence[FastRoute]) -> None:
        self._routes = [(_pattern(route.template), route) for route in routes]
        self._remembered = lru_cache(maxsize=_MOST_PATHS)(self._search)

    def find(self, path: bytes) -> tuple[MatchedPath, Ask] | None:
        return self._remembered(path) if len(path) <= _MOST_PATH_BYTES else self._search(path)

    def _search(self, path: bytes) -> tuple[MatchedPath, Ask] | None:
        for pattern, (template, ask) in self._routes:
            found = pattern.fullmatch(path)
            if found is not None:
                names = [name.decode("ascii") for name in found.groups()]
                return MatchedPath(path.decode("ascii"), names, template), ask
        return None


def _pattern(template: str) -> re.Pattern[bytes]:
    """Return a pattern with a group for each name in braces."""
    literals = re.split(r"\{[a-z]+\}", template)
    return re.compile(_NAME.join(re.escape(literal.encode("ascii")) for literal in literals))
