"""A user's own images as a data set: a folder of image files, or an npz or npy file, as ``data.sets`` names it.

What the settings do not say, the images do: their number, shape and digest. They are found by reading every image once
(``own_source``); a record beside the raw files keeps them until the name, size or time of a file changes.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from silent_study.data.errors import DataError
from silent_study.data.prepared import Images, digest_of_pieces, manifest_of
from silent_study.data.raw import Form, Split
from silent_study.data.source import Source
from silent_study.settings import digest
from silent_study.store.files import write_text_atomically

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".pgm", ".ppm")
"""Files that are read as images; a folder may hold others."""
PAIRS = (("train", "test"), ("x_train", "x_test"))
"""Names of an npz file's arrays, where it has a split of its own."""
DEFAULT_TEST = 0.1
_PIECE = 256
_RECORD_FORMAT = 1
# Of these, Pillow's conversion to grey or RGB keeps all but what a user gives up by asking for it.
_CONVERTIBLE = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"}
_CHANNELS = {"L": 1, "RGB": 3}


@dataclass(frozen=True)
class OwnImages:
    """An entry of ``data.sets``.

    Attributes:
        path: A folder of images, with the two folders ``train`` and ``test`` in it or without; or an npz or npy file.
        title: What readers of tables and figures see; None is the data set's name.
        test: Fraction of the images that are the test set; None is 0.1, or the images' own split.
        seed: Decides the order of the images.
        levels: Number of grey levels.
        size: Height and width that image files are cropped and resized to; None takes them as they are.
        channels: Grey (1) or RGB (3), to which image files are converted; None takes them as they are.
    """

    path: str
    title: str | None = None
    test: float | None = None
    seed: int = 0
    levels: int = 256
    size: tuple[int, int] | None = None
    channels: int | None = None


@dataclass(frozen=True)
class _Seen:
    """What reading all the images told of them."""

    sha256: str
    shape: tuple[int, int, int]
    train: int
    test: int
    own_split: bool


@dataclass(frozen=True)
class _Opened:
    """Images that can be read: their shape, whether they have a split of their own, and a split's in pieces."""

    shape: tuple[int, int, int]
    own_split: bool
    counts: Mapping[Split, int]
    pieces: Callable[[Split], Iterator[Images]]


@dataclass(frozen=True)
class _File:
    """A file below a folder: its path there, its size in bytes and its time in nanoseconds."""

    path: str
    size: int
    time: int


def own_source(name: str, own: OwnImages, raw: Path, prepared: Path) -> Source:
    """The source of a user's own images.

    Args:
        name: Data set.
        own: Its entry in the settings.
        raw: Folder of the raw files, which keeps a record of what was read.
        prepared: Folder of the prepared data set, which stands for images that are no longer there.

    Raises:
        DataError: The images cannot be read, or are none that a model can be trained on; or there are none.
    """
    try:
        seen = _seen(name, own, raw, prepared)
    except DataError as error:
        raise _named(name, error) from None
    return _source(name, own, seen)


def _named(name: str, error: DataError) -> DataError:
    # A path with a line break or an escape sequence would spoil the message.
    told = "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in str(error))
    return DataError(f"data.sets.{name}: {told}")


def _place(own: OwnImages) -> Path | None:
    """The folder or file; None where there is none."""
    try:
        path = Path(own.path).expanduser()
        return path if path.exists() else None
    except (OSError, RuntimeError) as error:  # a name that is too long, a user who has no home
        raise DataError(f"path {own.path!r}: cannot be read ({getattr(error, 'strerror', None) or error})") from None


def _source(name: str, own: OwnImages, seen: _Seen) -> Source:
    def read(_root: Path, split: Split) -> Iterator[Images]:
        try:
            yield from _open(own).pieces(split)
        except DataError as error:
            raise _named(name, error) from None

    path = Path(own.path)
    kind = "file" if path.suffix in (".npz", ".npy") else "folder"
    fraction = DEFAULT_TEST if own.test is None else own.test
    split = "with a test set of its own" if seen.own_split else f"of which {fraction:g} are the test set"
    made = [f"cropped and resized to {own.size[0]}x{own.size[1]}"] if own.size else []
    made += [f"converted to {'grey' if own.channels == 1 else 'RGB'}"] if own.channels else []
    return Source(
        name=name,
        title=own.title or name,
        version=", ".join(
            [f"own images of the {kind} {path.name}", split, f"in an order drawn with seed {own.seed}", *made]
        ),
        levels=own.levels,
        shape=seen.shape,
        train=seen.train,
        test=seen.test,
        holdout=max(1, seen.train // 10),
        arrays_sha256=seen.sha256,
        forms=(Form(read),),
        remedy="they changed without a change of their files' sizes and times: touch one of them, then the same "
        "command goes on",
    )


def _seen(name: str, own: OwnImages, raw: Path, prepared: Path) -> _Seen:
    path = _place(own)
    if path is None:
        if (seen := _as_prepared(name, own, prepared)) is None:
            raise _absent(own)
        return seen
    record = raw / f"{name}-{digest(asdict(own))[:12]}.json"
    fingerprint = _fingerprint(own, path)
    if (seen := _recorded(record, fingerprint)) is None:
        seen = _read_all(name, own)
        document = {"fingerprint": fingerprint, "seen": asdict(seen)}
        write_text_atomically(record, json.dumps(document, sort_keys=True, indent=1) + "\n")
    return seen


def _absent(own: OwnImages) -> DataError:
    return DataError(f"path {own.path!r}: there is no such folder or file")


def _as_prepared(name: str, own: OwnImages, prepared: Path) -> _Seen | None:
    """What the prepared data set says of images that are gone, if it was made by the same settings."""
    try:
        manifest = manifest_of(prepared)
    except DataError:  # absent or damaged
        return None
    channels, height, width = manifest["shape"]
    counts = manifest["counts"]
    for own_split in (True, False):
        seen = _Seen(manifest["sha256"], (channels, height, width), counts["train"], counts["test"], own_split)
        if _source(name, own, seen).description.items() <= manifest.items():
            return seen
    return None


def _fingerprint(own: OwnImages, path: Path) -> str:
    files = _files(path) if path.is_dir() else [_file(path, path.name)]
    # Other versions may decode and resize otherwise.
    return digest([_RECORD_FORMAT, asdict(own), _pillow_version(), [asdict(file) for file in files]])


def _pillow_version() -> str:
    from PIL import __version__

    return __version__


def _recorded(record: Path, fingerprint: str) -> _Seen | None:
    try:
        document = json.loads(record.read_bytes())
        if document["fingerprint"] != fingerprint:
            return None
        seen = document["seen"]
        return _Seen(**{**seen, "shape": tuple(seen["shape"])})
    except (OSError, ValueError, KeyError, TypeError):  # absent or damaged: it is made again
        return None


def _read_all(name: str, own: OwnImages) -> _Seen:
    from tqdm import tqdm

    opened = _open(own)
    train, test = opened.counts["train"], opened.counts["test"]
    print(f"{name}: reading {train + test} images of {own.path}", file=sys.stderr, flush=True)

    with tqdm(total=train + test, unit=" images", disable=None, leave=False) as bar:

        def pieces() -> Iterator[Images]:
            for split in ("train", "test"):
                for images in opened.pieces(split):
                    bar.update(len(images))
                    yield images

        shapes = ((train, *opened.shape), (test, *opened.shape))
        sha256 = digest_of_pieces(name, own.levels, *shapes, pieces())
    return _Seen(sha256, opened.shape, train, test, opened.own_split)


def _open(own: OwnImages) -> _Opened:
    path = _place(own)
    if path is None:
        raise _absent(own)
    if path.is_dir():
        return _open_folder(path, own)
    if path.suffix not in (".npz", ".npy") or not path.is_file():
        raise DataError(f"path {own.path!r}: expected a folder of images, an npz or an npy file")
    if own.size or own.channels:
        raise DataError("size and channels are for folders of images; leave them out, or convert the arrays")
    return _open_arrays(path, own)


def _split(keys: Sequence[str], own: OwnImages) -> tuple[list[int], list[int]]:
    """Positions of the training and of the test images; the latter are those at the end of the order."""
    order = _order(keys, own.seed)
    test = max(1, round((DEFAULT_TEST if own.test is None else own.test) * len(keys)))
    return order[: len(keys) - test], order[len(keys) - test :]


def _order(keys: Sequence[str], seed: int) -> list[int]:
    """An order that looks random: by a digest of the seed and of each image's name.

    Unlike a generator's permutation it is the same in every version of every library, and an image that is added
    leaves the others in the order that they had.
    """

    def place(position: int) -> bytes:
        return hashlib.sha256(f"{seed} {keys[position]}".encode("utf-8", "surrogateescape")).digest()

    return sorted(range(len(keys)), key=place)


def _check_counts(train: int, test: int) -> None:
    if train < 2 or test < 1:
        raise DataError(
            f"{train + test} images, {train} of them to train on and {test} to test on: at least 2 and 1 are needed, "
            "one of the former to select"
        )


def _no_fraction(own: OwnImages) -> None:
    if own.test is not None:
        raise DataError(f"test {own.test:g}: the images have a test set of their own; leave it out")


# Folders of images.


def _files(folder: Path) -> list[_File]:
    """The image files below a folder, sorted by their paths."""
    found = []

    def fail(error: OSError) -> None:
        raise DataError(f"{error.filename}: cannot be read ({error.strerror})") from error

    for place, _, names in os.walk(folder, onerror=fail):
        for name in names:
            # Names that begin with a dot are those of systems, which look like images and are none.
            if name.lower().endswith(ENDINGS) and not name.startswith("."):
                path = Path(place) / name
                found.append(_file(path, path.relative_to(folder).as_posix()))
    return sorted(found, key=lambda file: file.path)


def _file(path: Path, name: str) -> _File:
    try:
        status = path.stat()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    return _File(name, status.st_size, status.st_mtime_ns)


def _open_folder(folder: Path, own: OwnImages) -> _Opened:
    names = [file.path for file in _files(folder)]
    if not names:
        raise DataError(f"{folder}: there is no image in it; those are read that end in {', '.join(ENDINGS)}")
    parts = [name.partition("/")[0] if "/" in name else "" for name in names]
    paths: dict[Split, list[str]] = {"train": [], "test": []}
    own_split = any((folder / split).is_dir() for split in paths)
    if own_split:
        _no_fraction(own)
        if outside := [name for name, part in zip(names, parts, strict=True) if part not in paths]:
            raise DataError(
                f"{folder / outside[0]}: beside the folders train and test, where no image belongs; move it into one "
                "of them, or rename both folders"
            )
        for split in paths:
            paths[split] = [name for name, part in zip(names, parts, strict=True) if part == split]
            if not (folder / split).is_dir():
                there = "train" if split == "test" else "test"
                raise DataError(
                    f"{folder} has a folder {there} and no folder {split}; make that too, or rename {there}"
                )
            if not paths[split]:
                raise DataError(f"{folder / split}: there is no image in it, and beside it there is one")
        paths["train"] = [paths["train"][position] for position in _order(paths["train"], own.seed)]
    else:
        train, test = _split(names, own)
        paths = {"train": [names[position] for position in train], "test": [names[position] for position in test]}
    _check_counts(len(paths["train"]), len(paths["test"]))
    # The first by name, so that others are compared with one that a user finds.
    first = folder / names[0]
    shape = _pixels(first, own).shape

    def pieces(split: Split) -> Iterator[Images]:
        for start in range(0, len(paths[split]), _PIECE):
            yield np.stack(
                [_like(folder / path, first, shape, own) for path in paths[split][start : start + _PIECE]], dtype="u1"
            )

    return _Opened(shape, own_split, {split: len(paths[split]) for split in paths}, pieces)


def _like(path: Path, first: Path, shape: tuple[int, ...], own: OwnImages) -> Images:
    image = _pixels(path, own)
    if image.shape[1:] != shape[1:]:
        raise DataError(
            f"{path}: {image.shape[1]}x{image.shape[2]} pixels, but {first} has {shape[1]}x{shape[2]}; all images need "
            f"one size: set size: [{shape[1]}, {shape[2]}], or another, to have them cropped and resized"
        )
    if image.shape[0] != shape[0]:
        kinds = {1: "grey", 3: "RGB"}
        raise DataError(
            f"{path}: it is {kinds[image.shape[0]]}, but {first} is {kinds[shape[0]]}; set channels: 1 or channels: 3 "
            "to have all converted"
        )
    if own.levels < 256 and (highest := int(image.max())) >= own.levels:
        raise DataError(f"{path}: level {highest}, but levels: {own.levels} has 0 to {own.levels - 1}")
    return image


def _pixels(path: Path, own: OwnImages) -> Images:
    """The pixels of an image file, uint8 ``[C, H, W]``."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            # An image too large to be one, and metadata that nobody reads.
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                image.load()
                mode = {1: "L", 3: "RGB"}.get(own.channels or 0, image.mode)
                if image.mode not in _CHANNELS and (own.channels is None or image.mode not in _CONVERTIBLE):
                    raise DataError(_other_mode(path, image.mode))
                converted = image if image.mode == mode else image.convert(mode)
                if own.size:
                    converted = ImageOps.fit(converted, (own.size[1], own.size[0]), method=Image.Resampling.BOX)
                pixels = np.asarray(converted, dtype=np.uint8)
    except (UnidentifiedImageError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"{path}: no image that can be read ({error})") from None
    except (OSError, SyntaxError, ValueError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: no image that can be read ({error}); remove or replace it") from None
    return pixels[np.newaxis] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _other_mode(path: Path, mode: str) -> str:
    if mode in _CONVERTIBLE:
        return (
            f"{path}: its pixels are {mode}, and grey (L) or RGB is read; set channels: 1 or channels: 3 to have all "
            "converted, without their transparency"
        )
    return f"{path}: its pixels are {mode}, more than 8 bits each; convert it to 8 bits, e.g. to a grey or RGB png"


# Files of arrays.


def _open_arrays(path: Path, own: OwnImages) -> _Opened:
    found = _load(path)
    arrays: dict[Split, Images]
    positions: dict[Split, Sequence[int]]
    pairs = [(found[train], found[test]) for train, test in PAIRS if train in found and test in found]
    if pairs:
        _no_fraction(own)
        arrays = {"train": pairs[0][0], "test": pairs[0][1]}
        positions = {
            "train": _order([str(position) for position in range(len(arrays["train"]))], own.seed),
            "test": range(len(arrays["test"])),
        }
    elif len(found) == 1:
        (images,) = found.values()
        train, test = _split([str(position) for position in range(len(images))], own)
        arrays, positions = {"train": images, "test": images}, {"train": train, "test": test}
    else:
        names = " or ".join(" and ".join(pair) for pair in PAIRS)
        raise DataError(f"{path}: expected the arrays {names}, or a single one, found {', '.join(found) or 'none'}")
    _check_counts(len(positions["train"]), len(positions["test"]))
    shape = arrays["train"].shape[1:]
    if arrays["test"].shape[1:] != shape:
        raise DataError(f"{path}: training images of {shape} and test images of {arrays['test'].shape[1:]}; "
                        "all images need one shape")  # fmt: skip
    for split, images in arrays.items():
        if (highest := int(images.max())) >= own.levels:
            raise DataError(f"{path}: level {highest} in {split}, but levels: {own.levels} has 0 to {own.levels - 1}")

    def pieces(split: Split) -> Iterator[Images]:
        order = positions[split]
        for start in range(0, len(order), _PIECE):
            yield arrays[split][list(order[start : start + _PIECE])]

    return _Opened(shape, bool(pairs), {split: len(order) for split, order in positions.items()}, pieces)


def _load(path: Path) -> dict[str, Images]:
    """The arrays of images in a file by name, each uint8 ``[N, C, H, W]``."""
    try:
        # Opened here, since numpy leaves a file open that it cannot read. Pickled objects could run code.
        with path.open("rb") as file:
            content = np.load(file, allow_pickle=False)
            if isinstance(content, np.ndarray):
                return {path.stem: _as_images(content, str(path))}
            with content:
                wanted = next((pair for pair in PAIRS if set(pair) <= set(content.files)), tuple(content.files[:2]))
                if len(content.files) > 1 and wanted not in PAIRS:
                    return dict.fromkeys(content.files, np.empty(0, dtype=np.uint8))
                return {name: _as_images(content[name], f"{path}, array {name}") for name in wanted}
    except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
        if "Object arrays" in str(error):
            raise DataError(
                f"{path}: it holds Python objects, which could run code and are never loaded; save uint8 arrays"
            ) from None
        # numpy takes whatever it does not know for a pickle, and tells how to load it.
        reason = "it is none" if "allow_pickle" in str(error) else error
        raise DataError(f"{path}: expected a file of numpy arrays, but {reason}; save it anew") from None


def _as_images(array: NDArray[Any], where: str) -> Images:
    if array.dtype != np.uint8:
        raise DataError(
            f"{where}: expected uint8, found {array.dtype}; save grey levels 0 to 255 as uint8 (fewer with levels: n)"
        )
    if array.ndim == 3:
        return array[:, np.newaxis]
    if array.ndim != 4 or not {array.shape[1], array.shape[3]} & {1, 3}:
        raise DataError(
            f"{where}: expected [n, height, width], [n, channels, height, width] or [n, height, width, channels] with "
            f"1 or 3 channels, found {list(array.shape)}"
        )
    return array if array.shape[1] in (1, 3) else array.transpose(0, 3, 1, 2)
