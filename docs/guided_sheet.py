"""Draw the photos of a data set with the captions of two files, none selected by its captions.

    python docs/guided_sheet.py before/captions.json after/captions.json data/photos --first 40 --output sheet.jpg

captioning-caption and captioning-evaluate write such files: of one captioner without and with tags, or of two
captioners (`--labels soft hard`). The sheet has the first photos by image id, each with both captions.
"""

import argparse
import sys
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image

from captioning.data import list_pictures, open_picture
from captioning.errors import CaptioningError, DataError
from captioning.evaluation import ImageTexts, pair, read_id, read_results
from captioning.io import make_folder, write_whole
from captioning.visualise import Entry, caption_sheet

WIDTH = 1600  # pixels
MOST = 1_500_000  # largest size of the file in bytes
QUALITIES = (90, 85, 80, 75, 70, 65, 60, 55, 50, 45, 40)  # of JPEG


def paired(files: Sequence[Path], folder: Path) -> list[tuple[Path, str, str]]:
    """Return photo, first caption and second caption of all images, in the order of their image ids.

    Args:
        files: the two files of captions. They must caption the same images.
        folder: the folder of the photos; those without captions are left out.

    Raises:
        DataError: a file cannot be read, or an image lacks its second caption or its photo, or has several photos.
    """
    first, second = map(read_results, files)
    photos = list_pictures([folder])
    names = [path.relative_to(folder).as_posix() for path in photos]
    # Numbers in file names count only where the captions have no file names: they may be other numbers than the ids.
    by_id = not any(entry.name for entry in first)
    ids = [read_id(path.stem, str(path)) for path in photos] if by_id else names
    listed = [ImageTexts(image_id, name, []) for image_id, name in zip(ids, names, strict=True)]
    others, found = pair(second, first, files=(files[1], files[0])), pair(first, listed, files=(files[0], folder))
    if others.missing or others.extra:
        raise DataError(
            f"{files[0]} and {files[1]} caption different images: {len(others.missing)} are only in the first file, "
            f"{len(others.extra)} only in the second. Caption the same photos twice"
        )
    if found.extra:
        entry = first[found.extra[0]]
        raise DataError(
            f"{folder} lacks {len(found.extra)} of the {len(first)} photos of {files[0]}, such as "
            f"{entry.name or entry.image_id}. Give the folder that has them"
        )
    if twice := [entry.image_id for entry in first if by_id and ids.count(entry.image_id) > 1]:
        raise DataError(
            f"{folder} has {ids.count(twice[0])} photos with the id {twice[0]}. Add 'file_name' to each image of "
            f"{files[0]}"
        )
    photo_of = {row: photos[photo] for photo, row in found.rows.items()}
    order = sorted(range(len(first)), key=lambda row: _order(first[row]))
    return [(photo_of[row], first[row].texts[0], second[others.rows[row]].texts[0]) for row in order]


def draw_sheet(rows: Sequence[tuple[Path, str, str]], labels: Sequence[str], *, columns: int = 5) -> Figure:
    """Draw photos with both captions; the title counts the captions that differ."""
    entries = [
        Entry(open_picture(photo), dict(zip(labels, captions, strict=True)), title=photo.name)
        for photo, *captions in rows
    ]
    differ = sum(first != second for _, first, second in rows)
    title = f"{len(rows)} photos in the order of their ids: the captions of {differ} differ ({' and '.join(labels)})"
    return caption_sheet(entries, columns=columns, title=title)


def save_sheet(figure: Figure, path: Path, *, most: int = MOST) -> int:
    """Save a sheet as JPEG, `WIDTH` pixels wide, with the highest quality that the size allows; return the size.

    Raises:
        DataError: it is too large with the lowest quality.
    """
    drawn = BytesIO()
    figure.savefig(drawn, format="png", dpi=WIDTH / figure.get_figwidth())
    with Image.open(drawn) as opened:
        picture = opened.convert("RGB")
    for quality in QUALITIES:
        content = _jpeg(picture, quality)
        if len(content) <= most:
            make_folder(path.parent)
            write_whole(path, lambda file: file.write(content))  # noqa: B023
            return len(content)
    raise DataError(f"{path} would have more than {most / 1e6:.1f} MB. Draw fewer photos with --first")


def _jpeg(picture: Image.Image, quality: int) -> bytes:
    file = BytesIO()
    picture.save(file, format="JPEG", quality=quality, optimize=True)
    return file.getvalue()


def _order(entry: ImageTexts) -> tuple[bool, int, str]:
    """Sort whole numbers before texts, and by file name where there is no id."""
    is_number = isinstance(entry.image_id, int)
    return not is_number, entry.image_id if is_number else 0, str(entry.image_id or entry.name)


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the arguments, draw the sheet, and print its path and size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("before", type=Path, help="captions.json of captioning-caption or captioning-evaluate")
    parser.add_argument("after", type=Path, help="captions.json of the same photos")
    parser.add_argument("photos", type=Path, help="folder of the photos")
    parser.add_argument("--first", type=int, default=40, help="number of photos (default: 40)")
    parser.add_argument("--labels", nargs=2, default=["before", "after"], help="names of the two files on the sheet")
    parser.add_argument("--output", type=Path, default=Path("sheet.jpg"), help="JPEG file (default: sheet.jpg)")
    given = parser.parse_args(arguments)
    if given.first < 1:
        parser.error(f"--first must be at least 1, not {given.first}")
    if given.labels[0] == given.labels[1]:
        parser.error(f"--labels must be two different names, not {given.labels[0]!r} twice")
    try:
        rows = paired((given.before, given.after), given.photos)[: given.first]
        size = save_sheet(draw_sheet(rows, given.labels), given.output)
    except CaptioningError as error:
        sys.exit(f"error: {error}")
    print(f"{given.output}: {len(rows)} photos, {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
