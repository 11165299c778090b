"""Serve the demo: one page, its example images, and two addresses that receive an image.

`/api/captions` returns captions with attention weights. `/api/maps` returns another map of captions that it is given.

- An upload is the plain body of a request, so that no form parser writes it to disk.
- One thread runs the models. A waiting request is read only when its turn comes, so only a few uploads are in memory.
- The page loads nothing from other sites, and other sites cannot call the demo. Requests with an unknown host name are
  refused, because a foreign DNS name may point at this machine.
"""

import asyncio
import ipaddress
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from aiohttp import web
from PIL import Image

from captioning.data import read_picture
from captioning.errors import CaptioningError, ConfigError
from captioning.inference import Predictor
from captioning.web import as_jpeg, palette, read_asset, shrink
from captioning.web.demo.examples import DemoExample
from captioning.web.demo.work import BOUNDS, DemoRequest, caption_picture, map_texts, read_given_captions, read_request

AT_ONCE = 4  # requests whose uploads are in memory: the one that the models work on, and the next ones
THUMBNAIL = 240  # longer side of an example's thumbnail, in pixels
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
    """The limits of the demo.

    Attributes:
        upload_bytes: the largest upload.
        upload_seconds: the longest time of an upload.
        pixels: the largest number of pixels of an image.
        waiting: the largest number of waiting requests.
    """

    upload_bytes: int = 20_000_000
    upload_seconds: float = 60.0
    pixels: int = 50_000_000
    waiting: int = 128


class Refusal(Exception):
    """A refused request.

    Args:
        status: the HTTP status.
        text: the message for the user.
    """

    def __init__(self, status: int, text: str):
        super().__init__(text)
        self.status = status


class Demo:
    """The web application of the demo.

    Args:
        predictors: {name on the page: captioner}.
        examples: the example images.
        limits: the limits; None: the defaults of `Limits`.
        names: host names that requests may use besides localhost and plain addresses.
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
        """Build the aiohttp application, for `serve` or a test."""
        application = web.Application(middlewares=[self._guard])
        for path in self.files:
            application.router.add_get(path, self._file)
        application.router.add_get("/api/about", self._about)
        application.router.add_get(r"/api/examples/{number:\d{1,4}}", self._example)
        application.router.add_post("/api/captions", self._captions)
        application.router.add_post("/api/maps", self._maps)
        application.on_cleanup.append(self._close)
        return application

    async def _close(self, application: web.Application) -> None:
        self.thread.shutdown(wait=False, cancel_futures=True)

    @web.middleware
    async def _guard(self, request: web.Request, handler: Callable) -> web.StreamResponse:
        """Refuse foreign requests, turn errors into a one-line message, and add the HEADERS to every response."""
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
        except ConnectionError:  # the client has disconnected
            response = _error(400, "the connection was lost")
        except Exception:
            traceback.print_exc(file=sys.stderr)
            response = _error(500, "an error occurred in the demo: see its terminal")
        response.headers.update(HEADERS)
        return response

    def _check_origin(self, request: web.Request) -> None:
        if not is_here(request.headers.get("Host", ""), self.names):
            raise Refusal(421, "the demo does not know this host name. Add it when you start the demo: hosts=[NAME]")
        origin = request.headers.get("Origin")
        foreign = origin is not None and urlsplit(origin).netloc != request.headers["Host"]
        if foreign or (request.headers.get("Sec-Fetch-Site") == "cross-site" and request.method != "GET"):
            raise Refusal(403, "the demo can only be called from its own page")

    async def _file(self, request: web.Request) -> web.Response:
        text, kind = self.files[request.path]
        return web.Response(text=text, content_type=kind, charset="utf-8")

    async def _about(self, request: web.Request) -> web.Response:
        models = [
            {"name": name, "attention": each.attention_kind, "guided": each.guide is not None}
            for name, each in self.predictors.items()
        ]
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
            raise Refusal(404, "this example does not exist")
        return self.examples[int(number)].picture

    async def _captions(self, request: web.Request) -> web.Response:
        """Caption the image in the request's body, or the example of ?example=NUMBER."""
        query = dict(request.query)
        picture, wishes = self._chosen(query), read_request(query)

        def work(content: bytes) -> dict[str, Any]:
            return caption_picture(self.predictors, picture or self._open(content), wishes)

        return await self._in_turn(request, work, reads=picture is None)

    async def _maps(self, request: web.Request) -> web.Response:
        """Compute ?map=NAME of ?model=NAME for captions of an image.

        The body is a JSON list of the captions, a line break, and the image if there is no ?example=NUMBER.
        """
        query = dict(request.query)
        picture, model, name = self._chosen(query), query.pop("model", ""), query.pop("map", "")
        if query:
            raise ConfigError(f"setting '{next(iter(query))[:40]}' does not exist. Use example, model and map")
        if model not in self.predictors:
            raise Refusal(404, "this model does not exist")
        predictor = self.predictors[model]
        if name not in predictor.map_names:
            raise ConfigError(f"map '{name[:40]}' does not exist. Use one of {', '.join(predictor.map_names)}")

        def work(content: bytes) -> dict[str, Any]:
            texts, _, photo = content.partition(b"\n")
            return map_texts(predictor, picture or self._open(photo), read_given_captions(texts), name)

        return await self._in_turn(request, work, reads=True)

    def _chosen(self, query: dict[str, str]) -> Image.Image | None:
        """Return the example that the query names, and remove it from the query; None without one."""
        example = query.pop("example", None)
        return self._example_of(example) if example else None

    async def _in_turn(
        self, request: web.Request, work: Callable[[bytes], dict[str, Any]], *, reads: bool
    ) -> web.Response:
        """Wait for the request's turn, read its body if `reads`, and run `work` on the body in the models' thread."""
        if (request.content_length or 0) > self.limits.upload_bytes:
            raise Refusal(413, self._too_large())
        if request.headers.get("Content-Encoding", "identity") != "identity":
            raise Refusal(415, "send the image file without a content encoding")
        if self.waiting >= self.limits.waiting:
            raise Refusal(503, "too many photos are waiting; try again in a minute")
        self.waiting += 1
        try:
            async with self.turns:
                if request.transport is None or request.transport.is_closing():
                    raise ConnectionResetError  # the client does not wait anymore
                content = await self._upload(request) if reads else b""
                answer = await asyncio.get_running_loop().run_in_executor(self.thread, work, content)
                return web.json_response(answer)
        finally:
            self.waiting -= 1

    async def _upload(self, request: web.Request) -> bytes:
        """Read the body into memory; count its bytes while reading, because the declared length may be wrong."""
        content = bytearray()
        try:
            async with asyncio.timeout(self.limits.upload_seconds):
                async for part in request.content.iter_any():
                    content += part
                    if len(content) > self.limits.upload_bytes:
                        raise Refusal(413, self._too_large())
                return bytes(content)
        except TimeoutError as error:
            raise Refusal(408, f"the photo did not arrive within {self.limits.upload_seconds:g} seconds") from error

    def _open(self, content: bytes) -> Image.Image:
        """Open an uploaded image; this runs in the models' thread."""
        return read_picture(content, name="the file", max_pixels=self.limits.pixels)

    def _too_large(self) -> str:
        return f"the file is larger than {self.limits.upload_bytes / 1e6:g} MB"


async def serve(application: web.Application, listener: socket.socket) -> None:
    """Serve until SIGINT (Ctrl-C) or SIGTERM, then wait for running requests; a second Ctrl-C stops immediately.

    aiohttp's `run_app` is not used: it treats a second signal as an error in its shutdown.

    Args:
        application: the demo's application.
        listener: the socket to listen on.
    """
    received: set[int] = set()
    stop = asyncio.Event()

    def request_stop(number: int) -> None:
        if number == signal.SIGINT and number in received:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
        received.add(number)
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        with suppress(NotImplementedError):  # Windows has no such handlers, and raises KeyboardInterrupt
            asyncio.get_running_loop().add_signal_handler(number, request_stop, number)
    runner = web.AppRunner(application, access_log=None)
    try:
        await runner.setup()
        await web.SockSite(runner, listener).start()
        await stop.wait()
    finally:
        await runner.cleanup()


def is_here(host: str, names: Collection[str]) -> bool:
    """Return whether a Host header is a plain IP address or one of some names.

    Any other name may belong to an attacker who lets it point at this machine (DNS rebinding); the browser would then
    treat the attacker's page as the demo's own.
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
