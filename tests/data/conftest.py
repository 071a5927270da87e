"""A data set of eight images that is registered while a test runs."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from silent_study.data.prepared import Images, arrays_digest
from silent_study.data.raw import Form
from silent_study.data.source import Source
from silent_study.data.sources import SOURCES

PIXELS: Images = np.random.default_rng(1).integers(0, 4, (8, 2, 2, 2), dtype=np.uint8)


@dataclass
class Reader:
    """Reads the images in pieces of two and keeps from where."""

    pixels: Images = field(default_factory=PIXELS.copy)
    roots: list[Path] = field(default_factory=list)

    def __call__(self, root: Path, split: str) -> Iterator[Images]:
        self.roots.append(root)
        images = self.pixels[:5] if split == "train" else self.pixels[5:]
        for start in range(0, len(images), 2):
            yield images[start : start + 2]


@pytest.fixture
def reader() -> Reader:
    return Reader()


@pytest.fixture
def tiny(monkeypatch, reader) -> Source:
    """A registered source of 5 + 3 images."""
    digest = arrays_digest("tiny", 4, PIXELS[:5], PIXELS[5:])
    source = Source("tiny", "Tiny", "made here", 4, (2, 2, 2), 5, 3, 2, digest, (Form(reader),))
    monkeypatch.setitem(SOURCES, "tiny", source)
    return source
