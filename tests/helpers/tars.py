"""Write tar archives of images and captions, and patch them as damage does."""

import io
import tarfile
from pathlib import Path


def write_tar(path: Path, members, *, mode: str = "w", form: int = tarfile.PAX_FORMAT) -> Path:
    """Write an archive of (name, content) in this order; a content that is a TarInfo is added as it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode, format=form) as archive:
        for name, content in members.items() if isinstance(members, dict) else members:
            if isinstance(content, tarfile.TarInfo):
                archive.addfile(content)
                continue
            content = content.encode() if isinstance(content, str) else content
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tuple[str, tarfile.TarInfo]:
    """Return a member that is a link."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return name, info
