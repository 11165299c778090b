"""Draw the folder that the commands of the documentation are run in.

Its conventions: `photo.jpg`, and `photos/` with the three photos that README names; the data sets `data/flickr8k`,
`data/flickr30k`, `data/coco`, `data/vizwiz`, `data/nocaps`, `data/stair`, `data/easy_vqa` and `data/vqa_v2`, `data/own`
with captions.csv, and `data/cc3m` with tar archives; a detector's `data/regions`; `results.json`, `captions.json`,
`annotations.json` and `image_info_test2014.json`; `about.md`; `a.txt`, `b.txt` and `c.txt`. The tests that run the
pages add the runs `runs/soft` and `runs/hard`, with their evaluations, and `runs/soft_0`, `runs/soft_1`, `runs/hard_0`
and `runs/hard_1` for commands on several seeds.
"""

import csv
import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from pages import ROOT
from PIL import Image

SENTENCES = [
    "a red dog runs on grass",
    "two blue cats sit",
    "the green bird flies over a lake",
    "one white horse",
    "a man rides the yellow bike",
    "children play with balls in a park",
    "a small dog on the sand",
    "an old gray house stands alone",
    "a group of people on the beach",
]
PHOTOS = ["dog.jpg", "gull.jpg", "horses.jpg"]
SPLITS = {"train": 12, "val": 6, "test": 6}
CAPTIONS = 5  # per image
SUBSETS = {"train": "train2014", "val": "val2014", "test": "test2015"}
QUESTIONS = [("is there a dog?", "yes/no", "yes"), ("what color is it?", "other", "red"), ("how many?", "number", "2")]
WORDS = yaml.safe_load((ROOT / "captioning" / "data" / "coco_words.yaml").read_text(encoding="utf-8"))
CATEGORIES = {name: number for number, name in enumerate(WORDS, start=1)}  # of COCO's instances


def draw_workspace(folder: Path) -> Path:
    """Draw the data sets and photos in a folder, and return it."""
    photos = ROOT / "captioning" / "web" / "demo" / "photos"
    (folder / "photos").mkdir(parents=True)
    for name in PHOTOS:
        shutil.copy(photos / name, folder / "photos")
    shutil.copy(photos / "skateboard.jpg", folder / "photo.jpg")
    shutil.copy(ROOT / "docs" / "cards" / "flickr8k-small.md", folder / "about.md")
    draw_karpathy(folder / "data" / "flickr8k", "flickr8k")
    draw_karpathy(folder / "data" / "flickr30k", "flickr30k")
    draw_coco(folder / "data" / "coco")
    draw_vizwiz(folder / "data" / "vizwiz")
    draw_nocaps(folder / "data" / "nocaps")
    draw_stair(folder / "data" / "stair")
    draw_own(folder / "data" / "own")
    draw_archives(folder / "data" / "cc3m")
    draw_easy_vqa(folder / "data" / "easy_vqa")
    draw_vqa_v2(folder / "data" / "vqa_v2")
    draw_regions(folder / "data" / "regions")
    for name in ("a.txt", "b.txt", "c.txt"):
        (folder / name).write_text("\n".join(SENTENCES * 200), encoding="utf-8")
    annotations = folder / "data" / "coco" / "annotations"
    shutil.copy(annotations / "captions_val2017.json", folder / "annotations.json")
    images = json.loads((folder / "annotations.json").read_text())["images"]
    write(folder / "results.json", [{"image_id": each["id"], "caption": SENTENCES[0]} for each in images])
    write(folder / "captions.json", [{"image_id": each["id"], "caption": SENTENCES[1]} for each in images])
    write(folder / "image_info_test2014.json", {"images": images})
    return folder


def write(path: Path, content: Any) -> None:
    """Write JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def draw_image(path: Path, seed: int, size: tuple[int, int] = (96, 64)) -> None:
    """Draw noise."""
    noise = np.random.default_rng(seed).integers(0, 256, (4, 6, 3), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise).resize(size, Image.Resampling.NEAREST).save(path)


def captions_of(number: int) -> list[str]:
    """Return the captions of one image."""
    return [SENTENCES[(number + shift) % len(SENTENCES)] for shift in range(CAPTIONS)]


def numbered() -> list[tuple[int, str]]:
    """Return (number, split) of each image."""
    splits = [split for split, count in SPLITS.items() for _ in range(count)]
    return list(enumerate(splits, start=1))


def karpathy_entry(number: int, split: str, **names: Any) -> dict[str, Any]:
    """Return one image's entry in Karpathy's JSON."""
    sentences = [{"raw": text, "tokens": text.split()} for text in captions_of(number)]
    return {"imgid": number, "split": split, "sentences": sentences, **names}


def draw_karpathy(root: Path, name: str) -> None:
    """Draw a data set in the layout of Karpathy's split of Flickr8k and Flickr30k."""
    entries = []
    for number, split in numbered():
        draw_image(root / "images" / f"{number}.jpg", number)
        entries.append(karpathy_entry(number, split, filename=f"{number}.jpg"))
    write(root / f"dataset_{name}.json", {"images": entries, "dataset": name})


def draw_coco(root: Path) -> None:
    """Draw COCO: Karpathy's split with the images of 2014, and the official annotations of 2014 and 2017."""
    entries = []
    official: dict[str, dict[str, list]] = {}
    for number, split in numbered():
        part = "train" if split == "train" else "val"
        name = f"COCO_{part}2014_{number:012}.jpg"
        draw_image(root / f"{part}2014" / name, number)
        shutil.copytree(root / f"{part}2014", root / f"{part}2017", dirs_exist_ok=True)
        (root / f"{part}2017" / name).rename(root / f"{part}2017" / f"{number:012}.jpg")
        entries.append(karpathy_entry(number, split, cocoid=number, filepath=f"{part}2014", filename=name))
        size = {"id": number, "width": 96, "height": 64}
        for year, file in (("2014", name), ("2017", f"{number:012}.jpg")):
            captions = official.setdefault(f"captions_{part}{year}", {"images": [], "annotations": []})
            instances = official.setdefault(f"instances_{part}{year}", {"images": [], "annotations": []})
            for each in (captions, instances):
                each["images"].append({**size, "file_name": file})
            for shift, text in enumerate(captions_of(number)):
                captions["annotations"].append({"id": 10 * number + shift, "image_id": number, "caption": text})
            box = {"bbox": [8, 8, 48, 32], "segmentation": [[8, 8, 56, 8, 56, 40, 8, 40]], "area": 1536, "iscrowd": 0}
            instances["annotations"].append({"id": number, "image_id": number, "category_id": CATEGORIES["dog"], **box})
            instances["categories"] = [{"id": key, "name": name} for name, key in CATEGORIES.items()]
    write(root / "dataset_coco.json", {"images": entries, "dataset": "coco"})
    for name, content in official.items():
        write(root / "annotations" / f"{name}.json", content)


def coco_content(names: dict[int, str], captions: dict[int, list[str]], **keys: Any) -> dict[str, list]:
    """Return a file in COCO's format; `keys` are further keys of every annotation."""
    listed = [(number, text) for number, texts in captions.items() for text in texts]
    annotations = [{"id": at, "image_id": number, "caption": text, **keys} for at, (number, text) in enumerate(listed)]
    return {"images": [{"id": number, "file_name": name} for number, name in names.items()], "annotations": annotations}


def draw_vizwiz(root: Path) -> None:
    """Draw VizWiz-Captions: the official annotations and photos of train and val."""
    for part in ("train", "val"):
        names = {number: f"VizWiz_{part}_{number:08}.jpg" for number, split in numbered() if split == part}
        for number, name in names.items():
            draw_image(root / part / name, number)
        marks = {"is_rejected": False, "is_precanned": False, "text_detected": False}
        content = coco_content(names, {number: captions_of(number) for number in names}, **marks)
        content["annotations"][0]["is_rejected"] = True
        write(root / "annotations" / f"{part}.json", content)


def draw_nocaps(root: Path) -> None:
    """Draw nocaps: captions and images of val, and images of test."""
    names = {number: f"{number:016x}.jpg" for number, _ in numbered()}
    for part in ("val", "test"):
        for number, name in names.items():
            draw_image(root / part / name, number)
    content = coco_content(names, {number: captions_of(number) for number in names})
    write(root / "nocaps_test_image_info.json", {"images": content["images"]})
    for image in content["images"]:
        domain = ("in-domain", "near-domain", "out-domain")[image["id"] % 3]
        image |= {"open_images_id": image["file_name"][:-4], "domain": domain}
    write(root / "nocaps_val_4500_captions.json", content)


def draw_stair(root: Path) -> None:
    """Draw STAIR Captions of the images that `draw_coco` draws."""
    for part in ("train", "val"):
        numbers = [number for number, split in numbered() if (split == "train") == (part == "train")]
        names = {number: f"COCO_{part}2014_{number:012}.jpg" for number in numbers}
        texts = {number: ["赤い犬が草の上を走る", "二匹の青い猫が座っている"] for number in numbers}
        write(root / f"stair_captions_v1.2_{part}.json", coco_content(names, texts))


def draw_archives(folder: Path) -> None:
    """Draw two tar archives, as img2dataset writes them."""
    folder.mkdir(parents=True)
    for archive in range(2):
        with tarfile.open(folder / f"{archive:05d}.tar", "w") as file:
            for number in range(8):
                photo = folder / f"{archive:05d}{number:04d}.jpg"
                draw_image(photo, seed=8 * archive + number)
                text = photo.with_suffix(".txt")
                text.write_text(captions_of(number)[0], encoding="utf-8")
                for path in (photo, text):
                    file.add(path, path.name)
                    path.unlink()


def draw_own(root: Path) -> None:
    """Draw photos with a table of captions, as a user writes it."""
    rows = [["image", "caption", "split"]]
    for number, split in numbered():
        draw_image(root / "photos" / f"{number:02}.jpg", number)
        rows += [[f"photos/{number:02}.jpg", text, split] for text in captions_of(number)[:2]]
    with (root / "captions.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


def draw_easy_vqa(root: Path) -> None:
    """Draw questions and images in the layout of the easy-vqa package."""
    for part, count in (("train", 30), ("test", 8)):
        questions = []
        for number in range(count):
            draw_image(root / part / "images" / f"{number}.png", number, (64, 64))
            questions += [["what color is the shape?", ["red", "blue"][number % 2], number]]
            questions += [["is there a circle?", ["yes", "no"][number % 2], number]]
        write(root / part / "questions.json", questions)


def draw_vqa_v2(root: Path) -> None:
    """Draw VQA v2: three questions per image of COCO; those of the test split have no answers."""
    for number, split in numbered():
        draw_image(root / SUBSETS[split] / f"COCO_{SUBSETS[split]}_{number:012}.jpg", number)
    for split, subset in SUBSETS.items():
        questions, annotations = [], []
        for number in (number for number, its in numbered() if its == split):
            for shift, (text, kind, answer) in enumerate(QUESTIONS):
                key = {"question_id": 10 * number + shift, "image_id": number}
                questions.append({**key, "question": text})
                answers = [{"answer": answer, "answer_id": each} for each in range(1, 11)]
                annotations.append({**key, "answer_type": kind, "question_type": text.split()[0], "answers": answers})
        write(root / f"v2_OpenEnded_mscoco_{subset}_questions.json", {"questions": questions})
        if split != "test":
            write(root / f"v2_mscoco_{subset}_annotations.json", {"annotations": annotations})


def draw_regions(root: Path) -> None:
    """Draw a detector's features of four regions per image."""
    root.mkdir(parents=True)
    for number, _ in numbered():
        random = np.random.default_rng(number)
        boxes = np.array([[8 * each, 4, 8 * each + 40, 50] for each in range(4)], np.float32)
        np.savez(root / f"{number}.npz", x=random.normal(size=(4, 2048)).astype(np.float32), bbox=boxes)
