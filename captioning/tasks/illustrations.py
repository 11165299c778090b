"""Draw captions of the same few validation images with attention maps, again and again while a model is trained."""

from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch.utils.data import Dataset

from captioning.checkpoints import looks_at_regions
from captioning.data import Record, collate, open_picture
from captioning.inference import Predictor
from captioning.io import file_exists
from captioning.models import CaptionModel

_WIDTH = 1200  # pixels of an image


class Illustrator:
    """A function (model, number of images) -> [(text, image)], for the first validation images that are files.

    Args:
        records: the validation images.
        data: their data set, with one item per record.
        metadata: the metadata of the run's checkpoints.
        search: the search that writes the captions of the validation.
    """

    def __init__(self, records: Sequence[Record], data: Dataset, metadata: Mapping[str, Any], search: Callable):
        self.records, self.data, self.metadata, self.search = records, data, metadata, search

    def __call__(self, captioner: CaptionModel, count: int) -> list[tuple[str, Image.Image]]:
        """Caption and draw the images. The model is in evaluation mode, and no random number of the run is drawn."""
        # Imported here because most runs draw no figures, and importing matplotlib takes a second.
        from captioning.inference import draw_figure
        from captioning.visualise import thumbnail

        files = (index for index, record in enumerate(self.records) if file_exists(record.path))
        shown = list(islice(files, count))
        if not shown:
            return []
        predictor = Predictor(captioner, self.metadata, encoder_weights=None, path=Path("the run's checkpoint"))
        batch = collate([self.data[index, 0] for index in shown])
        images = batch.images.to(predictor.device)
        mask = None if batch.mask is None else batch.mask.to(predictor.device)
        cuda = [predictor.device] if predictor.device.type == "cuda" else []
        with torch.inference_mode(), torch.random.fork_rng(devices=cuda):
            found = predictor.search_features(images, self.search, mask=mask)
            named = captioner.name_tags(images)
        drawn = []
        for index, group, nouns in zip(shown, found, named, strict=True):
            path = self.records[index].path
            picture, regions = open_picture(path), looks_at_regions(self.metadata)
            caption = predictor.as_caption(group[0], None if regions else picture.size, nouns=nouns)
            if regions:  # their boxes are not in the batch, so the weights cannot be drawn
                caption = caption._replace(attention=None)
            figure = draw_figure(picture, caption, "strip")
            drawn.append((f"{path.name}: {caption.text}", thumbnail(figure, _WIDTH).convert("RGB")))
        return drawn
