"""Verbs train, evaluate, variance."""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from silent_study.cli.exits import SIGNAL_BASE, TIME_LIMIT
from silent_study.cli.parsing import add_verb, given_path, positive_number, whole_number
from silent_study.jobs.lease import leased_device
from silent_study.settings import SettingsError, read_json_object
from silent_study.store.packs import PackSpec
from silent_study.store.runs import RunStore, open_run, write_json
from silent_study.store.stale import check_code

if TYPE_CHECKING:
    import torch

    from silent_study.cli.parsing import OneLineParser, Verbs


def add_verbs(verbs: Verbs) -> None:
    """Add the verbs of runs."""
    train = add_verb(verbs, _train, in_study=False)
    train.add_argument("--pack", required=True, help="the pack as JSON, or a file that holds it")
    train.add_option("--data", given_path, "FOLDER", "the prepared data set", required=True)
    train.add_option("--store", given_path, "FOLDER", "the run store", Path("results/store"))
    train.add_option("--manifest", given_path, "FILE", "file to write once every run is finished", required=True)
    train.add_option("--checkpoint-seconds", positive_number, "SECONDS", "wall time between checkpoints", 30.0)
    train.add_option("--stack", whole_number(1), "N", "maximum number of runs trained side by side", 1)
    train.add_argument(
        "--steps",
        choices=["graph", "streams", "eager"],
        default="graph",
        help="on a GPU: CUDA graphs (default), CUDA graphs of any runs at the same time, or eager calls; elsewhere: "
        "eager calls, with streams of one run after another",
    )
    train.add_option(
        "--time-limit",
        positive_number,
        "MINUTES",
        f"stop at a checkpoint before this time, with exit code {TIME_LIMIT}; the same command continues",
    )
    train.add_option("--tensorboard", given_path, "FOLDER", "folder for the curves as TensorBoard events")

    evaluate = add_verb(verbs, _evaluate)
    _add_run(evaluate)
    evaluate.add_argument(
        "--split",
        choices=["test", "holdout", "train"],
        default="test",
        help="images to evaluate on; train takes as many training images as there are test images (default: test)",
    )
    evaluate.add_option("--samples", whole_number(1), "N", "latent samples per image (default: the store's, else 16)")
    evaluate.add_option(
        "--importance-samples",
        whole_number(0),
        "K",
        "samples per image of the importance-weighted bound (default: as in the store, else 0, which is none)",
    )
    evaluate.add_option(
        "--epoch",
        whole_number(1),
        "E",
        "the snapshot of this epoch, one of the run's snapshot_epochs (default: the final weights)",
    )
    evaluate.add_option("--json", given_path, "FILE", "file to write the numbers to")

    variance = add_verb(verbs, _variance)
    _add_run(variance)
    variance.add_argument(
        "--estimators",
        metavar="A,B,..",
        help="names, each with its options as in gumbel-softmax:temperature=0.5 (default: all that the run supports)",
    )
    variance.add_option("--draws", int, "N", "latent draws per estimator", 100)
    variance.add_option("--reference-draws", int, "N", "latent draws of the reference, if it is not exact", 1000)
    variance.add_option("--images", int, "N", "images of the fixed batch", 64)
    variance.add_option("--out", given_path, "FOLDER", "folder of numbers and plot", Path("results/variance"))


def _add_run(parser: OneLineParser) -> None:
    parser.add_argument("run_folder", type=given_path, help="folder of a run in the store that has weights")
    parser.add_option("--data", given_path, "FOLDER", "prepared data set (default: in data/prepared)")


def _train(options: argparse.Namespace) -> int:
    """Train one pack of runs.

    Train one pack of runs; the workflow makes packs and calls this. After any interruption, the same command continues
    from the newest checkpoint.

    snakemake --cores 8 --resources gpu=8 all  # trains every run of params.yaml
    silent-gradients train --pack pack.json --data data/prepared/digits --manifest manifest.json
    """
    from silent_study.store.manifests import manifest_if_done

    pack, store = _read_pack(options.pack), RunStore(options.store)
    store.remove_leftovers()
    with store.locked(pack.lock):
        check_code(store, [pack])
        done = manifest_if_done(store, pack)
        if done is not None:  # no wait for a device
            write_json(options.manifest, done)
            return 0
        with leased_device() as device:
            return _train_on(device, pack, options)


def _read_pack(given: str) -> PackSpec:
    inline = given.lstrip().startswith("{")
    where = "--pack" if inline else given
    document = read_json_object(given if inline else given_path(given).read_bytes(), where)
    try:
        pack = PackSpec.from_json(document)
    except (KeyError, TypeError, AttributeError) as error:
        raise SettingsError(f"{where}: not a pack as the workflow makes them ({error!r})") from None
    if not pack.members:
        raise SettingsError(f"{where}: a pack without runs")
    return pack


def _train_on(device: torch.device, pack: PackSpec, options: argparse.Namespace) -> int:
    from silent_study.jobs.pack import TrainingOptions, run_pack
    from silent_study.jobs.stopping import StopSignal, TimeLimit
    from silent_study.training.loop import Interrupted

    signalled = StopSignal()
    limit = TimeLimit(math.inf if options.time_limit is None else 60 * options.time_limit)
    how = TrainingOptions.of(device, options.steps, options.stack, options.checkpoint_seconds, options.tensorboard)
    store, stop = RunStore(options.store), lambda: signalled() or limit()
    try:
        manifest = run_pack(pack, store, options.data, device, how, stop, signalled.at_once)
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
    """Evaluate a run's weights again.

    Evaluate a run's weights by the workflow's own code: bits/dim, KL, squared errors. Read-only. Without options it
    repeats the evaluation in the store, which is shown beside it.

    silent-gradients evaluate results/store/digits/fixed/silent-gaussian/RUN --json evaluation.json
    silent-gradients evaluate results/store/digits/fixed/silent-gaussian/RUN --samples 64 --importance-samples 1000
    silent-gradients evaluate results/store/digits/fixed/silent-gaussian/RUN --split train --epoch 20
    """
    open_run(options.run_folder)  # an error comes before the wait for a device
    with leased_device() as device:
        from silent_study.evaluation.runs import evaluate_again

        asked = (options.split, options.samples, options.importance_samples)
        found = evaluate_again(options.run_folder, options.data, *asked, device, options.epoch)
    from silent_study.cli.tables import console, evaluation_table

    print(found.run)
    console().print(evaluation_table(found))
    if options.json is not None:
        write_json(options.json, found.to_json())
    return 0


def _variance(options: argparse.Namespace) -> int:
    """Compare estimators' gradients at the snapshots of a run.

    silent-gradients variance results/store/digits/fixed/silent-bernoulli/RUN
    silent-gradients variance results/store/digits/fixed/silent-bernoulli/RUN --estimators silent,rloo --draws 1000
    """
    open_run(options.run_folder)  # an error comes before the wait for a device
    with leased_device() as device:
        from silent_study.evaluation.estimator_comparison import compare_estimators

        names = None if options.estimators is None else options.estimators.split(",")
        numbers = {"draws": options.draws, "reference_draws": options.reference_draws, "images": options.images}
        found = compare_estimators(options.run_folder, options.data, names, **numbers, device=device)
    from silent_study.cli.tables import comparison_table, console
    from silent_study.report.figures import estimators_along_training
    from silent_study.store.files import write_bytes_atomically

    print(f"{found.run}: {found.draws} draws, {found.images} images, bias against {found.points[0].reference}")
    console().print(comparison_table(found))
    name = found.run.rpartition("/")[2]
    write_json(options.out / f"{name}.json", found.to_json())
    write_bytes_atomically(options.out / f"{name}.svg", estimators_along_training(found.to_json()["points"]))
    print(f"numbers and plot: {options.out / name}.json, .svg")
    return 0
