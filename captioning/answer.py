"""Answer a question about your own image: `captioning-answer checkpoint=PATH image=a.jpg question="is it red?"`."""

from pathlib import Path
from typing import Any

from captioning.config import AnswerConfig, entry_point


def answer(config: dict[str, Any]) -> None:
    """Prints the likeliest answers with their probabilities; leaves answer.json and a PNG of where the model looked."""
    from captioning.data import open_picture
    from captioning.errors import ConfigError
    from captioning.inference import load_answerer
    from captioning.io import make_folder, write_json

    path, question, output = Path(config["image"]), config["question"], Path(config["output"])
    picture, figure = open_picture(path), output / f"{path.stem}.png"
    if figure.exists() and figure.samefile(path):
        raise ConfigError(f"output={output} would write a figure over the picture {path}: give another folder")
    predictor = load_answerer(config["checkpoint"], device=config["device"], hard_attention=config["hard_attention"])
    (found,) = predictor.answer(picture, question, top=config["top"])
    print(f"{question}")
    for text, share in found.probabilities.items():
        print(f"  {share:.3f}  {text}")
    if found.unknown:
        print(f"words that the model never learnt: {', '.join(found.unknown)}")
    make_folder(output)
    _draw(picture, question, found, figure)
    facts = {"file_name": str(path), "question": question, "answer": found.text, "probabilities": found.probabilities}
    write_json(output / "answer.json", facts)
    print(f"answer and figure: {output}")


def _draw(picture, question: str, found, path: Path) -> None:
    from captioning.visualise import attention_figure, caption_figure, save_figure

    title = f"{question} {found.text} ({found.probabilities[found.text]:.2f})"
    if found.attention is None:
        save_figure(caption_figure(picture, title), path)
    else:
        looks = len(found.attention)
        words = [found.text] if looks == 1 else [f"glimpse {index + 1}" for index in range(looks)]
        save_figure(attention_figure(picture, words, found.attention, box=found.box, title=title), path)


main = entry_point("answer", AnswerConfig, answer, plain=["image", "question"])

if __name__ == "__main__":
    main()
