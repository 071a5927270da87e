"""The marker of a gathering: for which plan the files of the results were written, by what, and with which content."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from silent_study.store.documents import Gathered
from silent_study.store.files import sha256_of
from silent_study.store.runs import RECORD, read_json, write_json


def record(marker: Path, results: Path, runs: Iterable[str], written: Iterable[Path]) -> None:
    """Write the marker, which vouches for every gathered file, and for every run, as it is now.

    Args:
        marker: ``Plan.gathered_marker``.
        results: Folder that was gathered into.
        runs: Names of the runs that were gathered.
        written: The gathered files.
    """
    document: Gathered = {
        "plan": marker.stem,
        "sources": _sources_digest(),
        "files": {path.relative_to(results).as_posix(): sha256_of(path) for path in written},
        "runs": {name: sha256_of(_record(results, name)) for name in set(runs)},
    }
    write_json(marker, document)


def is_current(marker: Path, results: Path) -> bool:
    """Whether a marker is there, the present source laid out its files, and these and its runs' records are unchanged.

    Reads no more of a run than its record, so that it can be asked whenever Snakemake starts.
    """
    if not marker.exists():
        return False
    document: Gathered = read_json(marker)
    if document.get("sources") != _sources_digest():
        return False
    expected = {results / file: digest for file, digest in document["files"].items()}
    expected |= {_record(results, name): digest for name, digest in document["runs"].items()}
    return all(path.is_file() and sha256_of(path) == digest for path, digest in expected.items())


def _record(results: Path, run: str) -> Path:
    return results / "store" / run / RECORD


def _sources_digest() -> str:
    """Digest of the code that lays out tables, figures, the page and the marker."""
    package = Path(__file__).parent
    report = (path for path in package.rglob("*") if path.suffix in {".py", ".j2", ".css", ".js"})
    digest = hashlib.sha256()
    for path in sorted(report):
        digest.update(f"{path.relative_to(package).as_posix()} {sha256_of(path)}\n".encode())
    return digest.hexdigest()
