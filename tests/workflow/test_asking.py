"""Dry runs and the verbs that report change no file, whatever state a study is in; the same command repairs it."""

import json
import os
import re

import pytest
from tests.tiny import damage
from tests.workflow.repository import LITERAL, RATES

from silent_study.data.prepared import sealed
from silent_study.report.gathered import marker_of

pytestmark = pytest.mark.timeout(1200)

QUESTIONS = (
    (*LITERAL, "--dry-run"),
    ("snakemake", "--dag"),
    ("snakemake", "--summary"),
    ("snakemake", "--lint"),
    *(("silent-gradients", verb) for verb in ("plan", "status", "report", "prune")),
)


def snapshot(repository):
    """Content and modification time of every file, and every folder, but for what is Snakemake's or git's own."""
    return {
        path: (path.read_bytes(), path.stat().st_mtime_ns) if path.is_file() else None
        for path in repository.root.rglob("*")
        if not {".snakemake", ".git", "__pycache__"} & set(path.relative_to(repository.root).parts)
    }


def marker(repository):
    return marker_of(repository.plan, repository.plan.selections("seeds"))


def manifest(repository, round_, group):
    (pack,) = repository.plan.packs(round_, repository.plan.selections(round_, group), group)
    return repository.plan.manifest(pack)


def nothing(repository):
    pass


def spoil_the_report(repository):
    (repository.results / "report.html").unlink()
    (repository.results / "tables" / "grid.csv").write_text("edited by hand\n")


def truncate_the_marker(repository):
    path = marker(repository)
    path.write_text(path.read_text()[:100])


def lose_a_manifest_of_a_grid(repository):
    manifest(repository, "baselines", "digits/fixed").unlink()


def lose_a_selection(repository):
    (path,) = repository.results.glob("selections/digits/learnable/guided-*.json")
    path.unlink()


def prepare_other_data(repository):
    for name, key, value in (("manifest", "title", "Other images"), ("noise", "shape", [3, 1, 8, 8])):
        path = repository.root / "data" / "prepared" / "digits" / f"{name}.json"
        document = json.loads(path.read_text())
        del document["seal"]
        path.write_text(json.dumps(sealed(document | {key: value})))


def evaluate_by_other_settings(repository):
    path = repository.run_folder("digits/learnable/reparameterization", seed=1) / "evaluation.json"
    path.write_text(re.sub(r'("samples": )2\b', r"\g<1>3", path.read_text()))


def halt_half_way(repository):
    """As a kill in the round of seeds leaves it: a run that is not published, no manifest of its pack, no report."""
    folder = repository.run_folder("digits/fixed/silent-gaussian", seed=1)
    manifest(repository, "seeds", "digits/fixed").unlink()
    marker(repository).unlink()
    folder.rename(f"{folder}.partial")


def flip_weights(repository):
    """Without a trace in the time at which they were written."""
    path = repository.run_folder("digits/learnable/reparameterization", seed=1) / "weights.pt"
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    damage(path)
    os.utime(path, ns=times)


def lose_an_evaluation(repository):
    (repository.run_folder("digits/learnable/reparameterization", seed=1) / "evaluation.json").unlink()


def flip_a_result(repository):
    damage(repository.run_folder("digits/fixed/reparameterization", learning_rate=RATES[0], seed=0) / "result.json")


def flip_arrays(repository):
    damage(repository.root / "data" / "prepared" / "digits" / "train.npy")


def truncate_a_selection(repository):
    (path,) = repository.results.glob("selections/digits/learnable/baselines-*.json")
    path.write_text(path.read_text()[:100])


def damage_results(repository):
    for change in (flip_weights, lose_an_evaluation, flip_a_result, flip_arrays, truncate_a_selection):
        change(repository)


def shorten_the_plan(repository):
    """Other settings, which are taken back: their dry run must not spoil the marker of these."""
    repository.configure(seeds=[0])


def damage_everything(repository):
    prepare_other_data(repository)
    evaluate_by_other_settings(repository)
    truncate_the_marker(repository)
    lose_a_manifest_of_a_grid(repository)
    lose_a_selection(repository)
    spoil_the_report(repository)


def jobs_of(output):
    found = {rule: int(count) for rule, count in re.findall(r"^(\w+) +(\d+)$", output, re.MULTILINE)}
    return {rule: count for rule, count in found.items() if rule not in ("all", "total")}


@pytest.mark.parametrize("change", [nothing, shorten_the_plan, halt_half_way, damage_everything])
def test_asking_leaves_the_tree_as_it_is(repository, change):
    change(repository)
    before = snapshot(repository)
    for question in QUESTIONS:
        # Which runs are needed depends on the lost selection; the report is lost.
        if question[-1] in ("prune", "report") and change is damage_everything:
            repository.fail(*question)
        else:
            repository.run(*question)
        after = snapshot(repository)
        assert after.keys() == before.keys(), question
        assert [path for path in before if before[path] != after[path]] == [], question
    if change is shorten_the_plan:
        repository.configure()
        assert "Nothing to be done" in repository.run(*LITERAL, "--dry-run")


@pytest.mark.parametrize(
    ("change", "jobs"),
    [
        (damage_everything, None),
        (damage_results, None),
        *(
            pytest.param(*state, marks=pytest.mark.slow)
            for state in [
                (spoil_the_report, {"renew": 1, "gather": 1}),
                (truncate_the_marker, {"renew": 1, "gather": 1}),
                (lose_a_manifest_of_a_grid, {"train_pack": 1, "gather": 1}),
                (lose_a_selection, {"select": 1}),
                (prepare_other_data, {"renew": 2, "prepare": 1, "dequantize": 1, "train_pack": 5}),
                (evaluate_by_other_settings, {"renew": 1, "train_pack": 1, "gather": 1}),
                (halt_half_way, {"train_pack": 1, "gather": 1}),
                (flip_weights, {"renew": 1, "train_pack": 1, "gather": 1}),
                (lose_an_evaluation, {"renew": 1, "train_pack": 1, "gather": 1}),
                (flip_a_result, None),
                (flip_arrays, {"renew": 1, "prepare": 1, "train_pack": 5}),
                (truncate_a_selection, {"select": 1}),
            ]
        ),
    ],
)
def test_the_same_command_repairs_it(repository, change, jobs):
    names = ("metrics.json", "tables", "packs", "selections")  # runs.csv has the times of trainings
    results = repository.contents(*names) | repository.numbers()
    prepared = {path: path.read_bytes() for path in (repository.root / "data/prepared/digits").glob("*.npy")}
    change(repository)
    if jobs is not None:
        assert jobs_of(repository.run(*LITERAL, "--dry-run")) == jobs
    repository.run(*LITERAL)
    assert "Nothing to be done" in repository.run(*LITERAL, "--dry-run")
    found = repository.contents(*names) | repository.numbers()
    # A repaired selection has a copy under the name that took its place.
    assert {path: content for path, content in found.items() if not path.endswith("-1.json")} == results
    assert {path: path.read_bytes() for path in prepared} == prepared
    assert (repository.results / "report.html").exists()
    assert not (repository.results / ".renewals").exists()
