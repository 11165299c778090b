"""Serve a page for trying checkpoints: `captioning-demo checkpoint=PATH`, or `checkpoint=[SOFT,HARD]` side by side."""

import asyncio
import socket
from importlib.util import find_spec
from typing import Any

from captioning.config import DemoConfig, entry_point

SCENES = 6  # drawn as examples where none are given
EXAMPLE_SIDE = 1600  # pixels at most, of examples that are kept in memory


def demo(config: dict[str, Any]) -> None:
    """Serves the page until it is stopped."""
    from captioning.errors import ConfigError, must_be

    for key in ("upload_megabytes", "upload_seconds", "megapixels"):
        must_be(f"limits.{key}", config["limits"][key], above=0)
    must_be("limits.waiting", config["limits"]["waiting"], least=1)
    must_be("port", config["port"], least=0, most=65535)
    if config["checkpoint"] in ("", []):
        raise ConfigError("checkpoint is empty: give one, or a list")
    if find_spec("aiohttp") is None:
        raise ConfigError("the demo needs aiohttp: pip install 'captioning[demo]'")
    listener = _listen(config["host"], config["port"])
    with listener:
        _serve(config, listener)


def _serve(config: dict[str, Any], listener: socket.socket) -> None:
    from captioning.checkpoints import find_checkpoint
    from captioning.inference import load
    from captioning.web.demo import Demo, Limits, checkpoint_names, serve, with_encoder

    given, limits = config["checkpoint"], config["limits"]
    paths = [find_checkpoint(path) for path in ([given] if isinstance(given, str) else given)]
    predictors = [with_encoder(load(path, device=config["device"])) for path in paths]
    demo = Demo(
        dict(zip(checkpoint_names(paths), predictors, strict=True)),
        _examples(config["examples"]),
        limits=Limits(
            upload_bytes=int(limits["upload_megabytes"] * 1e6),
            upload_seconds=limits["upload_seconds"],
            pixels=int(limits["megapixels"] * 1e6),
            waiting=limits["waiting"],
        ),
        names=[config["host"], *config["hosts"]],
    )
    host = f"[{config['host']}]" if ":" in config["host"] else config["host"]
    print(f"captioning: http://{host}:{listener.getsockname()[1]}/ (Ctrl-C ends it)", flush=True)
    asyncio.run(serve(demo.application(), listener))


def _listen(host: str, port: int) -> socket.socket:
    from captioning.errors import ConfigError

    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        reason = error.strerror or error
        raise ConfigError(f"cannot listen on host={host} port={port} ({reason}): give another port=") from error


def _examples(given: list[str] | str | None) -> list:
    """The pictures that are given, or scenes drawn now, of which no checkpoint has seen any."""
    from captioning.data import draw_scene, list_pictures, open_picture
    from captioning.web import shrink

    if given is None:
        return [draw_scene(0, "demo", index)[0] for index in range(SCENES)]
    paths = list_pictures([given] if isinstance(given, str) else given) if given else []
    return [shrink(open_picture(path), EXAMPLE_SIDE) for path in paths]


main = entry_point("demo", DemoConfig, demo, plain=["checkpoint..."])

if __name__ == "__main__":
    main()
