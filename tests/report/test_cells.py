"""What became of a cell."""

import pytest

CELL = "digits/fixed/reinforce"


def test_cells_come_in_the_papers_order_with_those_never_run(study):
    names = [f"digits/learnable/{name}" for name in ("reinforce", "reparameterization+silent", "silent-gaussian")]
    study.planned = (*names, "digits/fixed/gumbel-softmax")
    study.add(names[0])
    study.add(names[2])
    assert [cell.name for cell in study.cells] == ["digits/fixed/gumbel-softmax", names[2], names[1], names[0]]
    expected = ["not run", "1 of 3 seeds run", "not run", "1 of 3 seeds run"]
    assert [cell.status for cell in study.cells] == expected


def test_a_status_names_everything_that_limits_the_numbers(study):
    study.add(CELL, seed=0, diverged_epoch=17)
    study.add(CELL, seed=1, diverged_epoch=5)
    study.add(CELL, seed=2, flattened=False, revision="b" * 16)
    (found,) = study.cells
    assert (
        found.status
        == "diverged (2 of 3, epochs 5, 17); not flattened (1 of 3); source code differs, accepted as equal"
    )
    assert [run.seed for run in found.evaluated] == [2]


@pytest.mark.parametrize(
    ("made", "status"),
    [
        ({}, "complete"),
        ({"versions": {"torch": "2.16.0"}}, "versions of torch differ"),
        ({"device": "cuda"}, "processors differ"),
        ({"hardware": "a synthetic processor, AVX2"}, "processors differ"),
        ({"float32": {"products": "tf32"}}, "precisions of float32 differ"),
        ({"seconds": 40.0, "source": {"revision": "b" * 16, "modified": True}}, "complete"),
    ],
)
def test_a_status_names_what_made_the_runs_of_one_mean_unlike(study, made, status):
    for seed in range(3):
        study.add(CELL, seed=seed, made=made if seed == 1 else None)
    assert [cell.status for cell in study.cells] == [status]


def test_a_run_that_says_next_to_nothing_of_an_image_has_collapsed(study):
    # Saturated at one code, with all of its KL; near to the prior, in every unit a little.
    for seed, (active, kl) in enumerate(((0, 138.6), (3, 5.0), (14, 4.99))):
        study.add(CELL, seed=seed, active_units=active, kl=kl)
    (found,) = study.cells
    assert found.status == "collapsed (2 of 3)"
    assert found.collapsed == {0: True, 1: False, 2: True}


def test_grid_runs_do_not_enter_a_cell(study):
    study.options["seeds"] = (0,)
    study.add(CELL, ("baselines", "seeds"), seed=0, bpd=2.0)
    study.add(CELL, ("baselines",), seed=0, bpd=9.0, learning_rate=1e-4)
    (found,) = study.cells
    assert found.values("bpd") == {0: 2.0}
    assert found.status == "complete"


def test_a_cell_whose_whole_grid_diverged_says_so(study):
    study.planned = (CELL,)
    study.options["selections"] = {CELL: {"status": "diverged", "configurations": 4, "bpd": None}}
    (found,) = study.cells
    assert found.status == "diverged (every grid point)"


def test_what_is_beyond_the_paper_comes_after_it(study):
    names = ("rloo", "reinforce+sampled", "reinforce", "reparameterization+sampled", "silent-bernoulli")
    study.planned = tuple(f"digits/learnable/{name}" for name in names)
    ordered = ["silent-bernoulli", "reinforce", "reparameterization+sampled", "reinforce+sampled", "rloo"]
    assert [cell.method.name for cell in study.cells] == ordered
    assert [cell.method.beyond for cell in study.cells] == [False, False, True, True, True]
