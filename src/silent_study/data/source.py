"""The description of a data set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from silent_study.data.prepared import Description
from silent_study.data.raw import Form
from silent_study.settings import digest


@dataclass(frozen=True)
class Source:
    """A data set: its content, its digest and the forms in which it is distributed."""

    name: str  # in settings, folders and cells, e.g. ``digits``
    title: str  # in tables and figures
    version: str  # origin and split of the data, in words for the reader of a table
    levels: int  # number of grey levels; pixels are integers in ``[0, levels)``
    shape: tuple[int, int, int]  # ``(C, H, W)``
    train: int  # number of training images
    test: int  # number of test images
    holdout: int  # default number of training images that the holdout protocol selects on
    arrays_sha256: str | None  # ``arrays_digest``; None if unknown: the digests of the raw files then replace it
    forms: tuple[Form, ...]  # in which it is distributed, the preferred one first
    hint: Callable[[Path], str | None] = lambda _folder: None  # returns a remark on a mirror without the raw files
    # What to do if the raw data are not the described ones.
    remedy: str = "get them anew, or, if they are meant to be others, pin the new digest in the source"
    notes: tuple[str, ...] = ()  # what ``prepare`` prints of the raw data, a line each

    @property
    def sha256(self) -> str:
        """Digest that identifies the data in runs: that of the arrays, or one over the raw files' digests."""
        if self.arrays_sha256 is not None:
            return self.arrays_sha256
        counts = {"train": self.train, "test": self.test}
        return digest([self.name, self.levels, self.shape, counts, [file.digest for file in self.forms[0].files]])

    @property
    def description(self) -> Description:
        """The description in the manifest of the prepared data set."""
        return {
            "name": self.name,
            "title": self.title,
            "version": self.version,
            "levels": self.levels,
            "shape": list(self.shape),
            "counts": {"train": self.train, "test": self.test},
            "sha256": self.sha256,
        }
