"""Write files atomically, read files in tar archives, keep paths below their folder, and resume downloads.

Also look up packages, networks and cores.
"""

import lazy_loader

# What a configuration file may build (`captioning.config.allowlist`).
PARTS = {
    "download": ["download_coco", "refuse_download"],
}
TOOLS = {
    "archives": [
        "ArchiveMember",
        "COMPRESSED_ARCHIVES",
        "FileStatus",
        "archive_ending",
        "archive_members",
        "file_exists",
        "file_status",
        "files_in_archive",
        "how_to_decompress",
        "read_file",
        "split_archive",
    ],
    "atomic_files": [
        "append_line",
        "clear_temporary",
        "make_folder",
        "printable",
        "write_json",
        "write_text",
        "write_whole",
    ],
    "download": ["KARPATHY_URL"],
    "file_kinds": ["described", "likeness", "looks_like"],
    "messages": ["counted", "unopened"],
    "optional_packages": ["need_package"],
    "safe_paths": ["inside"],
    "threads": ["choose_threads", "cpu_quota", "set_threads", "share_threads", "usable_cores"],
    "timm_registry": ["TimmSettings", "timm_settings"],
}
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submod_attrs={file: PARTS.get(file, []) + TOOLS.get(file, []) for file in PARTS | TOOLS}
)
