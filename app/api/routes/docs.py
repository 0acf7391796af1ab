"""GET /docs: Swagger UI, served entirely by this service, so it works offline and sends nothing to others."""

from collections.abc import Awaitable, Callable, Collection
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI
from starlette.responses import FileResponse, Response

_FILES = {"swagger-ui.css": "text/css", "swagger-ui-bundle.js": "text/javascript"}

_PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>imageclass</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="docs/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""

# Without validatorUrl, Swagger UI would send the document's address to its makers' validator.
_START = """\
SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  validatorUrl: null,
  defaultModelsExpandDepth: 0,
  presets: [SwaggerUIBundle.presets.apis],
});
"""

_SCHEMES = {
    "Authorization": {"type": "http", "scheme": "bearer"},
    "X-API-Key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}

_HEADERS = {
    # The browser may load from and call this origin only. Swagger UI needs inline styles.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; connect-src 'self'; img-src 'self' data: blob:; "
    "style-src 'self' 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


def docs_routes() -> APIRouter:
    router = APIRouter(include_in_schema=False)
    folder = _swagger_ui()

    @router.get("/docs")
    async def page() -> Response:
        return Response(_PAGE, media_type="text/html", headers=_HEADERS)

    @router.get("/docs/start.js")
    async def start() -> Response:
        return Response(_START, media_type="text/javascript", headers=_HEADERS)

    for name, media_type in _FILES.items():
        answer = _file(folder / name, media_type)
        router.add_api_route(f"/docs/{name}", answer, methods=["GET"])
    return router


def document_keys(app: FastAPI, *, open_paths: Collection[str]) -> None:
    """Declare the API key in the OpenAPI document, for Swagger UI and generated clients."""
    without_keys = app.openapi

    def openapi() -> dict[str, Any]:
        document = without_keys()
        document.setdefault("components", {})["securitySchemes"] = _SCHEMES
        for path, operations in document["paths"].items():
            for operation in operations.values():
                operation["security"] = [] if path in open_paths else [{name: []} for name in _SCHEMES]
        return document

    app.openapi = openapi  # type: ignore[method-assign] # FastAPI's documented way to replace it


def _file(path: Path, media_type: str) -> Callable[[], Awaitable[Response]]:
    async def answer() -> Response:
        return FileResponse(path, media_type=media_type, headers={**_HEADERS, "Cache-Control": "max-age=3600"})

    return answer


def _swagger_ui() -> Path:
    """Return the folder of Swagger UI's files in its package, without importing the package."""
    package = find_spec("fastapi_standalone_docs")
    (folder,) = (package and package.submodule_search_locations) or [""]
    return Path(folder, "static", "swagger")
