"""Models on the Hugging Face Hub, against a stand-in on this machine: pushed, fetched, checked, and refused."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hub_stand_in import OWNER, READ, Repository, StandIn, git_hash, sha256
from PIL import Image
from small_runs import leave_evaluation, small_model
from small_world import run as start
from small_world import short

import captioning
from captioning.checkpoints import find_checkpoint, hub_address_of, read_checkpoint
from captioning.checkpoints.hub_address import HubAddress, is_hub_address, read_hub_address
from captioning.checkpoints.model_card import hub_metadata
from captioning.config import EvaluateAnswersConfig, ExportConfig, GroundConfig, check, compose
from captioning.errors import CheckpointError, ConfigError
from captioning.evaluate_answers import evaluate_answers
from captioning.export import export
from captioning.ground import ground
from captioning.inference import load, load_all, load_answerer, load_language_model
from captioning.io import write_json

pytest.importorskip("huggingface_hub", reason="the extra `hub` is not installed")
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # of the library
SOFT = f"{OWNER}/soft"
API = f"/api/models/{SOFT}"


def run_export(*overrides: str) -> None:
    export(check(compose("export", list(overrides)), ExportConfig))


@pytest.fixture(scope="module")
def files(trained, tmp_path_factory) -> dict[str, bytes]:
    """The files of an export in float32, as they are in a repository."""
    stem = tmp_path_factory.mktemp("exports") / "soft"
    run_export(f"checkpoint={trained}", f"output={stem}", "dtype=float32")
    return {path.name: path.read_bytes() for path in stem.parent.iterdir()}


@pytest.fixture
def hub(tmp_path):
    with StandIn() as running, running.connect(tmp_path / "cache"):
        yield running


@pytest.fixture
def offline(hub, tmp_path):
    """A function after which the hub is switched off in this process."""
    with pytest.MonkeyPatch.context() as patch:
        yield lambda: patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture
def pictures(world) -> list[Path]:
    return sorted(world.glob("val*.png"))[:3]


def captions_of(predictor, pictures) -> list[tuple[str, float, bytes]]:
    found = [each for group in predictor.captions(pictures, beam_size=3, n_best=2) for each in group]
    return [(each.text, each.log_prob, each.attention.tobytes()) for each in found]


def renamed(files: dict[str, bytes], model: str) -> dict[str, bytes]:
    return {name.replace("soft", model, 1): content for name, content in files.items()}


def error_of(address: str, kind: type[Exception] = CheckpointError) -> str:
    with pytest.raises(kind) as caught:
        load(address)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---- addresses


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("hf:a/b", HubAddress("a/b")),
        ("hf:a/b@v1.0", HubAddress("a/b", None, "v1.0")),
        ("hf:a-1/b_2.5/soft", HubAddress("a-1/b_2.5", "soft")),
        (f"hf:a.git/{'b' * 96}", HubAddress(f"a.git/{'b' * 96}")),
        ("hf:a/b/sub/soft-0.5@refs/pr/3", HubAddress("a/b", "sub/soft-0.5", "refs/pr/3")),
        ("hf:a/b/soft.safetensors", HubAddress("a/b", "soft")),
        ("HF:a/b/soft.json@main", HubAddress("a/b", "soft", "main")),
    ],
)
def test_an_address_is_read_and_written(text, address):
    assert is_hub_address(text) and read_hub_address(text) == address
    assert read_hub_address(str(address)) == address


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("hf:soft", "it needs an owner and a name"),
        ("hf:a/", "it needs an owner and a name"),
        ("hf:", "it needs an owner and a name"),
        ("hf:/soft", "it has a slash after hf:"),
        ("hf://a/b", "it has a slash after hf:"),
        ("hf: a/b", "it has a space"),
        (" hf :a/b", "it has a space"),
        ("hf:a/b c", "it has a space"),
        ("hf:a/b@", "a branch, tag or commit must follow @"),
        ("hf:a/b@../../x", "a branch, tag or commit must follow @"),
        ("hf:a/b/", "the name of a model must follow the second slash"),
        ("hf:a/b/../c", "the name of a model must follow the second slash"),
        ("hf:a/b/.json", "the name of a model must follow the second slash"),
        ("hf:a--b/c", "'a--b' cannot be a name on the hub"),
        ("hf:a/..", "'..' cannot be a name on the hub"),
        ("hf:a/b..c", "'b..c' cannot be a name on the hub"),
        ("hf:a/soft.git", "'soft.git' cannot be a name on the hub"),
        ("hf:a/soft.git/c@main", "'soft.git' cannot be a name on the hub"),
        (f"hf:a/{'b' * 97}", f"'{'b' * 79} cannot be a name on the hub"),
        (f"hf:{'a' * 97}/b", f"'{'a' * 79} cannot be a name on the hub"),
        ("hf:a/b@main@x", "it has two @"),
        ("hf:a/b/c@@x", "it has two @"),
        ("hf:a/b,hf:c/d", "'b,hf:c' cannot be a name on the hub"),
    ],
)
def test_a_misspelled_address_is_one_line(text, reason, hub):
    assert f" is not an address on the Hugging Face Hub ({reason}): type hf:OWNER/NAME, " in error_of(text)
    assert hub.log == []


def test_other_names_are_no_addresses():
    for name in ("flickr8k-small", "runs/hf/best.ckpt", "hf/a:b", "C:hf", "shf:a/b"):
        assert not is_hub_address(name)
    commit = "0123456789" * 4
    inside = f"hub/models--a-b--c.d/snapshots/{commit}/sub/soft.safetensors"
    assert hub_address_of(f"/home/x/{inside}") == f"hf:a-b/c.d/sub/soft@{commit}"
    for path in ("soft.safetensors", f"/{inside}.json", f"/{inside.replace(commit, 'main')}"):
        assert hub_address_of(path) is None


# ---- there and back


def test_a_pushed_model_captions_as_before(hub, trained, pictures, tmp_path, capsys, offline):
    (tmp_path / "about.md").write_text("## License\n\nFor teaching.\n", encoding="utf-8")
    given = [f"push={SOFT}", "license=cc-by-4.0", "dtype=float32", f"card={tmp_path}/about.md"]
    run_export(f"checkpoint={trained}", f"output={tmp_path}/exports/mine", *given)
    repository = hub.repositories[SOFT]
    commit = repository.branches["main"]
    pushed = f"hf:{SOFT}/mine@{commit}"
    assert f"pushed: {pushed}\n" in capsys.readouterr().out
    assert [message.partition(" with ")[0] for message in repository.messages] == ["initial commit", "Export mine"]
    stored = repository.commits[commit]
    assert stored.keys() == {".gitattributes", "mine.safetensors", "mine.json", "mine.md", "README.md"}
    assert not repository.private
    for ending in ("safetensors", "json", "md"):
        assert stored[f"mine.{ending}"] == (tmp_path / "exports" / f"mine.{ending}").read_bytes()
    before = captions_of(load(trained), pictures)
    for address in (f"hf:{SOFT}", f"hf:{SOFT}/mine", f"hf:{SOFT}@main", pushed):
        assert captions_of(captioning.load(address), pictures) == before, address
        assert f"checkpoint: {pushed} (" in capsys.readouterr().err
    offline()
    hub.log.clear()
    for address in (f"hf:{SOFT}", f"hf:{SOFT}/mine@main"):
        assert captions_of(load(address), pictures) == before
        assert f"checkpoint: {pushed} (from the cache: HF_HUB_OFFLINE is set)" in capsys.readouterr().err
    assert hub.log == []


def test_nothing_is_reported_before_the_push(hub, trained, tmp_path, capsys, offline):
    given = [f"checkpoint={trained}", f"push={SOFT}", "license=mit"]
    run_export(*given)
    lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(rf"\d+\.\d million weights, \d+\.\d\d MB: {SOFT}", lines[0])
    assert lines[1].startswith(f"pushed: hf:{SOFT}/soft@")
    offline()
    with pytest.raises(ConfigError, match="HF_HUB_OFFLINE is set"):
        run_export(*given, "overwrite=true")
    assert capsys.readouterr().out == ""
    with pytest.raises(ConfigError, match="HF_HUB_OFFLINE is set"):
        run_export(*given, "overwrite=true", f"output={tmp_path}/mine")
    (line,) = capsys.readouterr().out.splitlines()
    assert line.endswith(f" MB: {tmp_path}/mine.safetensors, mine.json, mine.md")


def test_requests_are_few(hub, files, capsys):
    commit = hub.add(SOFT, files)
    first = find_checkpoint(f"hf:{SOFT}")
    weights = files["soft.safetensors"]
    read = [f"GET {API}", *(f"{verb} /{SOFT}/resolve/main/soft.json" for verb in ("HEAD", "GET"))]
    read += [f"HEAD /{SOFT}/resolve/{commit}/soft.safetensors", f"GET /large/{sha256(weights)}"]
    assert [line.replace("?", "") for line in hub.log] == read
    assert f"(downloaded, {len(weights) / 1e6:.2f} MB)" in capsys.readouterr().err
    hub.log.clear()
    assert find_checkpoint(f"hf:{SOFT}") == first
    assert hub.log == [f"GET {API}", f"HEAD /{SOFT}/resolve/main/soft.json"]
    assert capsys.readouterr().err.endswith("(from the cache)\n")
    hub.log.clear()
    assert find_checkpoint(f"hf:{SOFT}/soft@{commit}") == first and hub.log == []
    assert first.read_bytes() == weights and hub_address_of(first) == f"hf:{SOFT}/soft@{commit}"


def test_requests_are_not_printed(hub, files, caplog):
    """Commands print what is logged at level INFO, and the library logs each request so."""
    hub.add(SOFT, files)
    with caplog.at_level("INFO"):
        find_checkpoint(f"hf:{SOFT}")
    assert not [each for each in caplog.records if "HTTP Request" in each.getMessage()]


def test_a_branch_that_moved_is_followed_and_a_commit_is_not(hub, files, trained, tmp_path):
    old = hub.add(SOFT, files)
    assert hub_address_of(find_checkpoint(f"hf:{SOFT}")).endswith(old)
    run_export(f"checkpoint={trained}", f"output={tmp_path}/soft", "dtype=float16")
    names = ("soft.safetensors", "soft.json")
    new = hub.add(SOFT, {name: (tmp_path / name).read_bytes() for name in names})
    assert hub_address_of(find_checkpoint(f"hf:{SOFT}")).endswith(new)
    assert find_checkpoint(f"hf:{SOFT}").read_bytes() == (tmp_path / "soft.safetensors").read_bytes()
    assert find_checkpoint(f"hf:{SOFT}@{old}").read_bytes() == files["soft.safetensors"]
    other = hub.add(SOFT, files, branch="slow")
    assert hub_address_of(find_checkpoint(f"hf:{SOFT}@slow")).endswith(other)


def test_a_push_without_output_to_a_private_branch(hub, trained, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run_export(f"checkpoint={trained}", f"push={SOFT}@trial", "license=other", "private=true")
    assert [path.name for path in tmp_path.iterdir()] == ["cache"] or not list(tmp_path.iterdir())
    repository = hub.repositories[SOFT]
    assert repository.private and repository.branches["main"] != repository.branches["trial"]
    assert "soft.json" in repository.commits[repository.branches["trial"]]
    assert "soft.json" not in repository.commits[repository.branches["main"]]
    card = repository.commits[repository.branches["trial"]]["README.md"].decode()
    assert f"    captioning-caption photo.jpg --checkpoint hf:{SOFT}@trial\n" in card
    assert load(f"hf:{SOFT}@trial").path.name == "soft.safetensors"


def test_several_models_of_one_repository(hub, files, trained, tmp_path, capsys):
    hub.add(SOFT, {**files, **renamed(files, "sub/soft-0.5")})
    assert error_of(f"hf:{SOFT}") == (f"hf:{SOFT} has 2 models: type one of hf:{SOFT}/soft, hf:{SOFT}/sub/soft-0.5")
    assert hub_address_of(load(f"hf:{SOFT}/sub/soft-0.5").path).startswith(f"hf:{SOFT}/sub/soft-0.5@")
    assert f"it has no model 'hard': type one of hf:{SOFT}/soft, " in error_of(f"hf:{SOFT}/hard")
    run_export(f"checkpoint={trained}", f"push={SOFT}/third", "license=mit")
    stored = hub.repositories[SOFT].commits[hub.repositories[SOFT].branches["main"]]
    assert {"soft.json", "sub/soft-0.5.json", "third.json", "third.safetensors", "third.md"} <= stored.keys()
    assert f"--checkpoint hf:{SOFT}/third\n" in stored["README.md"].decode()


def test_the_card_on_the_hub(hub, trained, tmp_path):
    from huggingface_hub import ModelCard

    leave_evaluation(tmp_path / "val", {1: "a dog", 2: "a cat"})
    statistics = json.loads((tmp_path / "val" / "statistics.json").read_text())
    statistics["about"] |= {"data": "flickr8k"}
    write_json(tmp_path / "val" / "statistics.json", statistics | {"intervals": {"BLEU-4": [0.1, 0.35]}})
    write_json(tmp_path / "val" / "scores.json", {"BLEU-4": 0.21875, "CIDEr": 0.5, "truth": 1})
    given = [f"push={SOFT}", "license=mit", f"scores={tmp_path}/val"]
    run_export(f"checkpoint={trained}", f"output={tmp_path}/soft", *given)
    repository = hub.repositories[SOFT]
    text = repository.commits[repository.branches["main"]]["README.md"].decode()
    data = ModelCard(text).data
    assert (data.license, data.library_name, data.pipeline_tag) == ("mit", "captioning", "image-to-text")
    assert data.tags == ["image-captioning"] and data.metrics == ["bleu", "cider", "truth"]
    assert data.model_name == "soft" and data.base_model is None
    found = {each.metric_name: each for each in data.eval_results}
    assert found.keys() == {"BLEU-4 (beam7)", "CIDEr (beam7)", "truth (beam7)"}
    bleu = found["BLEU-4 (beam7)"]
    assert (bleu.metric_type, bleu.metric_value, bleu.metric_args) == ("bleu", 0.21875, {"decoding": "beam7"})
    assert (bleu.dataset_type, bleu.dataset_split, bleu.task_type) == ("flickr8k", "val", "image-to-text")
    local = (tmp_path / "soft.md").read_text(encoding="utf-8")
    assert (
        local.startswith("# soft\n") and "| License | mit |" in local and "| BLEU-4 | 0.219 | [0.100, 0.350] |" in local
    )
    use = "    captioning-caption photo.jpg --checkpoint "
    hub_use = f"    pip install 'captioning[hub]'\n{use}hf:{SOFT}\n"
    assert text.split("---\n\n", 1)[1] == local.replace(f"{use}soft\n", hub_use)
    # What is exported again keeps its scores, text and license.
    run_export(f"checkpoint=hf:{SOFT}", f"output={tmp_path}/again/")
    assert (tmp_path / "again" / "soft.md").read_text(encoding="utf-8") == local
    document = json.loads((tmp_path / "again" / "soft.json").read_text())
    assert document["scores"]["about"] == {"data": "flickr8k", "split": "val", "decoding": "beam7"}


def test_the_encoder_and_the_data_are_named_if_the_hub_has_them(files):
    document = json.loads(files["soft.json"]) | {"license": "mit"}
    assert "datasets" not in hub_metadata("soft", document) and "base_model" not in hub_metadata("soft", document)
    for name in ("csv-1a2b3c4d", "two words"):
        document["config"]["data"]["name"] = name
        assert "datasets" not in hub_metadata("soft", document)
    document["config"]["data"]["name"] = "flickr8k"
    pytest.importorskip("timm", reason="the extra `timm` is not installed")
    part = {
        "_target_": "captioning.models.timm_encoder",
        "name": "convnext_tiny.in12k_ft_in1k",
        "weights": "pretrained",
    }
    document["config"]["encoder"] = {"parts": [part, {**part, "weights": None}]}
    found = hub_metadata("soft", document)
    assert found["datasets"] == ["flickr8k"] and found["base_model"] == ["timm/convnext_tiny.in12k_ft_in1k"]


# ---- wherever a checkpoint is taken


def test_commands_take_and_record_it(hub, files, data, world, trained, pictures, tmp_path, offline):
    commit = hub.add(SOFT, files)
    full = f"hf:{SOFT}/soft@{commit}"
    run_dir = tmp_path / "run"
    start("train", *short(data, run_dir, "trainer.max_steps=1", "optimizer.lr=1e-9", f"start_from=hf:{SOFT}"))
    (provenance,) = json.loads((run_dir / "provenance.json").read_text())
    assert provenance["start_from"] == full
    assert f"start_from: {full}\n" in (run_dir / "config.yaml").read_text()
    saved, own = (read_checkpoint(path)["state_dict"] for path in (run_dir / "checkpoints" / "last.ckpt", trained))
    np.testing.assert_allclose(
        saved["captioner.decoder.embedding.weight"], own["captioner.decoder.embedding.weight"], atol=1e-6
    )
    offline()
    given = [*data, "split=val", "metrics.bootstrap=10", f"output={tmp_path}/val"]
    start("evaluate", f"checkpoint=hf:{SOFT}", f"decoding.checkpoints=[{trained}]", *given)
    assert json.loads((tmp_path / "val" / "statistics.json").read_text())["about"]["checkpoints"] == [full]
    both = load_all(f"hf:{SOFT}", [f"hf:{SOFT}@main"]).caption(pictures)
    assert [each.text for each in both] == [each.text for each in load(trained).caption(pictures)]
    with pytest.raises(ConfigError, match=r"an exported checkpoint has no optimizer state\. .* start_from=hf:"):
        start("train", *short(data, tmp_path / "second", f"resume=hf:{SOFT}"))
    scenes = ["data=scenes", f"data.root={tmp_path}/scenes", "split=val", "samples=10", "features=online"]
    scenes += [f"data.reader.{split}=4" for split in ("train", "val", "test")]
    given = [f"checkpoint=hf:{SOFT}", *scenes, f"output={tmp_path}/ground"]
    ground(check(compose("ground", given), GroundConfig))
    assert json.loads((tmp_path / "ground" / "grounding.json").read_text())["checkpoint"] == full


def test_models_of_other_tasks(hub, tmp_path):
    """A language model, and one that answers questions: pushed, loaded by address, and recorded."""
    small_model("language_model", tmp_path / "text.ckpt", "data=text", "model=language", "objective=truncated")
    small_model("vqa", tmp_path / "vqa.ckpt", "data=easy_vqa", "model=answerer", "objective=answers",
                "encoder.image_size=64")  # fmt: skip
    for name in ("text", "vqa"):
        given = [f"push={OWNER}/{name}", "license=mit", "dtype=float32"]
        run_export(f"checkpoint={tmp_path}/{name}.ckpt", *given)
    model = load_language_model(f"hf:{OWNER}/text")
    assert model.sample("a", length=9, seed=1) == load_language_model(tmp_path / "text.ckpt").sample(
        "a", length=9, seed=1
    )
    picture = Image.new("RGB", (64, 64), "red")
    found = [load_answerer(path).answer(picture, "a b?")[0] for path in (f"hf:{OWNER}/vqa", tmp_path / "vqa.ckpt")]
    assert found[0].probabilities == found[1].probabilities
    newest = [list(hub.repositories[f"{OWNER}/{name}"].commits.values())[-1] for name in ("text", "vqa")]
    cards = [files["README.md"] for files in newest]
    assert (
        b"\npipeline_tag: text-generation\n" in cards[0] and b"\npipeline_tag: visual-question-answering\n" in cards[1]
    )
    for part in ("train", "test"):
        (tmp_path / "questions" / part / "images").mkdir(parents=True)
        picture.save(tmp_path / "questions" / part / "images" / "0.png")
        write_json(tmp_path / "questions" / part / "questions.json", [["what color?", "yes", 0]])
    given = ["data=easy_vqa", f"data.root={tmp_path}/questions", "split=test", f"output={tmp_path}/answers"]
    given += ["features=online", f"checkpoint=hf:{OWNER}/vqa"]
    evaluate_answers(check(compose("evaluate_answers", given), EvaluateAnswersConfig))
    recorded = json.loads((tmp_path / "answers" / "scores.json").read_text())["about"]["checkpoint"]
    assert recorded == hub_address_of(load_answerer(f"hf:{OWNER}/vqa").path) is not None


def test_only_two_files_are_fetched_and_no_code_runs(hub, files, tmp_path):
    document = json.loads(files["soft.json"]) | {"plugins": ["evil"]}
    evil = {"evil.py": b"raise SystemExit('ran')", "soft.ckpt": b"pickle", "soft.json": json.dumps(document).encode()}
    hub.add(SOFT, {**files, **evil})
    text = error_of(f"hf:{SOFT}")
    assert "needs parts of your own module 'evil'. If you trust it, add to the command: plugins=[evil]" in text
    (snapshot,) = (tmp_path / "cache" / "hub").glob("models--*/snapshots/*")
    assert {path.name for path in snapshot.iterdir()} == {"soft.json", "soft.safetensors"}


# ---- what cannot be loaded


def test_what_the_hub_refuses(hub, files, tmp_path):
    hub.add(SOFT, files)
    hub.add(f"{OWNER}/private", files, private=True)
    hub.add(f"{OWNER}/gated", files, gated=True)
    hub.add(f"{OWNER}/others", {"model.safetensors": b"x", "config.json": b"{}", "soft.ckpt": b"x"})
    missing = "this repository does not exist, or it is private: check the name; for a private one, type hf auth login"
    assert error_of(f"hf:{OWNER}/nothing") == f"hf:{OWNER}/nothing: {missing}"
    text = error_of(f"hf:{SOFT}@nowhere")
    assert text == f"hf:{SOFT}@nowhere: the repository has no branch, tag or commit 'nowhere': check what follows @"
    assert "has no files of captioning-export (MODEL.safetensors and MODEL.json)" in error_of(f"hf:{OWNER}/others")
    with hub.connect(tmp_path / "cache", token=""):
        assert error_of(f"hf:{OWNER}/private") == f"hf:{OWNER}/private: {missing}"
        text = error_of(f"hf:{OWNER}/gated")
        assert f"ask on https://huggingface.co/{OWNER}/gated, then type hf auth login" in text
    with hub.connect(tmp_path / "cache", token="hf_old"):
        assert "does not know this machine's token (status 401): type hf auth login" in error_of(f"hf:{SOFT}")
    assert load(f"hf:{OWNER}/private").path.is_file()
    hub.status = 403
    assert "does not let this machine read it (status 403): type hf auth login" in error_of(f"hf:{SOFT}")


def test_without_a_hub(hub, files, tmp_path, offline, capsys):
    commit = hub.add(SOFT, files)
    hub.status = 503
    assert f"hf:{SOFT} is not in the cache, and the hub cannot be asked (no connection to the hub: " in error_of(
        f"hf:{SOFT}"
    )
    hub.status = 0
    path = find_checkpoint(f"hf:{SOFT}")
    hub.status = 503
    assert find_checkpoint(f"hf:{SOFT}") == path
    assert "(from the cache: no connection to the hub: " in capsys.readouterr().err
    hub.stop()  # the connection is refused
    assert find_checkpoint(f"hf:{SOFT}@main") == path
    assert "not in the cache" in error_of(f"hf:{SOFT}@other")
    assert "what the cache has of it has no model 'hard': type one of hf:" in error_of(f"hf:{SOFT}/hard")
    offline()
    (path.parents[3] / f"models--{OWNER}--other" / "refs").mkdir(parents=True)  # of which only the card was read
    (path.parents[3] / f"models--{OWNER}--other" / "refs" / "main").write_text(commit)
    card = path.parents[3] / f"models--{OWNER}--other" / "snapshots" / commit / "README.md"
    card.parent.mkdir(parents=True)
    card.write_text("# Other")
    text = error_of(f"hf:{OWNER}/other")
    assert f"hf:{OWNER}/other is not in the cache, and the hub cannot be asked (HF_HUB_OFFLINE is set): con" in text
    assert find_checkpoint(f"hf:{SOFT}@{commit}") == path


def test_without_the_package(monkeypatch):
    monkeypatch.setattr("captioning.io.optional_packages.find_spec", lambda name: None)
    text = "hf:a/b needs the package huggingface_hub. Run: pip install 'captioning[hub]'"
    assert error_of("hf:a/b", ConfigError) == text
    with pytest.raises(ConfigError, match=r"^push=a/b needs the package huggingface_hub\. Run: pip install"):
        run_export("checkpoint=x", "push=a/b")


@pytest.mark.parametrize("name", ["soft.json", "soft.safetensors"])
def test_a_damaged_file_in_the_cache(hub, files, offline, name, capsys):
    commit = hub.add(SOFT, files)
    weights = find_checkpoint(f"hf:{SOFT}")
    blob = weights.with_name(name).resolve()
    assert blob.name == (git_hash if name.endswith("json") else sha256)(files[name])
    content = bytearray(blob.read_bytes())
    at = content.index(b'"vocabulary"') + 40 if name.endswith("json") else len(content) // 2
    content[at] ^= 1
    blob.write_bytes(content)
    for address in (f"hf:{SOFT}", f"hf:{SOFT}/soft@{commit}"):
        text = error_of(address)
        assert "is damaged" in text and f"elete {blob}, then run the command again to download it" in text
    hub.log.clear()
    blob.unlink()
    assert load(f"hf:{SOFT}").path == weights and blob.read_bytes() == files[name]  # as the message says
    blob.write_bytes(content)
    offline()
    assert "is damaged" in error_of(f"hf:{SOFT}")


def test_damage_without_links_in_the_cache(hub, files, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_SYMLINKS", True)
    monkeypatch.setattr("huggingface_hub.file_download.are_symlinks_supported", lambda *_: False)
    hub.add(SOFT, files)
    weights = find_checkpoint(f"hf:{SOFT}")
    metadata = weights.with_suffix(".json")
    assert not metadata.is_symlink() and load(f"hf:{SOFT}").path == weights
    metadata.write_bytes(files["soft.json"].replace(b"softmax", b"softmin") + b" ")
    assert f"Delete {metadata}, then run the command again" in error_of(f"hf:{SOFT}")


def test_downloads_that_break(hub, files, monkeypatch):
    hub.add(SOFT, files)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    hub.cut = 2  # both files end in the middle, and are continued there
    weights = find_checkpoint(f"hf:{SOFT}")
    assert hub.cut == 0 and weights.read_bytes() == files["soft.safetensors"]
    hub.add(f"{OWNER}/second", files)
    hub.changed = lambda content: content[:-7]
    text = error_of(f"hf:{OWNER}/second")
    assert "cannot download soft.json (Consistency check failed" in text and "run the command again" in text
    hub.changed = lambda content: content[:-7] + b"       "  # of the right size
    assert "is damaged: it has another hash than on the hub. Delete " in error_of(f"hf:{OWNER}/second")


def test_files_of_different_exports_on_the_hub(hub, files):
    document = json.loads(files["soft.json"])
    document["weights"]["sha256"] = "0" * 64
    hub.add(SOFT, {**files, "soft.json": json.dumps(document).encode()})
    assert "tell the owner that the repository has files of different exports" in error_of(f"hf:{SOFT}")


# ---- what cannot be pushed


def refusal(*overrides: str, kind: type[Exception] = ConfigError) -> str:
    with pytest.raises(kind) as caught:
        run_export(*overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_push_is_checked_before_anything_is_written(hub, trained, tmp_path, monkeypatch):
    given = [f"checkpoint={trained}", f"output={tmp_path}/x"]
    text = refusal(*given, f"push={SOFT}")
    assert text.startswith(f"push={SOFT} needs the license of the weights: set license=cc-by-4.0, license=mit, …, or")
    assert "license=Creative is not a name of the hub" in refusal(*given, f"push={SOFT}", "license=Creative")
    text = refusal(*given, "push=soft", "license=mit")
    assert text == (
        "push=soft: 'hf:soft' is not an address on the Hugging Face Hub (it needs an owner and a name): type "
        "push=OWNER/NAME or push=OWNER/NAME@BRANCH"
    )
    assert refusal(given[0], "license=mit") == "output is not set: give output=NAME, or push=OWNER/NAME, or both"
    assert "give push=OWNER/NAME, or remove private=true" in refusal(*given, "private=true")
    monkeypatch.delenv("HF_TOKEN")
    text = refusal(*given, f"push={SOFT}", "license=mit")
    assert text == f"push={SOFT}: this machine is not logged in to the hub. Run: hf auth login"
    assert hub.log == [] and not (tmp_path / "x.json").exists()


def test_what_a_push_may_not_replace(hub, trained, files, tmp_path):
    hub.add(SOFT, files)
    hub.add(f"{OWNER}/own", {"README.md": b"# Written by hand"})
    given = [f"checkpoint={trained}", "license=mit"]
    text = refusal(*given, f"push={SOFT}")
    assert f"push={SOFT} already has soft.safetensors, soft.json, soft.md: give another name or branch, or set" in text
    assert f"push={OWNER}/own already has README.md" in refusal(*given, f"push={OWNER}/own")
    text = refusal(*given, f"push={SOFT}/new", "private=true")
    assert text.startswith(f"private=true, but push={SOFT} is a public repository: make it private in its settings")
    assert [len(each.messages) for each in hub.repositories.values()] == [2, 2]
    run_export(*given, f"push={SOFT}", "overwrite=true")
    assert len(hub.repositories[SOFT].messages) == 3


def test_what_the_hub_refuses_of_a_push(hub, trained, tmp_path, monkeypatch, offline):
    given = [f"checkpoint={trained}", f"push={SOFT}"]
    text = refusal(*given, "license=gpl", kind=CheckpointError)
    assert text.startswith(f'cannot push to hf:{SOFT} (Invalid metadata in README.md: "license" must be one of')
    assert len(hub.repositories[SOFT].messages) == 1
    monkeypatch.setenv("HF_TOKEN", READ)
    text = refusal(*given, "license=mit", kind=CheckpointError)
    assert "does not let this machine write it (status 403): type hf auth login, with a token that may write it" in text
    monkeypatch.setenv("HF_TOKEN", "hf_old")
    text = refusal(*given, "license=mit", kind=CheckpointError)
    assert "hub" in text and "type hf auth login" in text
    monkeypatch.undo()
    offline()
    assert "HF_HUB_OFFLINE is set. Remove it from the environment" in refusal(*given, "license=mit")


def test_a_push_to_another_owner_or_to_no_hub(hub, trained):
    text = refusal(f"checkpoint={trained}", "push=stranger/soft", "license=mit", kind=CheckpointError)
    assert "type hf auth login" in text
    hub.stop()
    text = refusal(f"checkpoint={trained}", f"push={SOFT}", "license=mit", kind=CheckpointError)
    assert text.startswith(f"cannot push to hf:{SOFT} (") and "check the network" in text


def test_files_that_arrive_changed(hub, trained, monkeypatch):
    commit = Repository.commit

    def changed(self, files, message, branch):
        return commit(self, {name: content + b" " for name, content in files.items()}, message, branch)

    monkeypatch.setattr(Repository, "commit", changed)
    text = refusal(f"checkpoint={trained}", f"push={SOFT}", "license=mit", kind=CheckpointError)
    assert "the hub has other content of soft.safetensors, soft.json, soft.md, README.md than was pushed" in text


# ---- other processes


@pytest.mark.slow
def test_the_environment_of_a_command(hub, trained, pictures, tmp_path):
    """The settings that a user makes: HF_ENDPOINT, HF_HOME, HF_TOKEN, HF_HUB_OFFLINE."""
    environment = {**os.environ, **hub.environment(tmp_path / "fresh")}

    def command(name: str, *arguments: str, **changes: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, "-m", f"captioning.{name}", *arguments],
            env=environment | changes, cwd=tmp_path, capture_output=True, text=True, timeout=300,
        )  # fmt: skip

    done = command("export", str(trained), f"push={SOFT}", "license=mit")
    assert done.returncode == 0, done.stderr
    caption = ["caption", str(pictures[0]), f"checkpoint=hf:{SOFT}", "output=out", "figures=[]"]
    first, second = command(*caption), command(*caption, HF_HUB_OFFLINE="1")
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert first.stdout == second.stdout and "HF_HUB_OFFLINE is set" in second.stderr
    failed = command(*caption, HF_HUB_OFFLINE="1", HF_HUB_CACHE=str(tmp_path / "empty"))
    assert failed.returncode == 1 and failed.stderr.startswith(f"error: hf:{SOFT} is not in the cache")
