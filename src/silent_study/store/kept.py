"""Derived files, computed once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from silent_study.settings import digest
from silent_study.store.files import write_bytes_atomically

KEPT = "kept"
"""Folder in the results with what the report computed of runs and data."""


def kept(path: Path, made_from: object, compute: Callable[[], bytes]) -> bytes:
    """Return the content of a kept file; compute and keep it if it is missing, damaged or made from something else.

    The name of the file is ``path`` with digests of what it is made from, JSON-ready data, and of its content. Files of
    the same path that were made from something else are removed.
    """
    source = digest(made_from)[:12]
    found = list(path.parent.glob(f"{path.stem}-{'?' * 12}-{'?' * 12}{path.suffix}"))
    for file in found:
        if file.stem.startswith(f"{path.stem}-{source}-"):
            content = file.read_bytes()
            if file.stem.endswith(_content_digest(content)):
                return content
    content = compute()
    for file in found:
        file.unlink(missing_ok=True)
    write_bytes_atomically(path.with_stem(f"{path.stem}-{source}-{_content_digest(content)}"), content)
    return content


def _content_digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]
