"""Verbs of runs: train, evaluate, variance."""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from silent_study.cli.exits import SIGNAL_BASE, TIME_LIMIT
from silent_study.cli.parsing import (
    add_option,
    add_verb,
    given_path,
    leased_device,
    positive_number,
    whole_number,
    write_json,
)

if TYPE_CHECKING:
    import torch

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
            "snakemake --cores 8 --resources gpu=8 all  # trains every run of params.yaml",
            "silent-gradients train --pack pack.json --data data/prepared/digits --manifest manifest.json",
        ),
        "Train one pack of runs; the workflow makes packs and calls this. After any interruption, the same command "
        "continues from the newest checkpoint.",
        in_study=False,
    )
    train.add_argument("--pack", required=True, help="the pack as JSON, or a file that holds it")
    add_option(train, "--data", given_path, "FOLDER", "the prepared data set", required=True)
    add_option(train, "--store", given_path, "FOLDER", "the run store", Path("results/store"))
    add_option(train, "--manifest", given_path, "FILE", "file to write once every run is finished", required=True)
    add_option(train, "--checkpoint-seconds", positive_number, "SECONDS", "wall time between checkpoints", 30.0)
    add_option(train, "--stack", whole_number(1), "N", "maximum number of runs trained side by side", 1)
    train.add_argument(
        "--steps",
        choices=["graph", "streams", "eager"],
        default="graph",
        help="on a GPU: CUDA graphs (default), CUDA graphs of any runs at the same time, or eager calls; elsewhere: "
        "eager calls, with streams of one run after another",
    )
    add_option(
        train,
        "--time-limit",
        positive_number,
        "MINUTES",
        f"stop at a checkpoint before this time, with exit code {TIME_LIMIT}; the same command continues",
    )
    add_option(train, "--tensorboard", given_path, "FOLDER", "folder for the curves as TensorBoard events")

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
        "Evaluate a run's weights by the workflow's own code: bits/dim, KL, squared errors. Read-only. Without "
        "options it repeats the evaluation in the store, which is shown beside it.",
    )
    _add_run(evaluate)
    evaluate.add_argument(
        "--split",
        choices=["test", "holdout", "train"],
        default="test",
        help="images to evaluate on; train takes as many training images as there are test images (default: test)",
    )
    add_option(evaluate, "--samples", whole_number(1), "N", "latent samples per image (default: the store's, else 16)")
    add_option(
        evaluate,
        "--importance-samples",
        whole_number(0),
        "K",
        "samples per image of the importance-weighted bound (default: as in the store, else 0, which is none)",
    )
    add_option(
        evaluate,
        "--epoch",
        whole_number(1),
        "E",
        "the snapshot of this epoch, one of the run's snapshot_epochs (default: the final weights)",
    )
    add_option(evaluate, "--json", given_path, "FILE", "file to write the numbers to")

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
        help="names, each with its options as in gumbel-softmax:temperature=0.5 (default: all that the run supports)",
    )
    add_option(variance, "--draws", int, "N", "latent draws per estimator", 100)
    add_option(variance, "--reference-draws", int, "N", "latent draws of the reference, if it is not exact", 1000)
    add_option(variance, "--images", int, "N", "images of the fixed batch", 64)
    add_option(variance, "--out", given_path, "FOLDER", "folder of numbers and plot", Path("results/variance"))


def _add_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_folder", type=given_path, help="folder of a run in the store that has weights")
    add_option(parser, "--data", given_path, "FOLDER", "prepared data set (default: in data/prepared)")


def _train(options: argparse.Namespace) -> int:
    from silent_study.store.manifests import manifest_if_done
    from silent_study.store.runs import RunStore

    pack, store = _read_pack(options.pack), RunStore(options.store)
    with store.locked(pack.lock):
        done = manifest_if_done(store, pack)
        if done is not None:  # no wait for a device
            write_json(options.manifest, done)
            return 0
        with leased_device() as device:
            return _train_on(device, pack, options)


def _read_pack(given: str) -> PackSpec:
    from silent_study.settings import SettingsError, read_json_object
    from silent_study.store.packs import PackSpec

    inline = given.lstrip().startswith("{")
    where = "--pack" if inline else given
    document = read_json_object(given if inline else given_path(given).read_bytes(), where)
    try:
        pack = PackSpec.from_json(document)
    except (KeyError, TypeError, AttributeError) as error:
        raise SettingsError(f"{where}: no pack, as the workflow makes them ({error!r})") from None
    if not pack.members:
        raise SettingsError(f"{where}: a pack without runs")
    return pack


def _train_on(device: torch.device, pack: PackSpec, options: argparse.Namespace) -> int:
    from silent_study.jobs.pack import TrainingOptions, run_pack
    from silent_study.jobs.stopping import StopSignal, TimeLimit
    from silent_study.store.runs import RunStore
    from silent_study.training.loop import Interrupted

    on_gpu = device.type == "cuda"
    streams = options.steps == "streams"
    signalled = StopSignal()
    limit = TimeLimit(math.inf if options.time_limit is None else 60 * options.time_limit)
    try:
        manifest = run_pack(
            pack,
            RunStore(options.store),
            options.data,
            device,
            TrainingOptions(
                checkpoint_seconds=options.checkpoint_seconds,
                stack=options.stack if on_gpu or not streams else 1,
                captured=options.steps != "eager" and on_gpu,
                streams=streams and on_gpu,
                tensorboard=options.tensorboard,
            ),
            lambda: signalled() or limit(),
        )
    except (Interrupted, KeyboardInterrupt) as reason:
        goes_on = "the same command goes on from the checkpoint"
        if isinstance(reason, Interrupted) and signalled.number is None:
            print(f"stopped before the limit of {options.time_limit:g} minutes; {goes_on}", file=sys.stderr)
            return TIME_LIMIT
        print(f"stopped; {goes_on}", file=sys.stderr)
        return SIGNAL_BASE + (signalled.number or 2)
    write_json(options.manifest, manifest)
    return 0


def _evaluate(options: argparse.Namespace) -> int:
    from silent_study.store.runs import open_run

    open_run(options.run_folder)  # an error comes before the wait for a device
    with leased_device() as device:
        from silent_study.evaluation.runs import evaluate_again

        found = evaluate_again(
            options.run_folder,
            options.data,
            options.split,
            options.samples,
            options.importance_samples,
            device,
            options.epoch,
        )
    from rich.console import Console

    from silent_study.cli.tables import evaluation_table

    print(found.run)
    Console(highlight=False).print(evaluation_table(found))
    if options.json is not None:
        write_json(options.json, found.to_json())
    return 0


def _variance(options: argparse.Namespace) -> int:
    from silent_study.store.runs import open_run

    open_run(options.run_folder)  # an error comes before the wait for a device
    with leased_device() as device:
        from silent_study.evaluation.estimator_comparison import compare_estimators

        found = compare_estimators(
            options.run_folder,
            options.data,
            None if options.estimators is None else options.estimators.split(","),
            draws=options.draws,
            reference_draws=options.reference_draws,
            images=options.images,
            device=device,
        )
    from rich.console import Console

    from silent_study.cli.tables import comparison_table
    from silent_study.report.figures import estimators_along_training
    from silent_study.store.files import write_bytes_atomically

    print(f"{found.run}: {found.draws} draws, {found.images} images, bias against {found.points[0].reference}")
    Console(highlight=False).print(comparison_table(found))
    name = found.run.rpartition("/")[2]
    write_json(options.out / f"{name}.json", found.to_json())
    write_bytes_atomically(options.out / f"{name}.svg", estimators_along_training(found.to_json()["points"]))
    print(f"numbers and plot: {options.out / name}.json, .svg")
    return 0
