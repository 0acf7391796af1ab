"""GET /: the page on which a person tries the models, served entirely by this service, so it works offline.

The page uses the same interface as any client. Two routes are for it alone: `/page/service.json`, the facts about the
service that it needs, and `/page/samples/…`, the golden pictures of the models' bundles.
"""

from collections.abc import Awaitable, Callable
from hashlib import sha256
from typing import Any, NamedTuple

import orjson
from fastapi import APIRouter, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response

from app import pages
from app.contract.header import read_header
from app.serving.catalogue import Catalogue
from app.serving.classifier import Classifier

_HEADERS = {
    # Of this origin only, nothing inline, and no string becomes HTML or a script (trusted types). `blob:` is for the
    # pictures that the person chose and the page shows.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class PageFacts(NamedTuple):
    """What `/page/service.json` tells the page."""

    model: str | None
    """The model to begin with; None is the first."""
    docs: bool
    """Whether there is `/docs`."""
    explanations: bool
    """Whether `/explain` answers."""
    samples: bool
    """Whether the page may show golden pictures of the models' bundles."""
    formats: tuple[str, ...]
    """The picture formats that are accepted."""


class _Content(NamedTuple):
    data: bytes
    media_type: str
    digest: str


def page_routes(catalogue: Catalogue, facts: PageFacts) -> APIRouter:
    router = APIRouter(include_in_schema=False)
    for name, media_type in pages.MEDIA_TYPES.items():
        path = "/" if name == pages.INDEX else f"/page/{name}"
        router.add_api_route(path, _file(_content(pages.read(name), media_type)), methods=["GET"])
    described = _content(orjson.dumps(facts._asdict()), "application/json")
    router.add_api_route("/page/service.json", _file(described), methods=["GET"])
    if facts.samples:
        _add_samples(router, catalogue)
    return router


def _add_samples(router: APIRouter, catalogue: Catalogue) -> None:
    @router.get("/page/samples/{model}")
    async def samples(model: str) -> dict[str, Any]:
        found = catalogue.get(model)
        address = f"page/samples/{found.name}/{found.version}"
        return {
            "samples": [
                {"label": picture.label, "picture": f"{address}/{number}"}
                for number, picture in enumerate(found.manifest.golden)
            ]
        }

    @router.get("/page/samples/{model}/{version}/{number}")
    async def sample(request: Request, model: str, version: str, number: int) -> Response:
        found = catalogue.get(model, version)
        if not 0 <= number < len(found.manifest.golden):
            raise HTTPException(404)
        return _unless_known(request, _golden(found, number))


def _golden(model: Classifier, number: int) -> _Content:
    data = model.loaded.bundle.golden.encoded[number]
    digest = model.manifest.files[model.manifest.golden[number].file]
    return _Content(data, f"image/{read_header(data).format}", digest)


def _content(data: bytes, media_type: str) -> _Content:
    return _Content(data, media_type, sha256(data).hexdigest())


def _file(content: _Content) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        return _unless_known(request, content)

    return answer


def _unless_known(request: Request, content: _Content) -> Response:
    """Return the content, or 304 if the browser has it. The browser asks each time, so it never shows old content."""
    tag = f'"{content.digest}"'
    headers = {**_HEADERS, "ETag": tag, "Cache-Control": "private, no-cache"}
    known = (each.strip().removeprefix("W/") for each in request.headers.get("if-none-match", "").split(","))
    if tag in known:
        return Response(status_code=304, headers=headers)
    return Response(content.data, media_type=content.media_type, headers=headers)
