"""Write the demo as a folder for any static host: the browser itself captions photos, with ONNX files."""

import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from captioning.errors import ConfigError
from captioning.inference import Predictor
from captioning.io import make_folder, write_json, write_text, write_whole
from captioning.onnx_export import write_onnx
from captioning.web import as_jpeg, palette, read_asset, shrink
from captioning.web.demo.examples import DemoExample
from captioning.web.demo.work import BOUNDS, DemoRequest

RUNTIME_FILES = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
SCRIPTS = ("resize.js", "browser_captioner.js")  # before demo.js
_SIDE = 960  # longer side of an example, in pixels
_POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'"
)
_README = """This folder is a web page that captions photos in the browser. Copy it to any static host.

It needs onnxruntime-web in the folder ort/: {files}. To get them:

    npm pack onnxruntime-web
    tar xzf onnxruntime-web-*.tgz
    cp {copied} ort/

To try the page on this machine: python -m http.server, then open http://localhost:8000/.
"""


def write_static_demo(
    predictors: Mapping[str, Predictor],
    examples: Sequence[DemoExample],
    folder: Path,
    *,
    runtime: Path | None = None,
    dtype: str = "float16",
    pixels: int = 50_000_000,
) -> list[str]:
    """Write the page, the models and the examples.

    Args:
        predictors: {name on the page: captioner}, on the CPU.
        examples: the example images.
        folder: the new folder.
        runtime: folder with `RUNTIME_FILES` of onnxruntime-web; None: the user copies them later.
        dtype: how the weights are stored, see `captioning.onnx_export.write_onnx`.
        pixels: the largest number of pixels of an image.

    Returns:
        Lines about what was written.

    Raises:
        ConfigError: the folder has files, a file of the runtime is missing, or a model cannot be written as ONNX.
    """
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise ConfigError(f"static={folder} already exists: give another folder, or delete it")
    for name in RUNTIME_FILES if runtime else ():
        if not (runtime / name).is_file():  # type: ignore[operator]
            raise ConfigError(
                f"runtime={runtime} has no {name}: give the folder dist of the npm package onnxruntime-web"
            )
    make_folder(folder.parent)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name[:100]}.", dir=folder.parent) as temporary:
        page = make_folder(Path(temporary) / "page")
        lines = [
            f"{name}: {write_onnx(predictor, page / _folder(number), dtype=dtype)}".replace(str(page), str(folder))
            for number, (name, predictor) in enumerate(predictors.items())
        ]
        _write_page(page, predictors, examples, pixels)
        make_folder(page / "ort")
        for name in RUNTIME_FILES if runtime else ():
            shutil.copyfile(runtime / name, page / "ort" / name)  # type: ignore[operator]
        os.replace(page, folder)
    return lines


def _folder(number: int) -> str:
    return f"models/{number}"


def _write_page(
    folder: Path, predictors: Mapping[str, Predictor], examples: Sequence[DemoExample], pixels: int
) -> None:
    write_text(folder / "index.html", _page())
    for name in ("page.css", "demo.css", "demo.js", *SCRIPTS):
        write_text(folder / name, read_asset(name))
    make_folder(folder / "examples")
    for number, example in enumerate(examples):
        content = as_jpeg(shrink(example.picture, _SIDE), quality=95)
        write_whole(folder / "examples" / f"{number}.jpg", partial(_put, content=content))
    copied = " ".join(f"package/dist/{name}" for name in RUNTIME_FILES)
    write_text(folder / "README.txt", _README.format(files=", ".join(RUNTIME_FILES), copied=copied))
    write_json(folder / "about.json", _about(predictors, examples, pixels))


def _put(file: BinaryIO, *, content: bytes) -> None:
    file.write(content)


def _page() -> str:
    """Return the demo's page with other scripts, without the settings that only the server has."""
    text = read_asset("demo.html")
    sent = (
        "Your photo is sent only to the machine that runs this demo. It is kept in memory while it is captioned, and "
        "is not stored."
    )
    changes = {
        '<meta charset="utf-8">': f"""<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">""",
        '<script src="demo.js" defer></script>': "\n".join(
            f'<script src="{name}" defer></script>' for name in (*SCRIPTS, "demo.js")
        ),
        sent: "Your photo stays in this browser: the page sends it nowhere.",
    }
    for old, new in changes.items():
        if text.count(old) != 1:
            raise ValueError(f"demo.html does not have {old!r} once")
        text = text.replace(old, new)
    return text


def _about(predictors: Mapping[str, Predictor], examples: Sequence[DemoExample], pixels: int) -> dict[str, Any]:
    """Return what the demo's server answers at api/about, with the folder of each model."""
    least, most = BOUNDS["beam_size"]
    models = [
        {"name": name, "attention": predictor.attention_kind, "guided": False, "folder": _folder(number)}
        for number, (name, predictor) in enumerate(predictors.items())
    ]
    return {
        "models": models,
        "examples": len(examples),
        "wishes": {"beam_size": {"least": least, "most": most, "value": DemoRequest().beam_size}},
        "limits": {"bytes": 100_000_000, "pixels": pixels},
        "credits": [example.credit and example.credit._asdict() for example in examples],
        "palette": palette().tolist(),
    }
