"""Raw files: found in a folder or downloaded, and verified before anyone reads them.

A data set comes in one or several *forms*, each a list of files with their digests. A *mirror* is a folder, or an
address on a web server, that holds the files of a form under the paths that the form gives them.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, Literal

import numpy as np

from silent_study.data.errors import DataError, enough_space
from silent_study.data.prepared import Images
from silent_study.store.files import atomic_file

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
    """A file as its publisher distributes it.

    Attributes:
        path: Path below a mirror, e.g. ``MNIST/raw/t10k-images-idx3-ubyte.gz``.
        digest: ``sha256:`` or ``md5:`` and the digest of its bytes, or ``arrays:`` and its ``npz_digest``, since the
            bytes of an npz depend on the versions that wrote it. None for an archive whose members have digests.
        urls: Addresses to download it from, in this order.
    """

    path: str
    digest: str | None
    urls: tuple[str, ...] = ()


@dataclass(frozen=True)
class Form:
    """One way in which a data set is distributed.

    Attributes:
        read: Reads the images once the files are there.
        files: What is read; empty for data that come with a package.
        archives: What the files are unpacked from where they are not there themselves.
    """

    read: Read
    files: tuple[RawFile, ...] = ()
    archives: tuple[RawFile, ...] = ()


@dataclass(frozen=True)
class Obtained:
    """Verified raw files.

    Attributes:
        form: Which form they are of.
        root: Folder below which they lie under the form's paths.
    """

    form: Form
    root: Path


class DigestError(DataError, ValueError):
    """A file is not the one that it should be; as a ``ValueError`` it makes pooch try a download again."""


def obtain(
    name: str,
    forms: Sequence[Form],
    folder: Path,
    mirror: str | None = None,
    hint: Callable[[Path], str | None] = lambda _: None,
) -> Obtained:
    """Find the raw files of a data set, or download them.

    A form whose files all lie in ``folder``, or all in the mirror, is taken from there; otherwise the first one that
    can be had is downloaded to ``folder``, from the mirror if that is an address, then from its publishers.

    Args:
        name: Data set, for messages.
        forms: Its forms, the preferred one first.
        folder: Where downloaded files go.
        mirror: A folder or an ``http(s)://`` address with the files under their forms' paths.
        hint: Has a word on a folder that does not hold the files, e.g. what it holds instead.

    Raises:
        DataError: A file is missing, altered, or cannot be downloaded; or the disk is full.
    """
    places, base = _places(folder, mirror)
    for place in places:
        for form in forms:
            if all((place / file.path).is_file() for file in form.files):
                for file in form.files:
                    verify(place / file.path, file.digest)
                return Obtained(form, place)
    problems = [_absent(form, place) for form in forms for place in places]
    with enough_space(folder):
        for form in forms:
            try:
                return _fetch(name, form, places, base)
            except _NotThereError as error:
                problems += error.args
    problems += [words for place in places if (words := hint(place))]
    raise DataError("\n".join([f"{name}: its raw files are not to be had", *problems, _REMEDY]))


def _absent(form: Form, place: Path) -> str:
    missing = [file.path for file in form.files if not (place / file.path).is_file()]
    more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
    return f"{place}: no {missing[0]}{more}"


def _places(folder: Path, mirror: str | None) -> tuple[list[Path], str | None]:
    """Folders to look in, and the mirror's address if it has one."""
    if mirror is None:
        return [folder], None
    if "://" in mirror:
        if not mirror.startswith(("http://", "https://")):
            raise DataError(f"mirror {mirror!r}: expected a folder or an http(s):// address")
        return [folder], mirror.rstrip("/")
    if not Path(mirror).is_dir():
        raise DataError(f"mirror {mirror!r}: there is no such folder")
    return [folder, Path(mirror)], None


def verify(path: Path, digest: str | None, origin: str | None = None) -> None:
    """Compare a file with its digest (``RawFile.digest``); ``origin`` names it in the message instead of its path.

    Raises:
        DigestError: They differ.
    """
    if digest is None:
        return
    kind, _, expected = digest.partition(":")
    found = npz_digest(path) if kind == "arrays" else _digest_of_bytes(path, kind)
    if found != expected:
        remedy = "" if origin else "; remove or replace it, then the same command goes on"
        raise DigestError(
            f"{origin or path}: expected {kind} {expected}, found {found}: it is damaged, or of another version of the "
            f"data set{remedy}"
        )


def _digest_of_bytes(path: Path, kind: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.new(kind, usedforsecurity=False)).hexdigest()


def npz_digest(path: Path) -> str:
    """SHA-256 of an npz's arrays in the order of their names: of each one line ``name dtype shape`` and its bytes.

    A file that is no npz has a digest that equals none: ``unreadable``.
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


class _NotThereError(DataError):
    """A form that cannot be had; its arguments are the reasons."""


def _fetch(name: str, form: Form, places: Sequence[Path], base: str | None) -> Obtained:
    """Have what the first place lacks of a form: from the mirror's address, from archives, from the publishers."""
    folder = places[0]
    reasons: list[str] = []

    def missing() -> list[RawFile]:
        return [file for file in form.files if not (folder / file.path).is_file()]

    try:
        # A mirror may hold unpacked what its publisher packs.
        for file in missing() if base or not form.archives else ():
            _download(name, file, folder, base)
    except _NotThereError as error:
        reasons += error.args
    for archive in form.archives:
        if missing():
            packed = [place / archive.path for place in places if (place / archive.path).is_file()]
            for path in packed[:1]:
                verify(path, archive.digest)
            try:
                _unpack(packed[0] if packed else _download(name, archive, folder, base), missing(), folder)
            except _NotThereError as error:
                raise _NotThereError(*reasons, *error.args) from None
    if absent := missing():
        archives = ", ".join(archive.path for archive in form.archives)
        raise _NotThereError(*reasons, *([f"{absent[0].path}: not in {archives}"] if archives else []))
    for file in form.files:
        verify(folder / file.path, file.digest)
    return Obtained(form, folder)


def _download(name: str, file: RawFile, folder: Path, base: str | None) -> Path:
    """Download a file, verified before it bears its name; each of its addresses is tried in turn."""
    import pooch

    pooch.get_logger().setLevel("WARNING")
    target, waiting, reasons = folder / file.path, folder / f".downloading-{name}", []
    for url in (*([f"{base}/{file.path}"] if base else []), *file.urls):
        # What a killed download left: it is begun anew.
        shutil.rmtree(waiting, ignore_errors=True)
        print(f"{name}: downloading {url}", file=sys.stderr, flush=True)
        try:
            pooch.create(
                waiting, "", registry={target.name: None}, urls={target.name: url}, retry_if_failed=ATTEMPTS - 1
            ).fetch(target.name, downloader=_Downloader(file.digest))
        except Exception as error:
            if (reason := _network_problem(url, error)) is None:
                raise
            print(reason, file=sys.stderr, flush=True)
            reasons.append(reason)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        (waiting / target.name).replace(target)
        shutil.rmtree(waiting)
        return target
    shutil.rmtree(waiting, ignore_errors=True)
    raise _NotThereError(*reasons)


@dataclass(frozen=True)
class _Downloader:
    """Downloads for pooch, with a progress bar on a terminal, and verifies what came."""

    digest: str | None

    def __call__(self, url: str, output_file: str, pooch: Any) -> None:
        from pooch import HTTPDownloader
        from tqdm import tqdm

        # pooch sets the total, and asks before that whether there is one.
        bar = tqdm(total=1, unit="B", unit_scale=True, disable=None, leave=False)
        HTTPDownloader(progressbar=bar, chunk_size=_PIECE, timeout=_TIMEOUT)(url, output_file, pooch)
        verify(Path(output_file), self.digest, origin=url)


def _network_problem(url: str, error: Exception) -> str | None:
    """What a user is told of a download that failed; None for what is no matter of the network."""
    from requests import exceptions

    if isinstance(error, DigestError):
        return str(error)
    if isinstance(error, exceptions.HTTPError) and error.response is not None:
        return f"{url}: the server answers {error.response.status_code} {error.response.reason}"
    for kind, words in (
        (exceptions.SSLError, "its certificate is not accepted"),
        (exceptions.Timeout, f"no answer within {_TIMEOUT[1]} s"),
        (exceptions.ChunkedEncodingError, "the connection broke off"),
        (exceptions.ConnectionError, "no connection"),
        (exceptions.RequestException, type(error).__name__),
    ):
        if isinstance(error, kind):
            return f"{url}: {words}"
    return None


def _unpack(archive: Path, wanted: Sequence[RawFile], folder: Path) -> None:
    """Unpack those of the wanted files that an archive holds, wherever in it they lie; all else stays inside."""
    targets = {PurePosixPath(file.path).name: folder / file.path for file in wanted}
    try:
        for name, source in _members(archive, set(targets)):
            with source, atomic_file(targets[name]) as target:
                shutil.copyfileobj(source, target, _PIECE)
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise DataError(
            f"{archive}: expected an archive that can be unpacked, but {error}; remove it, then the same command "
            "goes on"
        ) from error


def _members(archive: Path, names: set[str]) -> Iterator[tuple[str, IO[bytes]]]:
    """The files of these names in an archive, open, whatever folders of it they lie in."""
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
