"""Answers questions about your own picture: `captioning-answer checkpoint=PATH image=a.jpg question="is it red?"`."""

from pathlib import Path
from typing import Any

from captioning.config import entry_point, verbatim
from captioning.schemas import AnswerConfig


def answer(config: dict[str, Any]) -> None:
    """Prints each question's answers with their probabilities; leaves answers.json and a PNG a question."""
    from captioning.answering import load
    from captioning.data.pictures import open_picture
    from captioning.errors import ConfigError
    from captioning.files import make_folder, write_json

    asked = config["question"]
    questions = [asked] if isinstance(asked, str) else list(asked)
    if not questions:
        raise ConfigError("question: give one or more")
    path, output = Path(config["image"]), Path(config["output"])
    picture = open_picture(path)
    names = figure_names(path, len(questions))
    if any((output / name).exists() and (output / name).samefile(path) for name in names):
        raise ConfigError(f"output={output} would write a figure over the picture {path}: give another folder")
    predictor = load(config["checkpoint"], device=config["device"], places=config["places"])
    answers = predictor.answer(picture, questions, top=config["top"])
    make_folder(output)
    for question, found, name in zip(questions, answers, names, strict=True):
        listed = ", ".join(f"{text} {share:.3f}" for text, share in found.probabilities.items())
        print(f"{question}  {listed}")
        if found.unknown:
            print(f"  words that the model never learnt: {', '.join(found.unknown)}")
        _draw(picture, question, found, output / name)
    facts = zip(questions, answers, strict=True)
    write_json(
        output / "answers.json",
        [{"file_name": str(path), "question": q, "answer": a.text, "probabilities": a.probabilities} for q, a in facts],
    )
    print(f"answers and figures: {output}")


def figure_names(path: Path, questions: int) -> list[str]:
    """A file name for each question's figure: the picture's own, numbered where there are several."""
    return [f"{path.stem}.png" if questions == 1 else f"{path.stem}_{index}.png" for index in range(questions)]


def _draw(picture, question: str, found, path: Path) -> None:
    from captioning.visualise import attention_figure, caption_figure, save_figure

    title = f"{question} {found.text} ({found.probabilities[found.text]:.2f})"
    if found.attention is None:
        save_figure(caption_figure(picture, title), path)
    else:
        looks = len(found.attention)
        words = [found.text] if looks == 1 else [f"glimpse {index + 1}" for index in range(looks)]
        save_figure(attention_figure(picture, words, found.attention, box=found.box, title=title), path)


main = verbatim(entry_point("answer", AnswerConfig, answer), "question")

if __name__ == "__main__":
    main()
