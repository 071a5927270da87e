"""Paired differences and verdicts, against scipy's paired test."""

import numpy as np
import pytest
from scipy import stats
from tests.report.conftest import FIXED

WITH, WITHOUT = "digits/learnable/reinforce+silent", "digits/learnable/reinforce"
BPD = ("reinforce+silent", "reinforce", "bpd")


@pytest.fixture
def paired(study):
    """A study of pairs of bounds, with and without the silent gradient, by seed."""

    def make(pairs):
        study.planned = (WITH, WITHOUT)
        for cell, bounds in zip(study.planned, zip(*pairs, strict=True), strict=True):
            study.add_seeds(cell, bounds)
        return study.claims[BPD]

    return make


def test_the_difference_is_paired_by_seed(paired):
    values = [(2.0, 2.4), (3.0, 3.5), (4.0, 4.3)]
    claim = paired(values)
    interval = stats.ttest_rel(*np.array(values).T).confidence_interval(0.95)
    assert claim.difference.mean == pytest.approx(-0.4)
    assert (claim.difference.low, claim.difference.high) == pytest.approx((interval.low, interval.high))
    assert claim.difference.n == 3


@pytest.mark.parametrize(
    ("pairs", "verdict"),
    [
        # Unpaired, seeds that differ by whole bits would hide a difference of 0.4.
        ([(2.0, 2.4), (3.0, 3.5), (4.0, 4.3)], "holds"),
        ([(2.4, 2.0), (3.5, 3.0), (4.3, 4.0)], "fails"),
        ([(2.0, 2.4), (2.0, 1.9), (2.0, 2.1)], "undecided"),
        ([(1.0, 2.0)], "undecided"),
    ],
)
def test_the_verdict_follows_the_interval(paired, pairs, verdict):
    assert paired(pairs).verdict == verdict


def test_without_a_pair_nothing_is_measured(study):
    study.planned = (WITH, WITHOUT)
    assert {claim.verdict for claim in study.claims.values()} == {"not measured"}


def test_a_higher_kl_is_expected(study):
    for seed, gain in enumerate((5.0, 6.0, 5.5)):
        study.add(WITH, seed=seed, kl=20 + gain)
        study.add(WITHOUT, seed=seed, kl=20)
    claim = study.claims["reinforce+silent", "reinforce", "kl"]
    assert (claim.expected, claim.verdict, claim.basis) == (1, "holds", "text")


def test_a_diverged_seed_has_no_pair(paired, study):
    paired([(2.0, 2.4), (2.0, 2.5)])
    study.add(WITH, seed=2, bpd=1.0)
    study.add(WITHOUT, seed=2, diverged_epoch=3)
    claim = study.claims[BPD]
    assert (claim.difference.n, claim.unpaired) == (2, 1)
    assert claim.difference.mean == pytest.approx(-0.45)


def test_published_numbers_decide_over_the_text(study):
    # On CIFAR-10 the published KL of Gumbel-Softmax falls with SG, 446.75 to 442.58, against the paper's text.
    study.planned = ("cifar10/learnable/gumbel-softmax+silent", "cifar10/learnable/gumbel-softmax")
    claim = study.claims["gumbel-softmax+silent", "gumbel-softmax", "kl"]
    assert (claim.expected, claim.basis) == (-1, "published numbers")
    assert claim.published_difference == pytest.approx(-4.17)


def test_every_ordering_of_the_paper_is_checked(study):
    study.planned = tuple(f"mnist/fixed/{name}" for name in FIXED)
    metrics = ("bpd", "mse_sampled_clamped")
    others = [("silent-gaussian", "reparameterization"), ("silent-bernoulli", "gumbel-softmax")]
    others.append(("silent-bernoulli", "reinforce"))
    epochs = ("silent-gaussian", "reparameterization", "epochs_to_threshold")
    assert set(study.claims) == {(*pair, metric) for pair in others for metric in metrics} | {epochs}
    assert study.claims[epochs].published_difference == 45 - 90


def test_a_silent_guide_against_a_sampled_one_is_a_claim_of_ours(study):
    for ending, bpd, slope in (("", 2.5, 1), ("+silent", 2.0, 1.01), ("+sampled", 2.2, 1)):
        study.add_seeds(f"{WITHOUT}{ending}", [bpd + slope * seed for seed in range(3)])
    found = study.claims
    ours = found["reinforce+silent", "reinforce+sampled", "bpd"]
    assert (ours.expected, ours.basis, ours.of_the_paper, ours.verdict) == (-1, "ours", False, "holds")
    assert ours.difference.mean == pytest.approx(-0.19)
    papers = {key for key, claim in found.items() if claim.of_the_paper}
    assert papers == {BPD, ("reinforce+silent", "reinforce", "kl")}
    assert len(found) == 3


def test_the_paper_claims_nothing_of_what_is_beyond_it(study):
    names = [f"digits/learnable/{name}" for name in ("rloo", "rloo+silent", "reinforce", "silent-gaussian")]
    names += [f"digits/log-linear/{name}" for name in ("silent-bernoulli", "reinforce", "reparameterization")]
    study.planned = tuple(names)
    assert study.claims == {}


def test_the_correction_is_over_all_of_the_papers_claims_and_ours_apart(study):
    gains, kls = (0.40, 0.50, 0.42), (1.0, 9.0, 4.0)
    for seed, (gain, kl) in enumerate(zip(gains, kls, strict=True)):
        study.add(WITHOUT, seed=seed, bpd=3.0, kl=20)
        study.add(WITH, seed=seed, bpd=3.0 - gain, kl=20 + kl)
        study.add(f"{WITHOUT}+sampled", seed=seed, bpd=3.0 - gain / 2, kl=20)
    found = study.claims
    bpd, kl = found[BPD], found["reinforce+silent", "reinforce", "kl"]
    ours = found["reinforce+silent", "reinforce+sampled", "bpd"]
    assert bpd.p_value == pytest.approx(stats.ttest_1samp(gains, 0).pvalue)
    assert kl.p_value == pytest.approx(stats.ttest_1samp(kls, 0).pvalue)
    assert (bpd.adjusted, kl.adjusted) == pytest.approx((2 * bpd.p_value, kl.p_value))
    assert ours.adjusted == pytest.approx(ours.p_value)
    assert (bpd.verdict, bpd.survives, kl.verdict, kl.survives) == ("holds", True, "undecided", False)


def test_an_ordering_may_hold_alone_and_not_survive_the_correction(study):
    for seed, gain in enumerate((0.3, 0.5, 0.4)):
        study.add("digits/fixed/silent-bernoulli", seed=seed, bpd=3.0 - gain, mse=3)
        for other in ("reinforce", "gumbel-softmax"):
            study.add(f"digits/fixed/{other}", seed=seed, bpd=3.0 + gain, mse=3 + gain)
    assert len(study.claims) == 4
    for claim in study.claims.values():
        # Each p is 2 P(t > 0.4 sqrt(3) / 0.1) with two degrees of freedom, 0.0202.
        assert (claim.p_value, claim.adjusted) == pytest.approx((0.0202, 4 * 0.0202), abs=2e-4)
        assert (claim.verdict, claim.survives) == ("holds", False)
