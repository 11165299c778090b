"""Train visual question answering: build model, objective and data, and score the answers of each validation."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from captioning.checkpoints import same_answers, same_encoder, same_images, same_words, take_encoder
from captioning.config import AnswerTrainConfig, build, build_encoder
from captioning.data import Answers, QuestionDataset, Vocabulary, collate_questions, questions_of, select
from captioning.errors import DataError
from captioning.features import refuse_views, report_unreadable
from captioning.inference import VQA, make_answerer_metadata, write_answers
from captioning.metrics import Truth, name_ids, vqa_accuracy
from captioning.tasks.parts import Parts
from captioning.text import tokenize
from captioning.training import digest_of

_SPLITS = ("train", "val")


class VqaTask:
    """The task of training visual question answering; answers are validated by VQA accuracy (Antol et al. 2015)."""

    name: ClassVar = VQA
    schema: ClassVar = AnswerTrainConfig

    def __call__(self, config: Mapping[str, Any], *, resumed: Mapping | None, started: Mapping | None) -> Parts:
        """Build the model and everything that trains and scores it.

        Args:
            config: the checked settings of the run.
            resumed: the checkpoint to resume from, if any.
            started: the checkpoint whose weights the run starts from, if any.

        Raises:
            ConfigError: a setting cannot work.
            DataError: the data set is missing or damaged, or a validation question has no answers.
            CheckpointError: the weights of `started` do not fit the encoder.
        """
        refuse_views(config["features"])
        data, records = config["data"], build(config["data"]["reader"])
        splits: dict[str, Sequence[Any]] = {split: select(records, split) for split in _SPLITS}
        questions = {split: questions_of(splits[split]) for split in _SPLITS}
        if secret := [question.question_id for question in questions["val"] if not question.answers]:
            raise DataError(
                f"data={data['name']}: {len(secret)} questions of split 'val' have no answers and cannot be scored "
                f"(question ids {name_ids(secret)}). Set data.reader to a validation split with answers"
            )
        words = (tokenize(question.text) for question in questions["train"])
        vocabulary = Vocabulary.build(words, min_count=data["min_count"])
        answers = Answers.build(questions["train"], most=data["answers"])
        for key, checkpoint in (("resume", resumed), ("start_from", started)):
            same_words(key, checkpoint, vocabulary)
            same_answers(key, checkpoint, answers)

        # Every configuration error is reported before any features are computed.
        encoder, transform = build_encoder(config)
        tuned = started is not None and take_encoder(encoder, started, Path(config["start_from"]))
        if started and not tuned:
            same_encoder("start_from", started, encoder)
        if resumed:
            same_encoder("resume", resumed, encoder)
            take_encoder(encoder, resumed, Path(config["resume"]))  # before its frozen part fills a store
        answerer = build(
            config["model"],
            feature_size=encoder.size,
            grid=encoder.grid_shape or encoder.output != "fc",
            regions=encoder.output == "regions",
            vocabulary_size=len(vocabulary),
            answers=len(answers),
            pad=vocabulary.pad,
        )
        _loaders(config, {"train": [], "val": []}, vocabulary, answers)
        metadata = make_answerer_metadata(config, vocabulary, answers, encoder, tuned=tuned)
        wanted = [record for split in _SPLITS for record in splits[split]]

        def load() -> tuple[Any, str]:
            source = build(config["features"])(
                encoder, transform, wanted, name=data["pictures"], skip_unreadable=data["skip_unreadable"]
            )
            report_unreadable(source)
            answerer.encoder = source.encoder
            kept: dict[str, Sequence[Any]] = {split: select(source.records, split) for split in _SPLITS}
            metadata["images"] = {split: len(records) for split, records in kept.items()}
            if resumed:
                same_images(resumed, metadata["images"])
            return _loaders(config, kept, vocabulary, answers, source), _about(kept, vocabulary, answers)

        return Parts(
            answerer,
            build(config["objective"]),
            predict=partial(_predict, answers=answers),
            score=partial(_score, truths_of(splits["val"])),
            monitor="val/accuracy",
            mode="max",
            metadata=metadata,
            load=load,
            digest=digest_of([r.split, r.image_id, r.path.name, *r.questions] for r in wanted),
            encoder=encoder,
            encoder_lr=config["encoder_lr"],
            encoder_warmup=config["encoder_warmup"],
        )


def truths_of(records: Sequence) -> dict[int, Truth]:
    """Return {question id: `Truth`} for all questions of the records."""
    return {q.question_id: Truth(q.answers, q.answer_type, q.question_type) for q in questions_of(records)}


def _loaders(config: Mapping[str, Any], splits: Mapping[str, Sequence], vocabulary, answers, source=None):
    """Return the loaders of the readable records; without a source and records, only check the settings."""
    common = {
        "vocabulary": vocabulary,
        "answers": answers,
        "targets": build(config["data"]["targets"]),
        "source": source and source.read,
        "max_length": config["data"]["max_length"],
    }
    from captioning.training import CaptionModule

    return CaptionModule(
        *(QuestionDataset(splits[split], **common) for split in _SPLITS),
        workers=source.workers if source else 0,
        seed=config["seed"],
        collate=collate_questions,
        **config["loader"],
    )


def _predict(answerer, batch, loss, *, answers: Answers) -> dict[int, str]:
    """Return {question id: answer} of one validation batch."""
    return write_answers(answerer, batch, answers)


def _score(truths: Mapping[int, Truth], found: Mapping[int, str]) -> dict[str, float]:
    """Return the accuracy over the answered questions: all of them, unless trainer.limit_val_batches is set."""
    accuracy = vqa_accuracy({number: truths[number] for number in found}, found)
    return {f"val/{name}": value for name, value in accuracy.flat().items()}


def _about(splits: Mapping[str, Sequence], vocabulary, answers: Answers) -> str:
    sizes = (
        f"{len(questions_of(splits[split])):,} {name} questions on {len(splits[split]):,} images"
        for split, name in (("train", "training"), ("val", "validation"))
    )
    known = answers.coverage(questions_of(splits["val"]))
    return (
        f"data: {', '.join(sizes)}; vocabulary: {len(vocabulary):,} words; "
        f"answers: {len(answers):,}, which cover {known:.2%} of the validation questions"
    )
