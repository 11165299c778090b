from captioning.io.archives import ArchiveMember as ArchiveMember
from captioning.io.archives import COMPRESSED_ARCHIVES as COMPRESSED_ARCHIVES
from captioning.io.archives import FileStatus as FileStatus
from captioning.io.archives import archive_ending as archive_ending
from captioning.io.archives import archive_members as archive_members
from captioning.io.archives import file_exists as file_exists
from captioning.io.archives import file_status as file_status
from captioning.io.archives import files_in_archive as files_in_archive
from captioning.io.archives import how_to_decompress as how_to_decompress
from captioning.io.archives import read_file as read_file
from captioning.io.archives import split_archive as split_archive
from captioning.io.atomic_files import append_line as append_line
from captioning.io.atomic_files import clear_temporary as clear_temporary
from captioning.io.atomic_files import make_folder as make_folder
from captioning.io.atomic_files import printable as printable
from captioning.io.atomic_files import write_json as write_json
from captioning.io.atomic_files import write_text as write_text
from captioning.io.atomic_files import write_whole as write_whole
from captioning.io.download import KARPATHY_URL as KARPATHY_URL
from captioning.io.download import download_coco as download_coco
from captioning.io.download import refuse_download as refuse_download
from captioning.io.file_kinds import described as described
from captioning.io.file_kinds import likeness as likeness
from captioning.io.file_kinds import looks_like as looks_like
from captioning.io.messages import counted as counted
from captioning.io.messages import unopened as unopened
from captioning.io.optional_packages import need_package as need_package
from captioning.io.safe_paths import inside as inside
from captioning.io.threads import choose_threads as choose_threads
from captioning.io.threads import cpu_quota as cpu_quota
from captioning.io.threads import set_threads as set_threads
from captioning.io.threads import share_threads as share_threads
from captioning.io.threads import usable_cores as usable_cores
from captioning.io.timm_registry import TimmSettings as TimmSettings
from captioning.io.timm_registry import timm_settings as timm_settings

PARTS: dict[str, list[str]]
TOOLS: dict[str, list[str]]
__all__: list[str]
