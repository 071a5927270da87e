"""Manifests of packs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

from silent_study.settings import RunSettings
from silent_study.store.documents import Manifest, Member
from silent_study.store.evaluations import kept_evaluation, read_evaluation, seems_evaluated
from silent_study.store.files import is_unaltered, sha256_of, touched
from silent_study.store.packs import PackSpec, Round
from silent_study.store.runs import EVALUATION, RECONSTRUCTIONS, RunStore, StoredRun, StoreError, read_as, read_json

SNAKEMAKE_VARIABLE = "SILENT_GRADIENTS_SNAKEMAKE"
"""Environment variable in which a job finds Snakemake's command line with the user's profile and settings."""

SHOWN_PROBLEMS = 10
"""Number of problems listed in an error: as many lines as Snakemake's display shows of a job's log."""


def manifest(spec: PackSpec, runs: Sequence[StoredRun]) -> Manifest:
    """Return a pack's manifest; ``runs`` are its members in order, evaluated where the pack asks for it."""
    members: list[Member] = [
        {
            "name": run.name,
            "id": run.identity["id"],
            "result_sha256": run.digest,
            "evaluation_sha256": None if spec.evaluation is None else sha256_of(run.folder / EVALUATION),
            "status": run.result["status"],
        }
        for run in runs
    ]
    return {"pack": spec.id, "round": spec.round, "group": spec.group, "members": members}


def naming_runs(results: Path) -> Iterator[tuple[Path, list[str]]]:
    """Yield every manifest and selection of results, and its runs' names; raises ``StoreError`` if one is damaged."""
    kinds: dict[str, Callable[[Any], list[str]]] = {
        "packs": lambda found: [member["name"] for member in found["members"]],
        "selections": lambda found: [chosen["run"] for chosen in found["cells"].values()],
    }
    for kind, names in kinds.items():
        for path in sorted(results.glob(f"{kind}/**/*.json")):
            yield path, read_as(path, names, f"none of the {kind}", "delete it: the workflow makes it again")


def verified_runs(
    store: RunStore, packs: Sequence[PackSpec], path_of: Callable[[PackSpec], Path]
) -> list[list[StoredRun]]:
    """Return the runs of each pack, checked against its manifest, at the path of ``path_of``, and its members' ids.

    Raises ``StoreError``, with the command that remakes them, if runs are missing, altered or foreign.
    """
    runs, problems, wrong = [], [], []
    for pack in packs:
        found = list(_checked(store, pack, path_of(pack)))
        runs.append([run for run in found if isinstance(run, StoredRun)])
        if errors := [str(error) for error in found if isinstance(error, StoreError)]:
            problems += errors
            wrong.append(pack)
    if not problems:
        return runs
    problems = list(dict.fromkeys(problems))
    if more := len(problems[SHOWN_PROBLEMS:]):
        problems[SHOWN_PROBLEMS:] = [f"... and {more} more"]
    # Round after round: a pack of seeds keeps and evaluates what a grid's pack may just be training again.
    by_round = [" ".join(str(path_of(pack)) for pack in wrong if pack.round == round_) for round_ in get_args(Round)]
    snakemake = os.environ.get(SNAKEMAKE_VARIABLE, "snakemake --cores all --resources gpu=8")
    commands = [f"{snakemake} --force -- {paths}" for paths in by_round if paths]
    raise StoreError("\n".join([*problems, f"remake what is missing or wrong with: {' && '.join(commands)}"]))


def is_damaged(store: RunStore, pack: PackSpec, path: Path) -> bool:
    """Return True if a pack's manifest at ``path``, or a file of its runs, is not as it was when it was written.

    Only files that were touched after the manifest are read, so that it can be called whenever Snakemake starts.
    """
    return any(isinstance(each, StoreError) for each in _checked(store, pack, path, touched(path)))


def _checked(store: RunStore, pack: PackSpec, path: Path, since: int = 0) -> Iterator[StoredRun | StoreError]:
    """Yield each member, or what is wrong with it."""
    try:
        stated: Manifest = read_json(path)
        members = [(each["name"], each["id"]) for each in stated["members"]]
        pairs = [(each["result_sha256"], each["evaluation_sha256"]) for each in stated["members"]]
    except StoreError as error:
        yield error
        return
    except (KeyError, TypeError):
        yield StoreError(f"{path}: not the manifest of a pack")
        return
    if stated.get("pack") != pack.id or members != [(run.name, run.id) for run in pack.members]:
        yield StoreError(f"{path}: it lists other runs than the plan asks for")
        return
    for settings, digests in zip(pack.members, pairs, strict=True):
        try:
            yield _verified(store, settings, *digests, since)
        except StoreError as error:
            yield error


def _verified(store: RunStore, settings: RunSettings, result: str, evaluation: str | None, since: int) -> StoredRun:
    run = store.verified(settings.name, settings.id, since)
    if not run.answers_to(result):
        raise StoreError(f"{run.name}: its result is not the one that its pack's manifest names")
    if evaluation is None:
        return run
    path = run.folder / EVALUATION
    if not is_unaltered(path, evaluation, since):
        raise StoreError(f"{path}: missing, or not the evaluation that its pack's manifest names")
    pictures = run.folder / RECONSTRUCTIONS
    named = None if run.evaluation is None else run.evaluation["reconstructions_sha256"]
    if named is not None and not is_unaltered(pictures, named, since):
        raise StoreError(f"{pictures}: missing, or not those that {EVALUATION} names")
    return run


def is_usable(spec: PackSpec, run: StoredRun) -> bool:
    """Return True if a pack needs no new training of a run: selected runs need their weights, unless they diverged."""
    return spec.round != "seeds" or run.is_whole


def seems_done(store: RunStore, spec: PackSpec) -> bool:
    """Return True if a pack's runs and evaluations seem to be there; no digest of a file is computed."""
    return all(
        store.is_finished(run.name)
        and (spec.round != "seeds" or seems_evaluated(store.folder(run.name), spec.evaluation))
        for run in spec.members
    )


def manifest_if_done(store: RunStore, spec: PackSpec) -> Manifest | None:
    """Return the manifest of a pack whose runs and evaluations are all there and unaltered, else None.

    Prints a line on each run and keeps as many weights as training the pack does.
    """
    if not seems_done(store, spec):
        return None
    try:
        runs = [store.verified(settings.name, settings.id) for settings in spec.members]
        evaluated = spec.evaluation is None or all(kept_evaluation(run, spec.evaluation) for run in runs)
    except StoreError:  # the training that follows prints what is wrong
        return None
    if not (evaluated and all(is_usable(spec, run) for run in runs)):
        return None
    for number, run in enumerate(runs, 1):
        print_outcome(number, len(runs), "already trained", run)
    return manifest(spec, keep_needed_weights(store, spec, runs))


def evaluated_otherwise(store: RunStore, spec: PackSpec) -> bool:
    """Return True if a run of the pack has an evaluation by other settings than the pack's.

    The store keeps one evaluation of a run: after an edit of the settings that is taken back, it is that of the edit.
    """
    return spec.evaluation is not None and any(
        (found := read_evaluation(store.folder(run.name))) is not None and found["settings"] != asdict(spec.evaluation)
        for run in spec.members
    )


def keep_needed_weights(store: RunStore, spec: PackSpec, runs: Sequence[StoredRun]) -> list[StoredRun]:
    """Drop the weights that no selection among a grid's runs can need; evaluated and selected runs keep theirs.

    A selection takes the best run of each cell at one value of every shared axis, whichever these values are.
    """
    if spec.round == "seeds":
        return list(runs)
    best: dict[tuple[Any, ...], StoredRun] = {}
    for run in runs:
        guide = run.settings.get("silent") or {}  # has axes of its own, null beside it
        key = (run.cell, *(run.settings.get(axis) or guide.get(axis) for axis in spec.shared_axes))
        if not run.diverged and (key not in best or run.final_bpd < best[key].final_bpd):
            best[key] = run
    kept = {run.name for run in best.values()}
    return [
        run
        if run.name in kept or not run.has_weights or (run.folder / EVALUATION).exists()
        else store.drop_weights(run)
        for run in runs
    ]


def print_outcome(number: int, total: int, action: str, run: StoredRun) -> None:
    """Print a line on a run of a pack."""
    if run.diverged:
        outcome = f"diverged in epoch {run.result['diverged_epoch']}"
    else:
        outcome = f"{run.final_bpd:.4f} bits/dim on {run.metrics('selection')['split']}"
    print(f"[{number}/{total}] {action} {run.name}: {outcome}", flush=True)
