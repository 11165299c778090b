"""Captions your own pictures: `captioning-caption checkpoint=PATH images=[a.jpg,folder/] output=DIR`."""

import sys
from pathlib import Path
from typing import Any

from captioning.config import build, entry_point
from captioning.schemas import CaptionConfig


def caption(config: dict[str, Any]) -> None:
    """Prints each picture's captions, best first; leaves captions.json and a PNG a picture of where words looked."""
    from captioning.data.pictures import list_pictures, open_picture
    from captioning.ensemble import load_all
    from captioning.errors import DataError
    from captioning.files import write_json
    from captioning.searches import seeded

    images = config["images"]
    paths = list_pictures([images] if isinstance(images, str) else images)
    decoding = dict(config["decoding"])
    predictor = load_all(
        config["checkpoint"], decoding.pop("checkpoints") or [], device=config["device"], places=config["places"]
    )
    search = seeded(build(decoding))
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
        captions = predictor.all_captions([picture for _, picture in opened], search) if opened else []
        for (path, picture), (best, *others) in zip(opened, captions, strict=True):
            for made in (best, *others):
                print(f"{path}: {made.text}")
            figure = output / _figure_name(path, len(results), paths)
            _draw(picture, best, figure)
            further = {"others": [_facts(made) for made in others]} if others else {}
            results.append({"image_id": len(results), **_facts(best), "file_name": str(path), **further})
    write_json(output / "captions.json", results)
    for reason in skipped:
        print(f"left out: {reason}", file=sys.stderr)
    print(f"{len(results)} pictures captioned, {len(skipped)} left out; captions and figures: {output}")


def _facts(made) -> dict[str, Any]:
    return {"caption": made.text, "log_prob": made.log_prob, "score": made.score}


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
