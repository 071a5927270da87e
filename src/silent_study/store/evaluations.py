"""Evaluations of selected runs: ``evaluation.json`` and ``reconstructions.npz``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from silent_study.settings import EvaluationSettings, digest
from silent_study.store.documents import Evaluation, Measured
from silent_study.store.files import sha256_of, write_bytes_atomically
from silent_study.store.runs import (
    EVALUATION,
    RECONSTRUCTIONS,
    WEIGHTS,
    StoredRun,
    StoreError,
    is_code,
    read_unchanged,
    write_json,
)


def read_evaluation(folder: Path) -> Evaluation | None:
    """Return the evaluation in the folder of a run, unverified; None if it is missing or not an evaluation."""
    try:
        document: Evaluation = read_unchanged(f"{folder}/{EVALUATION}")
    except StoreError:
        return None
    needed = {"asked", "settings", "report", "reconstructions_sha256", "code", "sha256"}
    return document if isinstance(document, dict) and needed <= set(document) and is_code(document["code"]) else None


def write_evaluation(
    run: StoredRun, settings: EvaluationSettings, measured: Measured, reconstructions: bytes | None
) -> Evaluation:
    """Write the evaluation of a run by some settings into its folder, with the content of its reconstructions."""
    pictures = run.folder / RECONSTRUCTIONS
    if reconstructions is not None:
        write_bytes_atomically(pictures, reconstructions)
    document: Evaluation = {
        **measured,
        "asked": _id(run, settings),
        "settings": asdict(settings),
        "reconstructions_sha256": None if reconstructions is None else sha256_of(pictures),
        "sha256": "",
    }
    document["sha256"] = _seal(document)
    write_json(run.folder / EVALUATION, document)
    return document


def seems_evaluated(folder: Path, settings: EvaluationSettings | None) -> bool:
    """Return True if a run has an evaluation by these settings, and its weights unless it diverged."""
    found = read_evaluation(folder)
    return (
        found is not None
        and settings is not None
        and found["settings"] == asdict(settings)
        and (found["report"] is None or (folder / WEIGHTS).exists())
    )


def kept_evaluation(run: StoredRun, settings: EvaluationSettings) -> Evaluation | None:
    """Return the evaluation of a run if it is by these settings, of this result, and has its reconstructions.

    Raises ``StoreError`` if the file is not as it was written.
    """
    path, pictures = run.folder / EVALUATION, run.folder / RECONSTRUCTIONS
    if not path.exists():
        return None
    found = read_evaluation(run.folder)
    if found is None or found["sha256"] != _seal(found):
        raise StoreError(f"{path}: altered")
    there = sha256_of(pictures) if pictures.exists() else None
    return found if (found["asked"], found["reconstructions_sha256"]) == (_id(run, settings), there) else None


def check_evaluation(run: StoredRun) -> None:
    """Verify the evaluation of a run, if it has one; raises ``StoreError`` if a file of it is not as it was written."""
    path = run.folder / EVALUATION
    if path.exists():
        found = read_evaluation(run.folder)
        if found is None or kept_evaluation(run, EvaluationSettings.from_json(dict(found["settings"]))) is None:
            raise StoreError(f"{path}: altered, or not of this run")


def remove_evaluation(folder: Path) -> None:
    """Remove the evaluation from the folder of a run."""
    for file in (EVALUATION, RECONSTRUCTIONS):
        (folder / file).unlink(missing_ok=True)


def _id(run: StoredRun, settings: EvaluationSettings) -> str:
    return digest({"evaluation": asdict(settings), "result": run.digest})


def _seal(document: Evaluation) -> str:
    return digest({key: value for key, value in document.items() if key != "sha256"})
