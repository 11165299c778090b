"""The demo's server: what it answers, whom it turns away, and what a request leaves behind."""

import asyncio
import configparser
import gzip
import io
import json
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import zlib
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit
from urllib.request import urlopen

import numpy as np
import pytest
from PIL import Image
from small_runs import save_checkpoint

from captioning.config import DemoConfig, check, compose
from captioning.demo import demo
from captioning.errors import CheckpointError, ConfigError, DataError
from captioning.inference import TagGuide, load
from captioning.text import make_tokenizer
from captioning.web.demo import Credit, Demo, DemoExample, Limits, checkpoint_names, server, with_encoder, work
from captioning.web.demo.server import AT_ONCE, HEADERS, is_here
from captioning.web.demo.work import DemoRequest, caption_picture, read_request

aiohttp = pytest.importorskip("aiohttp", reason="the demo's extra is not installed")
from aiohttp.test_utils import TestClient, TestServer  # noqa: E402

BINARY = {"Content-Type": "application/octet-stream"}


@pytest.fixture(scope="module")
def predictors(tmp_path_factory):
    folder, found = tmp_path_factory.mktemp("checkpoints"), {}
    for kind in ("soft", "hard", "none"):
        path = folder / kind / "checkpoints" / "best.ckpt"
        save_checkpoint(path, f"model/attention={kind}")
        found[kind] = with_encoder(load(path, device="cpu"))
    return found


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))


def as_file(picture: Image.Image, kind: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def visit(demo: Demo, job):
    """What `await job(client)` gives, with a server and a client of its own."""

    async def run():
        async with TestClient(TestServer(demo.application())) as client:
            return await job(client)

    return asyncio.run(run())


def post(demo: Demo, content: bytes, address: str = "/api/captions", **headers) -> tuple[int, dict]:
    """(status, answer) of one upload."""

    async def job(client):
        response = await client.post(address, data=content, headers=BINARY | headers)
        return response.status, await response.json()

    return visit(demo, job)


# ---- what it answers


def test_the_page_and_its_files_come_from_here_alone(predictors):
    async def job(client):
        for path in ("/", "/page.css", "/demo.css", "/demo.js"):
            response = await client.get(path)
            text = await response.text()
            assert response.status == 200 and len(text) > 200
            assert not re.search(
                r"https?:|[\"'(]//|@import|url\(|innerHTML|insertAdjacent|document\.write|eval\(", text
            )
            assert {name: response.headers[name] for name in HEADERS} == HEADERS
        return (await client.get("/elsewhere")).status, (await client.get("/api/captions")).status

    assert visit(Demo(predictors), job) == (404, 405)
    policy = HEADERS["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy and "*" not in policy


def test_captions_are_those_of_the_predictors(predictors):
    picture = noise(80, 50)
    status, answer = post(Demo(predictors), as_file(picture), "/api/captions?beam_size=2&samples=4")
    assert status == 200 and (answer["width"], answer["height"]) == (80, 50)
    assert [model["attention"] for model in answer["models"]] == ["soft", "hard", "no"]
    for model, predictor in zip(answer["models"], predictors.values(), strict=True):
        greedy, beam = model["searches"]["greedy"], model["searches"]["beam"]
        assert [len(model["searches"][key]) for key in ("greedy", "beam", "sample")] == [1, 2, 4]
        (expected,) = predictor.caption(picture, "greedy")
        assert greedy[0]["words"] == expected.tokens
        assert greedy[0]["log_prob"] == pytest.approx(expected.log_prob, abs=1e-4)
        expected = predictor.captions(picture, "beam", beam_size=2, n_best=2)[0]
        assert [made["words"] for made in beam] == [each.tokens for each in expected]
        if expected[0].attention is None:
            assert beam[0]["weights"] is None
        else:
            np.testing.assert_allclose(beam[0]["weights"], expected[0].attention, atol=1e-4)
        places = expected[0].places
        assert beam[0]["places"] == (None if places is None else places.tolist())
        assert model["box"] == list(predictor.transform.box(80, 50))


TRANSFORMER = ("model=transformer", "model.layers=2", "model.heads=2")


def test_maps_of_the_captions_on_the_page_are_computed_on_request(predictors, tmp_path):
    path = tmp_path / "transformer" / "checkpoints" / "best.ckpt"
    save_checkpoint(path, *TRANSFORMER)
    transformer = with_encoder(load(path, device="cpu"))
    models, examples = predictors | {"transformer": transformer}, [DemoExample(noise(30, 20))]
    picture = noise(80, 50)
    _, answer = post(Demo(models, examples), as_file(picture))
    maps = {model["name"]: model["maps"] for model in answer["models"]}
    assert maps["soft"] == ["attention", "gradient_attention", "gradient_input"]
    assert maps["hard"] == ["attention", "gradient_input"] and maps["none"] == ["gradient_input"]
    assert maps["transformer"] == list(transformer.map_names) and "layer2_head2" in maps["transformer"]
    texts = ["a dog runs", "the red dog", ""]
    for model, name in (("transformer", "layer2_head1"), ("transformer", "rollout"), ("soft", "gradient_attention")):
        predictor = models[model]
        expected = [predictor.forced_captions(picture, text, map=name)[0].attention for text in texts]
        body = json.dumps(texts).encode() + b"\n" + as_file(picture)
        status, answer = post(Demo(models, examples), body, f"/api/maps?model={model}&map={name}")
        assert status == 200 and [len(rows) for rows in answer["weights"]] == [3, 3, 0]
        for rows, weights in zip(answer["weights"][:2], expected[:2], strict=True):
            np.testing.assert_allclose(rows, weights, atol=1e-4)
            assert np.sum(rows, 1) == pytest.approx([1.0] * 3, abs=1e-3)
        own = predictor.forced_captions(picture, texts[0])[0].attention
        assert np.abs(expected[0] - own).max() > 1e-4
    status, answer = post(Demo(models, examples), b'["a dog"]', "/api/maps?model=soft&map=gradient_input&example=0")
    expected = predictors["soft"].forced_captions(noise(30, 20), "a dog", map="gradient_input")[0].attention
    np.testing.assert_allclose(answer["weights"][0], expected, atol=1e-4)


@pytest.mark.parametrize(
    ("query", "body", "status", "message"),
    [
        (
            "model=soft&map=rollout",
            b'["a"]\n' + b"x",
            400,
            "map 'rollout' does not exist. Use one of attention, gradient",
        ),
        ("model=other&map=attention", b'["a"]\n', 404, "this model does not exist"),
        ("model=soft&map=attention&beam_size=2", b'["a"]\n', 400, "setting 'beam_size' does not exist"),
        ("model=soft&map=attention&example=0", b"a dog", 400, "JSON list of 1 to 32 texts"),
        ("model=soft&map=attention&example=0", b"\xff[", 400, "JSON list of 1 to 32 texts"),
        ("model=soft&map=attention&example=0", b"[]", 400, "JSON list of 1 to 32 texts"),
        ("model=soft&map=attention&example=0", json.dumps(["a"] * 33).encode(), 400, "JSON list of 1 to 32 texts"),
        ("model=soft&map=attention&example=0", b'["a", 3]', 400, "must be texts of at most 1000 characters"),
        (
            "model=soft&map=attention&example=0",
            json.dumps(["a" * 1001]).encode(),
            400,
            "texts of at most 1000 characters",
        ),
        ("model=soft&map=attention", b'["a"]', 422, "the file"),
        ("model=soft&map=attention&example=7", b'["a"]', 404, "this example does not exist"),
    ],
)
def test_requests_for_maps_that_are_refused(predictors, query, body, status, message):
    found, answer = post(Demo(predictors, [DemoExample(noise(30, 20))]), body, f"/api/maps?{query}")
    assert found == status and message in answer["error"] and ".ckpt" not in answer["error"]


def test_a_photograph_taken_on_its_side_is_shown_upright(predictors):
    exif = Image.Exif()
    exif[0x0112] = 6
    status, answer = post(Demo({"soft": predictors["soft"]}), as_file(noise(80, 50), "JPEG", exif=exif))
    assert status == 200 and (answer["width"], answer["height"]) == (50, 80)
    assert answer["picture"].startswith("data:image/jpeg;base64,")


def test_examples(predictors):
    credit = Credit(
        "CC BY 2.0", "https://creativecommons.org/licenses/by/2.0/", "https://www.flickr.com/photo.gne?id=1"
    )
    demo = Demo({"soft": predictors["soft"]}, [DemoExample(noise(300, 200), credit), DemoExample(noise(20, 30))])

    async def job(client):
        about = await (await client.get("/api/about")).json()
        shown = Image.open(io.BytesIO(await (await client.get("/api/examples/0")).read()))
        captioned = await (await client.post("/api/captions?example=1")).json()
        missing = [(await client.get("/api/examples/2")).status]
        missing += [
            (await client.post(f"/api/captions?example={number}")).status
            for number in ("2", "-1", "x", "²", "9" * 5000)
        ]
        return about, shown.size, captioned, missing

    about, size, captioned, missing = visit(demo, job)
    assert about["credits"] == [credit._asdict(), None]
    assert about["examples"] == 2 and about["models"] == [{"name": "soft", "attention": "soft", "guided": False}]
    assert size == (240, 160) and (captioned["width"], captioned["height"]) == (20, 30)
    assert missing == [404] * 6


def test_wishes():
    assert read_request({}) == DemoRequest() == DemoRequest(5, 3, 1.0, 1)
    assert read_request({"beam_size": "2", "temperature": "0.5", "tags": "0"}) == DemoRequest(2, 3, 0.5, 0)
    for given in (
        *({"beam_size": text} for text in ("0", "11", "", "three")),
        *({"samples": text} for text in ("2.5", "1e9", "-1")),
        *({"temperature": text} for text in ("nan", "inf", "0")),
        {"tags": "2"},
        {"width": "3"},
    ):
        with pytest.raises(ConfigError, match=next(iter(given))):
            read_request(given)


def test_a_wrong_wish_is_told(predictors):
    status, answer = post(Demo({}), as_file(noise(8, 8)), "/api/captions?beam_size=99")
    assert status == 400 and answer == {"error": "beam_size must be a number from 1 to 10"}


def test_tags_guide_the_captions_unless_the_page_switches_them_off(predictors, tmp_path):
    tags = tmp_path / "tags.json"
    tags.write_text(json.dumps({"photo.png": [{"noun": "zebra", "confidence": 0.9}]}))
    noise(80, 50).save(tmp_path / "photo.png")
    picture, plain = Image.open(tmp_path / "photo.png"), load("flickr8k-small", device="cpu")
    expected = plain.caption(picture, beam_size=2)[0].tokens
    demo = {"small": plain.guide_by(TagGuide(tags)), "soft": predictors["soft"]}
    guided = caption_picture(demo, picture, DemoRequest(2, 2))["models"]
    assert [model["tags"] for model in guided] == [[{"noun": "zebra", "confidence": 0.9}], None]
    assert all("zebra" in " ".join(made["words"]) for found in guided[0]["searches"].values() for made in found)
    (off, _) = caption_picture(demo, picture, DemoRequest(2, 2, tags=0))["models"]
    assert off["tags"] is None and off["searches"]["beam"][0]["words"] == expected


def test_names_tell_checkpoints_apart():
    def names(*paths):
        return checkpoint_names([Path(path) for path in paths])

    assert names("runs/soft/checkpoints/best.ckpt") == ["soft"]
    assert names("runs/soft/checkpoints/best.ckpt", "runs/hard/checkpoints/best.ckpt") == ["soft", "hard"]
    assert names("a/soft/checkpoints/best.ckpt", "b/soft/checkpoints/best.ckpt") == ["a / soft", "b / soft"]
    assert names("best.ckpt") == ["best"]
    assert names("exports/soft.safetensors", "exports/hard.json", "runs/fc/best.ckpt") == ["soft", "hard", "fc"]
    same = names("a/checkpoints/best.ckpt", "a/checkpoints/last.ckpt", "a/checkpoints/best.ckpt")
    assert len(set(same)) == 3


# ---- what it refuses


def bomb(side: int) -> bytes:
    """A PNG file of side × side white pixels in few bytes."""
    row = b"\0" + b"\xff" * (side // 8)
    packer = zlib.compressobj(9)
    data = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


SOUND = as_file(noise(64, 64))
REFUSED = {
    "empty": b"",
    "text": b"just words",
    "a page": b"<html><script>alert(1)</script></html>",
    "cut short": SOUND[: len(SOUND) // 2],
    "a program of PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n",
    "vectors": b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"></svg>',
    "above the pixels that are allowed": bomb(8000),
    "above the pixels that Pillow allows": bomb(20_000),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_picture_gets_one_kind_line(predictors, kind, capsys):
    status, answer = post(Demo(predictors), REFUSED[kind])
    assert status == 422 and list(answer) == ["error"]
    assert answer["error"].startswith("the file ") and "\n" not in answer["error"] and len(answer["error"]) < 120
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("declared", [True, False])
def test_files_that_are_too_large(predictors, declared):
    limits = Limits(upload_bytes=len(SOUND))

    async def in_parts(content):
        for at in range(0, len(content), 1000):
            yield content[at : at + 1000]

    def send(content):
        return post(Demo(predictors, limits=limits), content if declared else in_parts(content))

    assert send(SOUND)[0] == 200  # exactly as much as is allowed
    status, answer = send(SOUND + b"\0")
    assert status == 413 and "MB" in answer["error"]


def test_a_body_packed_once_more(predictors):
    async def job(client):
        response = await client.post(
            "/api/captions", data=gzip.compress(SOUND), headers=BINARY | {"Content-Encoding": "gzip"}
        )
        return response.status

    assert visit(Demo(predictors), job) == 415


def test_an_upload_that_never_ends(predictors):
    async def trickle():
        yield SOUND[:10]
        await asyncio.sleep(60)

    async def job(client):
        response = await client.post("/api/captions", data=trickle(), headers=BINARY)
        return response.status, await response.json()

    status, answer = visit(Demo(predictors, limits=Limits(upload_seconds=0.1)), job)
    assert status == 408 and "seconds" in answer["error"]


@pytest.mark.parametrize(
    ("host", "here"),
    [
        *((host, True) for host in ("localhost", "localhost:8000", "LOCALHOST:1", "127.0.0.1:8000", "[::1]:8000")),
        *((host, True) for host in ("192.168.1.7", "mine.example:80")),
        *((host, False) for host in ("evil.example", "localhost.evil.example:8000", "127.0.0.1.evil.example", "", "[")),
        *((host, False) for host in ("mine.example@evil.example", "evil.example#localhost")),
    ],
)
def test_names_that_this_machine_answers_to(host, here):
    assert is_here(host, {"localhost", "mine.example"}) is here


def test_other_sites_are_turned_away(predictors):
    async def job(client):
        own = f"http://127.0.0.1:{client.server.port}"
        statuses = {}
        for name, headers in {
            "own page": {"Origin": own},
            "own page, says the browser": {"Sec-Fetch-Site": "same-origin"},
            "another site": {"Origin": "https://evil.example"},
            "a file": {"Origin": "null"},
            "another port": {"Origin": "http://127.0.0.1:1"},
            "another site, says the browser": {"Sec-Fetch-Site": "cross-site"},
            "a name that was rebound": {"Host": "evil.example", "Origin": "http://evil.example"},
        }.items():
            response = await client.post("/api/captions", data=SOUND, headers=BINARY | headers)
            statuses[name] = response.status
            assert response.headers["Cross-Origin-Resource-Policy"] == "same-origin"
            assert "Access-Control-Allow-Origin" not in response.headers
        return list(statuses.values()), (await client.get("/", headers={"Host": "evil.example"})).status

    statuses, rebound = visit(Demo({"soft": predictors["soft"]}), job)
    assert statuses == [200, 200, 403, 403, 403, 403, 421] and rebound == 421


def test_what_is_wrong_inside_stays_inside(predictors, monkeypatch, capsys):
    def fail(*_):
        raise RuntimeError("secret of the house")

    monkeypatch.setattr(server, "caption_picture", fail)
    status, answer = post(Demo(predictors), SOUND)
    assert status == 500 and "secret" not in str(answer)
    assert "secret of the house" in capsys.readouterr().err


# ---- many at once


class Hold:
    """In the place of the models: waits until it is let go."""

    def __init__(self):
        self.released, self.running, self.most, self.done = threading.Event(), 0, 0, 0

    def __call__(self, predictors, picture, wishes):
        self.running += 1
        self.most = max(self.most, self.running)
        assert self.released.wait(30)
        self.running -= 1
        self.done += 1
        return {"done": self.done}


async def until(condition) -> None:
    for _ in range(3000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never came to that")


def test_the_queue_has_an_end_and_nobody_in_it_is_lost(predictors, monkeypatch):
    hold, demo, read = Hold(), Demo(predictors, limits=Limits(waiting=20)), []
    monkeypatch.setattr(server, "caption_picture", hold)
    upload = demo._upload

    async def counted(request):
        read.append(request)
        return await upload(request)

    monkeypatch.setattr(demo, "_upload", counted)

    async def job(client):
        async def ask():
            response = await client.post("/api/captions", data=SOUND, headers=BINARY)
            return response.status, await response.json(), response.headers.get("Retry-After")

        waiting = [asyncio.create_task(ask()) for _ in range(20)]
        await until(lambda: demo.waiting == 20 and hold.running == 1)
        in_memory = len(read)
        late = await ask()
        page = (await client.get("/")).status  # is there for others meanwhile
        hold.released.set()
        return in_memory, late, page, await asyncio.gather(*waiting), (await ask())[0]

    in_memory, late, page, answers, after = visit(demo, job)
    assert in_memory == AT_ONCE and hold.most == 1 and page == 200
    assert late[0] == 503 and "try again" in late[1]["error"] and late[2] == "30"
    assert [status for status, *_ in answers] == [200] * 20 and after == 200
    assert sorted(answer["done"] for _, answer, _ in answers) == list(range(1, 21))
    assert demo.waiting == 0 and demo.turns._value == AT_ONCE


def test_who_leaves_the_queue_is_not_worked_for(predictors, monkeypatch):
    hold, demo = Hold(), Demo(predictors)
    monkeypatch.setattr(server, "caption_picture", hold)

    async def job(client):
        first = [asyncio.create_task(client.post("/api/captions", data=SOUND, headers=BINARY)) for _ in range(AT_ONCE)]
        await until(lambda: hold.running == 1)
        gone = [asyncio.create_task(client.post("/api/captions", data=SOUND, headers=BINARY)) for _ in range(3)]
        await until(lambda: demo.waiting == AT_ONCE + 3)
        for task in gone:
            task.cancel()
        await asyncio.sleep(0.1)
        hold.released.set()
        statuses = [(await task).status for task in first]
        await until(lambda: demo.waiting == 0)
        return statuses

    assert visit(demo, job) == [200] * AT_ONCE and hold.done == AT_ONCE


WRITTEN: list[str] = []
LISTENING = threading.Event()


def _note(event: str, arguments: tuple) -> None:
    if LISTENING.is_set() and event == "open":
        path, mode, flags = arguments
        if (mode and set(mode) & set("wax+")) or (isinstance(flags, int) and flags & 0o3):
            WRITTEN.append(str(path))


def test_no_upload_reaches_a_disk(predictors):
    sys.addaudithook(_note)  # every file that Python opens; a hook stays for good, so it only notes while it listens
    large, demo = as_file(noise(1300, 1300)), Demo({"soft": predictors["soft"]})
    assert len(large) > 5_000_000
    WRITTEN.clear()
    LISTENING.set()
    try:
        open("/dev/null", "wb").close()
        statuses = [post(demo_, content)[0] for demo_, content in ((demo, large), (Demo({}), b"no picture"))]
    finally:
        LISTENING.clear()
    assert statuses == [200, 422] and WRITTEN == ["/dev/null"]


# ---- the command


def config(*overrides: str) -> dict:
    return check(compose("demo", list(overrides)), DemoConfig)


def test_it_listens_on_this_machine_only_unless_told():
    assert config("checkpoint=x")["host"] == "127.0.0.1"


def test_the_packaged_captioner_is_guided_by_one_classifier_and_others_are_not(predictors, monkeypatch):
    from captioning.inference import TagGuide

    made, own = [], predictors["soft"].path
    monkeypatch.setattr("captioning.web.demo.serve", lambda *_: asyncio.sleep(0))
    monkeypatch.setattr("captioning.web.demo.Demo", lambda named, *_, **__: made.append(named) or SimpleNamespace(
        application=lambda: None))  # fmt: skip
    build_one = TagGuide.__init__
    built = []
    monkeypatch.setattr(TagGuide, "__init__", lambda *given, **more: built.append(given) or build_one(*given, **more))
    demo(config(f"checkpoint=[flickr8k-small,{own},flickr8k-small]", "port=0", "device=cpu", "examples=[]"))
    guides = [predictor.guide for predictor in made[0].values()]
    assert guides[1] is None and guides[0] is guides[2] and guides[0].source == "classifier" and len(built) == 1
    demo(config("checkpoint=flickr8k-small", "port=0", "device=cpu", "examples=[]", "tags=null"))
    assert [predictor.guide for predictor in made[1].values()] == [None]


def test_a_port_that_is_taken_is_told_before_a_checkpoint_is_read():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"port={port}"):
            demo(config("checkpoint=none.ckpt", f"port={port}"))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["limits.megapixels=0"], "limits.megapixels"),
        (["limits.waiting=0"], "limits.waiting"),
        (["port=70000"], "port"),
        (["checkpoint=[]"], "checkpoint= is empty"),
        (["tags=tags.json"], "tags=tags.json must be auto, classifier or null"),
        (["host=999.1.2.3"], "host=999.1.2.3"),
    ],
)
def test_settings_that_cannot_be(overrides, message):
    with pytest.raises(ConfigError, match=message):
        demo(config("checkpoint=none.ckpt", "port=0", *overrides))


def test_without_its_extra(monkeypatch):
    monkeypatch.setattr("captioning.io.optional_packages.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"captioning\[demo\]"):
        demo(config("checkpoint=x"))


def test_a_checkpoint_of_regions_is_refused(tmp_path):
    path = tmp_path / "run" / "checkpoints" / "best.ckpt"
    save_checkpoint(path, "encoder=regions", "features=regions", "features.root=x", "encoder.size=8")
    with pytest.raises(CheckpointError, match="regions"):
        with_encoder(load(path, device="cpu"))


SCENES, FLICKR8K = ({"config": {"data": {"name": name}}} for name in ("scenes", "flickr8k"))


def test_examples_that_are_given(tmp_path, capsys):
    from captioning.demo import _examples

    assert _examples([], [FLICKR8K]) == []
    noise(20, 10).save(tmp_path / "b.png")
    noise(3000, 1500).save(tmp_path / "a", format="PNG")
    (tmp_path / "notes.txt").write_text("words")
    given = _examples(str(tmp_path), [FLICKR8K])
    assert [(each.picture.size, each.credit) for each in given] == [((1600, 800), None), ((20, 10), None)]
    assert capsys.readouterr().err == f"left out: {tmp_path / 'notes.txt'}: not an image: plain text\n"
    with pytest.raises(DataError, match="no such"):
        _examples(["missing.png"], [FLICKR8K])


def test_examples_fit_the_model(predictors):
    """A model of photographs called a drawn square a dog."""
    from captioning.demo import _examples

    renamed = {"config": {"data": {"name": "mine", "reader": {"_target_": "captioning.data.read_scenes"}}}}
    for drawn in (SCENES, renamed, predictors["soft"].metadata):
        scenes = _examples(None, [drawn])
        assert [each.picture.size for each in scenes] == [(224, 224)] * 6 and not any(each.credit for each in scenes)
    for other in (FLICKR8K, {"config": {"data": {"name": "csv"}}}, {"config": {}}, load("flickr8k-small").metadata):
        photographs = _examples(None, [other])
        assert len(photographs) == 6 and all(each.credit.license == "CC BY 2.0" for each in photographs)
    both = _examples(None, [FLICKR8K, SCENES])
    assert [bool(each.credit) for each in both] == [True] * 6 + [False] * 6


def test_photographs_are_small_and_credited():
    folder = Path(server.__file__).parent / "photos"
    licenses = (folder / "LICENSES.md").read_text(encoding="utf-8")
    listed = json.loads((folder / "photos.json").read_text(encoding="utf-8"))
    assert sorted(each["file"] for each in listed) == sorted(path.name for path in folder.glob("*.jpg"))
    for each in listed:
        assert (folder / each["file"]).stat().st_size <= 40_000
        with Image.open(folder / each["file"]) as picture:
            assert max(picture.size) <= 400 and picture.format == "JPEG"
        assert each["source"].startswith("https://www.flickr.com/") and each["license"] == "CC BY 2.0"
        row = next(line for line in licenses.splitlines() if f"`{each['file']}`" in line)
        assert each["source"] in row and each["original"] in row and each["coco"] in row


def test_photographs_are_in_the_package(pytestconfig):
    settings = configparser.ConfigParser()
    settings.read(pytestconfig.rootpath / "setup.cfg")
    assert settings["options.package_data"]["captioning.web.demo"] == "photos/*"


def test_photographs_have_the_license_that_coco_states(shared_dir):
    folder = Path(server.__file__).parent / "photos"
    stated = {}
    for split in ("train2017", "val2017"):
        content = json.loads((shared_dir / "coco-sample" / "annotations" / f"captions_{split}.json").read_text())
        names = {each["id"]: each["name"] for each in content["licenses"]}
        stated |= {
            f"{split}/{each['file_name']}": (names[each["license"]], each["flickr_url"]) for each in content["images"]
        }
    for each in json.loads((folder / "photos.json").read_text(encoding="utf-8")):
        assert stated[each["coco"]] == ("Attribution License", each["original"])


def test_a_caption_without_words(predictors, monkeypatch):
    """A model may write <end> at once."""
    picture, predictor = noise(9, 9), predictors["soft"]
    monkeypatch.setattr(work, "get_search", lambda *_, **__: lambda *_, **__: [[_nothing()]])
    answer = caption_picture({"soft": predictor}, picture, DemoRequest())
    assert answer["models"][0]["searches"]["greedy"] == [
        {"words": [], "gaps": [], "log_prob": -1.0, "weights": [], "grid": [3, 3], "places": None, "tags": []}
    ]


@pytest.mark.parametrize(
    ("tokenizer", "tokens", "gaps", "words"),
    [
        ("ptb", ["two", "dogs"], ["", " "], ["two", "dogs"]),
        ("whitespace", ["▁", "dog"], ["", " "], ["▁", "dog"]),
        ("characters", ["a", "▁", "d", "o", "▁"], [""] * 5, ["a", " ", "d", "o", " "]),
        ("characters", ["▁", "a", "▁", "▁", "b"], [""] * 5, [" ", "a", " ", " ", "b"]),
        ("unicode", ["狗", "在", "跑"], [""] * 3, ["狗", "在", "跑"]),
        ("unicode", ["ཁྱི", "དམར", "པོ"], ["", "\u0f0b", "\u0f0b"], ["ཁྱི", "དམར", "པོ"]),
        ("unicode", ["red", "dog", "狗", "狗"], None, ["red", "dog", "狗", "狗"]),
    ],
)
def test_words_have_the_spaces_of_the_text(tokenizer, tokens, gaps, words):
    text = make_tokenizer(tokenizer).join(tokens)
    found = work._spaced(SimpleNamespace(text=text, tokens=tokens))
    assert found == (gaps or found[0], words)
    shown = "".join(gap + word for gap, word in zip(*found, strict=True))
    assert shown.split() == text.split()


def _nothing():
    import torch

    from captioning.decoding import Hypothesis

    return Hypothesis([2], -1.0, -1.0, torch.full((1, 9), 1 / 9))


@pytest.mark.slow
def test_a_hundred_at_once():
    """The short form of load_demo.py: all served, the damaged ones refused, none lost."""
    from load_demo import main

    result = main(["--quick"])
    assert (result["served"], result["refused"], result["lost"]) == (270, 30, 0)
    assert max(result["MiB"]) - min(result["MiB"]) < 250


@pytest.fixture
def started(tmp_path):
    """(process, port) of a demo as a user starts it, once it answers."""
    path = tmp_path / "run" / "checkpoints" / "best.ckpt"
    save_checkpoint(path)
    command = [sys.executable, "-m", "captioning.demo", f"checkpoint={path}", "port=0", "device=cpu", "examples=[]"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, cwd=Path(__file__).parents[2], **pipes)
    port = urlsplit(process.stdout.readline().split()[1]).port
    with urlopen(f"http://127.0.0.1:{port}/") as response:
        assert response.status == 200
    yield process, port
    process.kill()
    process.communicate()


def test_it_stops_cleanly_when_asked_twice_at_once(started):
    process, _ = started
    for number in (signal.SIGSTOP, signal.SIGINT, signal.SIGTERM, signal.SIGCONT):  # those between arrive together
        process.send_signal(number)
    _, told = process.communicate(timeout=60)
    assert (process.returncode, told) == (0, "")


def test_a_second_ctrl_c_does_not_wait_for_an_upload(started):
    process, port = started
    with socket.create_connection(("127.0.0.1", port)) as upload:
        head = f"POST /api/captions HTTP/1.1\r\nHost: localhost:{port}\r\nContent-Length: 9\r\n"
        upload.sendall(f"{head}Expect: 100-continue\r\n\r\n".encode())
        assert b"100 Continue" in upload.recv(100)  # the server waits for nine bytes now
        while process.poll() is None:
            process.send_signal(signal.SIGINT)
    assert process.returncode == -signal.SIGINT
