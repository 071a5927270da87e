"""What a pack's job promises of its runs, and whether the store has all of it already: without torch or a device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from silent_study.settings import EvaluationSettings, digest
from silent_study.store.files import sha256_of
from silent_study.store.packs import PackSpec
from silent_study.store.runs import EVALUATION, RECONSTRUCTIONS, WEIGHTS, RunStore, StoredRun, StoreError, read_json


def manifest(spec: PackSpec, runs: Sequence[StoredRun]) -> dict[str, Any]:
    """A pack's manifest.

    Args:
        spec: The pack.
        runs: Its members in order, evaluated where the pack asks for it.
    """
    members = [
        {
            "name": run.name,
            "id": run.record["id"],
            "result_sha256": run.digest,
            "evaluation_sha256": None if spec.evaluation is None else sha256_of(run.folder / EVALUATION),
            "status": run.result["status"],
        }
        for run in runs
    ]
    return {"pack": spec.id, "round": spec.round, "group": spec.group, "members": members}


def serves(spec: PackSpec, run: StoredRun) -> bool:
    """Whether a run can stand in a pack as it is: selected runs need their weights, unless they diverged."""
    return spec.round != "seeds" or run.has_weights or run.diverged


def seems_done(store: RunStore, spec: PackSpec) -> bool:
    """Whether a pack's runs and evaluations are there, by a look at which files there are and at small ones."""
    return all(
        store.is_finished(run.name)
        and (spec.round != "seeds" or _seems_evaluated(store.folder(run.name), spec.evaluation))
        for run in spec.members
    )


def _seems_evaluated(folder: Path, evaluation: EvaluationSettings | None) -> bool:
    found = _read(folder / EVALUATION)
    return (
        found is not None
        and evaluation is not None
        and found["settings"] == asdict(evaluation)
        and (found["report"] is None or (folder / WEIGHTS).exists())
    )


def manifest_if_done(store: RunStore, spec: PackSpec) -> dict[str, Any] | None:
    """The manifest of a pack whose runs and evaluations are all there and unaltered.

    It says of each that it is there, as training the pack would, and leaves as many weights.

    Returns:
        The manifest; None where something is left to do.
    """
    if not seems_done(store, spec):
        return None
    try:
        runs = [store.verified(settings.name, settings.id) for settings in spec.members]
        complete = all(
            serves(spec, run) and (spec.evaluation is None or kept_evaluation(run, spec.evaluation) is not None)
            for run in runs
        )
    except StoreError:  # who trains it again says what is wrong
        return None
    if not complete:
        return None
    for number, run in enumerate(runs, 1):
        tell(number, len(runs), "already trained", run)
    return manifest(spec, runs if spec.round == "seeds" else keep_best_weights(store, runs))


def kept_evaluation(run: StoredRun, evaluation: EvaluationSettings) -> dict[str, Any] | None:
    """The evaluation that the store has of a run, if it is the one asked for, of this result and with its pictures.

    Raises:
        StoreError: The file is not as it was written.
    """
    path = run.folder / EVALUATION
    if not path.exists():
        return None
    found = _read(path)
    if found is None or found["sha256"] != digest({key: value for key, value in found.items() if key != "sha256"}):
        raise StoreError(f"{path}: altered")
    pictures = run.folder / RECONSTRUCTIONS
    there = sha256_of(pictures) if pictures.exists() else None
    current = found["asked"] == evaluation_id(run, evaluation) and found["reconstructions_sha256"] == there
    return found if current else None


def evaluation_id(run: StoredRun, evaluation: EvaluationSettings) -> str:
    """What an evaluation is called by: how it is made, and of which result."""
    return digest({"evaluation": asdict(evaluation), "result": run.digest})


def evaluated_otherwise(store: RunStore, spec: PackSpec) -> bool:
    """Whether a run of the pack is there with an evaluation by other settings than the pack's.

    The store keeps one evaluation of a run: an edit of the settings that is taken back leaves that of the edit.
    """
    return spec.evaluation is not None and any(
        (found := _read(store.folder(run.name) / EVALUATION)) is not None
        and found["settings"] != asdict(spec.evaluation)
        for run in spec.members
    )


def _read(evaluation: Path) -> dict[str, Any] | None:
    """What is in an ``evaluation.json``; None where it is missing or no such thing."""
    try:
        document = read_json(evaluation)
    except StoreError:
        return None
    needed = {"asked", "settings", "report", "reconstructions_sha256", "sha256"}
    return document if isinstance(document, dict) and needed <= set(document) else None


def keep_best_weights(store: RunStore, runs: Sequence[StoredRun]) -> list[StoredRun]:
    """Drop the weights that no selection among these runs can ask for; evaluated runs keep theirs."""
    best: dict[str, StoredRun] = {}
    for run in runs:
        rival = best.get(run.cell)
        if not run.diverged and (rival is None or _final_bpd(run) < _final_bpd(rival)):
            best[run.cell] = run
    return [
        run
        if run is best.get(run.cell) or not run.has_weights or (run.folder / EVALUATION).exists()
        else store.drop_weights(run)
        for run in runs
    ]


def _final_bpd(run: StoredRun) -> float:
    return float(run.result["selection"]["bpd"])


def tell(number: int, total: int, action: str, run: StoredRun) -> None:
    """Print a line on a run of a pack."""
    result = run.result
    if run.diverged:
        outcome = f"diverged in epoch {result['diverged_epoch']}"
    else:
        outcome = f"{result['selection']['bpd']:.4f} bits/dim on {result['selection']['split']}"
    print(f"[{number}/{total}] {action} {run.name}: {outcome}", flush=True)
