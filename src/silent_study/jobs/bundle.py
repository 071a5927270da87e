"""Bundles: open runs, data and source in one file.

``write_bundle`` makes one, ``borrowed.py`` trains what it holds there, and ``returned.py`` brings the runs back. A
bundle also is a program: ``python bundle.zip``.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from collections import Counter
from collections.abc import Container, Iterator, Mapping
from itertools import product
from lzma import LZMAError
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

from silent_study.data.prepare import PREPARED
from silent_study.data.prepared import MANIFEST, TEST, TRAIN, open_arrays
from silent_study.data.source import Source
from silent_study.plan.plan import GRID_ROUNDS, ROUNDS, Plan
from silent_study.settings import NUMERICS_VERSION, EvaluationSettings
from silent_study.store.code import SOURCE, training_code
from silent_study.store.evaluations import seems_evaluated
from silent_study.store.files import atomic_file, named_errors, sha256_of, write_bytes_atomically
from silent_study.store.packs import PackSpec
from silent_study.store.provenance import REVISION, source_revision
from silent_study.store.runs import EVALUATION, RECORD, RunStore, StoreError, as_json
from silent_study.store.stale import check_code, stale_runs

DOCUMENT = "bundle.json"
PACKAGES = ("silent_gradients", "silent_study")
BORROWED = "borrowed"
"""Folder, below the results, of checkpoints from other machines by kind of device: no other kind can go on from one."""
DEVICES = ("cpu", "cuda")
"""Kinds of device."""
DAMAGED = (zipfile.BadZipFile, zlib.error, LZMAError, EOFError, RuntimeError, ValueError)
"""Errors that a damaged zip file raises where it is read, besides OSError."""

_COPIED = ("preset", "protocol", "seeds", "grid_seed")
_OF_SOURCE = ("name", "title", "version", "levels", "shape", "train", "test", "holdout")
_PROGRAM = '''"""Train this bundle: python FILE --time-limit SECONDS --out FOLDER."""
import sys, tempfile, zipfile
with tempfile.TemporaryDirectory() as folder:
    with zipfile.ZipFile(sys.path[0]) as archive:
        archive.extractall(folder, [name for name in archive.namelist() if name.startswith("src/")])
    sys.path.insert(0, f"{folder}/src")
    from silent_study.jobs.borrowed import main
    sys.exit(main([sys.path[1], *sys.argv[1:]]))
'''


def _values(document: Any) -> Any:
    """Return JSON data with values as attributes, as pydantic's models have them."""
    if isinstance(document, dict):
        return SimpleNamespace(**{key: _values(value) for key, value in document.items()})
    return tuple(map(_values, document)) if isinstance(document, list) else document


def settings_document(plan: Plan) -> dict[str, Any]:
    """Return all that a plan reads of its settings as JSON data; ``bundled_plan`` reads it back without pydantic."""
    params = plan.params
    sections = {}
    for cell in plan.cells():
        section = params.for_method(cell.experiment, cell.dataset, cell.method.name)
        own = section.model_dump(mode="json", exclude={"methods", "overrides"})
        sections[cell.name] = own | {"estimator_options": section.options_of(cell.method)}
    return {
        **{name: getattr(params, name) for name in _COPIED},
        "methods": {
            experiment: {dataset: section.methods for dataset, section in datasets.items()}
            for experiment, datasets in params.experiments.items()
        },
        "sections": sections,
        "sources": {
            name: {key: getattr(source, key) for key in _OF_SOURCE} | {"arrays_sha256": source.sha256}
            for name, source in params.sources.items()
        },
        "evaluation": vars(params.evaluation.resolved()),
        # One device: few, long packs.
        "execution": params.execution.model_dump(mode="json") | {"workers": 1, "runs_per_pack": 64},
    }


def bundled_plan(document: Mapping[str, Any], results: Path) -> Plan:
    """Return the plan of ``settings_document`` in a folder of results."""
    sections = {}
    for name, own in document["sections"].items():
        options = own["estimator_options"]
        sections[name] = _values({key: value for key, value in own.items() if key != "estimator_options"})
        sections[name].options_of = lambda _method, options=options: dict(options)
    sources = {
        name: Source(**own | {"shape": tuple(own["shape"])}, forms=()) for name, own in document["sources"].items()
    }
    params = SimpleNamespace(
        **{name: document[name] for name in _COPIED},
        experiments={
            experiment: {dataset: SimpleNamespace(methods=methods) for dataset, methods in datasets.items()}
            for experiment, datasets in document["methods"].items()
        },
        for_method=lambda experiment, dataset, method: sections[f"{dataset}/{experiment}/{method}"],
        sources=sources,
        evaluation=SimpleNamespace(resolved=lambda: EvaluationSettings.from_json(document["evaluation"])),
        execution=_values(document["execution"]),
    )
    return Plan(cast("Any", params), results)


class Bundled(NamedTuple):
    """What ``write_bundle`` wrote."""

    runs: int  # to be trained, at most
    sizes: Mapping[str, int]  # bytes by kind of content, compressed


def done_runs(plan: Plan, store: RunStore) -> set[str]:
    """Return the names of the runs that need nothing more as selected ones: evaluated as asked, with their weights."""
    asked = plan.params.evaluation.resolved()
    names = filter(store.is_finished, plan.ids_of(store.names()))
    return {name for name in names if seems_evaluated(store.folder(name), asked)}


def open_cells(plan: Plan, store: RunStore, done: Container[str]) -> dict[str, int]:
    """Return the number of open runs, at most, of every cell with one; ``done`` are the selected ones that are not."""
    names, to_come = dict[str, str](), Counter[str]()  # cells by run; runs by cell
    for round_, group in product(ROUNDS, plan.groups()):
        packs, foreseen = plan.known_packs(round_, group), plan.foreseen(group)
        if packs is None and foreseen is not None:
            packs = plan.packs(round_, foreseen, group)
        for run in (run for pack in packs or () for run in pack.members):
            if not (run.name in done if round_ == "seeds" else store.is_finished(run.name)):
                names[run.name] = run.cell
        for cell in plan.cells_of(round_, group) if packs is None else ():
            to_come[cell.name] += sum(each.count for each in plan.to_come(cell, round_) if not each.repeated)
    counts = Counter(names.values())
    counts.update(to_come)  # a cell with 0 may have a run to be evaluated
    return counts


def run_state(store: RunStore, name: str) -> list[str]:
    """Return the digests of a finished run's record and, if it is evaluated, of its evaluation."""
    return [sha256_of(path) for file in (RECORD, EVALUATION) if (path := store.folder(name) / file).exists()]


def has_result(store: RunStore, name: str) -> bool:
    """Return True if a run is finished and has its weights, unless it diverged."""
    return store.is_finished(name) and store.unverified(name).is_whole


def _group(name: str) -> str:
    return "/".join(name.split("/")[:2])


def write_bundle(plan: Plan, path: Path, prepared: Path = PREPARED) -> Bundled:
    """Write the runs of a plan that its results lack into a zip file, with the ``prepared`` data."""
    store = plan.store
    check_code(store, plan.all_known_packs())
    grids, seeds = plan.all_possible(GRID_ROUNDS, plan.cells()), plan.all_possible(("seeds",), plan.cells())
    # Whatever is not known yet to be selected may be of other source code without an error.
    asked = PackSpec("seeds", "", tuple((grids | seeds).values()), plan.params.evaluation.resolved())
    stale = {each.run for each in stale_runs(store, [asked])}
    done = done_runs(plan, store) - stale
    cells = open_cells(plan, store, done)
    if not cells:
        raise StoreError(f"{store.root}: has every run of the plan; nothing is left for a bundle")
    groups = {cell.rpartition("/")[0] for cell in cells}
    datasets = sorted({group.partition("/")[0] for group in groups})
    for name in datasets:
        open_arrays(prepared / name, plan.params.sources[name].sha256)
    settings = settings_document(plan)
    settings["methods"] = {
        experiment: {name: own for name, own in methods.items() if f"{name}/{experiment}" in groups}
        for experiment, methods in settings["methods"].items()
    }
    document: dict[str, Any] = {
        "numerics_version": NUMERICS_VERSION,
        "code": {run.estimator: training_code(run.estimator)["digest"] for run in map(plan.first_run, plan.cells())},
        "settings": settings,
        "done": sorted(done),
        # Selections compare the runs of grids; what is not evaluated, or lacks its weights, is completed there.
        "brought": {
            run.name: run_state(store, run.name)
            for run in asked.members
            if _group(run.name) in groups and store.is_finished(run.name) and run.name not in stale
            if run.name in grids or run.name not in done
        },
    }
    with atomic_file(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("__main__.py", _PROGRAM)
        archive.writestr(DOCUMENT, as_json(document))
        archive.writestr(f"src/{REVISION}", as_json(source_revision()))
        for package in PACKAGES:
            _add(archive, SOURCE / package, f"src/{package}", "**/*.py")
        for name in datasets:
            # The evaluation noise is drawn there: it is large, and the same on every machine.
            for each in (MANIFEST, TRAIN, TEST):
                archive.write(prepared / name / each, f"data/{name}/{each}")
        for name in document["brought"]:
            _add(archive, store.folder(name), f"store/{name}", "*")
        for working in _borrowed_checkpoints(plan, asked, groups):
            _add(archive, working, working.relative_to(plan.results).as_posix(), "*")
        sizes = Counter[str]()
        for entry in archive.infolist():
            sizes[entry.filename.partition("/")[0]] += entry.compress_size
    return Bundled(sum(cells.values()), sizes)


def _borrowed_checkpoints(plan: Plan, asked: PackSpec, groups: Container[str]) -> Iterator[Path]:
    """Yield the folders of checkpoints that came back from borrowed machines and whose runs are open."""
    for device in DEVICES:
        kept = RunStore(plan.results / BORROWED / device)
        stale = {each.run for each in stale_runs(kept, [asked])}
        for name in kept.names():
            open_ = _group(name) in groups and name not in stale and not has_result(plan.store, name)
            if open_ and kept.has_checkpoint(name):
                yield kept.working_folder(name)


def _add(archive: zipfile.ZipFile, folder: Path, below: str, pattern: str) -> None:
    for path in sorted(folder.glob(pattern)):
        if path.is_file():
            archive.write(path, f"{below}/{path.relative_to(folder).as_posix()}")


def unpacked(bundle: Path, work: Path) -> dict[str, Any]:
    """Return the document of a bundle, whose data and runs are unpacked into a folder unless that was done before.

    Raises ``StoreError`` for no bundle, a damaged one, one of other source code, or the folder of another one.
    """
    try:
        with zipfile.ZipFile(bundle) as archive:
            text = archive.read(DOCUMENT)
            document = json.loads(text)
            expected, version = document["code"], document["numerics_version"]
    except (OSError, *DAMAGED, KeyError, TypeError) as error:
        raise StoreError(f"{bundle}: not a bundle, or damaged ({error})") from error
    if version != NUMERICS_VERSION or expected != {name: training_code(name)["digest"] for name in expected}:
        raise StoreError(f"{bundle}: of other source code than runs here; run its own: python {bundle}")
    if (work / DOCUMENT).exists():
        if (work / DOCUMENT).read_bytes() != text:
            raise StoreError(f"{work}: holds the runs of another bundle; remove it or name another --work")
        return document
    try:
        with zipfile.ZipFile(bundle) as archive, named_errors(work):
            for name in archive.namelist():
                if name.partition("/")[0] in ("data", "store", BORROWED):
                    archive.extract(name, work)
    except DAMAGED as error:
        raise StoreError(f"{bundle}: damaged ({error})") from error
    write_bytes_atomically(work / DOCUMENT, text)  # last: after a kill, the rest is unpacked again
    return document
