"""Restrict the page to the person at this machine: check host, origin and token before anything else.

Another site's page can make a browser send requests here, even through a host name of its own that resolves to
127.0.0.1. It does not know the token or the cookie, and the browser reveals the host name and the origin.
"""

import secrets

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


class Guard:
    """An ASGI application around another one. `token` opens the page at `/?token=`; after that it is a cookie."""

    def __init__(self, app: ASGIApp, *, port: int, token: str) -> None:
        self._app, self._token = app, token
        self._hosts = {f"127.0.0.1:{port}", f"localhost:{port}"}
        self._cookie = f"imageclass-review-{port}"  # browsers do not keep the cookies of two ports apart

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return  # there are no lifespan and no WebSockets here
        request = Request(scope)
        opens = scope["path"] == "/" and self._is_token(request.query_params.get("token", ""))

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(_HEADERS)
                if opens:
                    cookie = f"{self._cookie}={self._token}; Path=/; HttpOnly; SameSite=Strict"
                    headers.append("Set-Cookie", cookie)
            await send(message)

        answer = self._app
        if (rejection := self._rejection(request)) is not None:
            opens, answer = False, rejection
        elif not opens and not self._is_token(request.cookies.get(self._cookie, "")):
            answer = PlainTextResponse("Open the address that the command printed: it has this session's token.", 403)
        await answer(scope, receive, send_guarded)

    def _rejection(self, request: Request) -> PlainTextResponse | None:
        hosts, origins = request.headers.getlist("host"), request.headers.getlist("origin")
        if len(hosts) != 1 or hosts[0] not in self._hosts:
            return PlainTextResponse("This page answers under the address that the command printed only.", 421)
        if any(origin != f"http://{hosts[0]}" for origin in origins) or (request.method != "GET" and not origins):
            return PlainTextResponse("This page answers its own requests only, not those of other pages.", 403)
        return None

    def _is_token(self, given: str) -> bool:
        return secrets.compare_digest(given.encode(errors="replace"), self._token.encode())
