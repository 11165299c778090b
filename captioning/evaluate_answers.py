"""Answer and score the questions of a split: `captioning-evaluate-answers checkpoint=PATH data=easy_vqa split=test`."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from captioning.config import EvaluateAnswersConfig, build, entry_point

if TYPE_CHECKING:
    from torch import Tensor

    from captioning.features import Source
    from captioning.inference import AnswerPredictor


def evaluate_answers(config: dict[str, Any]) -> None:
    """Answer every question of a split once, and write results.json in the VQA server's format.

    If the split has annotations, also write per_question.csv and scores.json: the accuracy by answer type and question
    type, and the accuracy of two guesses that ignore the image. With `server`, also write the server's file.

    Raises:
        ConfigError: a setting is out of range.
        DataError: the server's file would be incomplete, because images are unreadable.
    """
    from captioning.checkpoints import hub_address_of
    from captioning.data import questions_of, select
    from captioning.errors import DataError, must_be
    from captioning.features import report_unreadable
    from captioning.inference import load_answerer
    from captioning.io import make_folder, write_json

    must_be("batch_size", config["batch_size"], least=1)
    data, split, output, server = config["data"], config["split"], Path(config["output"]), server_file(config)
    predictor = load_answerer(config["checkpoint"], device=config["device"], hard_attention=config["hard_attention"])
    everything = build(data["reader"])
    records = select(everything, split)
    source = build(config["features"])(
        predictor.encoder, predictor.transform, records, name=data["pictures"], skip_unreadable=data["skip_unreadable"]
    )
    report_unreadable(source)
    answers = _answer_all(predictor, source, batch_size=config["batch_size"])
    results = [{"question_id": number, "answer": text} for number, text in answers.items()]
    make_folder(output)
    write_json(output / "results.json", results)
    if server is not None:
        if len(source.records) < len(records):
            missing = len(records) - len(source.records)
            raise DataError(
                f"server={config['server']}: the VQA server requires an answer to every question, but {missing} images "
                "are unreadable: repair them, or leave server= out"
            )
        write_json(server, results)
        print(f"file for the VQA server: {server}")
    address = hub_address_of(predictor.path)
    if all(question.answers for question in questions_of(source.records)):
        training = questions_of(record for record in everything if record.split == "train")
        _report(config, source.records, answers, training, {"checkpoint": address} if address else {})
    else:
        print(f"{data['name']} {split}: {len(answers)} questions answered, not scored: the split has no annotations")
    print(f"results: {output}")


def _answer_all(predictor: "AnswerPredictor", source: "Source", *, batch_size: int) -> dict[int, str]:
    """Return {question id: answer} for every question of the source's records, in order."""
    from torch.utils.data import DataLoader
    from tqdm import tqdm

    from captioning.data import ImageSampler, QuestionDataset, collate_questions, most_frequent
    from captioning.inference import write_answers

    dataset = QuestionDataset(
        cast("Sequence[Any]", source.records),
        vocabulary=predictor.vocabulary,
        answers=predictor.answers,
        targets=most_frequent,
        source=cast("Callable[[Any], Tensor]", source.read),
        max_length=predictor.max_length,
    )
    loader = DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=ImageSampler(len(dataset), shuffle=False),
        collate_fn=collate_questions,
        num_workers=source.workers,
    )
    predictor.answerer.encoder = source.encoder.to(predictor.device)
    answers: dict[int, str] = {}
    for batch in tqdm(loader, desc="answers", unit="batch", disable=None):
        answers |= write_answers(predictor.answerer, batch, predictor.answers)
    return answers


def _report(
    config: Mapping[str, Any],
    records: Sequence,
    answers: Mapping[int, str],
    training: Sequence,
    origin: Mapping[str, str],
) -> None:
    """Print the accuracy and its parts; write scores.json and per_question.csv."""
    from captioning.data import prior_answers, questions_of
    from captioning.io import counted, write_json, write_text
    from captioning.metrics import vqa_accuracy
    from captioning.tasks import truths_of

    output, truths, asked = Path(config["output"]), truths_of(records), questions_of(records)
    accuracy = vqa_accuracy(truths, answers)
    guesses = {}
    if any(question.answers for question in training):
        names = ("most frequent answer", "most frequent answer to the same question")
        found = zip(names, prior_answers(training, asked), strict=True)
        guesses = {name: vqa_accuracy(truths, guess).flat() for name, guess in found}
    about = {"data": config["data"]["name"], "split": config["split"], "features": config["features"]["_target_"]}
    scores = {
        **accuracy.flat(),
        "question types": accuracy.question_types,
        "without a picture": guesses,
        "about": {**about, "pictures": len(records), "questions": len(answers), **origin},
    }
    write_json(output / "scores.json", scores)
    write_text(output / "per_question.csv", _table(records, answers, accuracy.questions))
    images, questions = counted(len(records), "image"), counted(len(answers), "question")
    print(f"{about['data']} {about['split']}, VQA accuracy, {images}, {questions}")
    lines = {"all": accuracy.overall} | accuracy.answer_types
    lines |= {f"“{kind} …”": value for kind, value in accuracy.question_types.items()}
    lines |= {f"the {name}": parts["accuracy"] for name, parts in guesses.items()}
    for name, value in lines.items():
        print(f"  {name:<45}{value:8.4f}")


def _table(records: Sequence, answers: Mapping[int, str], scores: Mapping[int, float]) -> str:
    import csv
    import io

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["question_id", "image_id", "question", "answer", "accuracy"])
    for record in records:
        for question in record.questions:
            number = question.question_id
            writer.writerow([number, record.image_id, question.text, answers[number], f"{scores[number]:.4f}"])
    return text.getvalue()


def server_file(config: Mapping[str, Any]) -> Path | None:
    """Return output/v2_OpenEnded_mscoco_SUBSET_NAME_results.json, named as in VQA's tools; None without `server`."""
    import re

    from captioning.errors import ConfigError

    name = config["server"]
    if name is None:
        return None
    if not re.fullmatch(r"[A-Za-z0-9-]+", name):
        raise ConfigError(f"server={name} must contain only letters, digits and hyphens")
    subset = (config["data"]["reader"].get("subsets") or {}).get(config["split"], config["split"])
    return Path(config["output"], f"v2_OpenEnded_mscoco_{subset}_{name}_results.json")


main = entry_point("evaluate_answers", EvaluateAnswersConfig, evaluate_answers, plain=["checkpoint"])

if __name__ == "__main__":
    main()
