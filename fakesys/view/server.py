"""The addresses of the page, and the server of them."""

from __future__ import annotations

import asyncio
import json
import secrets
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from fakesys.view import actions
from fakesys.view.guard import Guard
from fakesys.view.store import Reader, Store
from fakesys.view.watching import Watcher

STATIC = Path(__file__).parent / "static"
ADDRESS = "127.0.0.1"
# At most so many messages a second go to one page.
PACE = 0.1
KEEP_ALIVE = 5.0
LONGEST_REQUEST = 4096
# What waits for a page that reads slowly, in bytes: all else is asked for when it reads on.
BACKLOG = 1 << 16


class Page:
    """The answers to the requests of a page about one mount."""

    def __init__(self, root: Path, store: Store, watcher: Watcher, *, control: bool) -> None:
        self._root = root
        self._store = store
        self._watcher = watcher
        self._control = control
        self.ending: Callable[[], bool] = lambda: False

    def routes(self) -> list[Route | Mount]:
        """Return the addresses below the token."""
        files = StaticFiles(directory=STATIC)
        return [
            Route("/", self.index),
            Route("/events", self.events),
            Route("/queue/{name}", self.queue),
            Route("/control", self.act, methods=["POST"]),
            Mount("/static", files),
        ]

    async def index(self, _request: Request) -> Response:
        """Answer with the page itself."""
        return Response((STATIC / "index.html").read_bytes(), media_type="text/html")

    async def events(self, _request: Request) -> Response:
        """Answer with server-sent events until the page is closed."""
        return StreamingResponse(self._events(), media_type="text/event-stream")

    async def _events(self) -> AsyncIterator[str]:
        reader = Reader(self._store)
        trouble, silent = "", 0.0
        yield _message({"whole": True, "control": self._control})
        while not self.ending():
            news = reader.news()
            if self._watcher.trouble() != trouble:
                trouble = news["trouble"] = self._watcher.trouble()
            silent += PACE
            if news:
                yield _message(news)
                silent = 0.0
            elif silent > KEEP_ALIVE:
                # The only way to learn that the page was closed.
                yield ":\n\n"
                silent = 0.0
            await asyncio.sleep(PACE)

    async def queue(self, request: Request) -> Response:
        """Answer with what the files of a queue say."""
        try:
            found = await run_in_threadpool(actions.queue, self._root, request.path_params["name"])
        except actions.BadAction as error:
            return PlainTextResponse(f"{error}\n", 404)
        return JSONResponse(found)

    async def act(self, request: Request) -> Response:
        """Carry out a button, if this page has buttons."""
        if not self._control:
            return PlainTextResponse("start `fakesys view` with --control\n", 403)
        if request.headers.get("content-type") != "application/json":
            return PlainTextResponse("this is no JSON\n", 415)
        body = b""
        async for piece in request.stream():
            body += piece
            if len(body) > LONGEST_REQUEST:
                return PlainTextResponse("too long\n", 413)
        try:
            words = json.loads(body)
            if not isinstance(words, dict):
                raise actions.BadAction("this is no action")
            result = await run_in_threadpool(actions.act, self._root, words)
        except (ValueError, RecursionError) as error:
            return PlainTextResponse(f"{error}\n", 400)
        return JSONResponse({"result": result})


def _message(values: dict[str, object]) -> str:
    # JSON has no line break in it, which would end the message.
    return f"data: {json.dumps(values)}\n\n"


def serve(
    root: Path, *, port: int = 0, control: bool, trace: bool, say: Callable[[str], None]
) -> None:
    """Serve the page of a mount until SIGINT or SIGTERM; `say` is told its address.

    Raises OSError when the port is taken.
    """
    listening = socket.create_server((ADDRESS, port))
    # The connections have it too.
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BACKLOG)
    port = listening.getsockname()[1]
    token = secrets.token_urlsafe(16)
    store = Store()
    watcher = Watcher(root, store, trace=trace)
    page = Page(root, store, watcher, control=control)
    hosts = frozenset({f"{ADDRESS}:{port}", f"localhost:{port}"})
    app = Guard(Starlette(routes=[Mount(f"/{token}", routes=page.routes())]), token, hosts)
    server = uvicorn.Server(
        uvicorn.Config(
            app, log_level="critical", lifespan="off", timeout_graceful_shutdown=1, ws="none"
        )
    )
    page.ending = lambda: server.should_exit
    watcher.start()
    say(f"http://{ADDRESS}:{port}/{token}/")
    try:
        server.run(sockets=[listening])
    finally:
        watcher.stop()
        listening.close()
