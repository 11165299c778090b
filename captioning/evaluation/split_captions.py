"""Caption all images of a split with one model or an ensemble."""

from collections.abc import Callable, Sequence

import torch
from torch.utils.data import DataLoader
from tqdm import tqdm

from captioning.data import ImageDataset, Record, collate_images, open_picture
from captioning.features import AllViews, EachView, Source, report_unreadable
from captioning.inference import Predictor
from captioning.tags import Tag


def sources_of(
    predictor: Predictor, features: Callable, records: Sequence[Record], *, name: str, skip_unreadable: bool
) -> tuple[list[Source], Sequence[Record]]:
    """Prepare the source of features of every member of a predictor, and report unreadable images.

    Args:
        predictor: the model or ensemble.
        features: a function of `captioning.features.sources`, with its settings.
        records: the images of the split.
        name: the name of the data set.
        skip_unreadable: whether to skip unreadable images instead of raising an error.

    Returns:
        One source per member, and the records that all members can read.
    """
    sources = []
    for member in predictor.members:
        views: list[Source] = []
        for view in member.views:
            skip = skip_unreadable and not views  # images that the first view can read, all views can read
            views.append(features(member.encoder, view, records, name=name, skip_unreadable=skip))
            report_unreadable(views[-1])
            records = views[-1].records
        sources.append(_together(views))
    return sources, records


def _together(views: Sequence[Source]) -> Source:
    """Join the sources of V views of an image into one source of features [V, …]; return a single source as it is."""
    if len(views) == 1:
        return views[0]
    last = views[-1]  # its records are those that all views can read
    return last._replace(read=AllViews([view.read for view in views]), encoder=EachView(last.encoder))


def write_captions(
    predictor: Predictor, sources: Sequence[Source], records: Sequence[Record], *, search: Callable, batch_size: int
) -> dict[int, str]:
    """Caption every record.

    Args:
        predictor: the model or ensemble.
        sources: one source of features per member; see `sources_of`.
        records: the images.
        search: the decoding, with its arguments set.
        batch_size: images searched together.

    Returns:
        {image id: caption}, in the order of the records.
    """
    loaders = [
        DataLoader(
            ImageDataset(records, source.read),
            batch_size=batch_size,
            num_workers=source.workers,
            collate_fn=collate_images,
        )
        for source in sources
    ]
    encoders = [source.encoder.to(predictor.device) for source in sources]
    by_id = {record.image_id: record for record in records}
    captions: dict[int, str] = {}
    with torch.inference_mode():
        for parts in tqdm(
            zip(*loaders, strict=True), desc="captions", unit="batch", total=len(loaders[0]), disable=None
        ):
            image_ids, images, masks = zip(*parts, strict=True)
            features = tuple(e(i.to(predictor.device)) for e, i in zip(encoders, images, strict=True))
            masks = tuple(None if mask is None else mask.to(predictor.device) for mask in masks)
            if len(sources) == 1:
                features, masks = features[0], masks[0]
            ids = image_ids[0].tolist()
            names = [f"image {image_id}" for image_id in ids]
            found = predictor.search_features(
                features, search, mask=masks, names=names, tags=_tags(predictor, [by_id[each] for each in ids])
            )
            captions |= zip(ids, (predictor.text_of(best) for best, *_ in found), strict=True)
    return captions


def _tags(predictor: Predictor, records: Sequence[Record]) -> list[list[Tag]] | None:
    """Return the tags of images for the predictor's guide; None without a guide."""
    if predictor.guide is None:
        return None
    return [
        predictor.guide.tags_of(open_picture(record.path), record.path, image_id=record.image_id) for record in records
    ]
