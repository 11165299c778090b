"""Fixtures of several folders: small models in float64, a small world of images, and where real data may be found."""

import csv
import gc
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from efficientnet_lite_pytorch import EfficientNet
from error_messages import Message, Recorder, offenders
from PIL import Image
from remembered import (
    remember_compositions,
    remember_networks,
    remember_weights_of_packages,
    remember_yaml_files,
)
from small_world import SENTENCES, run, short
from toys import ATTENTIONS, CELLS, CONDITIONINGS, END, PAD, RECURRENCES, SCORERS, START

from captioning.models import (
    DeepReadout,
    LinearReadout,
    build_captioner,
)


def pytest_addoption(parser):
    parser.addoption("--shared", default="../shared", help="folder that holds flickr8k/ and coco-sample/")


# Every error that the tests provoke is checked at the end of the run: see helpers/error_messages.py.
recorder = Recorder()


def pytest_sessionstart(session):
    recorder.start()


@pytest.hookimpl(wrapper=True)
def pytest_collection(session):
    """Collect the tests without Python's garbage collection, which takes a third of that time and finds little.

    Later garbage collections skip all that exists before the first test.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()


remember_yaml_files()
remember_compositions()
remember_networks(EfficientNet, "from_name")
remember_weights_of_packages()


def pytest_runtest_teardown(item):
    if item.path.name == "test_fuzz.py" and item.get_closest_marker("slow"):
        recorder.here = []  # these messages quote arbitrary values, which are too long or look like Python's
    recorder.reset()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node, error):
    """Take over the messages that a process of pytest-xdist recorded."""
    recorder.found |= {Message(*each) for each in getattr(node, "workeroutput", {}).get("error_messages", [])}


def _sendable(message):
    """A recorded message without halves of surrogates, which pytest-xdist cannot send."""
    return tuple(part.encode("utf-8", "replace").decode() if isinstance(part, str) else part for part in message)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session):
    """Fail the run if an error message does not name what is wrong or does not say what to do."""
    recorder.stop()
    if hasattr(session.config, "workeroutput"):  # a process of pytest-xdist
        session.config.workeroutput["error_messages"] = [_sendable(each) for each in recorder.found]
    elif session.exitstatus == 0 and offenders(sorted(recorder.found)):
        session.exitstatus = 1


def pytest_terminal_summary(terminalreporter):
    if found := offenders(sorted(recorder.found)):
        terminalreporter.section(f"{len(found)} error messages of {len(recorder.found)} do not help a user")
        terminalreporter.write_line("\n".join(found))


@pytest.fixture(scope="session")
def shared_dir(request) -> Path:
    """Real photographs and annotations; tests that want them are skipped where they are absent."""
    folder = Path(request.config.rootpath, request.config.getoption("--shared")).resolve()
    if not (folder / "flickr8k").is_dir() or not (folder / "coco-sample").is_dir():
        pytest.skip(f"no flickr8k/ and coco-sample/ in {folder}: give their folder by --shared=DIR")
    return folder


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def whole_float32():
    """A training that ran in this process lets a GPU round the factors of products, for all that comes after it."""
    torch.set_float32_matmul_precision("highest")


@pytest.fixture(autouse=True)
def log_of_its_own():
    """A command that ran in this process has hydra's handler log to that test's stdout, which is closed after it."""
    yield
    root = logging.getLogger()
    for handler in [each for each in root.handlers if type(each) is logging.StreamHandler]:  # not pytest's own
        root.removeHandler(handler)
        root.setLevel(logging.WARNING)


@pytest.fixture
def toy():
    """toy(cell=…, attention=…, conditioning=…) -> a small captioner in float64, without dropout in eval mode."""

    def make(
        *,
        cell="lstm",
        attention="soft",
        conditioning="initial_state",
        scorer="additive",
        recurrence="look_first",
        readout="deep",
        vocabulary_size=11,
        **sizes,
    ):
        numbers = {"feature_size": 6, "grid": True, "width": 7, "embedding_size": 4, "layers": 1} | sizes
        if recurrence == "adaptive":
            numbers["feature_width"] = numbers["width"]
        captioner = build_captioner(
            cell=CELLS[cell],
            attention=ATTENTIONS[attention],
            scorer=SCORERS[scorer],
            recurrence=RECURRENCES[recurrence],
            conditioning=CONDITIONINGS[conditioning],
            readout={"deep": DeepReadout, "linear": LinearReadout}[readout],
            vocabulary_size=vocabulary_size,
            **numbers,
        )
        return captioner.double().eval()

    return make


@pytest.fixture
def toy_tokens():
    """[3 images, 3 captions, 1 + 6]: several lengths, one missing caption; longest first."""
    captions = [
        [[5, 6, 7, 8, 9], [4, 5, 6], [7]],
        [[10, 9, 8, 7], [6, 6], []],
        [[4], [], None],
    ]
    tokens = torch.full((3, 3, 7), PAD)
    for row, group in zip(tokens, captions, strict=True):
        for slot, words in zip(row, group, strict=True):
            if words is not None:
                line = [START, *words, END]
                slot[: len(line)] = torch.tensor(line)
    return tokens


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Eight pictures of noise with a caption each, for training and validation alike in a CSV file."""
    root = tmp_path_factory.mktemp("world")
    random = np.random.default_rng(0)
    with (root / "captions.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "caption", "split"])
        for index, sentence in enumerate(SENTENCES):
            for split in ("train", "val"):
                name = f"{split}{index}.png"
                noise = random.integers(0, 256, (4, 6, 3), np.uint8) if split == "train" else noise  # noqa: F821
                Image.fromarray(noise).resize((96, 64), Image.NEAREST).save(root / name)
                writer.writerow([name, sentence.capitalize() + ".", split])
    return root


@pytest.fixture(scope="module")
def data(world):
    return ["data=csv", f"data.root={world}", f"features.root={world / 'features'}"]


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """A checkpoint of one step."""
    run_dir = tmp_path_factory.mktemp("trained")
    run("train", *short(data, run_dir, "trainer.max_steps=1"))
    return run_dir / "checkpoints" / "last.ckpt"
