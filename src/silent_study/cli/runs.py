"""Verbs of runs: train, evaluate, variance."""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from silent_study.cli.exits import SIGNAL_BASE, TIME_LIMIT
from silent_study.cli.parsing import add_verb, positive_number, read_document, whole_number

if TYPE_CHECKING:
    from silent_study.cli.parsing import Verbs
    from silent_study.store.packs import PackSpec

_RUN = "results/store/digits/fixed/silent-gaussian/RUN"
_BITS = "results/store/digits/fixed/silent-bernoulli/RUN"


def add_verbs(verbs: Verbs) -> None:
    """Add the verbs of runs."""
    train = add_verb(
        verbs,
        "train",
        _train,
        "train one pack of runs",
        (
            "snakemake --cores 8 --resources gpu=8 all  # trains everything that params.yaml asks for",
            "silent-gradients train --pack pack.json --data data/prepared/digits --manifest manifest.json",
        ),
        "Train one pack of runs, which the workflow makes and calls this for. Whatever stops it, the same command goes "
        "on from the newest checkpoint.",
    )
    train.add_argument("--pack", required=True, help="the pack as JSON, or a file that holds it")
    train.add_argument("--data", type=Path, required=True, metavar="FOLDER", help="the prepared data set")
    train.add_argument(
        "--store", type=Path, default=Path("results/store"), metavar="FOLDER", help="default: %(default)s"
    )
    train.add_argument(
        "--manifest", type=Path, required=True, metavar="FILE", help="file to write once every member is there"
    )
    train.add_argument(
        "--checkpoint-seconds",
        type=positive_number,
        default=30.0,
        metavar="SECONDS",
        help="wall time between checkpoints (default: 30)",
    )
    train.add_argument(
        "--stack",
        type=whole_number(1),
        default=1,
        metavar="N",
        help="train at most so many runs side by side (default: 1)",
    )
    train.add_argument(
        "--steps",
        choices=["graph", "streams", "eager"],
        default="graph",
        help="on a GPU: CUDA graphs (default), CUDA graphs of any runs at the same time, or eager calls; elsewhere all "
        "are eager calls, with streams of one run after another",
    )
    train.add_argument(
        "--time-limit",
        type=positive_number,
        metavar="MINUTES",
        help=f"stop at a checkpoint before this is over, with exit code {TIME_LIMIT}; the same command goes on",
    )
    train.add_argument(
        "--tensorboard", type=Path, metavar="FOLDER", help="write the curves there as TensorBoard's events, too"
    )

    evaluate = add_verb(
        verbs,
        "evaluate",
        _evaluate,
        "evaluate a run's weights again",
        (
            f"silent-gradients evaluate {_RUN}",
            f"silent-gradients evaluate {_RUN} --samples 64 --importance-samples 1000 --json evaluation.json",
            f"silent-gradients evaluate {_RUN} --split train --epoch 20",
        ),
        "Evaluate a run's weights by the workflow's own code: bits/dim, KL, squared errors. Nothing in the store "
        "is changed. Without options it repeats the evaluation that the store keeps, which it is shown beside.",
    )
    _add_run(evaluate)
    evaluate.add_argument(
        "--split",
        choices=["test", "holdout", "train"],
        default="test",
        help="images to evaluate on: of the training images, as many as there are test images (default: test)",
    )
    evaluate.add_argument(
        "--samples",
        type=whole_number(1),
        metavar="N",
        help="latent samples per image (default: as the store's, else 16)",
    )
    evaluate.add_argument(
        "--importance-samples",
        type=whole_number(0),
        metavar="K",
        help="samples per image of the importance-weighted bound (default: as the store's, else 0, which is none)",
    )
    evaluate.add_argument(
        "--epoch",
        type=whole_number(1),
        metavar="E",
        help="the snapshot of this epoch, one of the run's snapshot_epochs (default: the final weights)",
    )
    evaluate.add_argument("--json", type=Path, metavar="FILE", help="file to write the numbers to")

    variance = add_verb(
        verbs,
        "variance",
        _variance,
        "compare estimators' gradients at the snapshots of a run",
        (
            f"silent-gradients variance {_RUN}",
            f"silent-gradients variance {_BITS} --estimators silent,gumbel-softmax:temperature=0.5,rloo --draws 1000",
        ),
    )
    _add_run(variance)
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
    variance.add_argument(
        "--out", type=Path, default=Path("results/variance"), metavar="FOLDER", help="for the JSON file and the plot"
    )


def _add_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_folder", type=Path, help="folder of a run in the store that keeps its weights")
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="the prepared data set (default: in data/prepared)")


def _train(options: argparse.Namespace) -> int:
    from silent_study.jobs.lease import acquire
    from silent_study.store.files import write_text_atomically
    from silent_study.store.manifests import manifest_if_done
    from silent_study.store.runs import RunStore, as_json

    pack, store = _read_pack(options.pack), RunStore(options.store)
    with store.locked(pack.lock):
        done = manifest_if_done(store, pack)
        if done is not None:  # needs no device, and waits for none
            write_text_atomically(options.manifest, as_json(done))
            return 0
        with acquire() as lease:
            return _train_on(lease.device, pack, options)


def _read_pack(given: str) -> PackSpec:
    from silent_study.settings import SettingsError
    from silent_study.store.packs import PackSpec

    inline = given.lstrip().startswith("{")
    where = "--pack" if inline else given
    document = read_document(given if inline else Path(given).read_bytes(), where)
    try:
        pack = PackSpec.from_json(document)
    except (KeyError, TypeError, AttributeError) as error:
        raise SettingsError(f"{where}: no pack, as the workflow makes them ({error!r})") from None
    if not pack.members:
        raise SettingsError(f"{where}: a pack without runs")
    return pack


def _train_on(device: str, pack: PackSpec, options: argparse.Namespace) -> int:
    # Imported under the lease: torch sees the leased device alone, and waiting processes stay small.
    import torch

    from silent_study.jobs.pack import StopSignal, TimeLimit, run_pack
    from silent_study.store.files import write_text_atomically
    from silent_study.store.runs import RunStore, as_json
    from silent_study.training.device import settle
    from silent_study.training.loop import Interrupted

    settle()
    on_gpu = torch.device(device).type == "cuda"
    streams = options.steps == "streams"
    signalled = StopSignal()
    limit = TimeLimit(math.inf if options.time_limit is None else 60 * options.time_limit)
    try:
        manifest = run_pack(
            pack,
            RunStore(options.store),
            options.data,
            torch.device(device),
            checkpoint_seconds=options.checkpoint_seconds,
            stop=lambda: signalled() or limit(),
            stack=options.stack if on_gpu or not streams else 1,
            captured=options.steps != "eager" and on_gpu,
            streams=streams and on_gpu,
            tensorboard=options.tensorboard,
        )
    except (Interrupted, KeyboardInterrupt) as reason:
        goes_on = "the same command goes on from the checkpoint"
        if isinstance(reason, Interrupted) and signalled.number is None:
            print(f"stopped before the limit of {options.time_limit:g} minutes; {goes_on}", file=sys.stderr)
            return TIME_LIMIT
        print(f"stopped; {goes_on}", file=sys.stderr)
        return SIGNAL_BASE + (signalled.number or 2)
    write_text_atomically(options.manifest, as_json(manifest))
    return 0


def _evaluate(options: argparse.Namespace) -> int:
    from silent_study.jobs.lease import acquire
    from silent_study.store.runs import open_run

    open_run(options.run_folder)  # what is wrong with it is said before the wait for a device
    with acquire() as lease:
        import torch

        from silent_study.evaluation.again import as_table, evaluate_again
        from silent_study.training.device import settle

        settle()
        found = evaluate_again(
            options.run_folder,
            options.data,
            options.split,
            options.samples,
            options.importance_samples,
            torch.device(lease.device),
            options.epoch,
        )
    from rich.console import Console

    from silent_study.store.files import write_text_atomically
    from silent_study.store.runs import as_json

    print(found.run)
    Console(highlight=False).print(as_table(found))
    if options.json is not None:
        write_text_atomically(options.json, as_json(found.to_json()))
    return 0


def _variance(options: argparse.Namespace) -> int:
    from silent_study.jobs.lease import acquire
    from silent_study.store.runs import open_run

    open_run(options.run_folder)  # what is wrong with it is said before the wait for a device
    with acquire() as lease:
        import torch

        from silent_study.evaluation.estimator_comparison import compare_estimators
        from silent_study.training.device import settle

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

    from silent_study.evaluation.estimator_comparison import as_table
    from silent_study.report.figures import estimators_along_training
    from silent_study.store.files import write_bytes_atomically, write_text_atomically
    from silent_study.store.runs import as_json

    print(f"{found.run}: {found.draws} draws, {found.images} images, bias against {found.points[0].reference}")
    Console(highlight=False).print(as_table(found))
    name = found.run.rpartition("/")[2]
    write_text_atomically(options.out / f"{name}.json", as_json(found.to_json()))
    write_bytes_atomically(options.out / f"{name}.svg", estimators_along_training(found.to_json()["points"]))
    print(f"numbers and plot: {options.out / name}.json, .svg")
    return 0
