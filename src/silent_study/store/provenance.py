"""Which source made a result."""

from __future__ import annotations

import subprocess
from pathlib import Path

from silent_study.store.documents import Source

SOURCE = Path(__file__).resolve().parents[2]


def source_revision(source: Path = SOURCE) -> Source:
    """The last commit that changed the source, and whether the files differ from it; nulls outside a git checkout.

    Not the newest commit: one that changes settings alone makes no other results.

    Args:
        source: Folder of the source.

    Returns:
        ``{"revision": 40 hexadecimal digits, "modified": bool}``.
    """
    revision = _git(source, "log", "-1", "--format=%H", "--", ".")
    if not revision:
        return {"revision": None, "modified": None}
    changed = _git(source, "status", "--porcelain", "--untracked-files=no", "--", ".")
    return {"revision": revision, "modified": None if changed is None else bool(changed)}


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
