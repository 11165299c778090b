from captioning.web.report.caption_statistics import choose as choose
from captioning.web.report.examples import make_example as make_example
from captioning.web.report.page import make_page as make_page
from captioning.web.report.rendering import render as render
from captioning.web.report.run_settings import build_reader as build_reader
from captioning.web.report.run_settings import moved as moved
from captioning.web.report.run_settings import read_settings as read_settings

__all__: list[str]
