"""The library's public names, by themselves and from a wheel."""

import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest
from tests.jobs.test_bare_container import BLOCKED

import silent_gradients
from silent_gradients.evaluation.limits import pca_limit

ROOT = Path(__file__).resolve().parents[2]

PROGRAM = f"""
import sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {BLOCKED!r}:
            raise ImportError(name)

sys.meta_path.insert(0, Block())
import silent_gradients
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


PURELIB = "import sysconfig; print(sysconfig.get_path('purelib'))"


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
    assert silent_gradients.__version__[0].isdigit()
    assert silent_gradients.limits.pca_limit is pca_limit


USER = """
from dataclasses import dataclass
from typing import assert_type

import torch
from silent_gradients import VAE, Decoder, Estimate, Estimator, FixedVarianceDecoder, Gaussian, SilentGuide, evaluate
from silent_gradients import GaussianLikelihood, Objective, Posterior, SilentSchedule, estimators, gradient_variance
from silent_gradients.estimators import Given
from torch import Tensor, nn


class Network(Decoder):
    def __init__(self, latent_dim: int, dimensions: int) -> None:
        super().__init__(latent_dim, dimensions)
        self.network = nn.Linear(latent_dim, dimensions)

    def likelihood(self, z: Tensor) -> GaussianLikelihood:
        return GaussianLikelihood(self.network(z), torch.zeros(1), torch.ones(1))


@dataclass(frozen=True)
class Pathwise(Estimator):
    name = "pathwise"
    unbiased = True

    def estimate(self, q: Posterior, objective: Objective, given: Given) -> Estimate:
        value = objective.sampled(q.rsample(1, given.generator))[0]
        return Estimate(value, value, given.state)


guide = FixedVarianceDecoder(2, 3, variance=0.1, mean=torch.zeros(3))
x, encoder = torch.rand(4, 3), nn.Linear(3, 4)
vae = VAE(encoder, Gaussian, Network(2, 3), Pathwise(), guide=guide)
assert_type(vae.training_step(x, state={}, alpha=SilentSchedule().weight(0.5)).loss, Tensor)
q = Gaussian(encoder(x))
assert_type(guide.objective(x).expectation(q) - q.kl_divergence(), Tensor)
assert_type(estimators.create("silent")(q, guide.objective(x), state={}).surrogate, Tensor)
assert_type(SilentGuide(2, x).forward(x, *encoder(x).chunk(2, 1), alpha=0.5), tuple[Tensor, ...])
assert_type(vae.forward(x, 0.5).loss, Tensor)
assert_type(vae.elbo(x), Tensor)
assert_type(evaluate(vae, x, levels=256).bpd, float)
assert_type(gradient_variance(vae, Pathwise(), x, {}, draws=2).batch_mean, float)
"""
"""What a user writes, in full types."""

MISTAKES = """
import torch
from silent_gradients import FixedVarianceDecoder, Gaussain, Gaussian
FixedVarianceDecoder("2", 3, 0.1)
Gaussian(torch.zeros(1, 2)).kl_divergence(3)
Network(2, 3).objective(torch.zeros(1, 3)).expectation
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Where a wheel is installed, built of a copy so that the tree stays as it is; without the network."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    shutil.copytree(ROOT / "src", source / "src", ignore=shutil.ignore_patterns("*.egg-info", "__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", folder / "wheels", source], check=True)
    (wheel,) = (folder / "wheels").glob("silent_gradients-*.whl")
    # An environment of its own beside the packages of this one: type checkers ask an interpreter what is installed.
    venv.create(folder / "environment", with_pip=False)
    python = folder / "environment" / "bin" / "python"
    asked = subprocess.run([python, "-c", PURELIB], capture_output=True, text=True, check=True)
    library = Path(asked.stdout.strip())
    subprocess.run([*pip, "install", "--no-deps", "--no-index", "--target", library, wheel], check=True)
    (library / "others.pth").write_text(sysconfig.get_path("purelib"))
    return python, library


@pytest.mark.slow
def test_a_wheel_installs_without_the_workflow(installed):
    _, library = installed
    assert (library / "silent_gradients" / "py.typed").exists()
    assert run_alone(library) == library / "silent_gradients" / "__init__.py"


@pytest.mark.slow
def test_a_program_that_uses_the_wheel_is_checked_by_its_types(installed, tmp_path):
    python, _ = installed

    def check(text):
        program = tmp_path / "program.py"
        program.write_text(text)
        command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--python-executable", python]
        return subprocess.run(
            [*command, "--cache-dir", tmp_path / "cache", program],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=280,
            check=False,
        )

    correct = check(USER)
    assert correct.returncode == 0, correct.stdout
    wrong = check(USER + MISTAKES)
    first = USER.count("\n") + 1
    places = [int(line.split(":")[1]) - first for line in wrong.stdout.splitlines() if ": error:" in line]
    assert places == [2, 3, 4, 5], wrong.stdout
