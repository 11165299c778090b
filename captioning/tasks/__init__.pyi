from captioning.tasks.caption_files import record_file as record_file
from captioning.tasks.image_captioning import ImageCaptioningTask as ImageCaptioningTask
from captioning.tasks.language_model import LanguageModelTask as LanguageModelTask
from captioning.tasks.vqa import VqaTask as VqaTask
from captioning.tasks.vqa import truths_of as truths_of

PARTS: dict[str, list[str]]
TOOLS: dict[str, list[str]]
__all__: list[str]
