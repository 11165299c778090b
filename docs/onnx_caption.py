"""Caption a photo with the files of `captioning-export format=onnx`. It needs onnxruntime, numpy and Pillow alone.

python onnx_caption.py exports/soft_onnx photo.jpg --beam-size 5 --maps maps
"""

import argparse
import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps


class OnnxCaptioner:
    """Run encoder.onnx once per photo, begin.onnx once per caption, and step.onnx once per word."""

    def __init__(self, folder):
        self.about = json.loads((Path(folder) / "captioner.json").read_text(encoding="utf-8"))
        parts = ("encoder", "begin", "step")
        self.sessions = {part: onnxruntime.InferenceSession(Path(folder) / f"{part}.onnx") for part in parts}
        self.words, self.ids, self.text_rules = (self.about[key] for key in ("vocabulary", "tokens", "text"))
        ending = self.text_rules["continued"]  # of a piece that the next piece continues
        self.unfinished = {number for number, word in enumerate(self.words) if ending and word.endswith(ending)}

    def run(self, part, inputs):
        """Run one file: {name: array} -> {name: array}."""
        names = [output.name for output in self.sessions[part].get_outputs()]
        return dict(zip(names, self.sessions[part].run(names, inputs), strict=True))

    def encode(self, picture):
        """Return the features of one photo."""
        inputs = {image["name"]: transform(picture, image)[None] for image in self.about["images"]}
        return self.run("encoder", inputs)["features"]

    def search(self, features, beam_size=None, length_normalization=None, max_length=None):
        """Return the best caption by beam search as (ids, log-probability, score, attention weights [T, L]).

        A beam of 1 is greedy decoding. Arguments that are None have the values of captioner.json.
        """
        given = {"beam_size": beam_size, "length_normalization": length_normalization, "max_length": max_length}
        chosen = self.about["decoding"] | {key: value for key, value in given.items() if value is not None}
        if chosen["beam_size"] < 1:
            raise ValueError(f"beam_size={chosen['beam_size']} must be at least 1")
        if (limit := self.about.get("longest")) is not None and chosen["max_length"] > limit:
            raise ValueError(f"max_length={chosen['max_length']} must be at most {limit}: this captioner reads no more")
        exponent, longest, end = chosen["length_normalization"], chosen["max_length"], self.ids["end"]
        begun = self.run("begin", {"features": features})
        state = {tensor["name"]: begun[tensor["name"]] for tensor in self.about["state"]}
        memory = {tensor["name"]: begun[tensor["name"]] for tensor in self.about["memory"]}
        rows, live = [([], [])], np.zeros(1, np.float32)  # the words and maps of each beam, and its log-probability
        finished, room, tokens = [], chosen["beam_size"], [self.ids["start"]]
        for length in range(1, longest + 1):
            step = self.run("step", {"token": np.array([tokens]), **state, **memory})
            log_probs = step["log_probs"][0]
            log_probs[:, [self.ids[name] for name in ("pad", "start", "unknown")]] = -np.inf
            log_probs[[token in self.unfinished for token in tokens], end] = -np.inf
            if length == longest:
                log_probs[:, list(self.unfinished)] = -np.inf
            totals = (live[:, None] + log_probs).ravel()
            best = [at for at in np.argsort(-totals, kind="stable")[:room] if np.isfinite(totals[at])]
            found = []
            for at in best:
                row, token = divmod(int(at), len(self.words))
                maps = [*rows[row][1], step["weights"][0, row]] if "weights" in step else []
                found.append((row, token, totals[at], ([*rows[row][0], token], maps)))
            done = [each for each in found if each[1] == end]
            ended = [(total / np.float32(length) ** exponent, total, kept) for _, _, total, kept in done]
            finished, room = finished + ended, room - len(ended)
            alive = [each for each in found if each[1] != end]
            if not alive:
                break
            parents, tokens, live, rows = (list(part) for part in zip(*alive, strict=True))
            live = np.array(live, np.float32)
            if finished and max(live) / np.float32(longest) ** exponent <= max(each[0] for each in finished):
                break  # no beam can overtake the best finished caption
            for tensor in self.about["state"]:
                name, axis = tensor["name"], tensor["axes"].index("beams")
                state[name] = np.take(step[tensor["next"]], parents, axis)
        cut = [(total / np.float32(length) ** exponent, total, kept) for total, kept in zip(live, rows, strict=True)]
        score, log_prob, (ids, maps) = max(finished or cut, key=lambda each: each[0])
        return ids, float(log_prob), float(score), np.stack(maps) if maps else None

    def caption(self, picture, **options):
        """Return the caption of a photo as (text, words, log-probability, attention weights [words, locations])."""
        ids, log_prob, _, weights = self.search(self.encode(picture), **options)
        pieces = [self.words[number] for number in ids if number != self.ids["end"]]
        groups, open_word = [], False
        for index, number in enumerate(ids[: len(pieces)]):
            groups += [] if open_word else [[]]
            groups[-1].append(index)
            open_word = number in self.unfinished
        ending = self.text_rules["continued"] or ""
        words = ["".join(pieces[index].removesuffix(ending) for index in group) for group in groups]
        if weights is not None:
            locations = weights.shape[1] - self.about["attention"]["tags"]  # tags have the last weights
            means = [weights[group, :locations].mean(0) for group in groups]
            weights = np.reshape(np.array(means, np.float32), (len(words), locations))
        return self.join(words), words, log_prob, weights

    def join(self, words):
        """Join words into text."""
        unspaced, text = set(self.text_rules["unspaced"]), "".join(words[:1])
        for left, right in pairwise(words):
            text += ("" if unspaced & set(left) and unspaced & set(right) else self.text_rules["space"]) + right
        for sign, shown in self.text_rules["replaced"].items():
            text = text.replace(sign, shown).strip()
        return text


def open_photo(path):
    """Open a photo in 8-bit RGB, upright, with its transparent parts over white."""
    picture = ImageOps.exif_transpose(Image.open(path))
    if picture.mode in ("F", "LAB") or picture.mode.startswith("I"):
        raise ValueError(f"{path} has colors of mode {picture.mode}: save it as 8-bit RGB first")
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return picture.convert("RGB")


def sides(image):
    """Return (width, height) of an input of encoder.onnx."""
    return (image["size"], image["size"]) if isinstance(image["size"], int) else tuple(image["size"][::-1])


def seen_box(size, image):
    """Return the region of a photo of `size` (width, height) that the encoder sees: left, top, right, bottom."""
    (width, height), (across, down) = size, sides(image)
    if image["fit"] == "squash":
        return 0, 0, width, height
    if image["fit"] == "crop":
        covered = min(width / across, height / down) * min(across, down) / image["resize"]
        x, y = across * covered, down * covered
        return (width - x) / 2, (height - y) / 2, (width + x) / 2, (height + y) / 2
    (inner_x, inner_y), (left, top) = padded(size, image)
    x, y = width / inner_x, height / inner_y
    return -left * x, -top * y, (across - left) * x, (down - top) * y


def padded(size, image):
    """Return for fit=pad the size of the photo within the input, and its corner."""
    scale = min(wanted / given for wanted, given in zip(sides(image), size, strict=True))
    inner = tuple(max(1, round(each * scale)) for each in size)
    return inner, tuple((wanted - each) // 2 for wanted, each in zip(sides(image), inner, strict=True))


def transform(picture, image):
    """Return the input of encoder.onnx for a photo, [3, height, width] uint8; encoder.onnx normalizes it."""
    method = Image.Resampling[image["interpolation"].upper()]
    if image["fit"] == "pad":
        inner, corner = padded(picture.size, image)
        seen = Image.new("RGB", sides(image), (127, 127, 127))
        seen.paste(picture.resize(inner, method), corner)
    else:
        seen = picture.resize(sides(image), method, box=seen_box(picture.size, image))
    seen = ImageOps.mirror(seen) if image.get("mirror") else seen
    return np.array(seen).transpose(2, 0, 1)


def draw_map(picture, weights, grid, box):
    """Return a photo that is bright where a word's attention weights are large."""
    shades = Image.fromarray((255 * weights / weights.max()).astype(np.uint8).reshape(grid))
    left, top, right, bottom = (round(side) for side in box)
    mask = Image.new("L", picture.size)
    mask.paste(shades.resize((right - left, bottom - top), Image.Resampling.BICUBIC), (left, top))
    return Image.composite(picture, Image.new("RGB", picture.size), mask)


def main():
    """Read the command line, print the caption, and write one map per word."""
    parser = argparse.ArgumentParser(description="Caption a photo with ONNX files.")
    parser.add_argument("folder", help="written by captioning-export format=onnx")
    parser.add_argument("photo")
    parser.add_argument("--beam-size", type=int, help="1: greedy decoding")
    parser.add_argument("--maps", help="folder for one attention map per word")
    given = parser.parse_args()
    if given.beam_size is not None and given.beam_size < 1:
        parser.error(f"--beam-size {given.beam_size} must be at least 1")
    try:
        picture = open_photo(given.photo)
    except ValueError as error:
        parser.error(str(error))
    captioner = OnnxCaptioner(given.folder)
    text, words, log_prob, weights = captioner.caption(picture, beam_size=given.beam_size)
    print(f"{text} (log-probability {log_prob:.2f})")
    grid = captioner.about["attention"]["grid"]
    if given.maps and grid:
        Path(given.maps).mkdir(parents=True, exist_ok=True)
        for number in range(len(words)):
            box = seen_box(picture.size, captioner.about["images"][0])
            draw_map(picture, weights[number], grid, box).save(Path(given.maps) / f"{number:02}.png")


if __name__ == "__main__":
    main()
