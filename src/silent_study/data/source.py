"""The description of a data set that preparation needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from silent_study.data.prepared import Description
from silent_study.data.raw import Form
from silent_study.settings import digest


@dataclass(frozen=True)
class Source:
    """A data set: its content, its digest and the forms in which it is distributed.

    Attributes:
        name: Name in settings, folders and cells, e.g. ``digits``.
        title: Title in tables and figures.
        version: Origin and split of the data, in words for the reader of a table.
        levels: Number of grey levels; pixels are integers in ``[0, levels)``.
        shape: Image shape ``(C, H, W)``.
        train: Number of training images.
        test: Number of test images.
        holdout: Default number of training images that the holdout protocol selects on.
        arrays_sha256: ``arrays_digest`` of the prepared arrays; None if it is unknown, which the digests of the raw
            files then replace.
        forms: Forms in which it is distributed, the preferred one first.
        hint: Returns a remark on a mirror without the raw files.
        remedy: What to do if the raw data are not the described ones.
        notes: What ``prepare`` prints of the raw data, a line each.
    """

    name: str
    title: str
    version: str
    levels: int
    shape: tuple[int, int, int]
    train: int
    test: int
    holdout: int
    arrays_sha256: str | None
    forms: tuple[Form, ...]
    hint: Callable[[Path], str | None] = lambda _folder: None
    remedy: str = "get them anew, or, if they are meant to be others, pin the new digest in the source"
    notes: tuple[str, ...] = ()

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
