"""BLEU-1…4, ROUGE-L and CIDEr as the official scorers of coco-caption compute them, on Penn-Treebank tokens.

The scorers are pycocoevalcap's own Python code; only its tokeniser, which needs Java, is replaced by
`captioning.tokenizer`. "CIDEr" is coco-caption's, that is CIDEr-D; document frequencies come from the references
being scored, so a subset's score is not a slice of the whole's, and one image alone scores 0.
"""

from collections.abc import Mapping, Sequence

from captioning.errors import DataError
from captioning.tokenizer import tokenize


def score(references: Mapping[int, Sequence[str]], captions: Mapping[int, str]) -> dict[str, float]:
    """Scores one caption an image against its references.

    Args:
        references: image id -> raw reference captions, at least one each.
        captions: image id -> raw caption; exactly the images of `references`.

    Returns:
        {"BLEU-1", …, "BLEU-4", "ROUGE-L", "CIDEr"}: fractions, as pycocoevalcap gives them.

    Raises:
        DataError: the two do not cover the same images, or an image has no reference.
    """
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    _check(references, captions)
    truths = {image_id: [" ".join(tokenize(text)) for text in texts] for image_id, texts in references.items()}
    # In the order of the references, so that equal inputs give equal bits whatever order the captions came in.
    results = {image_id: [" ".join(tokenize(captions[image_id]))] for image_id in references}
    bleu, _ = Bleu(4).compute_score(truths, results, verbose=0)
    rouge, _ = Rouge().compute_score(truths, results)
    cider, _ = Cider().compute_score(truths, results)
    scores = {f"BLEU-{n}": value for n, value in enumerate(bleu, start=1)}
    return {name: float(value) for name, value in (scores | {"ROUGE-L": rouge, "CIDEr": cider}).items()}


def _check(references: Mapping[int, Sequence[str]], captions: Mapping[int, str]) -> None:
    if not references:
        raise DataError("nothing to score: there are no references")
    faults = {
        "without a caption": references.keys() - captions.keys(),
        "without references": captions.keys() - references.keys(),
        "with an empty list of references": {image_id for image_id, texts in references.items() if not texts},
    }
    for fault, ids in faults.items():
        if ids:
            shown = ", ".join(map(str, sorted(ids)[:5]))
            raise DataError(f"{len(ids)} images {fault}, cannot score: image ids {shown}{' …' if len(ids) > 5 else ''}")
