"""Paired differences and verdicts, against scipy's paired test, enumeration and Holm's procedure by hand."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats
from tests.report.conftest import FIXED

from silent_study.report.claims import DECIDED, VERDICTS, Arm, Comparison
from silent_study.report.orderings import labels

WITH, WITHOUT = "digits/learnable/reinforce+silent", "digits/learnable/reinforce"
BPD = ("reinforce+silent", "reinforce", "bpd")
LOW, HIGH = [1.0, 1.1, 1.2], [2.0, 2.2, 2.1]


def compared(first, second, published=math.nan, expected=-1, lost=((), ()), raster=0.0):
    """A comparison of values by seed, None for a run without the metric; ``lost`` has both methods' collapsed seeds."""
    one, other = (
        Arm(
            {seed: value for seed, value in enumerate(values) if value is not None},
            {seed: seed in collapsed for seed in range(len(values))},
            set(range(len(values))),
            raster=raster,
        )
        for values, collapsed in zip((first, second), lost, strict=True)
    )
    return Comparison(one, other, expected, published)


def test_the_difference_is_paired_by_seed(study):
    # Unpaired, seeds that differ by whole bits would hide a difference of 0.4.
    values = [(2.0, 2.4), (3.0, 3.5), (4.0, 4.3)]
    for cell, bounds in zip((WITH, WITHOUT), zip(*values, strict=True), strict=True):
        study.add_seeds(cell, bounds)
    study.add(WITH, seed=3, bpd=1.0)
    study.add(WITHOUT, seed=3, diverged_epoch=3)
    claim = study.claims[BPD]
    test = stats.ttest_rel(*np.array(values).T)
    interval = test.confidence_interval(0.95)
    assert claim.difference.mean == pytest.approx(-0.4)
    assert (claim.difference.low, claim.difference.high) == pytest.approx((interval.low, interval.high))
    assert claim.p_value == pytest.approx(test.pvalue)
    assert (claim.difference.n, claim.unpaired, claim.verdict) == (3, 1, "same direction")


@pytest.mark.parametrize(
    ("first", "second", "options", "verdict"),
    [
        (LOW, HIGH, {}, "same direction"),
        (LOW, HIGH, {"published": -1.0}, "reproduced so far"),
        (LOW * 2, HIGH * 2, {"published": -1.0}, "reproduced"),
        ((LOW * 2)[:5], (HIGH * 2)[:5], {"published": -1.0}, "reproduced so far"),
        (LOW, HIGH, {"published": -0.1}, "same direction, other size"),
        (LOW, HIGH, {"published": -3.5}, "same direction, other size"),
        (HIGH, LOW, {"published": 1.0, "expected": 1}, "reproduced so far"),
        (HIGH, LOW, {"published": -1.0}, "contradicted"),
        (LOW, HIGH, {"expected": 1}, "contradicted"),
        (LOW, [1.1, 1.0, 1.25], {"published": -0.02}, "undecided"),
        ([1.0], [2.0], {"published": -1.0}, "undecided"),
        ([1.0, None], [None, 2.0], {}, "not measured"),
        # A collapsed baseline is not the published one; a collapsed method is the method's own fault.
        (LOW, HIGH, {"published": -1.0, "lost": ((), (1,))}, "not comparable"),
        (HIGH, LOW, {"published": -1.0, "lost": ((), (1,))}, "not comparable"),
        (LOW, HIGH, {"published": -1.0, "lost": ((1,), ())}, "reproduced so far"),
    ],
)
def test_a_verdict_has_a_sign_a_size_and_a_comparable_baseline(first, second, options, verdict):
    assert compared(first, second, **options).verdict == verdict
    assert verdict in VERDICTS


def test_below_six_pairs_there_is_no_sign_flip_test():
    first, second = [1.0, 1.2, 0.9, 1.1, 1.4, 1.0], [1.5, 1.1, 1.3, 1.6, 1.5, 1.8]
    assert math.isnan(compared(first[:5], second[:5]).sign_flip_p)
    gains = np.subtract(first, second)
    sums = [abs(np.dot(signs, gains)) for signs in itertools.product((-1, 1), repeat=6)]
    expected = np.mean([each >= abs(gains.sum()) - 1e-9 for each in sums])
    assert compared(first, second).sign_flip_p == pytest.approx(expected)


def test_collapse_is_counted_in_both_and_stands_beside_the_rest():
    first, second = [1.0, 1.1, 0.9, 1.2, 1.0, 3.0, 1.0], [3.1, 3.0, 3.2, 1.5, 3.0, 3.2, None]
    found = compared(first, second, lost=((5,), (0, 1, 2, 4, 5)))
    assert (found.method.lost, found.baseline.lost) == (1, 5)
    # The first never collapses alone, the second in four pairs.
    assert found.mcnemar_p == pytest.approx(stats.binomtest(0, 4).pvalue)
    assert (found.difference.n, found.conditional.n) == (6, 1)
    assert found.conditional.mean == pytest.approx(1.2 - 1.5)
    assert compared(LOW, HIGH).mcnemar_p == 1
    assert compared(LOW, HIGH).conditional == compared(LOW, HIGH).difference
    assert math.isnan(compared([], []).mcnemar_p)


@pytest.mark.parametrize(
    ("first", "second", "verdict"),
    [
        ([26] * 3, [28] * 3, "undecided"),  # as far apart as two evaluations
        ([20] * 3, [28] * 3, "same direction, other size"),
        ([20, 30, 20], [66, 74, 65], "reproduced so far"),
        ([28] * 3, [20] * 3, "contradicted"),
        # A run that never gets there counts against the ordering, whichever it is, and never for it.
        ([20] * 3, [28, 28, None], "undecided"),
        ([20, 20, None], [28] * 3, "undecided"),
        ([28], [20], "undecided"),
        ([28, None, None], [20] * 3, "undecided"),
        (
            [20, 21, 22, 20, 21, 22, 21, 20, 20, None],
            [66, 65, 64, 66, 65, 67, 66, 64, 65, 66],
            "reproduced",
        ),
    ],
)
def test_epochs_have_their_raster_and_missing_pairs_count_against_the_ordering(first, second, verdict):
    found = compared(first, second, published=-45.0, raster=2.0)
    assert found.verdict == verdict
    assert found.p_value > 0 or math.isnan(found.p_value)
    if None in first + second and found.difference.n > 1:
        assert found.p_value > found.difference.p
    if verdict in DECIDED:
        assert found.p_value < 0.05


def test_a_missing_pair_of_epochs_is_a_difference_as_large_as_the_largest():
    found = compared([20, 24, 22, 21, 20, 23, None], [60, 66, 62, 61, 65, 60, 64], raster=2.0)
    beyond = [-38, -40, -38, -38, -43, -35]
    assert found.sign_flip_p == pytest.approx(
        np.mean([abs(np.dot(signs, [*beyond, 43])) >= 189 for signs in itertools.product((-1, 1), repeat=7)])
    )
    assert found.difference.mean == pytest.approx(np.mean([-40, -42, -40, -40, -45, -37]))


def test_the_runs_decide_raster_collapse_and_steps(study):
    for seed, (active, kl) in enumerate(((0, 138.0), (9, 4.9), (9, 5.1))):
        study.add("mnist/fixed/silent-gaussian", seed=seed, threshold_bpd=6.73)
        study.add("mnist/fixed/reparameterization", seed=seed, active_units=active, kl=kl, evaluate_every=3)
    epochs = study.claims["silent-gaussian", "reparameterization", "epochs_to_threshold"]
    assert (epochs.method.raster, epochs.baseline.raster) == (1, 3)
    # Saturated, or next to the prior.
    assert epochs.baseline.collapsed == {0: True, 1: True, 2: False}
    assert study.claims["silent-gaussian", "reparameterization", "bpd"].baseline.raster == 0


@pytest.mark.parametrize(
    ("changes", "steps"),
    [
        ({}, ("", "")),
        ({"epochs": 60}, ("60 epochs", "20 epochs")),
        ({"batch_size": 32}, ("batches of 32", "batches of 64")),
        ({"data__holdout": 100, "epochs": 30}, ("30 epochs, 100 images set aside", "20 epochs, 200 images set aside")),
    ],
)
def test_methods_with_different_numbers_of_steps_are_marked_wherever_they_are_compared(study, changes, steps):
    study.add_seeds(WITH, LOW, **changes)
    study.add_seeds(WITHOUT, HIGH)
    claim = study.claims[BPD]
    assert claim.steps == steps
    table = study.tables["claims"]
    assert table.data[["steps_first", "steps_second"]].to_numpy().tolist() == [list(steps)] * 2
    names = zip(("REINFORCE + SG", "REINFORCE"), steps, strict=True)
    marked = [f"{name}{f' ({words})' if words else ''}" for name, words in names]
    assert list(labels(claim)) == marked
    assert table.parts[0].frame["Ordering"].tolist() == [" < ".join(marked), " > ".join(marked)]
    methods = study.tables["table-3-bits-per-dimension"].parts[0].frame["Method"]
    assert methods.tolist() == marked[::-1]


def test_published_numbers_decide_over_the_text(study):
    # On CIFAR-10 the published KL of Gumbel-Softmax falls with SG, 446.75 to 442.58, against the paper's text.
    study.planned = ("cifar10/learnable/gumbel-softmax+silent", "cifar10/learnable/gumbel-softmax", WITH, WITHOUT)
    claim = study.claims["gumbel-softmax+silent", "gumbel-softmax", "kl"]
    assert (claim.expected, claim.basis, claim.verdict) == (-1, "published numbers", "not measured")
    assert claim.published_difference == pytest.approx(-4.17)
    kl = study.claims["reinforce+silent", "reinforce", "kl"]
    assert (kl.expected, kl.basis) == (1, "text")
    assert math.isnan(kl.published_difference)


def test_every_ordering_of_the_paper_is_checked(study):
    study.planned = tuple(f"mnist/fixed/{name}" for name in FIXED)
    metrics = ("bpd", "mse_sampled_clamped")
    others = [("silent-gaussian", "reparameterization"), ("silent-bernoulli", "gumbel-softmax")]
    others.append(("silent-bernoulli", "reinforce"))
    epochs = ("silent-gaussian", "reparameterization", "epochs_to_threshold")
    assert set(study.claims) == {(*pair, metric) for pair in others for metric in metrics} | {epochs}
    assert study.claims[epochs].published_difference == 45 - 90
    # Published epochs are those to 6.73 bits/dim.
    for threshold, published in ((6.73, -45), (6.8, math.nan)):
        study.records.clear()
        study.add(
            "mnist/fixed/silent-gaussian", threshold_bpd=threshold, name=f"mnist/fixed/silent-gaussian/{threshold}"
        )
        assert study.claims[epochs].published_difference == pytest.approx(published, nan_ok=True)


def test_a_silent_guide_against_a_sampled_one_is_a_claim_of_ours(study):
    for ending, bpd, slope in (("", 2.5, 1), ("+silent", 2.0, 1.01), ("+sampled", 2.2, 1)):
        study.add_seeds(f"{WITHOUT}{ending}", [bpd + slope * seed for seed in range(3)])
    found = study.claims
    ours = found["reinforce+silent", "reinforce+sampled", "bpd"]
    assert (ours.expected, ours.basis, ours.of_the_paper, ours.verdict) == (-1, "ours", False, "same direction")
    assert ours.difference.mean == pytest.approx(-0.19)
    papers = {key for key, claim in found.items() if claim.of_the_paper}
    assert papers == {BPD, ("reinforce+silent", "reinforce", "kl")}
    assert len(found) == 3


def test_a_silent_gradient_of_two_layers_is_compared_with_sampled_ones(study):
    study.planned = tuple(f"digits/two-layer/{name}" for name in ("silent-bernoulli", "gumbel-softmax", "rloo"))
    ((key, claim),) = study.claims.items()
    assert key == ("silent-bernoulli", "gumbel-softmax", "bpd")
    assert (claim.expected, claim.basis) == (-1, "ours")


def test_the_paper_claims_nothing_of_what_is_beyond_it(study):
    names = [f"digits/learnable/{name}" for name in ("rloo", "rloo+silent", "reinforce", "silent-gaussian")]
    names += [f"digits/log-linear/{name}" for name in ("silent-bernoulli", "reinforce", "reparameterization")]
    study.planned = tuple(names)
    assert study.claims == {}


def test_every_metric_is_a_family_and_ours_another(study):
    gains, kls = (0.40, 0.50, 0.42), (1.0, 9.0, 4.0)
    for seed, (gain, kl) in enumerate(zip(gains, kls, strict=True)):
        study.add(WITHOUT, seed=seed, bpd=3.0, kl=20)
        study.add(WITH, seed=seed, bpd=3.0 - gain, kl=20 + kl)
        study.add(f"{WITHOUT}+sampled", seed=seed, bpd=3.0 - gain / 2, kl=20)
        study.add("digits/learnable/silent-bernoulli", seed=seed, bpd=3.0 - (0.3, 0.5, 0.4)[seed])
    found = study.claims
    bpd, kl = found[BPD], found["reinforce+silent", "reinforce", "kl"]
    alone = found["silent-bernoulli", "reinforce", "bpd"]
    ours = found["reinforce+silent", "reinforce+sampled", "bpd"]
    assert [claim.family for claim in (bpd, alone, kl, ours)] == ["bits/dim", "bits/dim", "KL", "ours"]
    assert bpd.p_value == pytest.approx(stats.ttest_1samp(gains, 0).pvalue)
    assert kl.p_value == pytest.approx(stats.ttest_1samp(kls, 0).pvalue)
    assert bpd.p_value < alone.p_value
    assert (bpd.adjusted, alone.adjusted) == pytest.approx((2 * bpd.p_value, max(2 * bpd.p_value, alone.p_value)))
    assert (kl.adjusted, ours.adjusted) == pytest.approx((kl.p_value, ours.p_value))
    assert (bpd.verdict, bpd.survives, kl.verdict, kl.survives) == ("same direction", True, "undecided", False)


def test_an_ordering_may_be_decided_alone_and_not_survive_the_correction(study):
    for seed, gain in enumerate((0.3, 0.5, 0.4)):
        for dataset in ("digits", "tiny_imagenet32"):
            study.add(f"{dataset}/fixed/silent-bernoulli", seed=seed, bpd=3.0 - gain, mse=3)
            for other in ("reinforce", "gumbel-softmax"):
                study.add(f"{dataset}/fixed/{other}", seed=seed, bpd=3.0 + gain, mse=3 + gain)
    for claim in study.claims.values():
        # Each p is 2 P(t > 0.4 sqrt(3) / 0.1) with two degrees of freedom, 0.0202; a family has four over both sets.
        assert (claim.p_value, claim.adjusted) == pytest.approx((0.0202, 4 * 0.0202), abs=2e-4)
        assert (claim.verdict, claim.survives) == ("same direction", False)
