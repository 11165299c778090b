"""The demo without a server: a folder on a plain file server, whose page captions in a real browser."""

import functools
import json
import shutil
import threading
import time
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from headless import headless
from PIL import Image
from small_runs import save_checkpoint

from captioning.config import DemoConfig, check, compose
from captioning.data import Transform, draw_scene
from captioning.demo import demo
from captioning.errors import ConfigError
from captioning.inference import load

pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
pytest.importorskip("onnxscript", reason="the extra onnx is not installed")
ROOT = Path(__file__).parents[2]
RUNTIME = ROOT / "node_modules" / "onnxruntime-web" / "dist"
TINY = ["encoder.layer=stem", "encoder.image_size=16"]
SECONDS = 120


def run(*overrides: str) -> None:
    demo(check(compose("demo", list(overrides)), DemoConfig))


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory) -> list[Path]:
    """Soft attention, and hard attention in a transform with a border."""
    folder = tmp_path_factory.mktemp("runs")
    paths = [folder / name / "checkpoints" / "best.ckpt" for name in ("soft", "hard")]
    for path, further in zip(paths, ([], ["transform.fit=pad"]), strict=True):
        save_checkpoint(path, f"model/attention={path.parents[1].name}", *further, size=TINY, seed=2)
    return paths


@pytest.fixture(scope="module")
def site(checkpoints, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("static") / "site"
    named = ",".join(map(str, checkpoints))
    run(f"checkpoint=[{named}]", f"static={folder}", "dtype=float32", "examples=null")
    return folder


@pytest.fixture
def browser(tmp_path):
    with headless(tmp_path / "profile") as driver:
        yield driver


@pytest.fixture
def address(site):
    """Of a server that knows nothing but files."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


@pytest.fixture
def runtime(site):
    """The files of onnxruntime-web, which the page needs and the package does not contain."""
    if not RUNTIME.is_dir():
        pytest.skip("no node_modules/onnxruntime-web: npm install --no-save onnxruntime-web")
    for name in ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"):
        if not (site / "ort" / name).exists():
            shutil.copy(RUNTIME / name, site / "ort")


def until(browser, script: str):
    """What a script gives, as soon as that is something."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        if found := browser.execute_script(f"return {script}"):
            return found
        time.sleep(0.1)
    raise AssertionError(f"{script} never held; the page: {browser.execute_script('return document.body.innerText')}")


SHOWN = """state.cards.map(({ model }) => ({ name: model.name, attention: model.attention, box: model.box,
  searches: Object.fromEntries(Object.entries(model.searches).map(([name, found]) => [name, found.map((each) =>
    ({ ...each, text: each.words.map((word, at) => each.gaps[at] + word).join("") }))])) }))"""


@pytest.mark.slow
def test_the_page_captions_as_the_package_does(browser, address, runtime, checkpoints, site, tmp_path):
    browser.get(address)
    until(browser, "state.cards.length === 2")  # the first example
    for number, size in enumerate([(120, 90), (60, 100)]):
        path = tmp_path / f"{number}.png"
        draw_scene(number, "test", 0)[0].resize(size).save(path)
        browser.execute_script("state.cards = []")
        browser.find_element("id", "file").send_keys(str(path))
        until(browser, "state.cards.length === 2")
        for shown, checkpoint in zip(browser.execute_script(f"return {SHOWN}"), checkpoints, strict=True):
            predictor = load(checkpoint, device="cpu")
            assert shown["name"] == checkpoint.parents[1].name == shown["attention"]
            assert shown["box"] == pytest.approx(list(predictor.transform.box(*size)))
            expected = {
                "greedy": predictor.captions(path, "greedy")[0],
                "beam": predictor.captions(path, "beam", beam_size=5, n_best=3)[0],
            }
            assert shown["searches"].keys() == expected.keys()
            for search, captions in expected.items():
                for made, own in zip(shown["searches"][search], captions, strict=True):
                    assert (made["text"], made["words"]) == (own.text, own.tokens)
                    assert made["log_prob"] == pytest.approx(own.log_prob, abs=1e-3)
                    weights = np.reshape(made["weights"], own.attention.shape)
                    np.testing.assert_allclose(weights, own.attention, atol=1e-4)
                    assert made["grid"] == list(own.grid)
                    assert made["places"] == (None if own.places is None else own.places.tolist())
    asked = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    requests = [each["params"]["request"] for each in asked if each["method"] == "Network.requestWillBeSent"]
    sent = {(each["method"], each["url"].startswith(address)) for each in requests if each["url"].startswith("http")}
    assert sent == {("GET", True)}  # nothing leaves the browser
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


@pytest.mark.slow
def test_the_browser_resizes_to_the_same_pixels(browser, address, runtime):
    browser.get(address)
    draw = np.random.default_rng(0)
    for size in ((64, 48), (31, 40), (300, 200)):
        pixels = draw.integers(0, 256, (size[1], size[0], 3), np.uint8)
        for settings in (
            {"size": 24},
            {"size": [16, 40], "interpolation": "bilinear"},
            {"size": 24, "fit": "crop", "resize": 30},
            {"size": [16, 40], "fit": "crop", "interpolation": "lanczos", "mirror": True},
            {"size": 24, "fit": "pad"},
        ):
            transform = Transform(**settings)
            image = {"width": size[0], "height": size[1], "data": pixels.ravel().tolist()}
            found = browser.execute_script(
                "return Array.from(encoderInput(arguments[0], arguments[1]))", image, transform.describe()
            )
            assert found == transform(Image.fromarray(pixels)).flatten().tolist(), (size, settings)


@pytest.mark.slow
def test_a_page_without_the_runtime_says_what_is_missing(browser, address, site):
    hidden = site / "ort" / "ort.wasm.min.mjs"
    content = hidden.read_bytes() if hidden.exists() else None
    hidden.unlink(missing_ok=True)
    try:
        browser.get(address)
        text = until(browser, "find('message').className === 'error' && find('message').textContent")
        assert text == "The folder ort/ has no onnxruntime-web: see README.txt."
    finally:
        if content is not None:
            hidden.write_bytes(content)


@pytest.mark.slow
def test_the_folder_is_complete_but_for_the_runtime(site):
    names = {str(path.relative_to(site)) for path in site.rglob("*") if path.is_file() and path.parent.name != "ort"}
    models = {f"models/{n}/{name}" for n in (0, 1) for name in ("encoder.onnx", "begin.onnx", "step.onnx")}
    models |= {f"models/{n}/captioner.json" for n in (0, 1)}
    page = {"index.html", "page.css", "demo.css", "demo.js", "resize.js", "browser_captioner.js", "about.json"}
    assert names - {name for name in names if name.startswith("examples/")} == models | page | {"README.txt"}
    about = json.loads((site / "about.json").read_text())
    assert [each["name"] for each in about["models"]] == ["soft", "hard"] and len(about["palette"]) == 256
    assert sorted(path.name for path in (site / "examples").iterdir()) == [f"{n}.jpg" for n in range(about["examples"])]


def test_what_a_page_without_a_server_refuses(checkpoints, tmp_path):
    given = [f"checkpoint={checkpoints[0]}", "examples=[]"]
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    for overrides, message in (
        ([f"static={tmp_path}/full"], r"static=.*full already exists: give another folder"),
        ([f"static={tmp_path}/x", f"runtime={tmp_path}"], r"has no ort\.wasm\.min\.mjs: give the folder dist"),
        ([f"static={tmp_path}/x", "tags=classifier"], "tags=classifier needs the server: .*Set tags=null"),
        ([f"static={tmp_path}/x", "dtype=int4"], "dtype=int4 must be one of"),
        ([f"runtime={tmp_path}"], "is for a page without a server: add static=DIR"),
    ):
        with pytest.raises(ConfigError, match=message):
            run(*given, *overrides)
    assert {path.name for path in tmp_path.iterdir()} == {"full"}
