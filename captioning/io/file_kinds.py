"""Describe what an unreadable file looks like: empty, a web page, a Git LFS pointer, or cut short."""

import re
import zipfile
from pathlib import Path

_HEAD = 1024  # bytes read from the start of a file
_WEB_PAGE = re.compile(rb"<(!doctype\s+html|html|head|body|script|title|meta)\b", re.IGNORECASE)
_XML = re.compile(rb"<(\?xml|error|!--|svg)\b|<!--", re.IGNORECASE)


def looks_like(path: Path | str) -> str:
    """Return what a damaged file looks like, as the end of "it looks like …"; "" if unknown.

    For files that should be weights or checkpoints. `described` is for any kind of file.
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
    """Return `looks_like` as the end of a message, "; it looks like …"; "" if unknown."""
    found = looks_like(path)
    return f"; it looks like {found}" if found else ""


def described(head: bytes) -> str:
    """Return what the first bytes of a file show, such as "a web page …"; "" unless it is empty, zeros or text."""
    if not head:
        return "an empty file"
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text.startswith(b"version https://git-lfs.github.com/spec/"):
        return "a Git LFS pointer, not the file itself: run `git lfs pull` in its repository"
    if _WEB_PAGE.match(text) or (_XML.match(text) and _WEB_PAGE.search(text)):
        return "a web page (HTML): the server sent it instead of the file"
    if _XML.match(text):
        return "XML text, such as a server's error message"
    if text[:1] in (b"{", b"[") and _is_text(head):
        return "JSON text"
    if not head.strip(b"\0"):
        return "a file of zeros, as after an interrupted download"
    return "plain text" if _is_text(head) else ""


def _is_text(head: bytes) -> bool:
    try:
        text = head.decode("utf-8", errors="strict")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 4:  # not merely a character that is cut by the end of the head
            return False
        text = head[: error.start].decode("utf-8")
    return all(character.isprintable() or character in "\t\r\n\f" for character in text.removeprefix("\ufeff"))
