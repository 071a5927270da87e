"""The marker of a gathering."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from silent_study.plan.plan import Plan, SelectionMissingError, Selections
from silent_study.store.code import LATENTS, LIMITS, kept_code
from silent_study.store.documents import Gathered
from silent_study.store.files import sha256_of
from silent_study.store.runs import RECORD, StoreError, read_json, write_json

READ = ("methods.py", "paper.py", "settings.py", "words.py")
"""Modules beside the report's, with the titles, published numbers and words that it prints."""


def marker_of(plan: Plan, selections: Selections) -> Path:
    """Return where the marker of a plan lies; the path carries the id of the plan and the digest of the report's code.

    Another plan or other code is another path. There is one marker at a time.
    """
    return plan.results / "gathered" / f"{plan.id(selections)}-{_sources_digest()[:12]}.json"


def record(marker: Path, results: Path, runs: Iterable[str], written: Iterable[Path]) -> None:
    """Write the marker, with the digests of every gathered file and of the record of every run, given by name."""
    document: Gathered = {
        "plan": marker.stem,
        "sources": _sources_digest(),
        "files": {path.relative_to(results).as_posix(): sha256_of(path) for path in written},
        "runs": {name: sha256_of(_record(results, name)) for name in set(runs)},
    }
    write_json(marker, document)


def is_intact(marker: Path, results: Path) -> bool:
    """Return True if the marker exists and no gathered file and no run's record has changed since.

    It reads only the records of the runs, so that it can be called whenever Snakemake starts.
    """
    try:
        document: Gathered = read_json(marker)
        expected = {results / file: digest for file, digest in document["files"].items()}
        expected |= {_record(results, name): digest for name, digest in document["runs"].items()}
        return all(path.is_file() and sha256_of(path) == digest for path, digest in expected.items())
    # A marker that is missing, truncated or no marker, or a file that another process removes at this moment.
    except (StoreError, KeyError, TypeError, AttributeError, OSError):
        return False


def is_current(plan: Plan) -> bool:
    """Return True if the report is the plan's: every selection is made, and the plan's marker is intact."""
    try:
        return is_intact(marker_of(plan, plan.selections("seeds")), plan.results)
    except SelectionMissingError:
        return False


def _record(results: Path, run: str) -> Path:
    return results / "store" / run / RECORD


@cache
def _sources_digest() -> str:
    """Return the digest of the code that computes and writes tables, figures, the report and the marker."""
    package = Path(__file__).parents[1]
    report = (path for path in (package / "report").rglob("*") if path.suffix in {".py", ".j2", ".css", ".js"})
    digest = hashlib.sha256("".join(kept_code(entry)["digest"] for entry in (LATENTS, LIMITS)).encode())
    for path in sorted([*report, *(package / module for module in READ)]):
        digest.update(f"{path.relative_to(package).as_posix()} {sha256_of(path)}\n".encode())
    return digest.hexdigest()
