"""Serve the demo: one page, its images, and one address that takes an image and returns captions.

An upload is the body of a request as it is, so that no parser of forms would lay it on a disk. One thread runs the
models. A request that has to wait is not read before its turn comes: of however many, only a few uploads are in memory.
The page may fetch from nowhere else, other sites may not call it, and a name that somebody's DNS points at this machine
is not answered.
"""

import asyncio
import ipaddress
import os
import signal
import socket
import sys
import traceback
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from aiohttp import web
from PIL import Image

from captioning.data import read_picture
from captioning.errors import CaptioningError, ConfigError
from captioning.inference import Predictor
from captioning.web import as_jpeg, palette, read_asset, shrink
from captioning.web.demo.examples import DemoExample
from captioning.web.demo.work import BOUNDS, DemoRequest, caption_picture, read_request

AT_ONCE = 4  # requests whose uploads are in memory: one with the models, and those that come next
THUMBNAIL = 240  # pixels of an example's longer side
FILES = {"/": ("demo.html", "text/html"), "/demo.js": ("demo.js", "text/javascript")}
FILES |= {f"/{name}.css": (f"{name}.css", "text/css") for name in ("page", "demo")}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Server": "captioning",
}


class Limits(NamedTuple):
    """What the demo takes: bytes and seconds of an upload, pixels of a picture, requests that wait for their turn."""

    upload_bytes: int = 20_000_000
    upload_seconds: float = 60.0
    pixels: int = 50_000_000
    waiting: int = 128


class Refusal(Exception):
    """A request that is not answered, with its HTTP status and words for whoever sent it."""

    def __init__(self, status: int, text: str):
        super().__init__(text)
        self.status = status


class Demo:
    """The application of some checkpoints.

    Args:
        predictors: by the name that the page shows.
        examples: images to pick from.
        limits: see `Limits`.
        names: host names, beside localhost and plain addresses, under which this machine may be called.
    """

    def __init__(
        self,
        predictors: Mapping[str, Predictor],
        examples: Sequence[DemoExample] = (),
        *,
        limits: Limits | None = None,
        names: Collection[str] = (),
    ):
        self.predictors, self.examples, self.limits = predictors, list(examples), limits or Limits()
        self.names = {"localhost", *(name.lower() for name in names)}
        self.files = {path: (read_asset(name), kind) for path, (name, kind) in FILES.items()}
        self.waiting = 0
        self.turns = asyncio.Semaphore(AT_ONCE)
        self.thread = ThreadPoolExecutor(1, "captioner")

    def application(self) -> web.Application:
        """For `aiohttp.web.run_app`, or a test."""
        application = web.Application(middlewares=[self._guard])
        for path in self.files:
            application.router.add_get(path, self._file)
        application.router.add_get("/api/about", self._about)
        application.router.add_get(r"/api/examples/{number:\d{1,4}}", self._example)
        application.router.add_post("/api/captions", self._captions)
        application.on_cleanup.append(self._close)
        return application

    async def _close(self, application: web.Application) -> None:
        self.thread.shutdown(wait=False, cancel_futures=True)

    @web.middleware
    async def _guard(self, request: web.Request, handler) -> web.StreamResponse:
        """Turns away who should not be here, and what goes wrong into one kind line; every answer has the HEADERS."""
        try:
            self._check_origin(request)
            response = await handler(request)
        except Refusal as refusal:
            response = _error(refusal.status, str(refusal))
        except web.HTTPException as error:
            response = _error(error.status, f"{error.reason}: {request.method} {request.path[:100]}")
        except ConfigError as error:
            response = _error(400, str(error))
        except CaptioningError as error:
            response = _error(422, str(error))
        except ConnectionError:  # whoever asked has left
            response = _error(400, "the connection was lost")
        except Exception:
            traceback.print_exc(file=sys.stderr)
            response = _error(500, "something went wrong in the demo; its terminal says what")
        response.headers.update(HEADERS)
        return response

    def _check_origin(self, request: web.Request) -> None:
        if not is_here(request.headers.get("Host", ""), self.names):
            raise Refusal(421, "this demo does not answer to that name: see hosts in its configuration")
        origin = request.headers.get("Origin")
        foreign = origin is not None and urlsplit(origin).netloc != request.headers["Host"]
        if foreign or (request.headers.get("Sec-Fetch-Site") == "cross-site" and request.method != "GET"):
            raise Refusal(403, "this demo is called from its own page only")

    async def _file(self, request: web.Request) -> web.Response:
        text, kind = self.files[request.path]
        return web.Response(text=text, content_type=kind, charset="utf-8")

    async def _about(self, request: web.Request) -> web.Response:
        models = [{"name": name, "attention": each.attention_kind} for name, each in self.predictors.items()]
        wishes = {key: {"least": BOUNDS[key][0], "most": BOUNDS[key][1], "value": v} for key, v in _defaults().items()}
        limits = {"bytes": self.limits.upload_bytes, "pixels": self.limits.pixels}
        content = {"models": models, "examples": len(self.examples), "wishes": wishes, "limits": limits}
        content["credits"] = [example.credit and example.credit._asdict() for example in self.examples]
        return web.json_response(content | {"palette": palette().tolist()})

    async def _example(self, request: web.Request) -> web.Response:
        picture = self._example_of(request.match_info["number"])
        return web.Response(body=as_jpeg(shrink(picture, THUMBNAIL)), content_type="image/jpeg")

    def _example_of(self, number: str) -> Image.Image:
        if not (number.isdecimal() and len(number) < 5) or int(number) >= len(self.examples):
            raise Refusal(404, "there is no such example")
        return self.examples[int(number)].picture

    async def _captions(self, request: web.Request) -> web.Response:
        """Captions of the picture in the body, or of ?example=NUMBER."""
        query = dict(request.query)
        example = query.pop("example", None)
        picture, wishes = example and self._example_of(example), read_request(query)
        if (request.content_length or 0) > self.limits.upload_bytes:
            raise Refusal(413, self._too_large())
        if request.headers.get("Content-Encoding", "identity") != "identity":
            raise Refusal(415, "send the picture as it is, not packed once more")
        if self.waiting >= self.limits.waiting:
            raise Refusal(503, "too many pictures are waiting; try again in a minute")
        self.waiting += 1
        try:
            async with self.turns:
                if request.transport is None or request.transport.is_closing():
                    raise ConnectionResetError  # nobody waits for it any more
                content = None if picture else await self._upload(request)
                work = partial(self._work, picture, content, wishes)
                return web.json_response(await asyncio.get_running_loop().run_in_executor(self.thread, work))
        finally:
            self.waiting -= 1

    async def _upload(self, request: web.Request) -> bytes:
        """The body, in memory; counted as it comes, since what was declared need not be what is sent."""
        content = bytearray()
        try:
            async with asyncio.timeout(self.limits.upload_seconds):
                async for part in request.content.iter_any():
                    content += part
                    if len(content) > self.limits.upload_bytes:
                        raise Refusal(413, self._too_large())
                return bytes(content)
        except TimeoutError as error:
            raise Refusal(408, f"the picture did not arrive within {self.limits.upload_seconds:g} seconds") from error

    def _work(self, picture: Image.Image | None, content: bytes | None, wishes: DemoRequest) -> dict[str, Any]:
        """In the models' thread."""
        if picture is None:
            picture = read_picture(content or b"", name="the file", max_pixels=self.limits.pixels)
        return caption_picture(self.predictors, picture, wishes)

    def _too_large(self) -> str:
        return f"the file has more than {self.limits.upload_bytes / 1e6:g} MB"


async def serve(application: web.Application, listener: socket.socket) -> None:
    """Until SIGINT (Ctrl-C) or SIGTERM, upon which requests in flight are waited for; a second Ctrl-C ends at once.

    aiohttp's own `run_app` takes the second signal, also one that comes with the first, for a fault of its shutdown.
    """
    asked, stop = set(), asyncio.Event()

    def ask(number: int) -> None:
        if number == signal.SIGINT and number in asked:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
        asked.add(number)
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        with suppress(NotImplementedError):  # Windows has no such handlers, and raises KeyboardInterrupt
            asyncio.get_running_loop().add_signal_handler(number, ask, number)
    runner = web.AppRunner(application, access_log=None)
    try:
        await runner.setup()
        await web.SockSite(runner, listener).start()
        await stop.wait()
    finally:
        await runner.cleanup()


def is_here(host: str, names: Collection[str]) -> bool:
    """Whether a Host header is a plain address or one of some names.

    Any other name may be a stranger's who lets it point at this machine (DNS rebinding): his page would then pass for
    the demo's own.
    """
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    if name in names:
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _defaults() -> dict[str, Any]:
    return DemoRequest()._asdict()


def _error(status: int, text: str) -> web.Response:
    headers = {"Retry-After": "30"} if status == 503 else {}
    response = web.json_response({"error": text}, status=status, headers=headers)
    if status in (408, 413, 415, 503):
        response.force_close()  # its body was not read
    return response
