"""Say what a file that cannot be read looks like: empty, a web page, a Git LFS pointer, cut short."""

import re
import zipfile
from pathlib import Path

_HEAD = 1024  # bytes that are read
_WEB_PAGE = re.compile(rb"<(!doctype\s+html|html|head|body|script|title|meta)\b", re.IGNORECASE)
_XML = re.compile(rb"<(\?xml|error|!--|svg)\b|<!--", re.IGNORECASE)


def looks_like(path: Path | str) -> str:
    """What a damaged file looks like, as the end of "it looks like …"; "" where nothing is known of it.

    For files that should be weights or checkpoints; `described` is for any content.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
        if found := described(head):
            return found
        if head.startswith(b"PK\x03\x04") and not zipfile.is_zipfile(path):
            return f"a file that was cut short after {path.stat().st_size} bytes: its archive has no end"
    except OSError:
        pass
    return ""


def likeness(path: Path | str) -> str:
    """`looks_like` as the tail of a message; "" where nothing is known."""
    found = looks_like(path)
    return f"; it looks like {found}" if found else ""


def described(head: bytes) -> str:
    """What a file's first bytes show it to be; "" for anything but an empty, a text or a web file."""
    if not head:
        return "an empty file"
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text.startswith(b"version https://git-lfs.github.com/spec/"):
        return "a Git LFS pointer, not the file itself: run `git lfs pull` in its repository"
    if _WEB_PAGE.match(text) or (_XML.match(text) and _WEB_PAGE.search(text)):
        return "a web page (HTML), as a server sends in place of a file that it does not give"
    if _XML.match(text):
        return "XML text, as a server sends with an error message"
    if text[:1] in (b"{", b"[") and _is_text(head):
        return "JSON text"
    if not head.strip(b"\0"):
        return "a file of zeros, as a download leaves that was broken off"
    return "plain text" if _is_text(head) else ""


def _is_text(head: bytes) -> bool:
    try:
        text = head.decode("utf-8", errors="strict")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 4:  # not a character that the end of the head cut in two
            return False
        text = head[: error.start].decode("utf-8")
    return all(character.isprintable() or character in "\t\r\n\f" for character in text.removeprefix("\ufeff"))
