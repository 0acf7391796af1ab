"""Allow pages of other origins to call the service from a browser (CORS). By default none may."""

from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp

from app.api.errors import REQUEST_ID_HEADER
from app.api.server_timing import SERVER_TIMING_HEADER
from app.errors import InvalidSetting

_PREFLIGHT_S = 600


class Cors(CORSMiddleware):
    """Lets pages of the given origins call the application. Cookies are not allowed: the service has none."""

    def __init__(self, app: ASGIApp, origins: Sequence[str]) -> None:
        super().__init__(
            app,
            allow_origins=origins,
            allow_methods=("GET", "POST"),
            allow_headers=("Authorization", "X-API-Key", REQUEST_ID_HEADER, "X-Request-Timeout"),
            expose_headers=(REQUEST_ID_HEADER, "Retry-After", SERVER_TIMING_HEADER, "X-Explanation"),
            max_age=_PREFLIGHT_S,
        )

    def preflight_response(self, request_headers: Headers) -> Response:
        """Answer a browser's preflight request.

        A browser sees a denied method or header by its absence from the response headers. Starlette would also answer
        with status 400 and plain text, which would be a second shape of errors.
        """
        headers = super().preflight_response(request_headers).headers
        return Response(status_code=204, headers={name: headers[name] for name in headers if "content" not in name})


def cors_origins(setting: str) -> list[str]:
    """Parse comma-separated origins; `*` means any. Raises InvalidSetting for an invalid one."""
    found = [origin.strip() for origin in setting.split(",") if origin.strip()]
    for origin in found:
        parts = urlsplit(origin)
        if origin != "*" and (parts.scheme not in ("http", "https") or origin != f"{parts.scheme}://{parts.netloc}"):
            raise InvalidSetting(f"IMAGECLASS_CORS_ORIGINS has {origin!r}. Give origins such as https://example.com.")
    if not found:
        raise InvalidSetting("IMAGECLASS_CORS_ORIGINS names no origin. Name one, or unset it for none.")
    return found
