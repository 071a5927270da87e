"""The command line: ``silent-gradients <verb>``. Thin: each verb reads its arguments and calls the library."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from silent_gradients.packs import Round
from silent_gradients.settings import Protocol

if TYPE_CHECKING:
    from silent_gradients.runs import Plan

EXIT_FAILURE = 1
EXIT_USAGE = 2
EXIT_TIME_LIMIT = 75
"""A process that stopped at a checkpoint because of its time limit: the system's code for "try again later"."""
SIGNAL_BASE = 128
"""A process that stopped at a checkpoint because of signal n exits with 128 + n."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        code: int = options.run(options)
    except _expected_errors() as error:
        print(f"silent-gradients {options.verb}: {error}", file=sys.stderr)
        return EXIT_FAILURE
    return code


def _expected_errors() -> tuple[type[Exception], ...]:
    """Errors whose message says all there is to say, those of files among them; any other keeps its traceback."""
    from silent_gradients.data.errors import DataError
    from silent_gradients.settings import SettingsError
    from silent_gradients.store import StoreError

    return (DataError, SettingsError, StoreError, OSError)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="silent-gradients",
        description="Variational autoencoders with exact, zero-variance gradients: the steps of the workflow.",
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="verb")

    download = verbs.add_parser("download", help="have the raw files of a data set here or in a mirror, verified")
    _add_raw(download)
    download.add_argument("--record", type=Path, help="JSON file to write that says which files these are and where")
    download.set_defaults(run=_download)

    prepare = verbs.add_parser("prepare", help="verify a data set and write it as uint8 arrays")
    _add_raw(prepare)
    prepare.add_argument("--folder", type=Path, help="default: data/prepared/<dataset>")
    prepare.set_defaults(run=_prepare)

    dequantize = verbs.add_parser("dequantize", help="write the dequantization noise that evaluations use")
    dequantize.add_argument("dataset")
    dequantize.add_argument("--folder", type=Path, help="default: data/prepared/<dataset>")
    dequantize.set_defaults(run=_dequantize)

    plan = verbs.add_parser("plan", help="list what will be run")
    _add_config(plan)
    plan.set_defaults(run=_plan)

    pace = verbs.add_parser("pace", help="measure how long the plan's training steps take here; plan then tells hours")
    _add_config(pace)
    pace.add_argument("--rounds", type=int, default=20, help="steps measured per method and phase (default: 20)")
    pace.set_defaults(run=_pace)

    limit = verbs.add_parser("limit", help="what linear models reach on a data set: probabilistic PCA, factor analysis")
    limit.add_argument("dataset")
    limit.add_argument("--latent-dim", type=int, required=True, metavar="K", help="number of latent variables")
    limit.add_argument("--variance", type=float, help="fixed variance of the likelihood, besides the optimal one")
    limit.add_argument("--protocol", choices=get_args(Protocol), default="holdout", help="default: %(default)s")
    limit.add_argument("--holdout", type=int, help="training images that are set aside (default: the data set's own)")
    limit.add_argument("--folder", type=Path, help="default: data/prepared/<dataset>")
    limit.add_argument("--json", type=Path, metavar="FILE", help="file to write the numbers to")
    limit.set_defaults(run=_limit)

    variance = verbs.add_parser("variance", help="compare estimators' gradients at the snapshots of a run")
    variance.add_argument("run_folder", type=Path, help="folder of a run in the store that keeps its weights")
    variance.add_argument(
        "--estimators",
        metavar="A,B,..",
        help="names, each with its options as in gumbel-softmax:temperature=0.5 (default: all that serve the run)",
    )
    variance.add_argument("--draws", type=int, default=100, help="latent draws of each (default: %(default)s)")
    variance.add_argument(
        "--reference-draws", type=int, default=1000, help="of the reference, if it is not exact (default: %(default)s)"
    )
    variance.add_argument("--images", type=int, default=64, help="images of the fixed batch (default: %(default)s)")
    variance.add_argument("--data", type=Path, help="folder of the prepared data set (default: in data/prepared)")
    variance.add_argument(
        "--out", type=Path, default=Path("results/variance"), help="folder of the JSON file and the plot"
    )
    variance.set_defaults(run=_variance)

    train = verbs.add_parser("train", help="train one pack of runs")
    train.add_argument("--pack", required=True, help="the pack as JSON, or a file that holds it")
    train.add_argument("--data", type=Path, required=True, help="folder of the prepared data set")
    train.add_argument("--store", type=Path, default=Path("results/store"), help="folder of the run store")
    train.add_argument("--manifest", type=Path, required=True, help="file to write once every member is there")
    train.add_argument("--checkpoint-seconds", type=float, default=30.0, help="wall time between checkpoints")
    train.add_argument(
        "--stack",
        type=int,
        default=1,
        metavar="N",
        help="train at most so many runs of a cell side by side (default: 1)",
    )
    train.add_argument(
        "--steps",
        choices=["graph", "eager"],
        default="graph",
        help="on a GPU: CUDA graphs (default) or eager calls",
    )
    train.add_argument(
        "--time-limit",
        type=float,
        metavar="MINUTES",
        help=f"stop at a checkpoint before this is over, with exit code {EXIT_TIME_LIMIT}; the same command goes on",
    )
    train.set_defaults(run=_train)

    select = verbs.add_parser("select", help="select a point per cell after a grid round of a group")
    select.add_argument("round", choices=get_args(Round)[:2])
    select.add_argument("group", metavar="dataset/experiment")
    _add_config(select)
    select.set_defaults(run=_select)

    gather = verbs.add_parser("gather", help="verify every run and write tables, figures and the report")
    _add_config(gather)
    gather.set_defaults(run=_gather)

    prune = verbs.add_parser("prune", help="list the runs that no kept revision asks for, or remove them")
    prune.add_argument("--delete", action="store_true", help="remove them; without it, nothing is")
    prune.add_argument(
        "--keep",
        action="append",
        default=[],
        metavar="REVISION",
        help="keep what this revision asks for too, besides the working tree, branches, tags and DVC's experiments; "
        "may be given several times",
    )
    prune.set_defaults(run=_prune)
    return parser


def _add_raw(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dataset")
    parser.add_argument(
        "--mirror",
        default=os.environ.get("SILENT_GRADIENTS_MIRROR"),
        help="folder or http(s) address with the raw files; default: $SILENT_GRADIENTS_MIRROR, then the publishers",
    )
    parser.add_argument(
        "--raw", type=Path, default=Path("data/raw"), help="folder to download to (default: %(default)s)"
    )


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", help="content of params.yaml as JSON, in place of the file")
    parser.add_argument("--results", type=Path, default=Path("results"))


def _own_settings(options: argparse.Namespace) -> dict[str, Any]:
    from silent_gradients.params import read_yaml

    own: dict[str, Any] = read_yaml(Path("params.yaml")) if options.config is None else json.loads(options.config)
    return own


def _load_plan(options: argparse.Namespace) -> Plan:
    from silent_gradients.params import resolve
    from silent_gradients.runs import Plan

    return Plan(resolve(_own_settings(options), Path("presets")), options.results)


def _download(options: argparse.Namespace) -> int:
    from silent_gradients.data.prepare import download
    from silent_gradients.files import write_text_atomically
    from silent_gradients.store import as_json

    obtained = download(options.dataset, options.raw, options.mirror)
    files = {file.path: file.digest for file in obtained.form.files}
    if options.record is not None:
        document = {"name": options.dataset, "folder": str(obtained.root), "files": files}
        write_text_atomically(options.record, as_json(document))
    print(f"{options.dataset}: {len(files)} raw files in {obtained.root}, verified")
    return 0


def _prepare(options: argparse.Namespace) -> int:
    from silent_gradients.data.prepare import prepare

    folder = _prepared_folder(options)
    counts = prepare(options.dataset, folder, options.mirror, options.raw)["counts"]
    print(f"{options.dataset}: {counts['train']} training and {counts['test']} test images in {folder}")
    return 0


def _dequantize(options: argparse.Namespace) -> int:
    from silent_gradients.data.prepare import dequantize

    folder = _prepared_folder(options)
    images = dequantize(options.dataset, folder)["shape"][0]
    print(f"{options.dataset}: dequantization noise of {images} images in {folder}")
    return 0


def _prepared_folder(options: argparse.Namespace) -> Path:
    folder: Path = options.folder or Path("data/prepared") / options.dataset
    return folder


def _plan(options: argparse.Namespace) -> int:
    from silent_gradients.overview import overview

    print(overview(_load_plan(options)))
    return 0


def _pace(options: argparse.Namespace) -> int:
    from silent_gradients.training.lease import acquire

    with acquire() as lease:
        import torch

        from silent_gradients.files import write_text_atomically
        from silent_gradients.pace import PACE
        from silent_gradients.training.arithmetic import settle
        from silent_gradients.training.stopwatch import measured_pace

        settle()
        plan = _load_plan(options)
        runs, stack = [plan.first_run(cell) for cell in plan.cells()], plan.params.execution.stack
        pace = measured_pace(runs, Path("data/prepared"), torch.device(lease.device), options.rounds, stack)
    write_text_atomically(options.results / PACE, pace.to_json())
    print(f"{pace.hardware}: {len(pace.steps)} kinds of steps in {options.results / PACE}; see: silent-gradients plan")
    return 0


def _limit(options: argparse.Namespace) -> int:
    from rich.console import Console

    from silent_gradients.data.prepared import PreparedData
    from silent_gradients.data.sources import source_named
    from silent_gradients.files import write_text_atomically
    from silent_gradients.known_limits import as_table, known_limits
    from silent_gradients.store import as_json

    holdout = source_named(options.dataset).holdout if options.holdout is None else options.holdout
    prepared = PreparedData.open(_prepared_folder(options))
    splits = prepared.split(options.protocol, holdout)
    limits = known_limits(splits, prepared.levels, options.latent_dim, options.variance)
    asked = {"protocol": options.protocol, "holdout": len(prepared.train) - len(splits.train), "k": options.latent_dim}
    about = ", ".join(f"{name} {value}" for name, value in {"data set": prepared.name, **asked}.items())
    Console(highlight=False).print(as_table(limits, about))
    if options.json is not None:
        document = {"dataset": prepared.name, "sha256": prepared.sha256, **asked}
        write_text_atomically(options.json, as_json(document | {"limits": [known.to_json() for known in limits]}))
    return 0


def _variance(options: argparse.Namespace) -> int:
    from silent_gradients.training.lease import acquire

    with acquire() as lease:
        import torch

        from silent_gradients.estimator_comparison import compare_estimators
        from silent_gradients.training.arithmetic import settle

        settle()
        found = compare_estimators(
            options.run_folder,
            options.data,
            None if options.estimators is None else options.estimators.split(","),
            draws=options.draws,
            reference_draws=options.reference_draws,
            images=options.images,
            device=torch.device(lease.device),
        )
    from rich.console import Console

    from silent_gradients.estimator_comparison import as_table
    from silent_gradients.files import write_bytes_atomically, write_text_atomically
    from silent_gradients.report.figures import estimators_along_training
    from silent_gradients.store import as_json

    print(f"{found.run}: {found.draws} draws, {found.images} images, bias against {found.points[0].reference}")
    Console(highlight=False).print(as_table(found))
    name = found.run.rpartition("/")[2]
    write_text_atomically(options.out / f"{name}.json", as_json(found.to_json()))
    write_bytes_atomically(options.out / f"{name}.svg", estimators_along_training(found.to_json()["points"]))
    print(f"numbers and plot: {options.out / name}.json, .svg")
    return 0


def _train(options: argparse.Namespace) -> int:
    from silent_gradients.training.lease import acquire

    with acquire() as lease:
        return _train_on(lease.device, options)


def _train_on(device: str, options: argparse.Namespace) -> int:
    # Imported under the lease: torch sees the leased device alone, and waiting processes stay small.
    import torch

    from silent_gradients.files import write_text_atomically
    from silent_gradients.packs import PackSpec
    from silent_gradients.store import RunStore, as_json
    from silent_gradients.training.arithmetic import settle
    from silent_gradients.training.loop import Interrupted
    from silent_gradients.training.pack import StopSignal, TimeLimit, run_pack

    settle()
    text = Path(options.pack).read_text() if not options.pack.startswith("{") else options.pack
    document: dict[str, Any] = json.loads(text)
    signalled = StopSignal()
    limit = TimeLimit(math.inf if options.time_limit is None else 60 * options.time_limit)
    try:
        manifest = run_pack(
            PackSpec.from_json(document),
            RunStore(options.store),
            options.data,
            torch.device(device),
            checkpoint_seconds=options.checkpoint_seconds,
            stop=lambda: signalled() or limit(),
            stack=options.stack,
            captured=options.steps == "graph" and torch.device(device).type == "cuda",
        )
    except (Interrupted, KeyboardInterrupt) as reason:
        goes_on = "the same command goes on from the checkpoint"
        if isinstance(reason, Interrupted) and signalled.number is None:
            print(f"stopped before the limit of {options.time_limit:g} minutes; {goes_on}", file=sys.stderr)
            return EXIT_TIME_LIMIT
        print(f"stopped; {goes_on}", file=sys.stderr)
        return SIGNAL_BASE + (signalled.number or 2)
    write_text_atomically(options.manifest, as_json(manifest))
    return 0


def _select(options: argparse.Namespace) -> int:
    from silent_gradients.files import write_text_atomically
    from silent_gradients.selection import select
    from silent_gradients.settings import SettingsError
    from silent_gradients.store import RunStore, as_json

    plan = _load_plan(options)
    if options.round not in plan.rounds(options.group):
        with_round = [group for group in plan.groups() if options.round in plan.rounds(group)]
        raise SettingsError(f"{options.group}: no group with a round {options.round}; known: {', '.join(with_round)}")
    selections = plan.selections(options.round, options.group)
    document = select(plan, RunStore(options.results / "store"), options.round, options.group, selections)
    write_text_atomically(plan.selection_path(options.round, options.group, selections), as_json(document))
    return 0


def _gather(options: argparse.Namespace) -> int:
    from silent_gradients.gathering import gather_results
    from silent_gradients.params import set_over_preset

    report = gather_results(_load_plan(options), set_over_preset(_own_settings(options)))
    print(f"report: {report}")
    return 0


def _prune(options: argparse.Namespace) -> int:
    from silent_gradients.pruning import Pruning, kept_revisions, lines_for_dvc

    pruning = Pruning.of(Path("results"), kept_revisions(options.keep))
    print(pruning.overview())
    if options.delete:
        print(pruning.delete())
        if lines := lines_for_dvc(options.keep):
            print(lines)
    elif pruning.runs or pruning.promises:
        print("to remove what none asks for: silent-gradients prune --delete")
    return 0
