from captioning.web.assets import as_address as as_address
from captioning.web.assets import as_jpeg as as_jpeg
from captioning.web.assets import palette as palette
from captioning.web.assets import read_asset as read_asset
from captioning.web.assets import shrink as shrink

__all__: list[str]
