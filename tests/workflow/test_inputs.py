"""What the rules list as inputs, without Snakemake: files, and renewals of those that are out of date."""

import json
import os
import re
import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest
from tests.workflow.repository import section

from silent_study import params
from silent_study.data.prepared import sealed
from silent_study.params.overlay import read_yaml
from silent_study.plan.plan import Plan
from silent_study.settings import SettingsError
from silent_study.store.code import reading_code
from silent_study.store.runs import StoreError
from silent_study.workflow import LIMITED_RETRIES, Workflow, command_again

PRESET = {
    "seeds": [0],
    "execution": {"workers": 1},
    "experiments": {"fixed": {"digits": section(["reparameterization"], grid={"learning_rate": [0.001]})}},
}
GROUP = "digits/fixed"
ROOT = Path(__file__).parents[2]


class Waits(Exception):
    """As Snakemake raises it while a checkpoint is to be run."""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write("presets/small.yaml", PRESET)  # JSON is YAML
    return tmp_path


@pytest.fixture
def waiting():
    """The wildcards of the selections that the workflow waited for."""
    return []


@pytest.fixture
def study(folder, waiting):
    def wait_for(**wildcards):
        waiting.append(wildcards)
        if not folder.joinpath("results/selections", GROUP, f"baselines-{wildcards['id']}.json").exists():
            raise Waits

    return Workflow({"preset": "small"}, wait_for)


def write(name, document):
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))
    return path


def select(study):
    (cell,) = study.plan.cells()
    point, run = study.plan.grid_runs(cell, {})[0]
    chosen = {cell.name: {"status": "selected", "point": point, "run": run.name}}
    return write(study.plan.selection_path("baselines", GROUP, {}), {"cells": chosen})


def pack_of(study, round_):
    (pack,) = study.packs(round_, GROUP).values()
    return pack, SimpleNamespace(round=round_, group=GROUP, id=pack.id)


def test_settings_that_cannot_be_are_named_with_their_file():
    with pytest.raises(SettingsError) as error:
        Workflow({"preset": "small", "protocol": "none", "seeds": [-1]}, lambda **_: None)
    assert len(str(error.value).splitlines()) == 2
    assert all(line.startswith("params.yaml: ") for line in str(error.value).splitlines())
    with pytest.raises(SettingsError, match=r"^params.yaml, --configfile, --config: seeds.0: "):
        Workflow({"preset": "small", "seeds": [-1]}, lambda **_: None, closer=[{}, {"seeds": [-1]}])


def test_jobs_have_the_plan_of_the_workflow_in_whatever_order_the_settings_are():
    """The plan's id, by which the gathering's output is named, has the groups in order."""
    root = Path(__file__).resolve().parents[2]
    two_layer = read_yaml(root / "presets" / "digits-exact.yaml")["experiments"]["two-layer"]
    log_linear = read_yaml(root / "studies" / "digits-pixel-variances.yaml")["experiments"]["log-linear"]
    own = {"preset": "digits", "experiments": {"two-layer": two_layer, "log-linear": log_linear}}
    study = Workflow(own, lambda **_: None, root / "presets")
    assert study.plan.groups()[-2:] == ["digits/two-layer", "digits/log-linear"]
    of_jobs = Plan(params.resolve(json.loads(study.settings), root / "presets"))
    assert of_jobs.groups() == study.plan.groups()


@pytest.mark.parametrize(
    ("words", "option"),
    [
        (["--config", "a=1", "--config", "b=2"], "--config"),
        (["-C", "a=1", "all", "--config=b=2"], "--config"),
        (["--configfile", "a.yaml", "--configfiles", "b.yaml"], "--configfile"),
        (["--configfile", "a.yaml", "b.yaml", "--config", "a=1", "b=2", "--", "--config", "--config"], ""),
    ],
)
def test_settings_of_which_the_last_alone_would_count_are_refused(monkeypatch, words, option):
    monkeypatch.setattr("sys.argv", ["snakemake", *words])
    with pytest.raises(SettingsError, match=f"^{option}: given twice" if option else "^params.yaml: preset"):
        Workflow({"preset": "none"}, lambda **_: None)


def test_a_round_waits_for_the_selections_before_it_and_for_no_other(study, waiting):
    assert study.manifests("baselines", GROUP) == [str(study.plan.manifest(pack_of(study, "baselines")[0]))]
    assert waiting == []
    for ask in (lambda: study.manifests("seeds", GROUP), study.gathered, study.gathered_renewals):
        with pytest.raises(Waits):
            ask()
    assert {each["round"] for each in waiting} == {"baselines"}
    path = select(study)
    assert study.selections_before(SimpleNamespace(round="seeds", group=GROUP)) == [str(path)]
    assert len(study.manifests("seeds", GROUP)) == len(study.gathered()) == 1


def test_a_selection_that_exists_waits_for_no_manifest_that_is_lost(study):
    _, wildcards = pack_of(study, "baselines")
    manifests = study.manifests("baselines", GROUP)
    assert study.selected_from(wildcards) == manifests
    select(study)
    assert study.selected_from(wildcards) == []
    write(manifests[0], {})
    assert study.selected_from(wildcards) == manifests


def test_a_pack_that_the_settings_do_not_have_is_an_error(study):
    with pytest.raises(StoreError, match=r"params\.yaml: has no pack 0123 in the baselines round of digits/fixed"):
        study.pack(SimpleNamespace(round="baselines", group=GROUP, id="0123"))


def test_a_cell_needs_the_grids_of_its_group_and_its_own_runs(folder):
    methods = ["reparameterization", "silent-gaussian"]
    own = {"execution": {"packs": "cell"}, "experiments": {"fixed": {"digits": {"methods": methods}}}}
    study = Workflow({"preset": "small", **own}, lambda **_: None)
    chosen = {}
    for planned in study.plan.cells():
        point, run = study.plan.grid_runs(planned, {})[0]
        chosen[planned.name] = {"status": "selected", "point": point, "run": run.name}
    write(study.plan.selection_path("baselines", GROUP, {}), {"cells": chosen})

    def cell(method):
        return study.cell(SimpleNamespace(dataset="digits", experiment="fixed", method=method))

    first, second = ({*cell(method)} for method in methods)
    assert first & second == {*study.manifests("baselines", GROUP)}
    assert first | second == {*study.manifests("baselines", GROUP), *study.manifests("seeds", GROUP)}
    assert len(first) == len(second) == 3
    with pytest.raises(
        StoreError, match=r"has no cell digits/fixed/silent-gausian \(did you mean 'digits/fixed/silent-g"
    ):
        cell("silent-gausian")


def test_the_gathering_asks_a_scheduler_for_more_time_than_it_grants_by_default():
    rules, profile = (
        Path(ROOT, name).read_text() for name in ("workflow/rules/report.smk", "profiles/slurm/profile.yaml")
    )
    (own,), (default,) = re.findall(r"runtime=(\d+),", rules), re.findall(r"runtime=(\d+)$", profile, re.MULTILINE)
    assert int(own) >= 4 * int(default)


def test_prepared_data_of_another_version_are_renewed(study):
    assert len(study.prepared("digits")) == 5  # missing files need no renewal
    source = study.plan.params.sources["digits"]
    more = {"arrays_sha256": "", "files": {}, "reader": reading_code()["digest"]}
    path = write("data/prepared/digits/manifest.json", sealed({**source.description, **more}))
    assert study.data_renewals("digits", "manifest.json") == []
    path = write("data/prepared/digits/manifest.json", sealed({**source.description, "version": "0", **more}))
    (renewal,) = study.data_renewals("digits", "manifest.json")
    assert renewal == f"results/.renewals/data,prepared,digits,manifest.json@{path.stat().st_mtime_ns}"
    assert study.prepared("digits")[5:] == [renewal]
    assert study.data_renewals("digits", "noise.json") == []
    # A renewal that a kill left is not taken for one of the next file.
    os.utime(path, ns=(0, 10**18))
    assert study.data_renewals("digits", "manifest.json") == [f"{renewal.partition('@')[0]}@{10**18}"]


def test_a_manifest_is_renewed_where_an_evaluation_is_by_other_settings(study):
    select(study)
    pack, wildcards = pack_of(study, "seeds")
    assert study.gpus(wildcards) == 1
    evaluation = dict.fromkeys(("report", "reconstructions_sha256", "code"))
    write(
        f"results/store/{pack.members[0].name}/evaluation.json",
        evaluation | {"asked": "", "settings": {}, "sha256": ""},
    )
    assert study.pack_renewals(wildcards) == []
    path = write(study.plan.manifest(pack), {})
    (renewal,) = study.pack_renewals(wildcards)
    assert str(path.stat().st_mtime_ns) in renewal
    assert study.manifests("seeds", GROUP) == [str(path), renewal]


@pytest.mark.parametrize("old", ["}", '"learning_rate"', '"status"', '"digits/fixed/reparameterization"', '"cells"'])
def test_a_damaged_selection_stays_and_another_name_takes_its_place(study, waiting, old):
    usual = select(study)
    content = usual.read_text()
    assert old in content
    usual.write_text(content.replace(old, '"x"' if old.startswith('"') else "[1"))
    with pytest.raises(Waits):
        study.manifests("seeds", GROUP)
    other = usual.with_name(f"{usual.stem}-1.json")
    assert f"baselines-{waiting[-1]['id']}.json" == other.name
    other.write_text(content)
    assert study.selections_before(SimpleNamespace(round="seeds", group=GROUP)) == [str(other)]
    usual.write_text(content)
    # The same file until Snakemake's end, and the usual one from then on.
    assert study.selections_before(SimpleNamespace(round="seeds", group=GROUP)) == [str(other)]
    assert study.plan.selection_path("baselines", GROUP, {}) == usual


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("-n all", "snakemake --cores all --resources gpu=8"),
        ("--cores 8 --resources gpu=8 -- all", "snakemake --cores 8 --resources gpu=8"),
        ("--cores 8 all", "snakemake --cores 8"),
        ("--profile profiles/slurm --force all", "snakemake --profile profiles/slurm"),
        (
            "--configfile 'my params.yaml' --config preset=digits -j1",
            "snakemake --configfile 'my params.yaml' --config preset=digits -j1",
        ),
    ],
)
def test_a_command_for_other_targets_keeps_profile_and_settings(words, expected):
    assert command_again(shlex.split(words)) == expected


def test_a_marker_is_renewed_where_it_is_damaged(study):
    select(study)
    (marker,) = study.gathered()
    write(marker, {"files": {}, "runs": {}})
    assert study.gathered() == [marker]
    write(marker, {})
    assert study.gathered() == [marker, *study.gathered_renewals()]
    assert len(study.gathered_renewals()) == 1


def test_a_training_that_stops_at_a_time_limit_is_continued():
    limited = Workflow({"preset": "small", "execution": {"time_limit": 7.5}}, lambda **_: None)
    assert limited.retries == LIMITED_RETRIES > 2
    (group, *_) = limited.plan.groups()
    (number, *_) = limited.packs("baselines", group)
    assert limited.runtime(SimpleNamespace(round="baselines", group=group, id=number)) == 8
    assert Workflow({"preset": "small"}, lambda **_: None).retries is None


def test_options_of_jobs_are_left_out_where_they_are_not_set(folder):
    def options(**own):
        study = Workflow({"preset": "small", **own}, lambda **_: None)
        return study.pack_options(), study.data_options("digits"), study.data_options("digits", mirror=False)

    assert options() == ([], [], [])
    own = {"execution": {"time_limit": 5, "tensorboard": "board"}, "data": {"mirror": "a mirror"}}
    assert options(**own) == (["--time-limit=5.0", "--tensorboard=board"], ["--mirror=a mirror"], [])
