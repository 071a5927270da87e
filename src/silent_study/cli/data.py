"""Verbs of data sets: download, prepare, dequantize, limit."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from silent_study.cli.parsing import add_verb, own_settings, positive_number, whole_number
from silent_study.settings import Protocol

if TYPE_CHECKING:
    from silent_study.cli.parsing import Verbs
    from silent_study.data.source import Source


def add_verbs(verbs: Verbs) -> None:
    """Add the verbs of data sets."""
    download = add_verb(
        verbs,
        "download",
        _download,
        "have the raw files of a data set here or in a mirror, verified",
        ("silent-gradients download mnist", "silent-gradients download cifar10 --mirror /datasets/torchvision"),
    )
    _add_raw(download)
    download.add_argument(
        "--record", type=Path, metavar="FILE", help="JSON file to write that says which files these are and where"
    )

    prepare = add_verb(
        verbs,
        "prepare",
        _prepare,
        "verify a data set and write it as uint8 arrays",
        ("silent-gradients prepare digits", "silent-gradients prepare mnist --mirror https://example.org/torchvision"),
    )
    _add_raw(prepare)
    _add_folder(prepare)

    dequantize = add_verb(
        verbs,
        "dequantize",
        _dequantize,
        "write the dequantization noise that evaluations use",
        ("silent-gradients dequantize digits",),
    )
    _add_dataset(dequantize)
    _add_folder(dequantize)

    limit = add_verb(
        verbs,
        "limit",
        _limit,
        "what linear models reach on a data set: probabilistic PCA, factor analysis",
        (
            "silent-gradients limit digits --latent-dim 32 --variance 0.01",
            "silent-gradients limit mnist --latent-dim 64 --protocol paper --json limits.json",
        ),
    )
    _add_dataset(limit)
    limit.add_argument(
        "--latent-dim", type=whole_number(1), required=True, metavar="K", help="number of latent variables"
    )
    limit.add_argument(
        "--variance", type=positive_number, help="fixed variance of the likelihood, besides the optimal one"
    )
    limit.add_argument("--protocol", choices=get_args(Protocol), default="holdout", help="default: %(default)s")
    limit.add_argument(
        "--holdout", type=whole_number(1), help="training images that are set aside (default: the data set's own)"
    )
    _add_folder(limit)
    limit.add_argument("--json", type=Path, metavar="FILE", help="file to write the numbers to")


def _add_dataset(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dataset", help="a data set of the package, or one of data.sets in params.yaml")
    parser.add_argument("--config", metavar="JSON", help="content of params.yaml as JSON, in place of the file")


def _add_folder(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--folder", type=Path, help="of the prepared data set (default: data/prepared/<dataset>)")


def _add_raw(parser: argparse.ArgumentParser) -> None:
    _add_dataset(parser)
    parser.add_argument(
        "--mirror",
        help="folder or http(s) address with the raw files; default: data.mirror of the settings, then "
        "$SILENT_GRADIENTS_MIRROR, then the publishers",
    )
    parser.add_argument(
        "--raw",
        type=Path,
        default=Path("data/raw"),
        metavar="FOLDER",
        help="where to download to; default: %(default)s",
    )


def _prepared_folder(options: argparse.Namespace) -> Path:
    folder: Path = options.folder or Path("data/prepared") / options.dataset
    return folder


def _source(options: argparse.Namespace) -> Source:
    from silent_study.data.sources import SOURCES, source_named

    # A data set of the package needs no settings, which may not be there.
    if options.dataset in SOURCES or (options.config is None and not Path("params.yaml").exists()):
        return source_named(options.dataset)
    from silent_study.params import source_of

    return source_of(options.dataset, own_settings(options), Path("presets"))


def _mirror(options: argparse.Namespace) -> str | None:
    if options.mirror is not None:
        return str(options.mirror)
    named = None
    if options.config is not None or Path("params.yaml").exists():
        from silent_study.params import mirror_of

        named = mirror_of(own_settings(options), Path("presets"))
    return named or os.environ.get("SILENT_GRADIENTS_MIRROR")


def _download(options: argparse.Namespace) -> int:
    from silent_study.data.prepare import download
    from silent_study.store.files import write_text_atomically
    from silent_study.store.runs import as_json

    obtained = download(_source(options), options.raw, _mirror(options))
    files = {file.path: file.digest for file in obtained.form.files}
    if options.record is not None:
        document = {"name": options.dataset, "folder": str(obtained.root), "files": files}
        write_text_atomically(options.record, as_json(document))
    print(f"{options.dataset}: {len(files)} raw files in {obtained.root}, verified")
    return 0


def _prepare(options: argparse.Namespace) -> int:
    from silent_study.data.prepare import prepare

    folder = _prepared_folder(options)
    counts = prepare(_source(options), folder, _mirror(options), options.raw)["counts"]
    print(f"{options.dataset}: {counts['train']} training and {counts['test']} test images in {folder}")
    return 0


def _dequantize(options: argparse.Namespace) -> int:
    from silent_study.data.prepare import dequantize

    folder = _prepared_folder(options)
    images = dequantize(_source(options), folder)["shape"][0]
    print(f"{options.dataset}: dequantization noise of {images} images in {folder}")
    return 0


def _limit(options: argparse.Namespace) -> int:
    from rich.console import Console

    from silent_study.data.prepared import PreparedData
    from silent_study.evaluation.known_limits import as_table, known_limits
    from silent_study.store.files import write_text_atomically
    from silent_study.store.runs import as_json

    holdout = _source(options).holdout if options.holdout is None else options.holdout
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
