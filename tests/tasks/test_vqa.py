"""VQA v2's files in miniature: train, resume, evaluate, a file for the server, answers and figures; and bad input."""

import csv
import json

import numpy as np
import pytest
import torch
from PIL import Image
from tars import write_tar

from captioning.answer import answer
from captioning.config import AnswerConfig, EvaluateAnswersConfig, PrepareConfig, check, compose
from captioning.config.schemas import TrainConfig
from captioning.data import Answers, annotators, most_frequent, prior_answers, questions_of, read_easy_vqa, read_vqa_v2
from captioning.errors import CheckpointError, ConfigError, DataError
from captioning.evaluate_answers import evaluate_answers
from captioning.inference import load as load_captioner
from captioning.inference import load_answerer
from captioning.metrics.vqa import Truth, answer_accuracy
from captioning.prepare import prepare
from captioning.tasks import vqa
from captioning.train import train

COMMANDS = {
    "train": (train, TrainConfig),
    "evaluate_answers": (evaluate_answers, EvaluateAnswersConfig),
    "answer": (answer, AnswerConfig),
    "prepare": (prepare, PrepareConfig),
}
COLORS = {"red": (230, 20, 20), "green": (20, 230, 20), "blue": (20, 20, 230)}
SMALL = [
    "task=vqa",
    "encoder.image_size=64",
    "model.width=24",
    "model.embedding_size=12",
    "model.readout_width=32",
    "model.dropout=0.0",
    "optimizer.lr=1.0e-2",
    "loader.batch_size=3",
    "trainer.enable_progress_bar=false",
    "trainer.accelerator=cpu",
]


def run(command: str, *overrides: str) -> None:
    job, schema = COMMANDS[command]
    job(check(compose(command, list(overrides)), schema))


def write_subset(root, subset, *, first, answers=True, colors=("red", "green", "blue")):
    """Plain pictures of one colour; what colour, and whether it is red."""
    questions, annotations = [], []
    (root / subset).mkdir()
    for index, colour in enumerate(colors):
        image_id = first + index
        picture = Image.fromarray(np.full((48, 64, 3), COLORS[colour], np.uint8))
        picture.save(root / subset / f"COCO_{subset}_{image_id:012d}.jpg")
        asked = {
            "What color is it?": ("other", "what color is", [colour] * 8 + ["dark", f"{colour}."]),
            "Is it red?": ("yes/no", "is it", ["yes" if colour == "red" else "no"] * 10),
        }
        for number, (text, (kind, beginning, given)) in enumerate(asked.items()):
            ids = {"question_id": image_id * 1000 + number, "image_id": image_id}
            questions.append({**ids, "question": text})
            listed = [{"answer": a, "answer_confidence": "yes", "answer_id": n} for n, a in enumerate(given, 1)]
            types = {"answer_type": kind, "question_type": beginning, "multiple_choice_answer": given[0]}
            annotations.append({**ids, **types, "answers": listed})
    file = root / f"v2_OpenEnded_mscoco_{subset}_questions.json"
    file.write_text(json.dumps({"data_subtype": subset, "questions": questions}))
    if answers:
        file = root / f"v2_mscoco_{subset}_annotations.json"
        file.write_text(json.dumps({"data_subtype": subset, "annotations": annotations}))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("vqa")
    write_subset(root, "train2014", first=1, colors=("red", "green", "blue") * 2)
    write_subset(root, "val2014", first=100)
    write_subset(root, "test2015", first=200, answers=False)
    return root


@pytest.fixture(scope="module")
def data(world):
    return ["data=vqa_v2", f"data.root={world}", f"features.root={world / 'features'}"]


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("run")
    run("train", *SMALL, *data, f"run_dir={run_dir}", "trainer.max_epochs=25")
    return run_dir


def test_features_are_prepared_and_verified_as_training_takes_them(world, tmp_path, capsys):
    data = ["data=vqa_v2", f"data.root={world}", f"features.root={tmp_path}"]
    run("prepare", *data, "encoder.image_size=64", "splits=[train,val]")
    run("prepare", *data, "encoder.image_size=64", "verify=true")
    out = capsys.readouterr().out
    assert "vqa_v2: features of 9 images (6 train, 3 val, 0 test)" in out
    assert f"{tmp_path}/coco-" in out and "features of 9 images, no damage found" in out
    stored = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("coco-*/*.npy")}
    run("train", *SMALL, *data, f"run_dir={tmp_path}/run", "trainer.max_epochs=1")
    assert stored and stored == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npy")}


def test_what_cannot_be_prepared_of_questions(data):
    with pytest.raises(ConfigError, match="data=vqa_v2 cannot be downloaded"):
        run("prepare", *data, "download=true")
    with pytest.raises(ConfigError, match=r"features\.mirror=true is for captions"):
        run("prepare", *data, "features.mirror=true")
    with pytest.raises(ConfigError, match=r"features\.crops is for captions"):
        run("prepare", *data, "features.crops=0.9")
    with pytest.raises(ConfigError, match=r"there is no setting 'data\.answer': did you mean 'data\.answers'\?$"):
        run("prepare", *data, "+data.answer=3")


def last(run_dir, name):
    with (run_dir / "metrics.csv").open(newline="") as file:
        return [float(row[name]) for row in csv.DictReader(file) if row.get(name)][-1]


def test_it_learns_its_pictures(trained):
    assert last(trained, "val/accuracy") == 1.0
    assert last(trained, "val/accuracy/yes/no") == last(trained, "val/accuracy/other") == 1.0


def test_evaluation_scores_by_type_and_beside_guesses(trained, data, tmp_path, capsys):
    checkpoint = f"checkpoint={trained}/checkpoints/best.ckpt"
    run("evaluate_answers", checkpoint, *data, "split=val", f"output={tmp_path}", "server=Our-Model")
    results = json.loads((tmp_path / "results.json").read_text())
    assert {"question_id": 100000, "answer": "red"} in results and len(results) == 6
    server = tmp_path / "v2_OpenEnded_mscoco_val2014_Our-Model_results.json"
    assert json.loads(server.read_text()) == results
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert scores["accuracy"] == scores["accuracy/other"] == scores["accuracy/yes/no"] == 1.0
    assert scores["question types"] == {"is it": 1.0, "what color is": 1.0}
    guesses = scores["without a picture"]
    assert guesses["most frequent answer"]["accuracy"] == pytest.approx(2 / 6)  # "no"
    same = guesses["most frequent answer to the same question"]
    assert same["accuracy/yes/no"] == pytest.approx(2 / 3) and same["accuracy/other"] == pytest.approx(1 / 3)
    with (tmp_path / "per_question.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[1] == {
        "question_id": "100001",
        "image_id": "100",
        "question": "Is it red?",
        "answer": "yes",
        "accuracy": "1.0000",
    }
    assert "vqa_v2 val, VQA accuracy, 3 images, 6 questions" in capsys.readouterr().out


def test_secret_answers_give_a_file_for_the_server_alone(trained, data, tmp_path, capsys):
    checkpoint = f"checkpoint={trained}/checkpoints/best.ckpt"
    run("evaluate_answers", checkpoint, *data, "split=test", f"output={tmp_path}", "server=m")
    (file,) = tmp_path.glob("v2_OpenEnded_mscoco_test2015_m_results.json")
    found = {entry["question_id"]: entry["answer"] for entry in json.loads(file.read_text())}
    assert found == {200000: "red", 200001: "yes", 201000: "green", 201001: "no", 202000: "blue", 202001: "no"}
    assert not (tmp_path / "scores.json").exists() and "the split has no annotations" in capsys.readouterr().out
    with pytest.raises(ConfigError, match=r"server=.* must contain only letters, digits and hyphens"):
        run("evaluate_answers", checkpoint, *data, "split=test", f"output={tmp_path}", "server='a b'")


def test_blanked_pictures_leave_the_question_alone(trained, data, tmp_path):
    checkpoint = f"checkpoint={trained}/checkpoints/best.ckpt"
    blank = [*data[:2], "features=blank"]
    run("evaluate_answers", checkpoint, *blank, "split=val", f"output={tmp_path}")
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert scores["accuracy"] <= 0.5  # the same answer to the same question: 1/3 and 2/3 at best
    assert scores["about"]["features"] == "captioning.features.blank"
    answers = [entry["answer"] for entry in json.loads((tmp_path / "results.json").read_text())]
    assert len(set(answers[::2])) == len(set(answers[1::2])) == 1
    run("train", *SMALL, *blank, f"run_dir={tmp_path / 'run'}", "trainer.max_epochs=2")
    assert last(tmp_path / "run", "val/accuracy") <= 0.5


def test_answers_and_figures_of_your_own_picture(trained, world, tmp_path, capsys):
    checkpoint, picture = f"checkpoint={trained}/checkpoints/best.ckpt", world / "val2014/COCO_val2014_000000000101.jpg"
    run("answer", checkpoint, f"image={picture}", "question='Is it red, my dear?'", f"output={tmp_path}", "top=2")
    said = capsys.readouterr().out.splitlines()
    assert (
        said[0] == "Is it red, my dear?"
        and said[1].endswith("  no")
        and said[3].endswith("not in the training questions: my, dear")
    )
    assert Image.open(tmp_path / f"{picture.stem}.png").size[0] > 400
    found = json.loads((tmp_path / "answer.json").read_text())
    assert found["answer"] == "no" and len(found["probabilities"]) == 2
    Image.new("RGB", (9, 9)).save(tmp_path / "x.png")
    with pytest.raises(ConfigError, match=r"would replace the photo .* by a figure: give"):
        run("answer", checkpoint, f"image={tmp_path / 'x.png'}", "question=why", f"output={tmp_path}")
    archive = write_tar(tmp_path / "a.tar", {"x.png": (tmp_path / "x.png").read_bytes()})
    run("answer", checkpoint, f"image={archive / 'x.png'}", "question=why", f"output={tmp_path}")
    assert Image.open(tmp_path / "x.png").size[0] > 400


def test_a_predictor_answers_as_training_did(trained, world):
    predictor = load_answerer(trained / "checkpoints" / "best.ckpt")
    picture = world / "val2014" / "COCO_val2014_000000000102.jpg"
    colour, red = predictor.answer(picture, ["what color is it?", "is it red?"])
    assert (colour.text, red.text) == ("blue", "no")
    assert sum(colour.probabilities.values()) == pytest.approx(1, abs=0.02)
    assert colour.attention.shape == (1, 4) and colour.attention.sum() == pytest.approx(1, abs=1e-5)
    alone = predictor.answer(Image.open(picture), "what color is it?")[0]
    np.testing.assert_allclose(alone.attention, colour.attention, atol=1e-5)
    with pytest.raises(CheckpointError, match="task=vqa, but task=image_captioning"):
        load_captioner(trained / "checkpoints" / "best.ckpt")


def test_resumed_equals_uninterrupted(data, tmp_path):
    arguments = [*SMALL, *data, "model.dropout=0.2", "model/attention=hard", "model.glimpses=2"]
    arguments += ["schedule=constant", "trainer.max_epochs=4"]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    run("train", *arguments, f"run_dir={whole}")
    run("train", *arguments, f"run_dir={broken}", "trainer.max_steps=4")  # two epochs of four
    run("train", *arguments, f"run_dir={broken}", f"resume={broken}/checkpoints/last.ckpt")
    saved = [torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True) for folder in (whole, broken)]
    assert saved[0]["global_step"] == saved[1]["global_step"] == 8
    for name, value in saved[0]["state_dict"].items():
        assert torch.equal(value, saved[1]["state_dict"][name]), name
    assert "objective.location_loss.baseline.value" in saved[0]["state_dict"]
    with pytest.raises(ConfigError, match="answers differ from those of this training split"):
        run(
            "train", *arguments, f"run_dir={tmp_path / 'd'}", f"resume={broken}/checkpoints/last.ckpt", "data.answers=2"
        )


@pytest.mark.parametrize(
    "overrides",
    [
        ["model/attention=hard_gumbel"],
        ["encoder.output=fc", "model/attention=none"],
        ["features=online", "model.layers=2"],
        ["encoder.image_size=[64,96]", "model/positions=coordinates"],
    ],
)
def test_every_way_to_look_trains_and_loads(data, tmp_path, overrides):
    kept = data if "features=online" not in overrides else data[:2]
    run("train", *SMALL, *kept, *overrides, f"run_dir={tmp_path}", "trainer.max_epochs=1")
    predictor = load_answerer(tmp_path / "checkpoints" / "last.ckpt")
    (found,) = predictor.answer(np.zeros((20, 30, 3), np.uint8), "is it?")
    assert (found.attention is None) == (overrides[-1] == "model/attention=none")
    assert found.grid == (None if found.attention is None else (2, 3) if "96" in overrides[0] else (2, 2))
    if predictor.hard_attention:
        other = load_answerer(tmp_path / "checkpoints" / "last.ckpt", hard_attention="expectation")
        assert other.hard_attention == "expectation"


def test_records_targets_and_guesses(world):
    records = read_vqa_v2(world)
    assert [sum(r.split == split for r in records) for split in ("train", "val", "test")] == [6, 3, 3]
    question = records[0].questions[0]
    assert question.question_id == 1000 and question.question_type == "what color is"
    assert annotators(question.answers) == pytest.approx({"red": 0.9, "dark": 0.1})  # "red." is red
    assert most_frequent(question.answers) == {"red": 1.0} and most_frequent(()) == {}
    answers = Answers.build(questions_of(records), most=3)
    assert answers.texts == ("no", "blue", "green") and answers.coverage(records[0].questions) == 0.0
    assert answers.encode({"red": 0.9, "no": 0.06, "blue": 0.04}) == pytest.approx({0: 0.6, 1: 0.4})
    training, asked = questions_of(records[:6]), questions_of(records[6:9])
    best, same = prior_answers(training, asked)
    assert set(best.values()) == {"no"} and same[100000] == "red" and same[100001] == "no"


def easy(root, *, train=12, test=2):
    for part, count in (("train", train), ("test", test)):
        (root / part / "images").mkdir(parents=True)
        questions = []
        for number in range(count):
            Image.new("RGB", (64, 64), "red").save(root / part / "images" / f"{number}.png")
            questions += [["what color is the shape?", "red", number], ["is there not a circle?", "yes", number]]
        (root / part / "questions.json").write_text(json.dumps(questions))


def test_easy_vqa_layout(tmp_path):
    easy(tmp_path)
    records = read_easy_vqa(tmp_path)
    splits = {split: [r.image_id for r in records if r.split == split] for split in ("train", "val", "test")}
    assert splits["val"] == [9] and splits["test"] == [12, 13] and len(splits["train"]) == 11
    first, second = records[0].questions
    assert first.answers == ("red",) * 10 and answer_accuracy("red", first.answers) == 1
    assert (first.answer_type, second.answer_type) == ("color", "yes/no")
    assert (first.question_type, second.question_type) == ("what color", "is there … not")
    numbers = [question.question_id for question in questions_of(records)]
    assert numbers == list(range(28))


def test_the_easy_vqa_package_is_as_its_readme_says():
    pytest.importorskip("easy_vqa", reason="pip install easy-vqa")
    records = read_easy_vqa()
    counts = {split: len([r for r in records if r.split == split]) for split in ("train", "val", "test")}
    assert counts == {"train": 3600, "val": 400, "test": 1000}
    asked = {test: questions_of(r for r in records if (r.split == "test") == test) for test in (False, True)}
    assert len(asked[False]) == 38575 and len(asked[True]) == 9673
    assert sum(question.answer_type == "yes/no" for question in asked[False]) == 28407
    assert len({answer for questions in asked.values() for q in questions for answer in q.answers}) == 13


def break_json(file, change):
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


FAULTS = {
    "a picture that is gone": (
        lambda root: (root / "val2014/COCO_val2014_000000000101.jpg").unlink(),
        "not on disk: .*101",
    ),
    "no annotation": (
        lambda root: break_json(root / "v2_mscoco_val2014_annotations.json", lambda c: c["annotations"].pop()),
        r"questions\[5\]: question 102001 is not in .*val2014_annotations",
    ),
    "no question": (
        lambda root: break_json(
            root / "v2_OpenEnded_mscoco_train2014_questions.json", lambda c: c["questions"][1].pop("question")
        ),
        r"questions\[1\]: the key 'question' is missing",
    ),
    "an id twice": (
        lambda root: break_json(
            root / "v2_OpenEnded_mscoco_train2014_questions.json",
            lambda c: c["questions"].append(c["questions"][0]),
        ),
        r"question ids must be unique, also between splits, but \[1000\] are repeated",
    ),
    "no answers": (
        lambda root: break_json(
            root / "v2_mscoco_val2014_annotations.json", lambda c: c["annotations"][0]["answers"].clear()
        ),
        r"annotations\[0\]: 'answers' must have at least one answer",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_of_official_files_are_named(fault, tmp_path):
    write_subset(tmp_path, "train2014", first=1)
    write_subset(tmp_path, "val2014", first=100)
    change, message = FAULTS[fault]
    change(tmp_path)
    with pytest.raises(DataError, match=message):
        read_vqa_v2(tmp_path)


def test_other_faults(tmp_path, trained, data):
    with pytest.raises(
        DataError, match=r"has no questions of VQA v2: add .*v2_OpenEnded_mscoco_train2014_questions\.json"
    ):
        read_vqa_v2(tmp_path)
    easy(tmp_path / "easy")
    break_json(tmp_path / "easy/train/questions.json", lambda c: c[1].pop())
    with pytest.raises(DataError, match=r"train/questions\.json\[1\] must be \[question, answer, number"):
        read_easy_vqa(tmp_path / "easy")
    write_subset(tmp_path, "train2014", first=1, answers=False)
    write_subset(tmp_path, "val2014", first=9)
    with pytest.raises(DataError, match="split 'train' has no answers"):
        run("train", *SMALL, "data=vqa_v2", f"data.root={tmp_path}", f"run_dir={tmp_path / 'run'}")
    with pytest.raises(ConfigError, match=r"features\.mirror=true is for captions"):
        run("train", *SMALL, *data, "features.mirror=true", f"run_dir={tmp_path / 'run'}")
    with pytest.raises(ConfigError, match="hard_attention=sample: this checkpoint has no hard attention"):
        load_answerer(trained / "checkpoints" / "best.ckpt", hard_attention="sample")


def test_a_validation_of_some_questions_is_scored_by_them_alone():
    truths = {number: Truth(["red"] * 10, "other", "what") for number in (1, 2, 3)}
    assert vqa._score(truths, {1: "red", 3: "blue"}) == {"val/accuracy": 0.5, "val/accuracy/other": 0.5}
