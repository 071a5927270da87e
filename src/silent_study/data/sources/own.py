"""A user's own images.

The settings lack the number of images, their shape and their digest: ``own_source`` reads every image once to find
them. A record beside the raw files keeps them until the name, size or time of a file changes.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import struct
import sys
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from silent_study.data.errors import DataError
from silent_study.data.prepared import Images, digest_of_pieces, manifest_of
from silent_study.data.raw import Form, Split
from silent_study.data.source import Source
from silent_study.settings import digest
from silent_study.store.code import reading_code
from silent_study.store.runs import write_json

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".pgm", ".ppm")  # of files read as images
_ARRAYS = (".npz", ".npy")
PAIRS = (("train", "test"), ("x_train", "x_test"))  # arrays of an npz file that has a split of its own
DEFAULT_TEST = 0.1
_SPLITS: tuple[Split, Split] = ("train", "test")
_FOLDERS: dict[str, Split] = {"train": "train", "training": "train", "test": "test", "testing": "test"}
# What other data sets call such folders, as in train_images or testset; classes, too, may have such names.
_LIKE_FOLDERS = re.compile(r"(train|test)(ing)?([^a-z].*|set|data|images)?")
_WHOLE = "all"
_PIECE = 256
_NAMED = 20
# Pillow's conversion of these modes to grey or RGB loses only what the setting gives up: colour or transparency.
_CONVERTIBLE = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"}
_CHANNELS = {"L": 1, "RGB": 3}
_KINDS = {1: "grey", 3: "RGB"}


@dataclass(frozen=True)
class OwnImages:
    """An entry of ``data.sets``."""

    path: str  # a folder of images, with the two folders ``train`` and ``test`` in it or without; or an npz or npy file
    title: str | None = None  # in tables and figures; None is the data set's name
    test: float | None = None  # fraction of the images that are the test set; None is 0.1, or the images' own split
    seed: int = 0  # decides the order of the images
    levels: int = 256  # number of grey levels
    size: tuple[int, int] | None = None  # height and width to which image files are cropped and resized; None keeps
    channels: int | None = None  # grey (1) or RGB (3), to which image files are converted; None keeps their channels


@dataclass(frozen=True)
class _Seen:
    """What reading all the images found."""

    sha256: str
    shape: tuple[int, int, int]
    train: int
    test: int
    own_split: bool
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Opened:
    """Images that can be read."""

    shape: tuple[int, int, int]  # (C, H, W)
    own_split: bool  # whether they have a test set of their own
    names: Mapping[Split, Sequence[str]]  # of the images of each split, in the data set's order
    levels: int
    read: Callable[[Split, str], Images]  # returns the image of a split and a name, uint8 [C, H, W]
    where: Callable[[Split, str], str]  # names an image in messages
    account: str  # files that are read and files that are skipped, in words

    def image(self, split: Split, name: str) -> Images:
        """Return an image, uint8 ``[C, H, W]``; raises ``_ImageError`` if it cannot be read or does not fit."""
        image, levels = self.read(split, name), self.levels
        if levels < 256 and (highest := int(image.max())) >= levels:
            raise _ImageError(self.where(split, name), f"level {highest}, but levels: {levels} has 0 to {levels - 1}")
        return image

    def pieces(self, split: Split) -> Iterator[Images]:
        """Yield the images of a split in order, uint8 ``[n, C, H, W]``."""
        names = self.names[split]
        for start in range(0, len(names), _PIECE):
            yield np.stack([self.image(split, name) for name in names[start : start + _PIECE]])


class _ImageError(DataError):
    """An image that does not fit; its arguments are the image's name and the reason."""

    def __str__(self) -> str:
        return ": ".join(self.args)


def _together(errors: Sequence[_ImageError]) -> DataError:
    return DataError(f"{errors[0]}{_others('; also', [error.args[0] for error in errors[1:]])}")


def _others(words: str, names: Sequence[str]) -> str:
    """Return the first names after ``words`` and the number of the remaining ones; "" without names."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{words} {', '.join(names[:_NAMED])}{more}" if names else ""


def own_source(name: str, own: OwnImages, raw: Path, prepared: Path, *, keep: bool = True) -> Source:
    """Return the source of a user's own images; ``own`` is their entry in the settings.

    Prints, where it reads the images, which files were read and skipped, the shape, the levels, and the test images
    that equal a training image; otherwise ``prepare`` prints it. With ``keep`` the folder ``raw`` gets a record of what
    was read. The ``prepared`` data set is used where the images no longer exist.

    Raises:
        DataError: Images are missing, cannot be read, or do not form a data set. The message names all such files.
    """
    with _named(name):
        return _source(name, own, _seen(name, own, raw, prepared, keep=keep))


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Let errors inside name the entry of the settings."""
    try:
        yield
    except DataError as error:
        raise DataError(f"data.sets.{name}: {_printable(str(error))}") from None


def _printable(text: str) -> str:
    # A path with a line break or an escape sequence would spoil the message.
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def _source(name: str, own: OwnImages, seen: _Seen) -> Source:
    def read(_root: Path, split: Split) -> Iterator[Images]:
        with _named(name):
            yield from _open(own).pieces(split)

    path = Path(own.path)
    kind = "file" if path.suffix.lower() in _ARRAYS else "folder"
    fraction = DEFAULT_TEST if own.test is None else own.test
    split = "with a test set of its own" if seen.own_split else f"of which {fraction:g} are the test set"
    made = [f"own images of the {kind} {path.name}", split, f"in an order drawn with seed {own.seed}"]
    made += [f"cropped and resized to {own.size[0]}x{own.size[1]}"] if own.size else []
    made += [f"converted to {_KINDS[own.channels]}"] if own.channels else []
    return Source(
        name=name,
        title=own.title or name,
        version=", ".join(made),
        levels=own.levels,
        shape=seen.shape,
        train=seen.train,
        test=seen.test,
        holdout=max(1, seen.train // 10),
        arrays_sha256=seen.sha256,
        forms=(Form(read),),
        remedy="they changed, but not the sizes and times of their files: touch one of them, then the same command "
        "goes on",
        notes=seen.notes,
    )


def _seen(name: str, own: OwnImages, raw: Path, prepared: Path, *, keep: bool) -> _Seen:
    try:
        path = _place(own)
    except DataError:
        if (seen := _as_prepared(name, own, prepared)) is None:
            raise
        return seen
    record = raw / f"{name}-{digest(asdict(own))[:12]}.json"
    fingerprint = _fingerprint(own, path)
    if (seen := _recorded(record, fingerprint)) is None:
        seen = _read_all(name, own)
        try:
            if keep:
                write_json(record, {"fingerprint": fingerprint, "seen": asdict(seen)})
        except OSError as error:  # a folder that is read-only; every call reads the images anew
            print(f"{name}: what was found is not kept: {error}", file=sys.stderr)
        for note in seen.notes:
            print(f"{name}: {note}", file=sys.stderr, flush=True)
        # Printed once: prepare prints the notes of a record alone.
        seen = replace(seen, notes=())
    return seen


def _place(own: OwnImages) -> Path:
    """Return the folder or file; raises ``DataError`` if it does not exist."""
    try:
        path = Path(own.path).expanduser()
        if path.is_dir() and Path.cwd().is_relative_to(path.resolve()):
            wrong = f"path {own.path!r}: the study lies in this folder, and its figures would be images"
            raise DataError(f"{wrong}; move the images into a folder of their own")
        if path.exists():
            return path
    except (OSError, RuntimeError) as error:  # a name that is too long, a user who has no home
        raise DataError(f"path {own.path!r}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
    raise DataError(f"path {own.path!r}: there is no such folder or file")


def _as_prepared(name: str, own: OwnImages, prepared: Path) -> _Seen | None:
    """Return what the prepared data set records, if the same settings made it; its images may be gone."""
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
    from PIL import __version__  # other versions may decode and resize otherwise

    names = _walk(path)[0] if path.is_dir() else [""]
    files = []
    for name in names:
        try:
            status = (path / name).stat()
        except OSError as error:
            raise DataError(f"{path / name}: cannot be read ({error.strerror})") from error
        files.append([name, status.st_size, status.st_mtime_ns])
    return digest([reading_code()["digest"], asdict(own), __version__, files])


def _recorded(record: Path, fingerprint: str) -> _Seen | None:
    try:
        document = json.loads(record.read_bytes())
        if document["fingerprint"] != fingerprint:
            return None
        seen = document["seen"]
        return _Seen(**seen | {"shape": tuple(seen["shape"]), "notes": tuple(seen["notes"])})
    except (OSError, ValueError, KeyError, TypeError):  # absent or damaged: it is made again
        return None


def _read_all(name: str, own: OwnImages) -> _Seen:
    from tqdm import tqdm

    opened = _open(own)
    train, test = (len(opened.names[split]) for split in _SPLITS)
    print(f"{name}: reading {train + test} images of {own.path}", file=sys.stderr, flush=True)
    errors: list[_ImageError] = []
    levels: set[int] = set()
    trained: dict[bytes, str] = {}
    overlaps: list[str] = []

    def images() -> Iterator[Images]:
        for split in _SPLITS:
            for entry in tqdm(opened.names[split], unit=" images", disable=None, leave=False):
                try:
                    image = opened.image(split, entry)
                except _ImageError as error:
                    errors.append(error)
                    continue
                levels.update((int(image.min()), int(image.max())))
                pixels, where = hashlib.sha256(image.tobytes()).digest(), opened.where(split, entry)
                if split == "train":
                    trained[pixels] = where
                elif pixels in trained:
                    overlaps.append(f"{where} ({trained[pixels]})")
                yield image

    sha256 = digest_of_pieces(name, own.levels, (train, *opened.shape), (test, *opened.shape), images())
    if errors:
        raise _together(errors)
    size = "x".join(map(str, opened.shape))
    notes = [opened.account, f"images of {size}, levels {min(levels)} to {max(levels)} of 0 to {own.levels - 1}"]
    if overlaps:
        notes.append(f"{len(overlaps)} test images equal a training image:{_others('', overlaps)}")
    return _Seen(sha256, opened.shape, train, test, opened.own_split, tuple(map(_printable, notes)))


def _open(own: OwnImages) -> _Opened:
    path = _place(own)
    if path.is_dir():
        return _open_folder(path, own)
    if path.suffix.lower() not in _ARRAYS or not path.is_file():
        raise DataError(f"path {own.path!r}: expected a folder of images, an npz or an npy file")
    if own.size or own.channels:
        raise DataError("size and channels are for folders of images; leave them out, or convert the arrays")
    return _open_arrays(path, own)


def _split(parts: Mapping[str, Sequence[str]], own: OwnImages) -> dict[Split, Sequence[str]]:
    """Return the names of each split's images in the data set's order.

    The order of the training images looks random: it is that of a digest of the seed and of each image's name. Unlike
    a generator's permutation it is the same in every version of every library, and an image that is added leaves the
    order of the others as it was. ``parts`` has names under ``train`` and ``test``, or all of them under ``all``, whose
    last ones become the test set.
    """
    names = sorted(
        parts.get(_WHOLE, parts.get("train", ())),
        key=lambda name: hashlib.sha256(f"{own.seed} {name}".encode("utf-8", "surrogateescape")).digest(),
    )
    if _WHOLE in parts:
        count = max(1, round((DEFAULT_TEST if own.test is None else own.test) * len(names)))
        train, test = names[:-count], names[-count:]
    elif own.test is not None:
        raise DataError(f"test {own.test:g}: the images have a test set of their own; leave it out")
    else:
        train, test = names, list(parts["test"])
    if len(train) < 2 or len(test) < 1:
        found = f"{len(train) + len(test)} images, {len(train)} of them to train on and {len(test)} to test on"
        raise DataError(f"{found}: at least 2 and 1 are needed, one of the former to select")
    return {"train": train, "test": test}


# Folders of images.


def _walk(folder: Path) -> tuple[list[str], Counter[tuple[str, str]]]:
    """Return the paths of the image files below a folder, sorted, and the number of other files by ending and reason.

    Folders that are links are followed, as torchvision does. Hidden files and folders are skipped: systems and editors
    make them, and keep copies of images in them.
    """
    found: list[str] = []
    skipped: Counter[tuple[str, str]] = Counter()

    def fail(error: OSError) -> None:
        raise DataError(f"{error.filename}: cannot be read ({error.strerror})") from error

    # The folders that each folder lies in, links resolved: a link to one of them would be followed for ever.
    above = {str(folder): {folder.resolve()}}
    for place, folders, names in os.walk(folder, onerror=fail, followlinks=True):
        below = Path(place).relative_to(folder)
        hidden = any(part.startswith(".") for part in below.parts)
        for name in sorted(folders):
            path = Path(place, name)
            if path.resolve() in above[place]:
                folders.remove(name)
                skipped["link", "to a folder above it"] += 1
            above[os.path.join(place, name)] = above[place] | {path.resolve()}  # noqa: PTH118 - as os.walk names it
        for name in names:
            ending = Path(name).suffix.lower()
            if hidden or name.startswith("."):
                skipped[ending, "in a hidden folder" if hidden else "hidden"] += 1
            elif name.lower().endswith(ENDINGS):
                found.append((below / name).as_posix())
            else:
                skipped[ending, "no image format"] += 1
    return sorted(found), skipped


def _account(names: Sequence[str], skipped: Counter[tuple[str, str]]) -> str:
    read = Counter(Path(name).suffix.lower() for name in names)
    words = f"read {len(names)} files ({', '.join(f'{count} {ending}' for ending, count in sorted(read.items()))})"
    reasons = [f"{count} {ending or 'without ending'} ({why})" for (ending, why), count in sorted(skipped.items())]
    return f"{words}, skipped {', '.join(reasons) or 'none'}"


def _open_folder(folder: Path, own: OwnImages) -> _Opened:
    names, skipped = _walk(folder)
    if not names:
        raise DataError(f"{folder}: there is no image in it; those are read that end in {', '.join(ENDINGS)}")
    parts = _parts(folder, names)
    splits = _split(parts, own)
    first, shape = _first(folder, names, own)

    def read(_split: Split, name: str) -> Images:
        path = folder / name
        image = _pixels(path, own)
        (channels, *size), (channels_of_first, height, width) = image.shape, shape
        if size != [height, width]:
            wrong = f"{size[0]}x{size[1]} pixels, but {first} has {height}x{width}; all images need one size: "
            fix = f"set size: [{height}, {width}], or another, to have them cropped and resized"
            raise _ImageError(str(path), wrong + fix)
        if channels != channels_of_first:
            wrong = f"it is {_KINDS[channels]}, but {first} is {_KINDS[channels_of_first]}"
            raise _ImageError(str(path), f"{wrong}; set channels: 1 or channels: 3 to have all converted")
        return image

    def where(_split: Split, name: str) -> str:
        return str(folder / name)

    return _Opened(shape, _WHOLE not in parts, splits, own.levels, read, where, _account(names, skipped))


def _parts(folder: Path, names: Sequence[str]) -> dict[str, list[str]]:
    """Return the names of the files in the folders of ``_FOLDERS``, in any case; without these, all names."""
    own: dict[str, str] = {}
    for path in sorted(folder.iterdir()):
        split = _FOLDERS.get(path.name.casefold())
        if split is not None and path.is_dir():
            if split in own:
                raise DataError(f"{folder} has the folders {own[split]} and {path.name}; join them, or rename one")
            own[split] = path.name
    if not own:
        _no_split_below(folder, names)
        return {_WHOLE: list(names)}
    for split, other in (_SPLITS, _SPLITS[::-1]):
        if split not in own:
            has = f"{folder} has a folder {own[other]} and no folder {split}"
            raise DataError(f"{has}; make that too, or rename {own[other]}")
    parts: dict[str, list[str]] = {
        split: [name for name in names if name.startswith(f"{own[split]}/")] for split in _SPLITS
    }
    if outside := sorted({*names} - {*parts["train"], *parts["test"]}):
        wrong = f"{folder / outside[0]}: beside the folders {own['train']} and {own['test']}, where no image belongs"
        fix = f"move it into one of them, or rename both folders{_others('; also', outside[1:])}"
        raise DataError(f"{wrong}; {fix}")
    for split in _SPLITS:
        if not parts[split]:
            raise DataError(f"{folder / own[split]}: there is no image in it, and beside it there is one")
    return parts


def _no_split_below(folder: Path, names: Sequence[str]) -> None:
    """Raise ``DataError`` if two folders look like those of a split, which would pass for classes."""
    found: dict[Path, dict[str, str]] = {}
    for path in dict.fromkeys(parent for name in names for parent in Path(name).parents):
        if like := _LIKE_FOLDERS.fullmatch(path.name.casefold()):
            found.setdefault(path.parent, {})[like[1]] = path.name
    for parent, splits in found.items():
        if len(splits) == 2:
            has = f"{folder / parent} has the folders {splits['train']} and {splits['test']}; if they are the split, "
            fix = "call them train and test and name the folder that they lie in as the path; else rename them"
            raise DataError(has + fix)


def _first(folder: Path, names: Sequence[str], own: OwnImages) -> tuple[Path, tuple[int, int, int]]:
    """Return the first image that can be read, which the others are compared with, and its shape."""
    errors = []
    for name in names:
        try:
            channels, height, width = _pixels(folder / name, own).shape
        except _ImageError as error:
            errors.append(error)
        else:
            return folder / name, (channels, height, width)
    raise _together(errors)


def _pixels(path: Path, own: OwnImages) -> Images:
    """Return the pixels of an image file, uint8 ``[C, H, W]``."""
    from PIL import Image, ImageOps

    bombs = (Image.DecompressionBombError, Image.DecompressionBombWarning)
    try:
        with warnings.catch_warnings():
            # Pillow warns of damaged metadata, which does not concern the pixels.
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                if (frames := getattr(image, "n_frames", 1)) > 1:
                    raise _ImageError(str(path), f"{frames} images in one file; save each as a file of its own")
                image.load()
                mode = {1: "L", 3: "RGB"}.get(own.channels or 0, image.mode)
                if image.mode not in _CHANNELS and (own.channels is None or image.mode not in _CONVERTIBLE):
                    remedy = (
                        "and grey (L) or RGB is read; set channels: 1 or channels: 3 to have all converted, without "
                        "their transparency"
                        if image.mode in _CONVERTIBLE
                        else "more than 8 bits each; convert it to 8 bits, e.g. to a grey or RGB png"
                    )
                    raise _ImageError(str(path), f"its pixels are {image.mode}, {remedy}")
                upright: PillowImage = image
                with suppress(SyntaxError, ValueError, struct.error):  # damaged EXIF data hold no orientation
                    upright = ImageOps.exif_transpose(image)
                converted = upright if image.mode == mode else upright.convert(mode)
                if own.size:
                    converted = ImageOps.fit(converted, (own.size[1], own.size[0]), method=Image.Resampling.BOX)
                pixels = np.asarray(converted, dtype=np.uint8)
    except (*bombs, OSError, SyntaxError, ValueError, EOFError, zlib.error) as error:
        raise _ImageError(str(path), f"no image that can be read ({error}); remove or replace it") from None
    return pixels[np.newaxis] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


# Files of arrays.


def _open_arrays(path: Path, own: OwnImages) -> _Opened:
    arrays = _load(path)
    splits = _split({part: [str(position) for position in range(len(array))] for part, array in arrays.items()}, own)
    images: dict[Split, Images] = {split: arrays[split if split in arrays else _WHOLE] for split in _SPLITS}
    (train, test) = (images[split].shape[1:] for split in _SPLITS)
    if train != test:
        raise DataError(f"{path}: training images of {train} and test images of {test}; all images need one shape")

    def read(split: Split, name: str) -> Images:
        return images[split][int(name)]

    def where(split: Split, name: str) -> str:
        return f"image {name}{f' of {split}' if split in arrays else ''} in {path}"

    account = f"read {sum(map(len, arrays.values()))} images from one file"
    return _Opened(train, _WHOLE not in arrays, splits, own.levels, read, where, account)


def _load(path: Path) -> dict[str, Images]:
    """Return the images in a file, each uint8 ``[N, C, H, W]``: under ``train`` and ``test``, or under ``all``."""
    try:
        # Opened here, since numpy leaves a file open that it cannot read. Pickled objects could run code.
        with path.open("rb") as file:
            content = np.load(file, allow_pickle=False)
            if isinstance(content, np.ndarray):
                return {_WHOLE: _as_images(content, str(path))}
            with content:
                found = content.files
                pair = next((pair for pair in PAIRS if {*pair} <= {*found}), None)
                if pair is None and (len(found) != 1 or any(found[0] in pair for pair in PAIRS)):
                    expected = f"the arrays {' or '.join(map(' and '.join, PAIRS))}, or a single one of another name"
                    raise DataError(f"{path}: expected {expected}, found {', '.join(found) or 'none'}")
                parts = {_WHOLE: found[0]} if pair is None else dict(zip(_SPLITS, pair, strict=True))
                return {part: _as_images(content[name], f"{path}, array {name}") for part, name in parts.items()}
    except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
        if "Object arrays" in str(error):
            wrong = f"{path}: it holds Python objects, which could run code and are never loaded"
            raise DataError(f"{wrong}; save uint8 arrays") from None
        # numpy takes every unknown format for a pickle, and explains how to load that.
        reason = "it is none" if "allow_pickle" in str(error) else error
        raise DataError(f"{path}: expected a file of numpy arrays, but {reason}; save it anew") from None


def _as_images(array: NDArray[Any], where: str) -> Images:
    if array.dtype != np.uint8:
        fix = "save grey levels 0 to 255 as uint8 (fewer with levels: n)"
        raise DataError(f"{where}: expected uint8, found {array.dtype}; {fix}")
    images = array[:, np.newaxis] if array.ndim == 3 else array
    if images.ndim != 4 or not {images.shape[1], images.shape[3]} & {1, 3} or 0 in images.shape[1:]:
        layouts = "[n, height, width], [n, channels, height, width] or [n, height, width, channels]"
        raise DataError(f"{where}: expected {layouts} with 1 or 3 channels, found {list(array.shape)}")
    return images if images.shape[1] in (1, 3) else images.transpose(0, 3, 1, 2)
