"""Every estimator is a method wherever it can be one, and the paper's are known without torch."""

import math
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import pytest

from silent_gradients.estimators import REGISTRY, EstimatorError, create
from silent_gradients.estimators.contract import Estimate, Estimator, register
from silent_gradients.posteriors import FAMILIES
from silent_study.methods import METHODS, PAPER_ESTIMATORS, PAPER_OPTIONS, EstimatorTraits
from silent_study.paper import PUBLISHED
from silent_study.settings import EXPERIMENTS, Experiment, PosteriorFamily

ROOT = Path(__file__).parents[1]


def test_every_experiment_is_declared():
    assert set(EXPERIMENTS) == set(METHODS) == set(get_args(Experiment))
    assert {name for name, traits in EXPERIMENTS.items() if traits.exact} == {"fixed", "log-linear", "two-layer"}
    assert {name for name, traits in EXPERIMENTS.items() if traits.fixed_variance} == {"fixed"}


def test_the_papers_estimators_are_known_as_they_are():
    assert all(traits == EstimatorTraits.of(REGISTRY[traits.name]) for traits in PAPER_ESTIMATORS)


@pytest.mark.parametrize("experiment", ["fixed", "learnable"])
def test_the_papers_methods_are_there_without_the_registry(experiment):
    names = {cell.split("/")[2] for cell in PUBLISHED if cell.split("/")[1] == experiment}
    assert names <= set(METHODS[experiment].papers)


@pytest.mark.parametrize("experiment", ["fixed", "log-linear", "two-layer"])
def test_every_estimator_is_a_method_beside_an_exact_decoder(experiment):
    served = {(method.estimator, method.posterior) for method in METHODS[experiment].values()}
    assert served == {
        (name, family)
        for name, kind in REGISTRY.items()
        for family in get_args(PosteriorFamily)
        if kind.supports(FAMILIES[family])
    }
    assert all(method.guide == "none" and method.baseline is None for method in METHODS[experiment].values())


def test_every_sampled_estimator_is_a_method_beside_any_decoder():
    methods = METHODS["learnable"]
    for name, kind in REGISTRY.items():
        for family in get_args(PosteriorFamily):
            own = {
                method.name: method
                for method in methods.values()
                if (method.estimator, method.posterior) == (name, family)
            }
            if kind.exact or not kind.supports(FAMILIES[family]):
                assert own == {}
                continue
            (alone,) = [method for method in own.values() if method.baseline is None]
            assert alone.guide == ("control" if kind.needs_control else "none")
            endings = {"", "+silent"} | (set() if kind.needs_control else {"+sampled"})
            assert set(own) == {alone.name + ending for ending in endings}
            for method in own.values():
                assert method.sampled == method.name.endswith("+sampled")
                if method is not alone and method != alone:
                    assert (method.guide, method.baseline) == ("annealed", alone.name)


def test_names_tell_posteriors_apart_where_an_estimator_serves_several():
    posteriors = {name: method.posterior for name, method in METHODS["learnable"].items()}
    assert posteriors["reinforce"] == posteriors["rloo+sampled"] == "bernoulli"
    assert posteriors["reinforce-gaussian"] == posteriors["rloo-gaussian+silent"] == "gaussian"
    assert posteriors["reparameterization"] == posteriors["silent-gaussian"] == "gaussian"
    assert METHODS["fixed"]["silent-bernoulli"].posterior == "bernoulli"


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_default_options_make_the_estimator(experiment):
    for method in METHODS[experiment].values():
        if method.estimator != "none":
            assert create(method.estimator, dict(method.options)) == create(method.estimator)


def test_joining_the_registry_makes_a_method():
    before = dict(REGISTRY)
    try:

        @register
        @dataclass(frozen=True)
        class Late(Estimator):
            strength: float = 0.25
            name = "late"
            unbiased = False

            def estimate(self, q, objective, given):
                return Estimate(q.mean.sum(1), q.mean.sum(1), given.state)

        for experiment in EXPERIMENTS:
            assert METHODS[experiment]["late"].options == {"strength": 0.25}
            assert METHODS[experiment]["late-gaussian"].posterior == "gaussian"
        assert "late+sampled" in METHODS["learnable"]
        assert "late+sampled" not in METHODS["fixed"]
    finally:
        REGISTRY.clear()
        REGISTRY.update(before)
    assert "late" not in METHODS["fixed"]


def test_an_unknown_method_is_a_key_error():
    with pytest.raises(KeyError):
        METHODS["fixed"]["reinforce+silent"]


def test_planning_the_papers_methods_needs_no_torch():
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from silent_study import params\n"
        "from silent_study.plan.plan import Plan\n"
        "for preset in ('digits', 'mnist-short', 'mnist-reduced', 'mnist-fixed', 'colour-reduced', 'paper'):\n"
        f"    plan = Plan(params.resolve({{'preset': preset}}, Path({str(ROOT / 'presets')!r})))\n"
        "    plan.packs('baselines', {})\n"
        "    assert 'torch' not in sys.modules, preset\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("value", [-1.0, 0.0, 0.5, 0.99, 1.0, 1.5, 2.0, math.inf, math.nan])
def test_the_papers_estimators_accept_the_declared_values_of_their_options(value):
    for traits in PAPER_ESTIMATORS:
        for option in traits.options:
            _, fits = PAPER_OPTIONS[option]
            try:
                create(traits.name, {option: value})
            except EstimatorError:
                assert not fits(value), (traits.name, option)
            else:
                assert fits(value), (traits.name, option)


@pytest.mark.parametrize(
    ("experiment", "name", "expected"),
    [
        ("fixed", "silent-bernoulli", ("bernoulli", "none", True, "Silent (Bernoulli)")),
        ("learnable", "silent-gaussian", ("gaussian", "none", True, "Silent (Gaussian)")),
        ("learnable", "reinforce+silent", ("bernoulli", "reinforce", True, "REINFORCE + SG")),
        ("fixed", "reparameterization", ("gaussian", "reparameterization", False, "Reparameterization")),
        ("learnable", "reinforce+sampled", ("bernoulli", "reinforce", False, "REINFORCE + sampled guide")),
        ("fixed", "rloo-gaussian", ("gaussian", "rloo", False, "RLOO (Gaussian)")),
        ("learnable", "rloo-gaussian+silent", ("gaussian", "rloo", True, "RLOO (Gaussian) + SG")),
        (
            "learnable",
            "reinforce-silent-baseline",
            ("bernoulli", "reinforce-silent-baseline", False, "REINFORCE, silent baseline"),
        ),
    ],
)
def test_methods_read_as_in_the_paper(experiment, name, expected):
    method = METHODS[experiment][name]
    assert (method.posterior, method.sampled_estimator, method.silent, method.label) == expected


@pytest.mark.parametrize("experiment", list(METHODS))
def test_no_two_methods_read_the_same(experiment):
    labels = {method.label for method in METHODS[experiment].values()}
    assert len(labels) == len(METHODS[experiment])


def test_every_estimator_has_a_name_for_readers():
    for name in REGISTRY:
        if name != "silent":
            assert METHODS["fixed"][name].estimator_label != name
