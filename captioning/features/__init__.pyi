from captioning.features.ranks import cores_per_process as cores_per_process
from captioning.features.ranks import launched_rank as launched_rank
from captioning.features.regions import RegionFolder as RegionFolder
from captioning.features.regions import Regions as Regions
from captioning.features.source import Source as Source
from captioning.features.sources import blank as blank
from captioning.features.sources import detector_regions as detector_regions
from captioning.features.sources import online as online
from captioning.features.sources import refuse_views as refuse_views
from captioning.features.sources import report_unreadable as report_unreadable
from captioning.features.sources import stored as stored
from captioning.features.sources import verify as verify
from captioning.features.views import AllViews as AllViews
from captioning.features.views import EachView as EachView
from captioning.features.views import corner_crops as corner_crops
from captioning.features.views import crop_shares as crop_shares

PARTS: dict[str, list[str]]
TOOLS: dict[str, list[str]]
__all__: list[str]
