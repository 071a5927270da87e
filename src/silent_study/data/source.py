"""What a data set must say of itself to be prepared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from silent_study.data.prepared import Description
from silent_study.data.raw import Form
from silent_study.settings import digest


def _nothing(_folder: Path) -> str | None:
    return None


@dataclass(frozen=True)
class Source:
    """A data set: what it holds, the digest that it must have, and in which forms it is distributed.

    Attributes:
        name: Name in settings, folders and cells, e.g. ``digits``.
        title: What readers of tables and figures see.
        version: Which data these are and how they were split, in words for the reader of a table.
        levels: Number of grey levels; pixels are integers in ``[0, levels)``.
        shape: Image shape ``(C, H, W)``.
        train: Number of training images.
        test: Number of test images.
        holdout: Number of training images that the holdout protocol sets aside by default.
        arrays_sha256: ``arrays_digest`` of the prepared arrays; None where it is not known, and the digests of the raw
            files stand for it.
        forms: How it is distributed, the preferred form first.
        hint: Has a word on a mirror that does not hold the raw files.
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
    hint: Callable[[Path], str | None] = _nothing
    remedy: str = "get them anew, or, if they are meant to be others, pin the new digest in the source"
    notes: tuple[str, ...] = ()

    @property
    def sha256(self) -> str:
        """What identifies the data in runs: the arrays' digest, or one of all the raw files' digests."""
        if self.arrays_sha256 is not None:
            return self.arrays_sha256
        counts = {"train": self.train, "test": self.test}
        return digest([self.name, self.levels, self.shape, counts, [file.digest for file in self.forms[0].files]])

    @property
    def description(self) -> Description:
        """What the manifest of the prepared data set says of it."""
        return {
            "name": self.name,
            "title": self.title,
            "version": self.version,
            "levels": self.levels,
            "shape": list(self.shape),
            "counts": {"train": self.train, "test": self.test},
            "sha256": self.sha256,
        }
