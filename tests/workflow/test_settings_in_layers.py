"""Settings of params.yaml, of --configfile and of --config: one meaning for Snakemake and for the verbs."""

import json

import pytest
from tests.workflow.repository import TINY, Repository

pytestmark = pytest.mark.timeout(1200)

LAYERS = [
    {"grid": {"learning_rate": [0.1]}, "overrides": {"reparameterization": {"epochs": 9, "weight_decay": 0.5}}},
    {"epochs": 3, "snapshot_epochs": [3], "overrides": {"reparameterization": {"batch_size": 32}}},
    {"batch_size": 64, "overrides": {"silent-gaussian": {"weight_decay": 0.6}}},
]
"""The section of ``fixed`` in params.yaml, in a file of --configfile and in --config."""

MEANT = LAYERS[0] | LAYERS[1] | LAYERS[2]
MEANT["overrides"] = {"reparameterization": {"weight_decay": 0.5}, "silent-gaussian": {"weight_decay": 0.6}}


def test_what_stands_closer_beats_overrides_that_stand_farther(tmp_path):
    repository = Repository.make(tmp_path, tiny=TINY)
    own, first, last, meant = ({"fixed": {"digits": section}} for section in (*LAYERS, MEANT))
    (repository.root / "one.yaml").write_text(json.dumps({"experiments": first}))
    (repository.root / "two.yaml").write_text("seeds: [5]\n")
    options = ("--configfile", "one.yaml", "two.yaml", "--config", f"experiments={json.dumps(last)}")
    repository.configure(experiments=own)
    jobs = repository.run("snakemake", "--dry-run", *options, "--", "all")
    lines = repository.run("silent-gradients", "plan", *options)
    repository.configure(experiments=meant, seeds=[5])
    assert lines == repository.run("silent-gradients", "plan")
    (pack,) = repository.plan.packs("baselines", {}, "digits/fixed")
    assert f"results/packs/baselines/digits/fixed/{pack.id}.json" in jobs
    found = {(run.method, run.weight_decay, run.epochs, run.batch_size) for run in pack.members}
    assert found == {("reparameterization", 0.5, 3, 64), ("silent-gaussian", 0.6, 3, 64)}
