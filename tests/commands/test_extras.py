"""What each extra installs is needed by nothing else, and what is missing is named in one line."""

import ast
import configparser
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from captioning.config.allowlist import allowed_in_settings
from captioning.errors import ConfigError, ToolError
from captioning.io import need_package
from captioning.metrics import Scorer, java

ROOT = Path(__file__).parents[2]
PHOTO = ROOT / "captioning" / "web" / "demo" / "photos" / "dog.jpg"
# Import names of what `pip install captioning` leaves out: the extras train and java, and what train brings along.
TRAIN = ("lightning", "pytorch_lightning", "torchmetrics", "tensorboard", "grpc")
JAVA = ("pycocoevalcap",)
# Import name -> name on the package index, where they differ.
INDEX_NAMES = {
    "PIL": "pillow", "yaml": "pyyaml", "hydra": "hydra-core", "open_clip": "open_clip_torch",
    "pillow_heif": "pillow-heif", "efficientnet_lite_pytorch": "efficientnet-lite-pytorch",
    "huggingface_hub": "timm", "markupsafe": "jinja2", "mlflow": "mlflow-skinny",
}  # fmt: skip


def setup() -> tuple[set[str], dict[str, set[str]]]:
    """The names of what the package always needs, and of what each extra adds."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")

    def names(lines: str) -> set[str]:
        return {Requirement(line).name for line in lines.split("\n") if line}

    extras = {extra: names(lines) for extra, lines in config["options.extras_require"].items()}
    return names(config["options"]["install_requires"]), extras


def without(packages: tuple[str, ...], code: str, *arguments: object, cwd) -> subprocess.CompletedProcess:
    """Run code in a process in which the packages cannot be imported or found."""
    block = f"import sys; sys.modules.update(dict.fromkeys({packages!r}))"
    return subprocess.run(
        [sys.executable, "-c", f"{block}\n{code}", *map(str, arguments)],
        cwd=cwd, capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"},
    )  # fmt: skip


def test_what_training_and_java_need_are_extras():
    needed, extras = setup()
    assert extras["train"] == {"lightning", "tensorboard"} and extras["java"] == {"pycocoevalcap"}
    assert not needed & (extras["train"] | extras["java"])
    assert extras["train"] | extras["java"] <= extras["dev"]  # `make` installs everything


def test_every_import_is_of_a_dependency_or_of_an_extra():
    needed, extras = setup()
    known = {name.lower().replace("-", "_") for names in (needed, *extras.values()) for name in names}
    found = set()
    for path in (ROOT / "captioning").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            found |= {module.partition(".")[0] for module in modules}
    found -= sys.stdlib_module_names | {"captioning"}
    assert {"torch", "lightning", "pycocoevalcap"} <= found
    assert not {name for name in found if INDEX_NAMES.get(name, name).lower().replace("-", "_") not in known}


def test_the_page_on_installation_describes_every_extra():
    rows = re.findall(r"^\| (`[^|]+`) \|", (ROOT / "docs" / "install.md").read_text(encoding="utf-8"), re.MULTILINE)
    described = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert setup()[1].keys() <= described


def test_a_missing_package_is_named_with_its_extra(monkeypatch):
    need_package("json", extra="train", wanted_by="a test")  # is there
    monkeypatch.setitem(sys.modules, "lightning", None)
    monkeypatch.setitem(sys.modules, "pycocoevalcap", None)
    with pytest.raises(ConfigError) as caught:
        need_package("json", "lightning", "pycocoevalcap", extra="x", wanted_by="captioning-train")
    told = "captioning-train needs the package lightning and pycocoevalcap. Run: pip install 'captioning[x]'"
    assert str(caught.value) == told
    with pytest.raises(ConfigError, match=r"EarlyStopping needs the package lightning\. Run: .*captioning\[train\]'$"):
        allowed_in_settings("lightning.pytorch.callbacks.EarlyStopping")


def test_training_without_lightning_is_one_line(tmp_path):
    code = "import captioning.train; sys.argv[0] = 'captioning-train'; captioning.train.main()"
    done = without(TRAIN, code, "experiment=char_hello", "run_dir=run", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    told = "captioning-train needs the package lightning. Run: pip install 'captioning[train]'"
    assert done.stderr == f"error: {told}\n"
    assert not (tmp_path / "run").exists()


def test_scores_without_pycocoevalcap_say_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocoevalcap", None)
    needed = "a Java runtime and the package pycocoevalcap. Run: pip install 'captioning[java]'"
    with pytest.raises(ToolError) as caught:
        java.tokenize_all(["a dog runs"])
    assert str(caught.value) == f"METEOR, SPICE and metrics.tokenizer=java need {needed}"
    references, captions = {1: ["a dog runs"], 2: ["two cats sit"]}, {1: "a dog runs", 2: "two cats sleep"}
    report = Scorer(meteor=True, spice=True, bootstrap=0)(references, captions)
    assert report.scores["BLEU-1"] == pytest.approx(5 / 6)  # the other scores are computed
    assert {report.unavailable["METEOR"], report.unavailable["SPICE"]} == {str(caught.value)}


COMMANDS = """
import captioning, captioning.caption, captioning.score, captioning.demo, captioning.web.demo.server
import captioning.evaluate
import captioning.report, captioning.ground, captioning.export, captioning.compare, captioning.audit, captioning.prepare
photo, results, annotations = sys.argv[1:]
def run(main, *arguments):
    sys.argv = ["captioning", *arguments]
    main()
run(captioning.caption.main, photo, "--output", "captions")
run(captioning.score.main, results, annotations, "metrics.bootstrap=10")
assert captioning.load("flickr8k-small").caption(photo)[0].text
"""


@pytest.mark.slow
def test_captions_and_scores_need_no_extra(tmp_path):
    """Every extra's package that a run could import by mistake is blocked, except those of the default encoder."""
    results, annotations = tmp_path / "results.json", tmp_path / "annotations.json"
    results.write_text(json.dumps([{"image_id": 1, "caption": "a dog runs"}]))
    images = [{"id": 1, "file_name": "1.jpg"}]
    captions = [{"id": 1, "image_id": 1, "caption": "A dog runs."}]
    annotations.write_text(json.dumps({"images": images, "annotations": captions}))
    blocked = (*TRAIN, *JAVA, "aiohttp", "open_clip", "timm", "huggingface_hub", "pyarrow", "tokenizers", "pandas")
    blocked += ("jieba", "fugashi", "pythainlp", "easy_vqa", "mlflow", "wandb", "trackio")
    code = COMMANDS.replace("captioning.demo, ", "").replace(", captioning.web.demo.server", "")  # these need aiohttp
    done = without(blocked, code, PHOTO, results, annotations, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "captions" / "dog.png").is_file() and "BLEU-4" in done.stdout
    done = without((*TRAIN, *JAVA), COMMANDS.partition("photo, results")[0], cwd=tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_logger_that_is_off_is_not_imported(tmp_path):
    code = "import captioning.train; sys.argv[0] = 'captioning-train'; captioning.train.main()"
    settings = ["experiment=char_hello", "run_dir=run", "trainer.max_epochs=1", "logger=csv"]
    done = without(("tensorboard", "wandb", "mlflow", "trackio"), code, *settings, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "metrics.csv").is_file() and not (tmp_path / "run" / "tensorboard").exists()
