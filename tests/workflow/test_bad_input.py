"""Messages on bad input take a line or two and name how to fix it, and the fix works."""

import re
import shutil

import pytest
from tests.workflow.repository import LITERAL, RATES, TINY

from silent_study.store.manifests import verified_runs
from silent_study.store.runs import RunStore, StoreError

pytestmark = pytest.mark.timeout(1200)

GRID_CELL = "digits/fixed/reparameterization"


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        ("preset: tniy\n", ["'tniy' (did you mean 'tiny'?)"]),
        ("preset: tiny\nseeds: [0, 1\n", ["params.yaml: invalid YAML", "line 3, column 1"]),
        ("preset: tiny\nsedes: [0]\n", ["sedes: unknown key (did you mean 'seeds'?)"]),
        ("preset: tiny\nseeds: [0, -1]\n", ["seeds.1: input should be greater than or equal to 0, got -1"]),
    ],
)
def test_settings_that_cannot_be_are_named(finished, repository, text, messages):
    (repository.root / "params.yaml").write_text(text)

    output = repository.fail(*LITERAL)

    for message in messages:
        assert message in output
    assert len(output.splitlines()) < 15
    assert repository.times() == finished.times()


def test_a_configfile_is_read_as_strictly_as_params_yaml(finished, repository):
    (repository.root / "other.yaml").write_text("protocol: paper\nseeds: [010]\n")
    output = repository.fail("snakemake", "--dry-run", "--configfile", "other.yaml", "--", "all")
    assert "other.yaml: YAML reads 010 in line 2 as an octal number; write it without the leading zero" in output
    assert repository.times() == finished.times()


def verification_error(repository):
    """Return the lines of the message with which the gathering refuses the store."""
    with pytest.raises(StoreError) as error:
        verified_runs(RunStore(repository.results / "store"), repository.packs(), repository.plan.manifest)
    return str(error.value).splitlines()


def test_the_message_on_a_lost_store_is_short(repository):
    shutil.rmtree(repository.results / "store")
    *problems, more, remedy = verification_error(repository)
    assert len(problems) == 10
    assert more == "... and 1 more"
    assert remedy.count("snakemake") == 3


def test_the_command_that_a_message_names_repairs_the_store(repository):
    metrics = (repository.results / "metrics.json").read_bytes()
    rate = repository.selection()[GRID_CELL]["point"]["learning_rate"]
    # A point of the grid that is also among the selected runs, so that packs of two rounds promise it.
    lost = repository.run_folder(GRID_CELL, learning_rate=rate, seed=0)
    shutil.rmtree(lost)

    output = repository.fail("silent-gradients", "gather")

    assert f"{lost.name}: no finished run in" in output
    assert "Traceback" not in output
    (command,) = re.findall(r"remake what is missing or wrong with: (snakemake .*)", output)
    repository.run("bash", "-ec", command)
    repository.run("silent-gradients", "gather")
    assert lost.exists()
    assert (repository.results / "metrics.json").read_bytes() == metrics


def test_diverging_runs_do_not_stop_the_others(repository):
    repository.set_rates("fixed", [*RATES, 1e9])
    before = repository.runs()

    output = repository.run(*LITERAL)

    # Two points more, both diverged; what is selected of the others stays.
    assert len(repository.runs() - before) == 2
    assert "2 diverged" in output
    for method in ("silent-gaussian", "reparameterization"):
        chosen = repository.selection()[f"digits/fixed/{method}"]
        assert (chosen["status"], chosen["diverged"], chosen["configurations"]) == ("selected", 1, 3)
    grid = (repository.results / "tables" / "grid.csv").read_text()
    assert len(re.findall(r"diverged", grid)) == 2
    assert repository.metrics()["digits"]["fixed"]["reparameterization"]["seeds"] == 2


def test_data_that_cannot_be_obtained_are_named_and_stop_nothing_else(repository):
    mirror = repository.root / "a mirror; with a 'name'"
    raw = mirror / "MNIST" / "raw"
    raw.mkdir(parents=True)
    fixed = {"mnist": TINY["experiments"]["fixed"]["digits"], "digits": {"grid": {"learning_rate": [*RATES, 0.03]}}}
    repository.configure(data={"mirror": str(mirror)}, experiments={"fixed": fixed})
    before = repository.runs()

    # No network, and a mirror without the files.
    output = repository.fail(*LITERAL)

    assert "mnist: its raw files could not be obtained" in output
    assert f"{mirror}: no MNIST/raw/train-images-idx3-ubyte.gz and 1 more" in output
    assert "train-images-idx3-ubyte.gz: no connection" in output
    assert "Traceback" not in output
    # What needs no such data has been trained, its selected points with every seed.
    plan, group = repository.plan, "digits/fixed"
    asked = {
        run.name
        for round_ in plan.rounds(group)
        for pack in plan.packs(round_, plan.selections(round_, group), group)
        for run in pack.members
    }
    assert {name for name in repository.runs() if name.startswith(group)} >= asked
    assert {name.split("/")[0] for name in repository.runs() - before} == {"digits"}

    # A mirror with files of that name.
    for name in ("train-images-idx3-ubyte.gz", "t10k-images-idx3-ubyte.gz"):
        (raw / name).write_bytes(b"something else")
    output = repository.fail(*LITERAL)
    assert "train-images-idx3-ubyte.gz: expected sha256 440fcabf" in output
    assert "remove or replace it" in output
    assert not (repository.root / "data" / "prepared" / "mnist" / "manifest.json").exists()
