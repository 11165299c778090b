"""Compute, store and read the features that an encoder computes from images."""

import lazy_loader

# What a configuration file may build (`captioning.config.allowlist`).
PARTS = {
    "sources": ["blank", "online", "detector_regions", "stored"],
}
TOOLS = {
    "ranks": ["cores_per_process", "launched_rank"],
    "regions": ["RegionFolder", "Regions"],
    "source": ["Source"],
    "sources": ["refuse_views", "report_unreadable", "verify"],
    "views": ["AllViews", "EachView", "corner_crops", "crop_shares"],
}
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submod_attrs={file: PARTS.get(file, []) + TOOLS.get(file, []) for file in PARTS | TOOLS}
)
