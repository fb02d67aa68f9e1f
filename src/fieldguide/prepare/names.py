"""Tell photos from other files by their names, and decode names of files."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

PHOTO_SUFFIXES = (
    *(".avif", ".bmp", ".gif", ".heic", ".heif", ".hif", ".jfif", ".jpe", ".jpeg", ".jpg"),
    *(".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"),
)
# Files that come with photos and are none. A folder of other files may be a class in a format that
# is not read.
NEVER_PHOTOS = (
    *(".bib", ".cfg", ".css", ".csv", ".db", ".doc", ".docx", ".h5", ".htm", ".html"),
    *(".ini", ".ipynb", ".js", ".json", ".jsonl", ".log", ".mat", ".md", ".md5", ".npy", ".npz"),
    *(".ods", ".parquet", ".pdf", ".pickle", ".pkl", ".pt", ".pth", ".py", ".r", ".rst", ".sh"),
    *(".sha1", ".sha256", ".sqlite", ".tex", ".toml", ".tsv", ".txt", ".xls", ".xlsx", ".xml"),
    *(".yaml", ".yml"),
)
# What cameras, systems, network drives and DVC leave behind, besides names with a first dot
# (.DS_Store, ._photo.jpg, .Trash-1000, .thumbnails, .ipynb_checkpoints).
_LEFT_BEHIND = re.compile(
    r"__MACOSX|Icon\r|Thumbs\.db|ehthumbs\.db|desktop\.ini|Picasa\.ini|@eaDir|@SynoResource"
    r"|@Recycle|#recycle|\$RECYCLE\.BIN|System Volume Information|lost\+found|.+\.dvc",
    re.IGNORECASE,
)


_NAMED_SUFFIXES = 5  # in a message


def is_hidden(path: str) -> bool:
    """Tell whether a file or a folder above it is hidden, or left behind by a camera or a disk.

    Args:
        path: relative to the archive or folder, with forward slashes.
    """
    names = (name for name in path.split("/") if name not in ("", "."))
    return any(name.startswith(".") or _LEFT_BEHIND.fullmatch(name) for name in names)


def has_photo_suffix(path: str) -> bool:
    """Tell whether a file is a photo by its name."""
    return path.lower().endswith(PHOTO_SUFFIXES)


def suffix_of(name: str) -> str:
    """Return a file's suffix in lower case, with its dot; empty if it has none."""
    stem, dot, suffix = name.rpartition(".")
    return f".{suffix.lower()}" if dot and stem and " " not in suffix else ""


def shown_suffix(name: str) -> str:
    """Return a file's suffix for people."""
    return suffix_of(name) or "no suffix"


def by_suffix(names: Iterable[str]) -> str:
    """Return the number of files by suffix, such as "5 .cr2, 1 no suffix"."""
    counts = Counter(map(shown_suffix, names))
    shown = [f"{count:,} {suffix}" for suffix, count in counts.most_common(_NAMED_SUFFIXES)]
    return ", ".join(shown + ["..."] * (len(counts) > _NAMED_SUFFIXES))


def decode_name(raw: bytes) -> tuple[str, bool]:
    """Decode the name of a file, and tell whether its encoding is certain.

    Bytes that are valid UTF-8 are UTF-8: long text in another encoding is not, but a short Chinese
    name may be. Other bytes are read as CP437, the encoding of old zip programs, which keeps
    different names apart.
    """
    try:
        return raw.decode("utf-8"), True
    except UnicodeDecodeError:
        return raw.decode("cp437"), False
