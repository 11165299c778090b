"""Answer a question about your photo: `captioning-answer photo.jpg "is it red?" checkpoint=PATH`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from captioning.config import AnswerConfig, entry_point

if TYPE_CHECKING:
    from PIL import Image

    from captioning.inference import Answer


def answer(config: dict[str, Any]) -> None:
    """Print the most probable answers; write answer.json and a PNG that shows where the model looked.

    Raises:
        ConfigError: the figure would replace the photo.
    """
    from captioning.data import open_picture
    from captioning.errors import ConfigError
    from captioning.inference import load_answerer
    from captioning.io import make_folder, write_json

    path, question, output = Path(config["image"]), config["question"], Path(config["output"])
    photo, figure = open_picture(path), output / f"{path.stem}.png"
    if figure.exists() and path.is_file() and figure.samefile(path):
        raise ConfigError(f"output={output} would replace the photo {path} by a figure: give another folder")
    predictor = load_answerer(config["checkpoint"], device=config["device"], hard_attention=config["hard_attention"])
    (found,) = predictor.answer(photo, question, top=config["top"])
    print(f"{question}")
    for text, share in found.probabilities.items():
        print(f"  {share:.3f}  {text}")
    if found.unknown:
        print(f"unknown words, not in the training questions: {', '.join(found.unknown)}")
    make_folder(output)
    _draw(photo, question, found, figure)
    facts = {"file_name": str(path), "question": question, "answer": found.text, "probabilities": found.probabilities}
    write_json(output / "answer.json", facts)
    print(f"answer.json and {figure.name} are in {output}")


def _draw(photo: "Image.Image", question: str, found: "Answer", path: Path) -> None:
    from captioning.visualise import attention_figure, caption_figure, save_figure

    title = f"{question} {found.text} ({found.probabilities[found.text]:.2f})"
    if found.attention is None:
        save_figure(caption_figure(photo, title), path)
    else:
        glimpses = len(found.attention)
        words = [found.text] if glimpses == 1 else [f"glimpse {index + 1}" for index in range(glimpses)]
        save_figure(attention_figure(photo, words, found.attention, box=found.box, grid=found.grid, title=title), path)


main = entry_point("answer", AnswerConfig, answer, plain=["image", "question"])

if __name__ == "__main__":
    main()
