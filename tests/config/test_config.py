"""Every YAML composes, passes the check and builds; every fault is told at once."""

import importlib
import inspect
import re
import sys
from pathlib import Path

import pytest
import torch

from captioning.config import (
    AnswerConfig,
    AuditConfig,
    CaptionConfig,
    CompareConfig,
    DemoConfig,
    DistillConfig,
    EvaluateAnswersConfig,
    EvaluateConfig,
    ExportConfig,
    GroundConfig,
    PrepareConfig,
    ReportConfig,
    SampleConfig,
    ScoreConfig,
    build,
    build_trusted,
    check,
    compose,
    conf_dir,
    entry_point,
)
from captioning.config.composition import _set_by
from captioning.config.schemas import TrainConfig
from captioning.errors import CheckpointError, ConfigError
from captioning.evaluation import decoding_name
from captioning.models import RecurrentState

ENTRY_POINTS = {
    "train": (TrainConfig, []),
    "prepare": (PrepareConfig, []),
    "evaluate": (EvaluateConfig, ["checkpoint=x", "data=scenes"]),
    "score": (ScoreConfig, ["results=x", "annotations=y"]),
    "compare": (CompareConfig, ["a=x", "b=y"]),
    "caption": (CaptionConfig, ["checkpoint=x", "images=[a.jpg]"]),
    "audit": (AuditConfig, ["data=scenes"]),
    "ground": (GroundConfig, ["checkpoint=x", "data=scenes"]),
    "report": (ReportConfig, ["run_dir=x"]),
    "demo": (DemoConfig, ["checkpoint=x"]),
    "answer": (AnswerConfig, ["checkpoint=x", "image=a.jpg", "question=why"]),
    "evaluate_answers": (EvaluateAnswersConfig, ["checkpoint=x", "data=easy_vqa"]),
    "sample": (SampleConfig, ["checkpoint=x"]),
    "export": (ExportConfig, ["checkpoint=x", "output=y"]),
    "distill": (DistillConfig, ["checkpoint=x", "data=scenes", "output=y"]),
}
GROUPS = sorted(
    f"{path.parent.relative_to(conf_dir())}={path.stem}"
    for path in conf_dir().rglob("*.yaml")
    if path.parent not in (conf_dir(), conf_dir() / "shared")
)
TAGS = ("model/tags=places", "experiment=flickr8k_tags")  # the task fills in the nouns
# What some choices ask for beside them.
BESIDE = {"features=regions": ["features.root=somewhere"], "model/readout=sum": ["model.feature_width=8"]}
BESIDE |= {f"objective/baseline={name}": ["objective=self_critical"] for name in ("leave_one_out", "greedy")}
LANGUAGE_MODEL = ("data=text", "data=hello", "model=language", "objective=truncated")
BESIDE |= {override: ["task=language_model"] for override in LANGUAGE_MODEL}
BESIDE |= {override: ["model.embedding_size=null"] for override in ("experiment=char_hello", "model/embedding=one_hot")}
BESIDE |= {f"model/word_positions={name}": ["model=transformer"] for name in ("learned", "sinusoidal")}
BESIDE["objective=distilled"] = ["teacher.file=x"]
BESIDE["encoder=regions"] = ["features=regions", "features.root=somewhere"]
BESIDE |= {choice: ["model.tags.nouns=[dog]", "model.tags.most=1"] for choice in TAGS}
BESIDE["encoder=timm"] = ["encoder.name=resnet18"]
ANSWERS = ("data=easy_vqa", "data=vqa_v2", "model=answerer", "objective=answers")
BESIDE |= {choice: ["task=vqa"] for choice in ANSWERS}
PARTS_PAGE = Path(__file__).parents[2] / "docs" / "parts" / "index.md"
TARGETS_WITHOUT_DATA = ("model", "objective", "optimizer", "schedule", "decoding", "trainer", "transform", "features")


def checked(name: str, overrides: list[str]) -> dict:
    schema, required = ENTRY_POINTS[name]
    return check(compose(name, required + overrides), schema)


@pytest.mark.parametrize("override", GROUPS)
def test_every_yaml_composes_checks_and_builds(override):
    config = checked("train", ["model.width=8", "model.embedding_size=8", *BESIDE.get(override, []), override])
    for key in config.keys() & set(TARGETS_WITHOUT_DATA):
        if key == "model":
            sizes = {"answers": 3} if config[key]["_target_"].endswith("build_answerer") else {}
            assert build(config[key], feature_size=6, grid=(2, 3), vocabulary_size=9, **sizes)
        elif key == "objective" and config.get("reward"):
            reward = build(config["reward"], references={1: ["a dog runs"]})
            assert build(config[key], reward=reward, start=1, end=2)
        elif key == "objective" and config.get("teacher"):
            assert build(config[key], teacher=None)
        elif key == "objective" and config["task"]["_target_"].endswith(".LanguageModelTask"):
            assert build(config[key], zeros=RecurrentState(torch.zeros(1, 2, 1, 8), torch.zeros(1, 2, 1, 8)))
        else:
            assert build(config[key], **({"enable_progress_bar": False, "logger": False} if key == "trainer" else {}))


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_every_entry_point_checks_out_with_its_defaults(name):
    config = checked(name, [])
    assert config
    if "metrics" in config:
        assert build(config["metrics"]).bootstrap == 1000


CAPTIONS = sorted({override for override in GROUPS if override.startswith("data=")} - {*ANSWERS, *LANGUAGE_MODEL})


@pytest.mark.parametrize("data", [override.removeprefix("data=") for override in CAPTIONS])
def test_every_data_set_goes_into_every_command(data):
    for name in ("train", "prepare", "evaluate", "audit", "ground"):
        config = checked(name, [f"data={data}", "data.root=somewhere"])
        assert config["data"]["name"] == data and config["data"]["reader"]["root"] == "somewhere"


@pytest.mark.parametrize("data", ["easy_vqa", "vqa_v2"])
def test_every_set_of_questions_goes_into_every_command_for_them(data):
    for name, beside in (("train", ["task=vqa"]), ("prepare", []), ("evaluate_answers", [])):
        config = checked(name, [*beside, f"data={data}", "data.root=somewhere"])
        assert config["data"]["name"] == data and config["data"]["reader"]["root"] == "somewhere"
    with pytest.raises(ConfigError, match=r"there is no setting 'data\.answers':"):
        checked("evaluate", ["data=easy_vqa"])


@pytest.mark.parametrize(
    ("override", "place", "value"),
    [
        ("model/attention=none", ("attention", "_target_"), "captioning.models.NoAttention"),
        ("model/conditioning=every_step", ("conditioning", "_target_"), "captioning.models.EveryStep"),
        ("model/cell=gru", ("cell", "_target_"), "captioning.models.GRU"),
        ("model.layers=2", ("layers",), 2),
    ],
)
def test_one_override_swaps_one_part_and_nothing_else(override, place, value):
    before, after = checked("train", ["run_dir=x"]), checked("train", ["run_dir=x", override])
    found = after["model"]
    for key in place:
        found = found[key]
    assert found == value
    top = place[0]
    assert {k: v for k, v in before["model"].items() if k != top} == {
        k: v for k, v in after["model"].items() if k != top
    }
    assert {k: v for k, v in before.items() if k != "model"} == {k: v for k, v in after.items() if k != "model"}


@pytest.mark.parametrize(
    ("overrides", "place", "target"),
    [
        (
            ["objective/location_loss/baseline=leave_one_out"],
            ("location_loss", "baseline"),
            "captioning.objectives.LeaveOneOut",
        ),
        (["objective=self_critical", "objective/baseline=greedy"], ("baseline",), "captioning.objectives.greedy"),
    ],
)
def test_a_baseline_is_swapped_by_one_override(overrides, place, target):
    kept = overrides[:-1]
    before, after = (checked("train", ["run_dir=x", *given]) for given in (kept, overrides))
    *inside, last = ("objective", *place)
    old, new = before, after
    for key in inside:
        old, new = old[key], new[key]
    assert new.pop(last)["_target_"] == target != old.pop(last)["_target_"]
    assert before == after


def test_the_page_of_parts_lists_all_choices_of_a_captioner():
    rows = re.findall(r"^\| `([^`|]+)=` \| ([^|]+) \|", PARTS_PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    listed = {group: set(re.findall(r"`(\w+)`", choices)) for group, choices in rows}
    groups = {choice.partition("=")[0] for choice in GROUPS} - {"experiment", "model", "trainer"}
    assert set(listed) == groups
    for group, choices in listed.items():
        known = {path.stem for path in (conf_dir() / group).glob("*.yaml")}
        assert choices == known - {name for name in known if f"{group}={name}" in (*LANGUAGE_MODEL, *ANSWERS)}, group


def test_the_448_pixel_encoder_takes_its_transform_along():
    config = checked("train", ["encoder=resnet101_448"])
    assert config["encoder"]["image_size"] == config["transform"]["size"] == 448


def test_all_faults_at_once_with_the_nearest_names():
    overrides = ["+modle.width=3", "+trainer.max_epoch=2", "decoding.max_length=many", "+objective.alpha=1", "seed=x"]
    with pytest.raises(ConfigError) as caught:
        checked("train", overrides)
    message = str(caught.value)
    assert "there is no setting 'modle': did you mean 'model'?" in message
    assert "there is no setting 'trainer.max_epoch': did you mean 'trainer.max_epochs'?" in message
    assert "decoding.max_length must be int or null, not 'many'" in message
    assert "there is no setting 'objective.alpha':" in message
    assert "seed must be int, not 'x'" in message


def test_a_target_that_does_not_exist_is_named():
    with pytest.raises(ConfigError, match=r"objective\._target_: cannot find 'captioning\.objectives\.Nothing'"):
        checked("train", ["objective._target_=captioning.objectives.Nothing"])


def test_the_task_brings_its_schema():
    with pytest.raises(ConfigError, match=r"task\._target_: 'captioning\.decoding\.beam_search' is not a task: choose"):
        checked("train", ["task._target_=captioning.decoding.beam_search"])
    with pytest.raises(ConfigError, match=r"there is no setting 'task\.flavour':"):
        checked("train", ["+task.flavour=1"])
    with pytest.raises(ConfigError, match=r"there is no setting 'rewards': did you mean 'reward'\?"):
        checked("train", ["+rewards=1"])


@pytest.mark.parametrize(
    ("given", "name", "its", "task"),
    [
        (["objective=truncated"], "TruncatedBackpropagation", "language_model", "image_captioning"),
        (
            ["objective=truncated", "experiment=scenes_soft"],
            "TruncatedBackpropagation",
            "language_model",
            "image_captioning",
        ),
        (["objective=answers", "experiment=scenes_soft"], "AnswerCrossEntropy", "vqa", "image_captioning"),
        (["objective=self_critical", "task=vqa"], "SelfCritical", "image_captioning", "vqa"),
        (["objective=cross_entropy", "experiment=char_hello"], "CrossEntropy", "image_captioning", "language_model"),
    ],
)
def test_an_objective_of_another_task_is_told_as_such(given, name, its, task):
    with pytest.raises(ConfigError) as caught:
        checked("train", given)
    assert str(caught.value) == (
        f"objective: {name} is for task={its}, but this run has task={task}: set task={its}, or leave objective= out"
    )


def test_missing_values_are_asked_for():
    with pytest.raises(ConfigError, match=r"checkpoint is not set.*question is not set"):
        check(compose("answer", ["image=photo.jpg"]), AnswerConfig)
    with pytest.raises(ConfigError, match=r"^images is not set: give images=VALUE$"):
        check(compose("caption", []), CaptionConfig)


def run_main(monkeypatch, capsys, name, *overrides) -> tuple[int, str]:
    """Exit status and message of a command, in this process."""

    def job(config):
        raise AssertionError("the job must not start")

    monkeypatch.setattr(sys, "argv", [f"captioning-{name}", *overrides])
    with pytest.raises(SystemExit) as exit_:
        entry_point(name, ENTRY_POINTS[name][0], job)()
    message = exit_.value.code if isinstance(exit_.value.code, str) else capsys.readouterr().err
    return (1 if isinstance(exit_.value.code, str) else exit_.value.code), message


def test_an_unknown_override_names_the_nearest_key(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    status, message = run_main(monkeypatch, capsys, "train", "data.rot=x", "model.witdh=3", "seed=1")
    assert status == 1
    assert message == (
        "error: captioning-train has no setting data.rot: did you mean data.root?; "
        "captioning-train has no setting model.witdh: did you mean model.width?"
    )
    assert not list(tmp_path.iterdir())  # nothing was written


@pytest.mark.parametrize(
    "given",
    [
        ["weight_averaging=none", "+weight_averaging.decay=0.9"],
        ["experiment=scenes_fc", "weight_averaging=none", "weight_averaging.decay=0.9"],  # which the experiment sets
        ["experiment=scenes_fc", "weight_averaging=none", "++weight_averaging.decay=0.9"],
    ],
)
def test_an_argument_of_a_group_that_is_none_is_refused(monkeypatch, capsys, tmp_path, given):
    monkeypatch.chdir(tmp_path)
    given = [*given, "early_stopping=none", "+early_stopping.patience=3"]
    status, message = run_main(monkeypatch, capsys, "train", *given)
    assert status == 1
    assert message == (
        "error: weight_averaging.decay has no effect with weight_averaging=none: add weight_averaging=ema; "
        "early_stopping.patience has no effect with early_stopping=none: add early_stopping=score"
    )


def test_an_argument_of_a_group_that_is_not_chosen_names_the_choices(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    _, message = run_main(monkeypatch, capsys, "train", "weight_averaging.decay=0.9")
    assert message == "error: weight_averaging.decay needs weight_averaging=NAME, one of ema"


def test_a_group_of_none_beside_an_experiment_that_sets_its_arguments_starts(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AssertionError, match="the job must not start"):  # it does
        run_main(monkeypatch, capsys, "train", "experiment=scenes_fc", "weight_averaging=none", "early_stopping=none")


def test_an_unknown_key_of_an_experiment_is_told_as_its(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    given = ["experiment=flickr8k_fc", "encoder=regions"]
    status, message = run_main(monkeypatch, capsys, "train", *given)
    assert status == 1 and message == (
        "error: there is no setting 'encoder.output': experiment=flickr8k_fc sets it for another encoder. "
        "To remove it, add '~encoder.output'"
    )
    with pytest.raises(AssertionError, match="the job must not start"):  # it does
        run_main(monkeypatch, capsys, "train", *given, "~encoder.output")
    assert {"optimizer.lr", "model.scorer.width"} < _set_by("scenes_scst")  # builds on scenes_soft
    assert _set_by("of_a_folder_elsewhere") == set()


def test_an_experiment_without_its_package_line_is_told_of_it(monkeypatch, capsys, tmp_path):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("model:\n  width: 64\n")
    monkeypatch.chdir(tmp_path)
    status, message = run_main(
        monkeypatch, capsys, "train", f"--config-dir={tmp_path}", "data=scenes", "experiment=mine"
    )
    assert status == 1
    assert message == "error: experiment/mine.yaml must begin with the line '# @package _global_'"


def test_an_unknown_group_option_lists_the_known_ones(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    _, message = run_main(monkeypatch, capsys, "train", "data=imagenet")
    assert message.startswith("error: data=imagenet does not exist: captioning-train --help=all lists all 2")
    for given, told in [
        (
            "experiment=flickr8k_sfot",
            "experiment=flickr8k_sfot does not exist: did you mean flickr8k_soft? captioning-train --help=all lists ",
        ),
        ("data=flikr8k", "data=flikr8k does not exist: did you mean flickr8k? captioning-train --help=all lists all 2"),
        (
            "model.width=1,2",
            "model.width=1,2 has several values: add -m for a sweep, or type model.width=[1,2]",
        ),
        (
            "model/attention=[a,b]",
            "In 'model/default': Could not load 'model/attention/b'. See: captioning-train --help=all",
        ),
        ("+seed=3", "Could not append to config. An item is already at 'seed'. Either remove + prefix: 'seed=3' Or "),
    ]:
        assert run_main(monkeypatch, capsys, "train", given)[1].startswith(f"error: {told}")


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "captioning.models.encoder.torch.load",
        "captioning.inference.loading.load",
        "captioning.io.download_coco",
    ],
)
def test_a_file_may_not_name_what_is_built(target):
    with pytest.raises(CheckpointError, match=r"only this package's own parts are built"):
        build_trusted({"_target_": "captioning.models.build_captioner", "cell": {"_target_": target}})


def test_names_of_decodings():
    target = {"_target_": "captioning.decoding.beam_search", "beam_size": 5}
    assert decoding_name(target | {"length_normalization": 0.0}) == "beam5"
    assert decoding_name(target | {"length_normalization": 0.7}) == "beam5_length0.7"
    assert decoding_name({"_target_": "captioning.decoding.greedy_search"}) == "greedy"


def test_names_of_decodings_say_what_changes_the_captions():
    def name(*overrides):
        return decoding_name(checked("evaluate", list(overrides))["decoding"])

    assert name("decoding=greedy") == "greedy"
    assert name("decoding=beam", "decoding.beam_size=5", "decoding.n_best=2") == "beam5_length0.6"
    assert name("decoding=beam", "decoding.length_normalization=0") == "beam3"
    assert name("decoding=diverse_beam") == "diverse6x3_length0.6"
    assert name("decoding=diverse_beam", "decoding.diversity=2") == "diverse6x3_lambda2_length0.6"
    assert name("decoding=sample", "decoding.temperature=0.7", "decoding.samples=9") == "sample_t0.7"
    assert name("decoding=consensus") == "consensus5of15+40_length0.6"
    shorter = ["decoding.finalists=3", "decoding.samples=9", "decoding.temperature=1"]
    assert name("decoding=consensus", *shorter) == "consensus3of15+9_t1_length0.6"
    assert name("decoding=consensus", "decoding.finalists=0") == "consensus40_length0.6"
    assert name("decoding=sample", "decoding.top_k=5", "decoding.top_p=0.9") == "sample_k5_p0.9"
    rules = ["min_length=3", "max_length=30", "no_repeat_ngram=3", "avoid_endings=[a,the,of]", "require=[dog]"]
    rules = [f"decoding.{rule}" for rule in rules]
    assert name("decoding=greedy", *rules) == "greedy_min3_max30_ngram3_require-dog_noend-a-the-of"
    assert name("decoding.length_penalty=0.6", 'decoding.allow=["<unk>"]') == "beam3_gnmt0.6_allow-<unk>"
    assert name("decoding=greedy", "decoding.checkpoints=[b.ckpt,c.ckpt]") == "ensemble3_greedy"


def test_decodings_are_checked_with_all_their_rules():
    bad = ["decoding=sample", "decoding.no_repeat_ngram=x", "+decoding.beam_size=3", "decoding.checkpoints=b.ckpt"]
    with pytest.raises(ConfigError) as caught:
        checked("caption", bad)
    message = str(caught.value)
    assert "decoding.no_repeat_ngram must be int, not 'x'" in message
    assert "no setting 'decoding.beam_size':" in message
    assert "decoding.checkpoints must be list or null, not 'b.ckpt'" in message
    with pytest.raises(ConfigError, match=r"no setting 'decoding\.checkpoints':"):
        checked("train", ["+decoding.checkpoints=[b.ckpt]"])


def test_lightnings_arguments_are_known_without_it():
    import lightning
    from lightning.pytorch.callbacks import EarlyStopping, EMAWeightAveraging

    from captioning.training import lightning_arguments as trainers

    targets = {
        trainers.lightning_trainer: lightning.Trainer,
        trainers.early_stopping: EarlyStopping,
        trainers.moving_average: EMAWeightAveraging,
    }
    for stand_in, target in targets.items():
        own, real = (set(inspect.signature(each).parameters) for each in (stand_in, target))
        assert own - {"skip_nonfinite", "save_every_minutes", "compile"} == real - {"kwargs"}


@pytest.mark.parametrize(
    ("command", "setting", "told"),
    [
        *((each, "data.tokenizer=characters", "the tokenizer is the checkpoint's") for each in ("distill", "ground")),
        (
            "evaluate",
            "data.tokenizer=characters",
            "Remove data.tokenizer; to score with another, set metrics.tokenizer",
        ),
        *(
            (each, "data.min_count=2", "the vocabulary is the checkpoint's")
            for each in ("distill", "ground", "evaluate")
        ),
        *((each, "data.captions_per_image=2", "all captions of an image are used") for each in ("distill", "evaluate")),
        ("evaluate", "data.max_length=3", "Remove data.max_length; to write shorter captions, set decoding.max_length"),
        ("ground", "data.max_length=3", "it limits training captions. Remove data.max_length"),
    ],
)
def test_what_the_checkpoint_decides_is_refused(command, setting, told, tmp_path, monkeypatch, capsys):
    """It would be ignored: for example, the checkpoint's tokenizer splits the captions."""
    job = importlib.import_module(f"captioning.{command}")
    given = ["checkpoint=x.ckpt", "data=scenes", f"output={tmp_path / 'y'}", setting]
    monkeypatch.setattr(sys, "argv", [f"captioning-{command}", *given])
    with pytest.raises(SystemExit) as caught:
        job.main()
    key = setting.partition("=")[0]
    assert caught.value.code.startswith(f"error: {key} has no effect: ") and told in caught.value.code
