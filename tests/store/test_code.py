"""Digests of the code that numbers depend on, against edits of a copy of the source and against what is executed."""

import shutil
import sys
from pathlib import Path

import pytest

from silent_study.settings import EvaluationSettings
from silent_study.store import code
from silent_study.store.code import SOURCE, evaluation_code, reading_code, training_code
from silent_study.store.runs import RunStore

PATHWISE = "silent_gradients/estimators/pathwise.py"


def edited(folder: Path, *edits: tuple[str, str, str]) -> Path:
    """A copy of the rooms that compute, in which texts of files are replaced (an empty text: at the end)."""
    for original in code._modules(SOURCE).files.values():
        (folder / original).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(SOURCE / original, folder / original)
    for file, old, new in edits:
        text = (folder / file).read_text() if (folder / file).exists() else ""
        assert old in text
        (folder / file).write_text(text.replace(old, new, 1) if old else text + new)
    return folder


NOTICED = {
    "an estimator": (PATHWISE, "return q.rsample(self.samples, generator)", "return 2 * q.rsample(self.samples, None)"),
    "its base class": (PATHWISE, "Estimate(value, value, given.state)", "Estimate(value, 2 * value, given.state)"),
    "a constant of the optimizer": ("silent_study/training/optimizer.py", "EPSILON = 1e-8", "EPSILON = 1e-7"),
    "a metric": ("silent_gradients/evaluation/metrics.py", "math.log2(checks.whole", "math.log(checks.whole"),
    "the reader of batches": ("silent_study/data/batches.py", "squares - total**2", "squares - total**3"),
    "the reader of arrays": ("silent_study/data/prepared.py", "self.train[: images - holdout]", "self.train[:images]"),
    "an import": ("silent_study/training/optimizer.py", "import torch\n", "import numpy as torch\n"),
    "a rule among the settings": ("silent_study/settings.py", "TOLERANCE = 0.005", "TOLERANCE = 0.01"),
    "a default of a setting": (
        "silent_study/settings.py",
        "kl_warmup_epochs: float = 0.0",
        "kl_warmup_epochs: float = 1.0",
    ),
    "what a package does when it is imported": (
        "silent_gradients/__init__.py",
        "",
        "torch.set_default_dtype(torch.half)\n",
    ),
}
UNNOTICED = {
    "a comment": (PATHWISE, "@register", "# why\n@register"),
    "a docstring": (PATHWISE, '"""Reparameterization, ', '"""The reparameterization, '),
    "a function's annotation": (
        PATHWISE,
        "generator: NoiseSource | None) -> Tensor",
        "generator: NoiseSource) -> Tensor",
    ),
    "an error": ("silent_study/data/batches.py", "expected a batch size of at least 1", "a batch size below 1"),
    "an estimator of another family": ("silent_gradients/estimators/antithetic.py", "class Arm(", "class Arm2("),
    "an addition": (PATHWISE, "", "\n\ndef new(x):\n    return x\n"),
    "what a user calls later": (
        "silent_study/evaluation/estimator_comparison.py",
        "FEWEST_DRAWS =",
        "FEWEST_DRAWS = 1 +",
    ),
}


@pytest.mark.parametrize("edit", NOTICED.values(), ids=NOTICED)
def test_an_edit_of_what_computes_changes_the_code_of_a_training(tmp_path, edit):
    before, after = training_code("reparameterization"), training_code("reparameterization", edited(tmp_path, edit))
    assert after["digest"] != before["digest"]
    assert [file for file in after["files"] if after["files"][file] != before["files"].get(file)] == [edit[0]]


@pytest.mark.parametrize("edit", UNNOTICED.values(), ids=UNNOTICED)
def test_other_edits_do_not(tmp_path, edit):
    assert training_code("reparameterization", edited(tmp_path, edit)) == training_code("reparameterization")


def test_a_module_that_is_imported_for_its_effect_alone_changes_the_code(tmp_path):
    imports = "import silent_gradients.change\nimport silent_gradients.networks\n"
    source = edited(
        tmp_path,
        ("silent_gradients/schedules.py", "", imports),
        ("silent_gradients/change.py", "", "torch.manual_seed(1)\n"),
    )
    assert "silent_gradients/change.py" in training_code("reparameterization", source)["files"]


def test_moved_definitions_keep_the_digest(tmp_path):
    source = edited(tmp_path, (PATHWISE, "", ""))
    moved, rest = source / "silent_gradients/estimators/paths.py", source / PATHWISE
    rest.rename(moved)
    package = source / "silent_gradients/estimators/__init__.py"
    package.write_text(package.read_text().replace("estimators.pathwise", "estimators.paths"))
    found, before = training_code("reparameterization", source), training_code("reparameterization")
    assert found["digest"] == before["digest"]
    assert found["files"].keys() - before["files"].keys() == {"silent_gradients/estimators/paths.py"}


def test_evaluations_and_readers_have_codes_of_their_own(tmp_path):
    source = edited(
        tmp_path,
        ("silent_gradients/evaluation/limits.py", "", "_RIDGE = 1.0\n"),
        ("silent_study/data/sources/digits.py", "", "_LEVELS = 16\n"),
    )
    assert training_code("silent", source) == training_code("silent")
    assert evaluation_code("silent", source) != evaluation_code("silent")
    assert reading_code(source) != reading_code()


CELLS = [
    "learnable/reinforce+silent",
    "fixed/reparameterization",
    "fixed/silent-bernoulli",
    "log-linear/silent-gaussian",
    "two-layer/silent-bernoulli",
]


@pytest.mark.parametrize("cell", CELLS)
def test_every_function_that_a_training_and_an_evaluation_execute_is_in_their_code(tiny, tmp_path, cell):
    settings = tiny.settings(cell)
    evaluation = EvaluationSettings(2, variance_images=4, variance_draws=3, reconstructions=1, importance_samples=2)
    executed: set[tuple[str, str]] = set()

    def record(frame, event, _argument):
        if event == "call":
            executed.add((frame.f_code.co_filename, frame.f_code.co_qualname.split(".")[0]))

    sys.setprofile(record)
    try:
        tiny.train_stored(RunStore(tmp_path), settings, evaluation=evaluation)
    finally:
        sys.setprofile(None)
    entries = [*code.TRAINING, *code.EVALUATION, *code._modules(SOURCE).registered(settings.estimator)]
    reached = {
        (str(SOURCE / module.replace(".", "/")), name) for module, name in code._modules(SOURCE).reached(entries)
    }
    rooms = {SOURCE / file for file in code._modules(SOURCE).files.values()}
    computing = {
        (file.removesuffix(".py").removesuffix("/__init__"), name)
        for file, name in executed
        if Path(file) in rooms and not name.startswith("<")
    }
    assert len(computing) > 40
    assert computing <= reached, computing - reached
