"""Serve a web page to try checkpoints: `captioning-demo checkpoint=PATH`, or `checkpoint=[SOFT,HARD]` to compare."""

import asyncio
import socket
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from captioning.config import DemoConfig, build, entry_point

MOST_NAMED = 20  # most lines about files that are left out
EXAMPLE_SIDE = 1600  # largest side in pixels of the examples, which are kept in memory


def demo(config: dict[str, Any]) -> None:
    """Serve the page until Ctrl-C; with `static`, write it as a folder instead.

    Raises:
        ConfigError: a setting is out of range, the port is not available, or aiohttp is not installed.
    """
    from captioning.errors import ConfigError, must_be
    from captioning.io import need_package

    for key in ("upload_megabytes", "upload_seconds", "megapixels"):
        must_be(f"limits.{key}", config["limits"][key], above=0)
    must_be("limits.waiting", config["limits"]["waiting"], least=1)
    must_be("port", config["port"], least=0, most=65535)
    if config["tags"] not in (None, "auto", "classifier"):
        raise ConfigError(
            f"tags={config['tags']} must be auto, classifier or null: uploaded photos have no entries in a file of tags"
        )
    if config["checkpoint"] in ("", []):
        raise ConfigError("checkpoint= is empty: give a checkpoint, or a list of checkpoints")
    if config["static"] is not None:
        return _write_static(config)
    if config["runtime"] is not None:
        raise ConfigError(f"runtime={config['runtime']} is for a page without a server: add static=DIR")
    need_package("aiohttp", extra="demo", wanted_by="captioning-demo")
    listener = _listen(config["host"], config["port"])
    with listener:
        _serve(config, listener)


def _write_static(config: dict[str, Any]) -> None:
    """Write the page as a folder, in which the browser itself captions."""
    from captioning.checkpoints import find_checkpoint
    from captioning.errors import ConfigError
    from captioning.inference import load
    from captioning.web.demo import checkpoint_names, write_static_demo

    if config["tags"] == "classifier":
        raise ConfigError("tags=classifier needs the server: a page without one has no tags. Set tags=null")
    given = config["checkpoint"]
    paths = [find_checkpoint(path) for path in ([given] if isinstance(given, str) else given)]
    predictors = [load(path, device="cpu") for path in paths]
    examples = _examples(config["examples"], [predictor.metadata for predictor in predictors])
    lines = write_static_demo(
        dict(zip(checkpoint_names(paths), predictors, strict=True)),
        examples,
        Path(config["static"]),
        runtime=Path(config["runtime"]) if config["runtime"] else None,
        dtype=config["dtype"],
        pixels=int(config["limits"]["megapixels"] * 1e6),
    )
    print(*lines, sep="\n")
    missing = "" if config["runtime"] else "; copy onnxruntime-web into its folder ort/ (README.txt)"
    print(f"Page: {config['static']}/index.html, for any static host, without tags{missing}")


def _serve(config: dict[str, Any], listener: socket.socket) -> None:
    from captioning.checkpoints import find_checkpoint
    from captioning.inference import choose_guide, get_search, load
    from captioning.web.demo import Demo, Limits, checkpoint_names, serve, with_encoder

    given, limits = config["checkpoint"], config["limits"]
    paths = [find_checkpoint(path) for path in ([given] if isinstance(given, str) else given)]
    predictors = [with_encoder(load(path, device=config["device"])) for path in paths]
    make_guide = cache(build(config["guidance"]))  # one classifier for all checkpoints
    for predictor in predictors:
        predictor.guide_by(choose_guide(config["tags"], make_guide, predictor))
        predictor.check_search(get_search("greedy"))  # no search of the demo sets another length
    demo = Demo(
        dict(zip(checkpoint_names(paths), predictors, strict=True)),
        _examples(config["examples"], [predictor.metadata for predictor in predictors]),
        limits=Limits(
            upload_bytes=int(limits["upload_megabytes"] * 1e6),
            upload_seconds=limits["upload_seconds"],
            pixels=int(limits["megapixels"] * 1e6),
            waiting=limits["waiting"],
        ),
        names=[config["host"], *config["hosts"]],
    )
    host = f"[{config['host']}]" if ":" in config["host"] else config["host"]
    print(f"captioning: http://{host}:{listener.getsockname()[1]}/ (stop with Ctrl-C)", flush=True)
    asyncio.run(serve(demo.application(), listener))


def _listen(host: str, port: int) -> socket.socket:
    from captioning.errors import ConfigError

    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        reason = error.strerror or error
        raise ConfigError(f"cannot listen on host={host} port={port} ({reason}): give another port=") from error


def _examples(given: list[str] | str | None, metadata: Sequence[Mapping[str, Any]]) -> list:
    """Return the given images, or the package's images that suit the models."""
    from captioning.data import find_images, open_picture
    from captioning.io import printable
    from captioning.web import shrink
    from captioning.web.demo import DemoExample, built_in_examples

    if given is None:
        return built_in_examples(metadata)
    if not given:
        return []
    found = find_images([given] if isinstance(given, str) else given)
    for path, reason in found.left_out[:MOST_NAMED]:
        print(printable(f"left out: {path}: {reason}"), file=sys.stderr)
    if (more := len(found.left_out) - MOST_NAMED) > 0:
        print(f"… and {more} more are left out", file=sys.stderr)
    return [DemoExample(shrink(open_picture(path), EXAMPLE_SIDE)) for path in found.paths]


main = entry_point("demo", DemoConfig, demo, plain=["checkpoint..."])

if __name__ == "__main__":
    main()
