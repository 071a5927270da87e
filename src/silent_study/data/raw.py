"""Find, download and verify raw files.

A data set comes in one or several *forms*, each a list of files with their digests. A *mirror* is a folder, or an
address on a web server, that holds the files of a form under the form's paths.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
import tarfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Literal, NamedTuple

import numpy as np

from silent_study.data.errors import DataError
from silent_study.data.prepared import Images
from silent_study.store.files import atomic_file, named_errors

Split = Literal["train", "test"]
Read = Callable[[Path, Split], Iterator[Images]]
"""``read(root, split)`` yields the images of a split in order, in pieces, uint8 ``[n, C, H, W]``."""

ATTEMPTS = 3
"""Tries per address, with a pause between them."""
_TIMEOUT = (10, 60)
_PIECE = 1 << 20

_REMEDY = (
    "copy the files into a folder, under these paths, and name it as data.mirror in params.yaml or in "
    "SILENT_GRADIENTS_MIRROR"
)


@dataclass(frozen=True)
class RawFile:
    """A file as its publisher distributes it."""

    path: str  # below a mirror, e.g. ``MNIST/raw/t10k-images-idx3-ubyte.gz``
    # ``sha256:`` or ``md5:`` and the digest of its bytes, or ``arrays:`` and its ``npz_digest``, since the bytes of an
    # npz depend on the versions that wrote it. None for an archive whose members have digests.
    digest: str | None
    urls: tuple[str, ...] = ()  # to download it from, in this order


@dataclass(frozen=True)
class Form:
    """One way in which a data set is distributed."""

    read: Read
    files: tuple[RawFile, ...] = ()  # that are read; empty for data that come with a package
    archives: tuple[RawFile, ...] = ()  # to unpack missing files from


class Obtained(NamedTuple):
    """Verified raw files: their form, and the folder that holds them under the form's paths."""

    form: Form
    root: Path


class DigestError(DataError):
    """A file with another digest than expected."""


class _UnavailableError(DataError):
    """Files that could not be obtained; the arguments are the reasons."""


def obtain(
    name: str,
    forms: Sequence[Form],
    folder: Path,
    mirror: str | None = None,
    hint: Callable[[Path], str | None] = lambda _: None,
) -> Obtained:
    """Find the raw files of a data set, or download them.

    A form whose files all lie in ``folder``, or all in the mirror, is taken from there. Otherwise the first form that
    can be obtained is downloaded to ``folder``: from the mirror if that is an address, then from its publishers.

    Args:
        name: Data set, for messages.
        forms: Its forms, the preferred one first.
        folder: For downloaded files.
        mirror: A folder or an ``http(s)://`` address.
        hint: Returns a remark on a folder without the files, e.g. which data set it holds instead.

    Raises:
        DataError: A file is missing, altered, or cannot be downloaded.
        OSError: The folder cannot be written to, or the disk is full.
    """
    places, base = _places(folder, mirror)
    for place in places:
        for form in forms:
            if not _missing(form, place):
                return _verified(form, place)
    problems = [_absent(form, place) for form in forms for place in places]
    with named_errors(folder):
        for form in forms:
            try:
                return _fetch(name, form, places, base)
            except _UnavailableError as error:
                problems += error.args
    for place in places:
        problems += _elsewhere(forms, place)
        problems += [words] if (words := hint(place)) else []
    raise DataError("\n".join([f"{name}: its raw files could not be obtained", *dict.fromkeys(problems), _REMEDY]))


def _places(folder: Path, mirror: str | None) -> tuple[list[Path], str | None]:
    """Return the folders to look in, and the mirror's address if it has one."""
    if mirror is None:
        return [folder], None
    if "://" in mirror:
        if not mirror.startswith(("http://", "https://")):
            raise DataError(f"mirror {mirror!r}: expected a folder or an http(s):// address")
        return [folder], mirror.rstrip("/")
    if not Path(mirror).is_dir():
        raise DataError(f"mirror {mirror!r}: there is no such folder")
    return [folder, Path(mirror)], None


def _missing(form: Form, place: Path) -> list[RawFile]:
    return [file for file in form.files if not (place / file.path).is_file()]


def _absent(form: Form, place: Path) -> str:
    first, *others = _missing(form, place)
    return f"{place}: no {first.path}{f' and {len(others)} more' if others else ''}"


def _elsewhere(forms: Sequence[Form], place: Path) -> list[str]:
    """Return where files of the forms lie that are not at their paths: up to two folders above or below."""
    found = []
    for path in dict.fromkeys(file.path for form in forms for file in (*form.files, *form.archives)):
        above = [folder / path for folder in place.resolve().parents[:2]]
        tails = (path, PurePosixPath(path).name)
        below = [file for tail in tails for depth in range(3) for file in place.glob(f"{'*/' * depth}{tail}")]
        file = next((file for file in (*above, *below) if file.is_file()), None)
        if file is not None and not (place / path).exists():
            root = file.as_posix().removesuffix(f"/{path}")
            mirror = f"; {root} may be the mirror" if root != file.as_posix() else ""
            found.append(f"{file}: expected at {place / path}{mirror}")
    return found


def _verified(form: Form, place: Path) -> Obtained:
    problems = []
    for file in form.files:
        try:
            verify(place / file.path, file.digest)
        except DigestError as error:
            problems.append(str(error))
    if problems:
        raise DigestError("\n".join(problems))
    return Obtained(form, place)


def verify(path: Path, digest: str | None, origin: str | None = None) -> None:
    """Raise ``DigestError`` if a file has another ``RawFile.digest``; ``origin`` names it instead of its path."""
    if digest is None:
        return
    kind, _, expected = digest.partition(":")
    if kind == "arrays":
        found = npz_digest(path)
    else:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, lambda: hashlib.new(kind, usedforsecurity=False)).hexdigest()
    if found != expected:
        wrong = f"{origin or path}: expected {kind} {expected}, found {found}: it is damaged, or of another version of "
        remedy = "" if origin else "; remove or replace it, then the same command goes on"
        raise DigestError(f"{wrong}the data set{remedy}")


def npz_digest(path: Path) -> str:
    """Return the SHA-256 of an npz's arrays, sorted by name: for each one line ``name dtype shape`` and its bytes.

    The digest of a file that is no npz is ``unreadable``, which equals no other.
    """
    digest = hashlib.sha256()
    try:
        # Opened here, since numpy leaves a file open that it cannot read.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            for name in sorted(arrays.files):
                array = arrays[name]
                digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
                digest.update(array.tobytes())
    except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile, zlib.error):
        return "unreadable"
    return digest.hexdigest()


def _fetch(name: str, form: Form, places: Sequence[Path], base: str | None) -> Obtained:
    """Obtain the missing files of a form: from the mirror's address, from archives, from the publishers."""
    folder = places[0]
    reasons: list[str] = []
    try:
        # A mirror may hold the unpacked files of an archive.
        for file in _missing(form, folder) if base or not form.archives else ():
            _download(name, file, folder, base)
    except _UnavailableError as error:
        reasons += error.args
    for archive in form.archives:
        if missing := _missing(form, folder):
            packed = next((path for place in places if (path := place / archive.path).is_file()), None)
            if packed is not None:
                verify(packed, archive.digest)
            try:
                _unpack(packed or _download(name, archive, folder, base), missing, folder)
            except _UnavailableError as error:
                raise _UnavailableError(*reasons, *error.args) from None
    if missing := _missing(form, folder):
        archives = ", ".join(archive.path for archive in form.archives)
        raise _UnavailableError(*reasons, *([f"{missing[0].path}: not in {archives}"] if archives else []))
    return _verified(form, folder)


def _download(name: str, file: RawFile, folder: Path, base: str | None) -> Path:
    """Download a file from the first of its addresses that works; it gets its name once it is verified."""
    from pooch import HTTPDownloader
    from tqdm import tqdm

    target, waiting, reasons = folder / file.path, folder / f".downloading-{name}", []
    for url in (*([f"{base}/{file.path}"] if base else []), *file.urls):
        print(f"{name}: downloading {url}", file=sys.stderr, flush=True)
        for attempt in range(ATTEMPTS):
            time.sleep(attempt)
            # A killed download may have left a part of the file.
            shutil.rmtree(waiting, ignore_errors=True)
            waiting.mkdir(parents=True)
            # pooch sets the total itself, but needs one before.
            bar = tqdm(total=1, unit="B", unit_scale=True, disable=None, leave=False)
            download = HTTPDownloader(progressbar=bar, chunk_size=_PIECE, timeout=_TIMEOUT)
            try:
                download(url, str(waiting / target.name), None)
                verify(waiting / target.name, file.digest, origin=url)
            except (DigestError, OSError) as error:
                if (reason := _network_problem(url, error)) is None:
                    raise
            else:
                target.parent.mkdir(parents=True, exist_ok=True)
                (waiting / target.name).replace(target)
                return target
            finally:
                shutil.rmtree(waiting, ignore_errors=True)
        print(reason, file=sys.stderr, flush=True)
        reasons.append(reason)
    raise _UnavailableError(*reasons)


def _network_problem(url: str, error: Exception) -> str | None:
    """Return why a download failed, with the cause and the proxy; None if the network is not the reason."""
    from requests import exceptions, utils

    if isinstance(error, DigestError):
        return str(error)
    if isinstance(error, OSError) and error.errno is not None:
        return None
    if isinstance(error, exceptions.HTTPError) and error.response is not None:
        return f"{url}: the server answers {error.response.status_code} {error.response.reason}"
    kinds = (
        (exceptions.SSLError, "its certificate is not accepted"),
        (exceptions.Timeout, f"no answer within {_TIMEOUT[1]} s"),
        (exceptions.ChunkedEncodingError, "the connection broke off"),
        (exceptions.ConnectionError, "no connection"),
        (Exception, type(error).__name__),
    )
    words = next(words for kind, words in kinds if isinstance(error, kind))
    proxy = utils.select_proxy(url, utils.get_environ_proxies(url))
    # A proxy's address may hold a password.
    through = f" through the proxy {proxy.rpartition('@')[2]}" if proxy else ""
    cause: BaseException = error
    while (deeper := cause.__cause__ or cause.__context__) is not None:
        cause = deeper
    return f"{url}: {words}{through} ({cause})"


def _unpack(archive: Path, wanted: Sequence[RawFile], folder: Path) -> None:
    """Unpack the wanted files of an archive, whatever folders of it they lie in."""
    targets = {PurePosixPath(file.path).name: folder / file.path for file in wanted}
    try:
        for name, source in _members(archive, set(targets)):
            with source, atomic_file(targets[name]) as target:
                shutil.copyfileobj(source, target, _PIECE)
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError) as error:
        wrong = f"{archive}: expected an archive that can be unpacked, but {error}"
        raise DataError(f"{wrong}; remove it, then the same command goes on") from error


def _members(archive: Path, names: set[str]) -> Iterator[tuple[str, IO[bytes]]]:
    """Yield the name of each file of these names in an archive, and the file opened."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as packed:
            for entry in packed.infolist():
                if (name := PurePosixPath(entry.filename).name) in names:
                    yield name, packed.open(entry)
    else:
        with tarfile.open(archive) as packed_tar:
            for member in packed_tar:
                if (name := PurePosixPath(member.name).name) in names and (file := packed_tar.extractfile(member)):
                    yield name, file
