"""Captions your own pictures: `captioning-caption checkpoint=PATH images=[a.jpg,folder/] output=DIR`."""

import sys
from pathlib import Path
from typing import Any

from captioning.config import build, entry_point
from captioning.schemas import CaptionConfig


def caption(config: dict[str, Any]) -> None:
    """Prints a caption a picture; leaves captions.json and, a picture, one PNG of where the words looked."""
    from captioning.data.pictures import list_pictures, open_picture
    from captioning.errors import DataError
    from captioning.files import write_json
    from captioning.predictor import load

    images = config["images"]
    paths = list_pictures([images] if isinstance(images, str) else images)
    predictor = load(config["checkpoint"], device=config["device"], places=config["places"])
    search = build(config["decoding"])
    output = Path(config["output"])
    output.mkdir(parents=True, exist_ok=True)
    results, skipped = [], []
    for at in range(0, len(paths), config["batch_size"]):
        opened = []
        for path in paths[at : at + config["batch_size"]]:
            try:
                opened.append((path, open_picture(path)))
            except DataError as error:
                if not config["skip_unreadable"]:
                    raise
                skipped.append(str(error))
        captions = predictor.caption_pictures([picture for _, picture in opened], search) if opened else []
        for (path, picture), made in zip(opened, captions, strict=True):
            print(f"{path}: {made.text}")
            figure = output / _figure_name(path, len(results), paths)
            _draw(picture, made, figure)
            results.append(
                {"image_id": len(results), "caption": made.text, "file_name": str(path), "log_prob": made.log_prob}
            )
    write_json(output / "captions.json", results)
    for reason in skipped:
        print(f"left out: {reason}", file=sys.stderr)
    print(f"{len(results)} pictures captioned, {len(skipped)} left out; captions and figures: {output}")


def _figure_name(path: Path, index: int, paths: list[Path]) -> str:
    """The picture's name, with its number where two pictures share it."""
    twins = sum(other.stem == path.stem for other in paths) > 1
    return f"{path.stem}_{index}.png" if twins else f"{path.stem}.png"


def _draw(picture, made, path: Path) -> None:
    from captioning.visualise import attention_figure, caption_figure, save_figure

    if made.attention is None:
        save_figure(caption_figure(picture, made.text), path)
    else:
        figure = attention_figure(picture, made.tokens, made.attention, box=made.box, log_prob=made.log_prob)
        save_figure(figure, path)


main = entry_point("caption", CaptionConfig, caption)

if __name__ == "__main__":
    main()
