"""Own images through the whole workflow: a folder and an npz, one entry each; and after a change of the folder."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image
from tests.workflow.repository import LITERAL, TINY, Repository

from silent_study.data.prepared import arrays_digest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

RNG = np.random.default_rng(0)
CELLS = RNG.integers(0, 16, (90, 3, 6, 7), dtype=np.uint8)


def draw(folder, numbers):
    for number in numbers:
        shade = np.linspace(number % 7, 200 + number % 11, 80).reshape(8, 10)
        Image.fromarray((shade + RNG.integers(0, 40, shade.shape)).astype(np.uint8)).save(folder / f"{number:03}.png")


def sections():
    fixed, learnable = (TINY["experiments"][name]["digits"] for name in ("fixed", "learnable"))
    small = {"batch_size": 32, "grid": {"learning_rate": [0.003]}}
    return {
        "fixed": {"digits": None, "faces": fixed | small},
        "learnable": {"digits": None, "cells": learnable | {"batch_size": 32, "methods": ["reparameterization"]}},
    }


def test_own_images_go_through_the_whole_workflow(tmp_path):
    folder = tmp_path / "my faces; 'all'"
    folder.mkdir()
    draw(folder, range(60))
    np.savez(tmp_path / "cells.npz", x_train=CELLS[:70], x_test=CELLS[70:], y_train=np.arange(70))
    repository = Repository.make(tmp_path / "repository", tiny=TINY)
    sets = {
        "faces": {"path": str(folder), "size": [6, 6], "title": "Faces of {mine}"},
        "cells": {"path": "../cells.npz", "levels": 16},
    }
    repository.configure(data={"sets": sets}, experiments=sections())

    repository.run(*LITERAL)

    assert "Nothing to be done" in repository.run(*LITERAL, "--dry-run")
    assert repository.metrics().keys() == {"preset", "protocol", "faces", "cells"}
    assert repository.metrics()["cells"]["learnable"]["reparameterization"]["seeds"] == 2
    page = (repository.results / "report.html").read_text()
    assert "Faces of {mine}" in page
    assert "own images of the file cells.npz, with a test set of its own" in page
    prepared = repository.root / "data" / "prepared"
    manifest = json.loads((prepared / "cells" / "manifest.json").read_text())
    train, test = (np.load(prepared / "cells" / f"{split}.npy") for split in ("train", "test"))
    np.testing.assert_array_equal(test, CELLS[70:])
    assert sorted(map(bytes, train)) == sorted(map(bytes, CELLS[:70]))
    assert manifest["sha256"] == arrays_digest("cells", 16, train, test)
    runs = repository.runs()
    settings = [json.loads((repository.results / "store" / run / "settings.json").read_text()) for run in runs]
    assert {each["data"]["sha256"] for each in settings if each["data"]["name"] == "cells"} == {manifest["sha256"]}

    # The verbs know them by name; a limit is that of the settings' split.
    assert "faces: 54 training and 6 test images" in repository.run("silent-gradients", "prepare", "faces")
    limits = repository.run("silent-gradients", "limit", "faces", "--latent-dim", "4")
    assert "data set faces, protocol holdout, holdout 5" in limits
    assert "faces" in repository.run("silent-gradients", "plan")

    # More images: everything of this set is new, nothing of the other.
    draw(folder, range(60, 80))
    repository.run(*LITERAL)
    new = repository.runs() - runs
    assert {run.split("/")[0] for run in new} == {"faces"}
    assert len(np.load(prepared / "faces" / "noise.npy")) == 8
    assert len(np.load(prepared / "faces" / "train.npy")) == 72

    # What is prepared needs the images no more.
    shutil.rmtree(folder)
    assert "Nothing to be done" in repository.run(*LITERAL, "--dry-run")
    repository.configure(data={"sets": {**sets, "faces": {"path": str(folder)}}}, experiments=sections())
    output = repository.fail(*LITERAL)
    assert f"data.sets.faces: path {str(folder)!r}: there is no such folder or file" in output
    assert len(output.splitlines()) < 15
