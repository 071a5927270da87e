"""Paired differences and verdicts, against scipy's paired test."""

import numpy as np
import pytest
from scipy import stats

from silent_study.report.claims import claims
from silent_study.report.summary import cells

WITH, WITHOUT = "digits/learnable/reinforce+silent", "digits/learnable/reinforce"


def orderings(builder, make_context, names=(WITH, WITHOUT)):
    found = claims(cells(builder.records, make_context(names)))
    return {(claim.first.method.name, claim.second.method.name, claim.metric): claim for claim in found}


def add_pairs(builder, first, second, values, **options):
    for seed, (a, b) in enumerate(values):
        builder.add(first, seed=seed, bpd=a, **options)
        builder.add(second, seed=seed, bpd=b, **options)


def test_the_difference_is_paired_by_seed(builder, make_context):
    values = [(2.0, 2.4), (3.0, 3.5), (4.0, 4.3)]
    add_pairs(builder, WITH, WITHOUT, values)
    claim = orderings(builder, make_context)["reinforce+silent", "reinforce", "bpd"]
    first, second = np.array(values).T
    interval = stats.ttest_rel(first, second).confidence_interval(0.95)
    assert claim.difference.mean == pytest.approx(-0.4)
    assert (claim.difference.low, claim.difference.high) == pytest.approx((interval.low, interval.high))
    assert claim.difference.n == 3
    # Unpaired, seeds that differ by whole bits would hide a difference of 0.4.
    assert claim.verdict == "holds"


def test_the_verdict_flips_with_the_sign(builder, make_context):
    add_pairs(builder, WITH, WITHOUT, [(2.4, 2.0), (3.5, 3.0), (4.3, 4.0)])
    found = orderings(builder, make_context)
    assert found["reinforce+silent", "reinforce", "bpd"].verdict == "fails"


def test_a_higher_kl_is_expected(builder, make_context):
    for seed, gain in enumerate((5.0, 6.0, 5.5)):
        builder.add(WITH, seed=seed, kl=20 + gain)
        builder.add(WITHOUT, seed=seed, kl=20)
    claim = orderings(builder, make_context)["reinforce+silent", "reinforce", "kl"]
    assert (claim.expected, claim.verdict, claim.basis) == (1, "holds", "text")


def test_an_interval_over_zero_decides_nothing(builder, make_context):
    add_pairs(builder, WITH, WITHOUT, [(2.0, 2.4), (2.0, 1.9), (2.0, 2.1)])
    assert orderings(builder, make_context)["reinforce+silent", "reinforce", "bpd"].verdict == "undecided"


def test_one_pair_decides_nothing_and_none_is_not_measured(builder, make_context):
    add_pairs(builder, WITH, WITHOUT, [(1.0, 2.0)])
    assert orderings(builder, make_context)["reinforce+silent", "reinforce", "bpd"].verdict == "undecided"
    empty = claims(cells([], make_context([WITH, WITHOUT])))
    assert {claim.verdict for claim in empty} == {"not measured"}


def test_a_diverged_seed_has_no_pair(builder, make_context):
    add_pairs(builder, WITH, WITHOUT, [(2.0, 2.4), (2.0, 2.5)])
    builder.add(WITH, seed=2, bpd=1.0)
    builder.add(WITHOUT, seed=2, diverged_epoch=3)
    claim = orderings(builder, make_context)["reinforce+silent", "reinforce", "bpd"]
    assert (claim.difference.n, claim.unpaired) == (2, 1)
    assert claim.difference.mean == pytest.approx(-0.45)


def test_published_numbers_decide_over_the_text(builder, make_context):
    # On CIFAR-10 the published KL of Gumbel-Softmax falls with SG, 446.75 to 442.58, against the paper's text.
    names = ("cifar10/learnable/gumbel-softmax+silent", "cifar10/learnable/gumbel-softmax")
    found = orderings(builder, make_context, names)
    claim = found["gumbel-softmax+silent", "gumbel-softmax", "kl"]
    assert (claim.expected, claim.basis) == (-1, "published numbers")
    assert claim.published_difference == pytest.approx(-4.17)


def test_every_ordering_of_the_paper_is_asked_for(make_context):
    fixed = [f"mnist/fixed/{name}" for name in ("silent-gaussian", "reparameterization", "silent-bernoulli")]
    fixed += ["mnist/fixed/gumbel-softmax", "mnist/fixed/reinforce"]
    asked = {(claim.first.method.name, claim.metric) for claim in claims(cells([], make_context(fixed)))}
    assert asked == {
        ("silent-gaussian", "bpd"),
        ("silent-gaussian", "mse_sampled_clamped"),
        ("silent-gaussian", "epochs_to_threshold"),
        ("silent-bernoulli", "bpd"),
        ("silent-bernoulli", "mse_sampled_clamped"),
    }
    (epochs,) = [c for c in claims(cells([], make_context(fixed))) if c.metric == "epochs_to_threshold"]
    assert epochs.published_difference == 45 - 90


def test_a_silent_guide_against_a_sampled_one_is_a_claim_of_ours(builder, make_context):
    names = [f"digits/learnable/reinforce{ending}" for ending in ("", "+silent", "+sampled")]
    for seed in range(3):
        for name, bpd in zip(names, (2.5, 2.0, 2.2), strict=True):
            builder.add(name, seed=seed, bpd=bpd + seed * (1 + 0.01 * (name == names[1])))
    found = orderings(builder, make_context, names)
    ours = found["reinforce+silent", "reinforce+sampled", "bpd"]
    assert (ours.expected, ours.basis, ours.of_the_paper, ours.verdict) == (-1, "ours", False, "holds")
    assert ours.difference.mean == pytest.approx(-0.19)
    papers = {key for key, claim in found.items() if claim.of_the_paper}
    assert papers == {("reinforce+silent", "reinforce", "bpd"), ("reinforce+silent", "reinforce", "kl")}
    assert len(found) == 3


def test_the_paper_claims_nothing_of_what_is_beyond_it(make_context):
    names = [f"digits/learnable/{name}" for name in ("rloo", "rloo+silent", "reinforce", "silent-gaussian")]
    names += [f"digits/log-linear/{name}" for name in ("silent-bernoulli", "reinforce", "reparameterization")]
    assert claims(cells([], make_context(names))) == []


def test_the_correction_is_over_all_of_the_papers_claims_and_ours_apart(builder, make_context):
    names = [f"digits/learnable/{name}" for name in ("reinforce", "reinforce+silent", "reinforce+sampled")]
    for seed, (gain, kl) in enumerate(((0.40, 1.0), (0.50, 9.0), (0.42, 4.0))):
        builder.add(names[0], seed=seed, bpd=3.0, kl=20)
        builder.add(names[1], seed=seed, bpd=3.0 - gain, kl=20 + kl)
        builder.add(names[2], seed=seed, bpd=3.0 - gain / 2, kl=20)
    found = orderings(builder, make_context, names)
    bpd, kl = (found["reinforce+silent", "reinforce", metric] for metric in ("bpd", "kl"))
    ours = found["reinforce+silent", "reinforce+sampled", "bpd"]
    assert bpd.p_value == pytest.approx(stats.ttest_1samp([0.40, 0.50, 0.42], 0).pvalue)
    assert kl.p_value == pytest.approx(stats.ttest_1samp([1, 9, 4], 0).pvalue)
    assert (bpd.adjusted, kl.adjusted) == pytest.approx((2 * bpd.p_value, kl.p_value))
    assert ours.adjusted == pytest.approx(ours.p_value)
    assert (bpd.verdict, bpd.survives, kl.verdict, kl.survives) == ("holds", True, "undecided", False)


def test_an_ordering_may_hold_alone_and_not_survive_the_correction(builder, make_context):
    names = [f"digits/fixed/{name}" for name in ("silent-bernoulli", "reinforce", "gumbel-softmax")]
    for seed, gain in enumerate((0.3, 0.5, 0.4)):
        builder.add(names[0], seed=seed, bpd=3.0 - gain, mse=3)
        for other in names[1:]:
            builder.add(other, seed=seed, bpd=3.0 + gain, mse=3 + gain)
    found = orderings(builder, make_context, names)
    assert len(found) == 4
    for claim in found.values():
        # Each p is 2 P(t > 0.4 sqrt(3) / 0.1) with two degrees of freedom, 0.0202.
        assert (claim.p_value, claim.adjusted) == pytest.approx((0.0202, 4 * 0.0202), abs=2e-4)
        assert (claim.verdict, claim.survives) == ("holds", False)
