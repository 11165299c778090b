"""Render a page from a template, with all inserted text escaped."""

from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from captioning.web import read_asset


def render(template: str, *styles: str, **content: Any) -> str:
    """Render a template with its content and style sheets.

    All text from outside (captions, file names, settings) is escaped, so it is never interpreted as markup.

    Args:
        template: the name of the template in the folder `static`.
        *styles: the names of style sheets in the folder `static`.
        **content: the template's variables.
    """
    page = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    style = Markup("\n".join(read_asset(name) for name in styles))
    return page.from_string(read_asset(template)).render(style=style, **content)
