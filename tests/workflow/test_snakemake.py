"""From params.yaml to the report with one command, and again with edits: what is trained, and what is not."""

import csv
import html
import json
import os
import re
import shutil
import statistics
import sys
import time
import zipfile
from pathlib import Path

import pandas as pd
import pytest
import yaml
from tests.workflow.repository import CHECKOUT, LITERAL, LONG, RATES, SEEDS, TINY, Repository

pytestmark = pytest.mark.timeout(1200)

TABLES = ("metrics.json", "runs.csv", "curves", "selection.json", "tables")


def test_the_literal_command_makes_everything(finished):
    results = finished.results
    for name in ("report.html", "metrics.json", "runs.csv", "selection.json"):
        assert (results / name).stat().st_size > 0
    assert {path.stem for path in results.glob("tables/*.csv")} >= {
        "table-1-gradient-variance",
        "table-2-fixed-variance",
        "table-3-bits-per-dimension",
        "table-4-kl-divergence",
        "grid",
    }
    assert list(results.glob("figures/*"))
    curves = {path: csv.DictReader(path.read_text().splitlines()) for path in results.glob("curves/*/*.csv")}
    cells = {f"{path.parent.name}/{path.stem}/{row['method']}" for path, rows in curves.items() for row in rows}
    assert cells == {cell.name for cell in finished.plan.cells()}


def test_progress_is_printed_job_by_job(output_of_finished):
    for line in (
        # Two grids of baselines, one of annealed methods, two packs of seeds.
        r"\[\d+/\d+\] baselines digits/fixed: 4 runs, best \d\.\d+ bits/dim",
        r"\[\d+/\d+\] baselines digits/learnable: 2 runs",
        r"\[\d+/\d+\] guided digits/learnable: 1 run,",
        r"\[\d+/\d+\] seeds digits/fixed: 4 runs",
        r"13 of 13 jobs done",
        r"\d of \d orderings so far as published, .*; report: results/report.html$",
    ):
        assert re.search(f"^{line}", output_of_finished, re.MULTILINE), line


def test_the_store_holds_the_planned_runs_and_no_other(finished):
    # By hand: grids of 2 + 2 + 2 points and of one annealed point, then one more seed for each of four cells.
    assert len(finished.runs()) == 7 + 4
    assert finished.runs() == finished.planned()


@pytest.mark.parametrize("cell", ["digits/fixed/silent-gaussian", "digits/learnable/reparameterization+silent"])
def test_a_reported_mean_is_that_of_the_runs_in_the_store(finished, cell):
    dataset, experiment, method = cell.split("/")
    rate = finished.selection()[cell]["point"]["learning_rate"]

    values = []
    for seed in SEEDS:
        folder = finished.run_folder(cell, learning_rate=rate, seed=seed)
        values.append(json.loads((folder / "evaluation.json").read_text())["report"]["bpd"])

    reported = finished.metrics()[dataset][experiment][method]
    assert reported["bpd"] == pytest.approx(statistics.fmean(values), abs=1e-12)
    assert reported["bpd_sd"] == pytest.approx(statistics.stdev(values), abs=1e-12)
    name = {"fixed": "table-2-fixed-variance", "learnable": "table-3-bits-per-dimension"}[experiment]
    table = pd.read_csv(finished.results / "tables" / f"{name}.csv")
    (measured,) = table[(table["method"] == method) & (table["metric"] == "bpd")]["measured"]
    assert measured == pytest.approx(reported["bpd"], rel=1e-8)


def test_the_selected_point_is_the_best_of_the_grid(finished):
    cell = "digits/fixed/reparameterization"
    bounds = {}
    for rate in RATES:
        folder = finished.run_folder(cell, learning_rate=rate, seed=0)
        bounds[rate] = json.loads((folder / "result.json").read_text())["selection"]["bpd"]
    assert finished.selection()[cell]["point"]["learning_rate"] == min(bounds, key=lambda rate: bounds[rate])


def test_the_second_time_there_is_nothing_to_do(repository):
    before = repository.times()
    assert "Nothing to be done" in repository.run(*LITERAL)
    assert repository.times() == before


def test_one_more_rate_trains_its_runs_alone_and_one_less_none(repository):
    before, tables, times = repository.runs(), repository.contents(*TABLES), repository.curve_times()

    repository.set_rates("fixed", [*RATES, 0.03])
    repository.run(*LITERAL)

    new = repository.runs() - before
    # By hand: the new point of both methods with the first seed, and the second seed where the new point is the best.
    expected = {("silent-gaussian", 0), ("reparameterization", 0)}
    for method in ("silent-gaussian", "reparameterization"):
        if repository.selection()[f"digits/fixed/{method}"]["point"]["learning_rate"] == 0.03:
            expected.add((method, 1))
    settings = [json.loads((repository.results / "store" / name / "settings.json").read_text()) for name in new]
    assert {each["learning_rate"] for each in settings} == {0.03}
    assert sorted((each["method"], each["seed"]) for each in settings) == sorted(expected)
    assert repository.runs() == before | repository.planned()

    repository.configure()
    repository.run(*LITERAL)

    assert repository.runs() == before | new
    assert repository.contents(*TABLES) == tables
    assert {name: time for name, time in repository.curve_times().items() if name in times} == times


@pytest.mark.slow
def test_inputs_that_are_dated_in_the_future_do_no_harm(repository):
    """As files have them that were copied from a machine whose clock is ahead."""
    tomorrow = time.time() + 86_400
    for path in [*repository.root.glob("data/**/*"), *repository.results.glob("**/*")]:
        os.utime(path, (tomorrow, tomorrow))
    repository.set_rates("fixed", [*RATES, 0.03])
    output = repository.run(*LITERAL)
    assert re.search(r"\d+ files dated in the future: given the present time", output)
    assert "Nothing to be done" in repository.run(*LITERAL, "--dry-run")


@pytest.mark.parametrize("preset", sorted(path.stem for path in CHECKOUT.glob("presets/*.yaml")))
def test_every_preset_can_be_planned(repository, preset):
    repository.configure(preset)
    section = yaml.safe_load((repository.root / "presets" / f"{preset}.yaml").read_text())
    names = {name for experiment in section["experiments"].values() for name in experiment}

    output = repository.run(*LITERAL, "--dry-run")

    # Nothing is known of the later rounds before a selection is made.
    counts = {rule: int(number) for rule, number in re.findall(r"^(\w+) +(\d+)$", output, re.MULTILINE)}
    assert counts["all"] == 1
    assert counts["select"] == len(repository.plan.groups())
    for rule in ("download", "prepare", "dequantize"):
        assert counts.get(rule, 0) == len(names - {"digits"})
    packs = repository.plan.packs("baselines", {})
    assert counts["train_pack"] == len(packs)
    # No more jobs than the workers ask for in each group, rounded up in each of its cells.
    assert len(packs) <= repository.plan.params.execution.workers * len(repository.plan.groups()) + len(
        repository.plan.cells()
    )
    runs = sum(len(pack.members) for pack in packs)
    told = f"baselines: {runs} runs in {len(packs)} {'pack' if len(packs) == 1 else 'packs'}, "
    assert told in repository.run("silent-gradients", "plan")


def test_the_plan_is_printed_in_words(finished):
    lines = finished.run("silent-gradients", "plan").splitlines()
    assert lines[0] == "preset tiny, protocol holdout, seeds [0, 1]"
    assert "baselines: 6 runs in 2 packs, all done" in lines
    assert "guided: 1 run in 1 pack, all done" in lines
    assert "seeds: 8 runs in 2 packs, all done" in lines
    assert "nothing to train: every run is done" in lines
    assert "  digits/learnable/reparameterization+silent: 2 runs of 2 epochs" in lines


@pytest.mark.slow
def test_the_report_holds_the_page(repository):
    repository.run("snakemake", "--report", "report.zip")
    with zipfile.ZipFile(repository.root / "report.zip") as archive:
        names = archive.namelist()
        (index,) = (name for name in names if name.endswith("report.html") and "/data/" not in name)
        text = html.unescape(archive.read(index).decode())
        data = [archive.read(name) for name in names if "/data/" in name]
    assert '"Report"' in text
    assert "variational autoencoders trained with silent gradients" in text.lower()
    assert "settings, curves and digests of every run" in " ".join(text.split())
    assert (repository.results / "report.html").read_bytes() in data
    # Its parts one by one.
    for folder, pattern, category in (("tables", "*.html", '"Tables"'), ("figures", "*.svg", '"Figures"')):
        assert category in text
        parts = [part for part in (repository.results / folder).glob(pattern) if not part.stem.endswith("-column")]
        assert parts
        assert all(part.read_bytes() in data for part in parts)


def test_the_report_is_one_page_too(repository):
    repository.run("snakemake", "--report", "report.html")
    text = (repository.root / "report.html").read_text()
    assert '"Report"' in text
    assert "train_pack" in text
    # Nothing that a browser would fetch.
    assert not re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="https?://', text)


@pytest.mark.slow
def test_what_it_shows_is_of_one_plan_and_made_again_when_lost(repository):
    folder = repository.results / "snakemake-report"
    (first,) = folder.iterdir()
    repository.configure(seeds=[0])
    repository.run(*LITERAL)
    (second,) = folder.iterdir()
    assert first.name != second.name
    assert (second / "report.html").read_bytes() == (repository.results / "report.html").read_bytes()
    (second / "report.html").unlink()
    assert "1 gather" in repository.run(*LITERAL)
    assert "Nothing to be done" in repository.run(*LITERAL)


@pytest.mark.slow
def test_no_activation_is_needed(repository):
    shutil.rmtree(repository.root / "data" / "prepared")
    snakemake = Path(sys.executable).with_name("snakemake")
    repository.run("env", "PATH=/usr/bin:/bin", str(snakemake), "--cores", "1", "data")
    assert (repository.root / "data" / "prepared" / "digits" / "noise.npy").exists()


CONDA = """#!/bin/sh
case "$*" in
"--version") echo "conda 25.1.0";;
"clean -y --tarballs") ;;
"info --json") echo '{{"conda_prefix": "{folder}", "platform": "linux-64"}}';;
"config --get channel_priority --json") echo '{{"get": {{"channel_priority": "strict"}}}}';;
"env create --quiet --no-default-packages --file "*) mkdir -p "${{8}}/bin"; cp {folder}/python "${{8}}/bin";;
*) echo "unexpected: conda $*" >&2; exit 1;;
esac
"""


@pytest.mark.slow
def test_conda_deploys_this_project(repository, tmp_path):
    """A stand-in for conda makes environments whose python records what it is to install."""
    conda, installed = tmp_path / "conda", tmp_path / "installed"
    (conda / "bin").mkdir(parents=True)
    for name, text in {
        "bin/conda": CONDA.format(folder=conda),
        "bin/activate": "PATH=$1/bin:$PATH",
        "python": f"#!/bin/sh\necho $PWD: $* >> {installed}\n",
    }.items():
        (conda / name).write_text(text)
        (conda / name).chmod(0o755)
    shutil.rmtree(repository.root / "data" / "prepared")
    path = f"PATH={conda / 'bin'}{os.pathsep}{repository.environment['PATH']}"

    repository.run("env", path, "snakemake", "--cores", "1", "--software-deployment-method", "conda", "--", "data")

    (line,) = installed.read_text().splitlines()
    folder, _, words = line.partition(": -m pip install ")
    assert Path(folder) == repository.root
    assert words.endswith("--constraint constraints.txt --editable .[workflow]")
    assert (repository.root / "data" / "prepared" / "digits" / "noise.npy").exists()


MODULE = """
configfile: "params.yaml"

module study:
    snakefile: "{snakefile}"
    config: config

use rule * from study
"""


@pytest.mark.slow
@pytest.mark.parametrize("reuse", ["--directory", "module"])
def test_the_workflow_runs_in_another_folder(finished, tmp_path, reuse):
    """Its preset is found beside the Snakefile; data, results and logs lie in the folder of params.yaml."""
    elsewhere = tmp_path / "on another disk"
    elsewhere.mkdir()
    (elsewhere / "params.yaml").write_text(yaml.safe_dump({"preset": "tiny", "experiments": {"fixed": None}}))
    snakefile = finished.root / "Snakefile"
    before = finished.times()
    if reuse == "module":
        (elsewhere / "Snakefile").write_text(MODULE.format(snakefile=snakefile))
        finished.run("env", "--chdir", str(elsewhere), *LITERAL)
    else:
        finished.run(*LITERAL, "--directory", str(elsewhere))

    there = Repository(elsewhere)
    assert set(there.metrics()["digits"]) == {"learnable"}
    assert there.metrics()["digits"]["learnable"] == finished.metrics()["digits"]["learnable"]
    assert finished.times() == before


# Has the selection of one group end after a manifest of the other group is written, and before that job has ended.
SLOW_ENDS = """#!/bin/sh
case "$*" in "select baselines digits/fixed"*)
    until ls results/packs/{round}/digits/learnable/*.json > /dev/null 2>&1; do sleep 0.1; done;; esac
{program} "$@"; code=$?
case "$*" in train*'"group": "digits/learnable"'*'"round": "{round}"'*) sleep 12;; esac
exit $code
"""


def _run_with_slow_ends(repository, folder, round_):
    program = folder / "silent-gradients"
    program.parent.mkdir()
    program.write_text(SLOW_ENDS.format(program=Path(sys.executable).with_name("silent-gradients"), round=round_))
    program.chmod(0o755)
    repository.run("env", f"PATH={folder}{os.pathsep}{repository.environment['PATH']}", *LITERAL)


@pytest.mark.slow
def test_a_job_that_ends_while_a_selection_is_made_costs_no_job(tmp_path):
    repository = Repository.make(tmp_path / "repository", tiny=TINY, long=LONG)
    _run_with_slow_ends(repository, tmp_path / "bin", "baselines")
    assert (repository.results / "report.html").exists()
    assert "Nothing to be done" in repository.run(*LITERAL, "--dry-run")


@pytest.mark.slow
def test_manifests_that_are_lost_all_come_back(repository, tmp_path):
    # The selections are there already, which must not hide that those of this round wait for one to be made again.
    packs = repository.contents("packs")
    shutil.rmtree(repository.results / "packs")
    _run_with_slow_ends(repository, tmp_path / "bin", "guided")
    assert repository.contents("packs") == packs
