"""Render a page from a template, with all inserted text escaped."""

from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from captioning.web import read_asset


def render(template: str, *styles: str, **content: Any) -> str:
    """The template with its content and the style sheets of these names inside.

    Text from outside (captions, names of files, settings) is never markup: the template has no way to say so.
    """
    page = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    style = Markup("\n".join(read_asset(name) for name in styles))
    return page.from_string(read_asset(template)).render(style=style, **content)
