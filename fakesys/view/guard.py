"""Who may ask: only a page that was opened by the printed address."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADERS = {
    b"content-security-policy": (
        b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self';"
        b" img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    b"cross-origin-opener-policy": b"same-origin",
    b"cross-origin-resource-policy": b"same-origin",
    b"referrer-policy": b"no-referrer",
    b"x-content-type-options": b"nosniff",
    b"cache-control": b"no-store",
}


class Guard:
    """An application of ASGI before another one: refuses, and gives every answer its headers.

    The token is the first part of each path, so that the addresses in the page are relative and
    nothing must be kept by the browser. Another `Host` would be DNS rebinding, another `Origin` a
    foreign page.
    """

    def __init__(self, app: ASGIApp, token: str, hosts: frozenset[str]) -> None:
        self._app = app
        self._token = token.encode()
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = [pair for pair in message["headers"] if pair[0].lower() not in HEADERS]
                message["headers"] = [*own, *HEADERS.items()]
            await send(message)

        if why := self._refusal(scope):
            await _refuse(with_headers, why)
        else:
            await self._app(scope, receive, with_headers)

    def _refusal(self, scope: Scope) -> str:
        """Return why the request is refused; empty if it is not."""
        headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
        if sum(name.lower() == b"host" for name, _ in scope["headers"]) != 1:
            return "one Host header is needed"
        if headers[b"host"] not in self._hosts:
            return "this is not the host of the page"
        origin = headers.get(b"origin")
        if origin is not None and origin not in {f"http://{host}" for host in self._hosts}:
            return "another page may not ask"
        if headers.get(b"sec-fetch-site", "none") not in ("none", "same-origin"):
            return "another page may not ask"
        first = scope["path"].removeprefix("/").partition("/")[0].encode()
        if not secrets.compare_digest(first, self._token):
            return "open the address that `fakesys view` printed"
        return ""


async def _refuse(send: Send, why: str) -> None:
    head = [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "http.response.start", "status": 403, "headers": head})
    await send({"type": "http.response.body", "body": f"{why}\n".encode()})
