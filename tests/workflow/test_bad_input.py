"""What is wrong is said in a line or two, with the way out, and the way out works."""

import re
import shutil

import pytest
from tests.workflow.repository import LITERAL, RATES, TINY, folder_of

from silent_study.store.manifests import verified_runs
from silent_study.store.runs import RunStore, StoreError

pytestmark = pytest.mark.timeout(1200)

GRID_CELL, CELL = "digits/fixed/reparameterization", "digits/learnable/reparameterization"


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        ("preset: tniy\n", ["'tniy' (did you mean 'tiny'?)"]),
        ("preset: tiny\nseeds: [0, 1\n", ["params.yaml: invalid YAML", "line 3, column 1"]),
        (
            "preset: tiny\nsedes: [0]\nseeds: [0, -1]\n",
            [
                "sedes: unknown key (did you mean 'seeds'?)",
                "seeds.1: input should be greater than or equal to 0, got -1",
            ],
        ),
    ],
)
def test_settings_that_cannot_be_are_named(finished, repository, text, messages):
    (repository.root / "params.yaml").write_text(text)

    output = repository.fail(*LITERAL)

    for message in messages:
        assert message in output
    assert len(output.splitlines()) < 15
    assert repository.times() == finished.repository.times()


def _flip_a_byte(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _alter_result(repository):
    path = repository.run_folder(GRID_CELL, learning_rate=RATES[0], seed=0) / "result.json"
    _flip_a_byte(path)
    return path.parent, "expected sha256"


def _alter_weights(repository):
    path = repository.run_folder(CELL, seed=1) / "weights.pt"
    _flip_a_byte(path)
    return path.parent, "expected sha256"


def _lose_run(repository):
    folder = repository.run_folder(CELL, seed=1)
    shutil.rmtree(folder)
    return folder, "no finished run"


def _put_foreign_run(repository):
    own, other = (repository.run_folder(GRID_CELL, learning_rate=rate, seed=0) for rate in RATES)
    shutil.rmtree(own)
    shutil.copytree(other, own)
    return own, "expected run"


def _lose_evaluation(repository):
    path = repository.run_folder(CELL, seed=1) / "evaluation.json"
    path.unlink()
    return path.parent, "not the evaluation"


def _alter_pictures(repository):
    path = repository.run_folder(CELL, seed=1) / "reconstructions.npz"
    _flip_a_byte(path)
    return path.parent, "not those that evaluation.json names"


@pytest.mark.parametrize(
    "damage", [_alter_result, _alter_weights, _lose_run, _put_foreign_run, _lose_evaluation, _alter_pictures]
)
def test_a_run_that_is_not_what_was_promised_is_named(repository, damage):
    folder, wrong = damage(repository)

    with pytest.raises(StoreError) as error:
        verified_runs(RunStore(repository.results / "store"), repository.packs(), repository.plan.manifest)

    problem, remedy = str(error.value).splitlines()
    assert folder.name in problem
    assert wrong in problem
    for manifest in re.findall(r"\S+\.json", remedy):
        assert folder.name in (repository.root / manifest).read_text()
    assert "snakemake --cores all --resources gpu=8 --force -- " in remedy


def test_a_manifest_of_other_runs_is_named(repository):
    first, *_, last = (repository.plan.manifest(pack) for pack in repository.packs())
    shutil.copy(last, first)
    with pytest.raises(StoreError, match=re.escape(f"{first}: it lists other runs than the plan asks for")):
        verified_runs(RunStore(repository.results / "store"), repository.packs(), repository.plan.manifest)


def test_a_store_that_is_gone_is_told_in_few_lines(repository):
    shutil.rmtree(repository.results / "store")
    with pytest.raises(StoreError) as error:
        verified_runs(RunStore(repository.results / "store"), repository.packs(), repository.plan.manifest)
    *problems, more, remedy = str(error.value).splitlines()
    assert len(problems) == 10
    assert more == "... and 1 more"
    assert remedy.count("snakemake") == 3


def test_the_command_that_a_message_names_repairs_the_store(repository):
    metrics = (repository.results / "metrics.json").read_bytes()
    rate = repository.selection()[GRID_CELL]["point"]["learning_rate"]
    # A point of the grid that is also among the selected runs, so that packs of two rounds promise it.
    lost = folder_of(repository.run_folder(GRID_CELL, learning_rate=rate, seed=0))
    shutil.rmtree(lost)

    output = repository.fail(*LITERAL)

    assert f"{lost.name}: no finished run in" in output
    assert "Traceback" not in output
    (command,) = re.findall(r"remake what is missing or wrong with: (snakemake .*)", output)
    repository.run("bash", "-ec", command)
    repository.run(*LITERAL)
    assert lost.exists()
    assert (repository.results / "metrics.json").read_bytes() == metrics


def test_altered_data_stop_the_training_and_diverging_runs_do_not(repository):
    _flip_a_byte(repository.root / "data" / "prepared" / "digits" / "train.npy")
    repository.set_rates("fixed", [*RATES, 1e9])
    before = repository.runs()

    output = repository.fail(*LITERAL)

    assert "train.npy: expected sha256" in output
    assert "Traceback" not in output
    (command,) = re.findall(r"prepare it again: (silent-gradients prepare digits)", output)
    repository.run(*command.split())
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


def test_data_that_cannot_be_had_are_told_and_stop_nothing_else(repository):
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
