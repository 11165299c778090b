"""Read the annotated objects of the images that are scored, for CHAIR."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from captioning.data import read_categories
from captioning.errors import DataError
from captioning.evaluation.identity import ImageTexts, listed, pair
from captioning.metrics import AnnotatedObjects, compile_phrases


def read_objects(
    file: str | Path,
    images: Sequence[ImageTexts],
    *,
    source: str | Path,
    words: str | Path | Mapping[str, Sequence[str]] | None = None,
) -> AnnotatedObjects:
    """Read which categories are annotated in each image.

    Images are matched by file name if all of both sides have one, by image id otherwise.

    Args:
        file: a JSON file in the format of COCO's instances, the setting `instances`.
        images: the images that are scored; their texts are not used.
        source: where these images are from, for error messages.
        words: category -> the words that name it, or a YAML file of it; None for those of COCO's 80 categories.

    Returns:
        The categories by the image ids of `images`.

    Raises:
        DataError: the file is missing, broken or no such file, or lacks an image.
    """
    if not Path(file).exists():
        raise DataError(
            f"instances={file}: there is no such file. Give COCO's annotated objects, such as "
            "instances=data/coco/annotations/instances_val2017.json"
        )
    found = read_categories(file, words=words)
    by_name = all(entry.name for entry in images) and all(found.names.values())
    annotated = [ImageTexts(key, name if by_name else None, []) for key, name in found.names.items()]
    keys = [
        ImageTexts(None, entry.name, []) if by_name else ImageTexts(entry.image_id, None, [], entry.text)
        for entry in images
    ]
    paired = pair(keys, annotated, files=(source, file))
    if paired.extra:
        raise DataError(
            f"instances={file} lacks {len(paired.extra)} of the {len(images)} images that are scored: "
            f"{listed(images, paired.extra)}. Give the annotated objects of these images"
        )
    listed_ids = list(found.names)
    categories = {images[at].known_id: found.categories[listed_ids[row]] for row, at in paired.rows.items()}
    return AnnotatedObjects(categories, compile_phrases(found.words))
