"""Write the model card of an exported checkpoint in Markdown: model, encoder, data, scores and the author's text.

On the Hugging Face Hub, the card begins with the same facts in YAML, from which the hub builds its page and its filters
(https://huggingface.co/docs/hub/model-cards).
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from captioning.checkpoints.encoder_settings import encoder_names, hub_names, input_text, named_weights

_PARTS = ("attention", "recurrence", "cell", "conditioning", "readout")  # parts of a model that the card names
TOOLS = {
    "image_captioning": "captioning-caption photo.jpg --checkpoint {name}",
    "vqa": 'captioning-answer checkpoint={name} image=photo.jpg question="…"',
    "language_model": "captioning-sample checkpoint={name}",
}
PIPELINES = {
    "image_captioning": "image-to-text",
    "vqa": "visual-question-answering",
    "language_model": "text-generation",
}  # the hub's names of tasks
_METRICS = {
    "BLEU": "bleu",
    "ROUGE": "rouge",
    "METEOR": "meteor",
    "CIDEr": "cider",
    "SPICE": "spice",
}  # beginning of a score's name -> the hub's name
_OWN_DATA = re.compile(
    r"(?:auto|csv|folder|json_lines|parquet|webdataset|text|hello|scenes)(?:-[0-9a-f]{8})?$"
)  # not on the hub
_DATASET = re.compile(r"[\w.-]+(?:/[\w.-]+)?", re.ASCII)


def make_card(name: str, document: Mapping[str, Any], *, checkpoint: str | None = None) -> str:
    """Return the Markdown card for the content of NAME.json.

    Args:
        name: name of the exported checkpoint.
        document: content of NAME.json; the card includes its `scores` and its text `card`, if present.
        checkpoint: address of the model on the hub, for the command on the card; None: its name.
    """
    parts = [f"# {name}", _table(["", ""], _facts(document))]
    install = "    pip install 'captioning[hub]'\n" if checkpoint else ""
    parts += [f"{install}    " + TOOLS[document["task"]].format(name=checkpoint or name)]
    if tags := document.get("tags"):
        parts += [
            f"This command guides the captions by tags (`tags={tags}`); with `tags=null` the model captions alone."
        ]
    if scores := document.get("scores"):
        intervals = scores["intervals"]
        rows = [(key, f"{value:.3f}", _interval(intervals.get(key))) for key, value in scores["values"].items()]
        parts += ["## Scores", f"{scores['of']}.", _table(["Score", "Value", "95 % interval"], rows)]
    if text := document.get("card"):
        parts.append(text.strip())
    return "\n\n".join(parts) + "\n"


def make_hub_card(name: str, document: Mapping[str, Any], *, checkpoint: str) -> str:
    """Return the card for the hub: YAML between two lines of dashes, then the card in Markdown.

    Args:
        name: name of the exported checkpoint.
        document: content of NAME.json, with `license`.
        checkpoint: address of the model on the hub.
    """
    front = yaml.safe_dump(hub_metadata(name, document), sort_keys=False, allow_unicode=True)
    return f"---\n{front}---\n\n{make_card(name, document, checkpoint=checkpoint)}"


def hub_metadata(name: str, document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metadata of a model in the hub's format; entries without a value are left out."""
    pipeline, data = PIPELINES[document["task"]], str(document["config"]["data"].get("name"))
    results = list(_results(document.get("scores") or {}, pipeline))
    entries: dict[str, Any] = {
        "license": document["license"],
        "library_name": "captioning",
        "pipeline_tag": pipeline,
        "tags": [document["task"].replace("_", "-")],
        "datasets": [data] if _DATASET.fullmatch(data) and not _OWN_DATA.match(data) else [],
        "base_model": hub_names(document["config"].get("encoder") or {}),
        "metrics": sorted({metric["type"] for result in results for metric in result["metrics"]}),
        "model-index": [{"name": name, "results": results}] if results else [],
    }
    return {key: value for key, value in entries.items() if value}


def _results(scores: Mapping[str, Any], pipeline: str) -> Iterator[dict[str, Any]]:
    """Yield the scores of one split and decoding as a result of the hub's model-index."""
    about = scores.get("about")
    if about:
        decoding = about["decoding"]
        yield {
            "task": {"type": pipeline},
            "dataset": {"type": about["data"], "name": f"{about['data']} {about['split']}", "split": about["split"]},
            "metrics": [
                {"type": _metric(key), "name": f"{key} ({decoding})", "value": value, "args": {"decoding": decoding}}
                for key, value in scores["values"].items()
            ],
        }


def _metric(name: str) -> str:
    known = next((metric for start, metric in _METRICS.items() if name.startswith(start)), None)
    return known or re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def _facts(document: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    config, weights = document["config"], document["weights"]
    model = config["model"]
    yield "Parts", ", ".join(f"{key} `{_part(model[key])}`" for key in _PARTS if isinstance(model.get(key), dict))
    yield "Sizes", ", ".join(f"`{key}` {model[key]}" for key in ("width", "embedding_size", "layers") if key in model)
    if encoder := config.get("encoder"):
        transform = config["transform"]
        yield "Encoder", encoder_names(encoder)
        named = ", ".join(map(str, named_weights(encoder)))
        source = "in this model's file" if weights["with encoder"] else f"`encoder.weights={named}`"
        yield "Encoder weights", f"{source}; their hash is {document['fingerprint']}"
        yield "Encoder input", input_text(transform)
    yield "Vocabulary", f"{len(document['vocabulary']):,} entries"
    images = [f"{count:,} {split} images" for split, count in document.get("images", {}).items()]
    yield "Data", ", ".join([str(config["data"].get("name")), *images])
    if license_name := document.get("license"):
        yield "License", license_name
    yield "Weights", f"{weights['numbers']:,} numbers, {weights['dtype']}, {weights['bytes'] / 1e6:.2f} MB"


def _table(head: Sequence[str], rows) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _interval(ends: Sequence[float] | None) -> str:
    return "" if ends is None else f"[{ends[0]:.3f}, {ends[1]:.3f}]"


def _part(settings: Mapping[str, Any]) -> str:
    """Return a part's class with its settings, such as `LookFirst(gate=True, word=True)`."""
    own = [
        f"{key}={value}"
        for key, value in settings.items()
        if not key.startswith("_") and not isinstance(value, dict | list)
    ]
    return settings["_target_"].rpartition(".")[2] + (f"({', '.join(own)})" if own else "")
