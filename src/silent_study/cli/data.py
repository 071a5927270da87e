"""Verbs download, prepare, dequantize, limit."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from silent_study.cli.parsing import add_verb, given_mirror, given_path, own_settings, positive_number, whole_number
from silent_study.settings import Protocol
from silent_study.store.files import remove_leftovers
from silent_study.store.runs import write_json

if TYPE_CHECKING:
    from silent_study.cli.parsing import Verbs
    from silent_study.data.source import Source


def add_verbs(verbs: Verbs) -> None:
    """Add the verbs of data sets."""
    download, prepare, dequantize, limit = parsers = [
        add_verb(verbs, run) for run in (_download, _prepare, _dequantize, _limit)
    ]
    for parser in parsers:
        parser.add_argument("dataset", help="a data set of the package, or one of data.sets in params.yaml")
        parser.add_config(several=False)
    download.add_option("--record", given_path, "FILE", "JSON file to write with the folder and digests of the files")
    for parser in (download, prepare, limit):
        parser.add_option(
            "--mirror",
            given_mirror,
            "MIRROR",
            "folder or http(s) address with the raw files (default: data.mirror of the settings, then "
            "$SILENT_GRADIENTS_MIRROR, then the publishers)",
        )
        parser.add_option("--raw", given_path, "FOLDER", "folder for downloads", Path("data/raw"))
    limit.add_option("--latent-dim", whole_number(1), "K", "number of latent variables", required=True)
    limit.add_option("--variance", positive_number, "VARIANCE", "fixed variance besides the optimal one")
    limit.add_argument("--protocol", choices=get_args(Protocol), default="holdout", help="default: %(default)s")
    limit.add_option("--holdout", whole_number(1), "N", "training images to set aside (default: the data set's)")
    for parser in (prepare, dequantize, limit):
        parser.add_option("--folder", given_path, "FOLDER", "prepared data set (default: data/prepared/<dataset>)")
    limit.add_option("--json", given_path, "FILE", "file to write the numbers to")


def _prepared_folder(options: argparse.Namespace) -> Path:
    folder: Path = options.folder or Path("data/prepared") / options.dataset
    return folder


def _has_settings(options: argparse.Namespace) -> bool:
    given = options.config or options.configfile or options.settings is not None
    return bool(given) or Path("params.yaml").exists()


def _source(options: argparse.Namespace) -> Source:
    from silent_study.data.sources import SOURCES, source_named

    # A data set of the package needs no settings.
    if options.dataset in SOURCES or not _has_settings(options):
        return source_named(options.dataset)
    from silent_study.params import presets_folder, source_of

    return source_of(options.dataset, own_settings(options), presets_folder())


def _mirror(options: argparse.Namespace) -> str | None:
    if options.mirror is not None:
        return str(options.mirror)
    if _has_settings(options):
        from silent_study.params import mirror_of, presets_folder

        if named := mirror_of(own_settings(options), presets_folder()):
            return named
    named = os.environ.get("SILENT_GRADIENTS_MIRROR")
    return given_mirror(named) if named else None


def _download(options: argparse.Namespace) -> int:
    """Get the raw files of a data set, or find them in a mirror, and verify them.

    silent-gradients download mnist
    silent-gradients download cifar10 --mirror /datasets/torchvision
    """
    from silent_study.data.prepare import download

    obtained = download(_source(options), options.raw, _mirror(options))
    files = {file.path: file.digest for file in obtained.form.files}
    if options.record is not None:
        write_json(options.record, {"name": options.dataset, "folder": str(obtained.root), "files": files})
    print(f"{options.dataset}: {len(files)} raw files in {obtained.root}, verified")
    return 0


def _prepare(options: argparse.Namespace) -> int:
    """Verify a data set and write it as uint8 arrays.

    silent-gradients prepare digits
    silent-gradients prepare mnist --mirror https://example.org/torchvision
    """
    from silent_study.data.prepare import prepare

    folder = _prepared_folder(options)
    remove_leftovers(folder)  # also where nothing is written, since another process has prepared it meanwhile
    counts = prepare(_source(options), folder, _mirror(options), options.raw)["counts"]
    print(f"{options.dataset}: {counts['train']} training and {counts['test']} test images in {folder}")
    return 0


def _dequantize(options: argparse.Namespace) -> int:
    """Write the dequantization noise for evaluations.

    silent-gradients dequantize digits
    """
    from silent_study.data.prepare import dequantize

    folder = _prepared_folder(options)
    images = dequantize(_source(options), folder)["shape"][0]
    print(f"{options.dataset}: dequantization noise of {images} images in {folder}")
    return 0


def _limit(options: argparse.Namespace) -> int:
    """Compute the best linear models of a data set: probabilistic PCA, factor analysis.

    Compute the best linear models of a data set: probabilistic PCA, factor analysis. Without --folder the data set is
    prepared first where that is necessary.

    silent-gradients limit digits --latent-dim 32 --variance 0.01
    silent-gradients limit mnist --latent-dim 64 --protocol paper --json limits.json
    """
    from silent_study.cli.tables import console, limits_table
    from silent_study.data.prepare import opened
    from silent_study.data.prepared import PreparedData
    from silent_study.evaluation.known_limits import known_limits

    source = _source(options)
    holdout = source.holdout if options.holdout is None else options.holdout
    if options.folder is None:
        prepared = opened(source, _prepared_folder(options), _mirror(options), options.raw)
    else:  # never made anew: it may hold another data set
        prepared = PreparedData.open(options.folder, source.sha256)
    splits = prepared.split(options.protocol, holdout)
    limits = known_limits(splits, prepared.levels, options.latent_dim, options.variance)
    settings = {
        "protocol": options.protocol,
        "holdout": len(prepared.train) - len(splits.train),
        "k": options.latent_dim,
    }
    about = ", ".join(f"{name} {value}" for name, value in {"data set": prepared.name, **settings}.items())
    console().print(limits_table(limits, about))
    if options.json is not None:
        document = {"dataset": prepared.name, "sha256": prepared.sha256, **settings}
        write_json(options.json, document | {"limits": [known.to_json() for known in limits]})
    return 0
