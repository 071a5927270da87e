"""The library's public names, by themselves and from a wheel."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.test_bare_container import BLOCKED

import silent_gradients

ROOT = Path(__file__).resolve().parents[1]

PROGRAM = f"""
import sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {BLOCKED!r}:
            raise ImportError(name)

sys.meta_path.insert(0, Block())
import silent_gradients
assert "torch" not in sys.modules and "numpy" not in sys.modules
print(silent_gradients.__file__)
for name in silent_gradients.__all__:
    getattr(silent_gradients, name)
from silent_gradients import *
decoder = FixedVarianceDecoder(2, 3, 0.1)
import torch
q = Gaussian(torch.zeros(1, 4, requires_grad=True))
estimate = estimators.create("silent")(q, decoder.objective(torch.zeros(1, 3)), state={{}})
estimate.surrogate.sum().backward()
"""


def run_alone(*path):
    """The program in a process of its own, with these folders before all others."""
    code = f"import sys; sys.path[:0] = {[str(each) for each in path]!r}\n" + PROGRAM
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 0, run.stderr
    return Path(run.stdout.strip())


def test_the_public_names_need_torch_and_numpy_alone():
    assert run_alone(ROOT / "src") == ROOT / "src" / "silent_gradients" / "__init__.py"


def test_every_public_name_is_there_and_listed():
    assert len(set(silent_gradients.__all__)) == len(silent_gradients.__all__)
    for name in silent_gradients.__all__:
        assert getattr(silent_gradients, name) is not None
        assert name in dir(silent_gradients)
    assert silent_gradients.estimators.REGISTRY["silent"] is silent_gradients.estimators.Silent
    assert callable(silent_gradients.estimators.register)
    with pytest.raises(AttributeError, match="no attribute 'Gaussain'"):
        _ = silent_gradients.Gaussain


@pytest.mark.slow
def test_a_wheel_installs_without_the_workflow(tmp_path):
    """Built of a copy, so that the tree stays as it is; without the network."""
    source = tmp_path / "source"
    shutil.copytree(ROOT / "src", source / "src", ignore=shutil.ignore_patterns("*.egg-info", "__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", tmp_path / "wheels", source], check=True)
    (wheel,) = (tmp_path / "wheels").glob("silent_gradients-*.whl")
    installed = tmp_path / "installed"
    subprocess.run([*pip, "install", "--no-deps", "--no-index", "--target", installed, wheel], check=True)
    assert (installed / "silent_gradients" / "py.typed").exists()
    assert run_alone(installed) == installed / "silent_gradients" / "__init__.py"
