"""Bundles from end to end: written, trained on a machine with torch and numpy alone, cut short, absorbed, gone on."""

import errno
import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.jobs.test_bare_container import BLOCKED
from tests.tiny import CPU, SMALL, TinyStudy, damage, never, pack_of, write_study

from silent_study.cli import main
from silent_study.data.prepare import opened
from silent_study.jobs import bundle, pack, returned, stopwatch
from silent_study.jobs.borrowed import forecast, train_bundle
from silent_study.jobs.borrowed import main as borrowed_main
from silent_study.params import load, resolve
from silent_study.plan.plan import GRID_ROUNDS, Plan
from silent_study.plan.selection import select
from silent_study.settings import EvaluationSettings, RunSettings
from silent_study.store import stale
from silent_study.store.code import training_code
from silent_study.store.files import atomic_file
from silent_study.store.manifests import manifest_if_done
from silent_study.store.runs import (
    CHECKPOINTS,
    CODE,
    EVALUATION,
    RECORD,
    WEIGHTS,
    RunStore,
    StoreError,
    as_json,
    write_json,
)
from silent_study.training import checkpoint
from silent_study.training.loop import Interrupted

BARE = f"""
import runpy, sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {BLOCKED!r}:
            raise ImportError(name)

sys.meta_path.insert(0, Block())
sys.argv[0:1] = []
runpy.run_path(sys.argv[0], run_name="__main__")
"""
GRID = {"learning_rate": [0.001, 0.002], "annealing_rate": [0.5]}
EVALUATION_SETTINGS = {"samples": 2, "variance_images": 4, "variance_draws": 2, "reconstructions": 2}
PRESETS = Path(__file__).parents[2] / "presets"
ONE_POINT = {"experiments": {"learnable": {"digits": {"grid": {"learning_rate": [0.001]}}}}}
ROUND = 18  # steps of a run
MEASURED = 2 + 10  # calls of ``stop`` while two cells are measured


def stop_at(call: int) -> Callable[[], bool]:
    """A ``stop`` that returns True from one of its calls on."""
    calls = iter(range(1, call))
    return lambda: next(calls, None) is None


def plan_here() -> Plan:
    return Plan(load(), Path("results"))


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A study whose data are prepared: a baseline with two rates and its guided form, two seeds."""
    pytest.importorskip("sklearn")
    folder = tmp_path_factory.mktemp("study")
    methods = ["reparameterization", "reparameterization+silent"]
    preset = {"evaluation": EVALUATION_SETTINGS}
    write_study(folder, "learnable", preset, methods=methods, grid=GRID, snapshot_epochs=[1])
    opened("digits", folder / "data/prepared/digits")
    return folder


@pytest.fixture
def home(study, tmp_path, monkeypatch, cpu_command):
    """A copy of the study as the working folder."""
    shutil.copytree(study, tmp_path / "home")
    monkeypatch.chdir(tmp_path / "home")
    return tmp_path / "home"


@pytest.fixture(scope="module")
def trained(study, tmp_path_factory):
    """The bundle of the whole study, trained without an interruption: work folder and what goes back."""
    folder = tmp_path_factory.mktemp("trained")
    plan = Plan(load(study / "params.yaml"), study / "results")
    assert bundle.write_bundle(plan, folder / "bundle.zip", study / "data/prepared").runs == 5
    assert train_bundle(folder / "bundle.zip", folder / "out", folder / "work", CPU, never) == 0
    return folder


def make_selections(plan: Plan, store: RunStore, group: str = "digits/learnable") -> None:
    """Do what the workflow's own jobs do, which find every run of the plan."""
    for round_ in plan.rounds(group):
        selections = plan.selections(round_, group)
        for each in plan.packs(round_, selections, group):
            manifest = manifest_if_done(store, each)
            assert manifest is not None
            write_json(plan.manifest(each), manifest)
        if round_ in GRID_ROUNDS:
            write_json(plan.selection_file(round_, group, selections), select(plan, store, round_, group, selections))


def test_a_bundle_that_was_cut_short_goes_on_and_is_absorbed(home, tmp_path, trained, capsys, monkeypatch):
    # Both rates of the baseline are trained, the guided run has its snapshot. No file of weights fits one part.
    monkeypatch.setattr(returned, "PARTS", 99)
    monkeypatch.setattr(returned, "PART_BYTES", 8_000)
    assert main(["bundle"]) == 0
    stop = stop_at(MEASURED + 3 * ROUND - 4)
    assert train_bundle(Path("bundle.zip"), tmp_path / "out", tmp_path / "work", CPU, stop) == 0
    assert max(path.stat().st_size for path in (tmp_path / "out").iterdir()) <= 8_000
    assert main(["absorb", str(tmp_path / "out")]) == 0
    assert "taken: 2 runs, 0 there already; 1 checkpoint for the next bundle" in capsys.readouterr().out
    store = RunStore(Path("results/store"))
    assert len(store.names()) == 2

    assert main(["bundle", "-o", "rest.zip"]) == 0
    assert "rest.zip: 3 runs at most" in capsys.readouterr().out
    environment = {"PYTHONPATH": "", "SILENT_GRADIENTS_LEASES": str(tmp_path / "leases")}
    command = [sys.executable, "-c", BARE, "rest.zip", "--time-limit=3000", f"--out={tmp_path / 'rest'}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=home, env=environment)
    assert done.returncode == 0, done.stderr
    assert "digits/learnable/reparameterization+silent: 2 runs at most, about" in done.stdout
    assert main(["absorb", str(tmp_path / "rest")]) == 0

    # The runs are those of an undisturbed training.
    plan = plan_here()
    make_selections(plan, store)
    undisturbed = RunStore(trained / "work/store")
    assert len(store.names()) == 5
    assert store.names() == undisturbed.names()
    for name in store.names():
        assert store.unverified(name).digest == undisturbed.unverified(name).digest
    assert not list(Path("results/borrowed").glob("*/*/*/*/*"))
    with pytest.raises(StoreError, match="has every run of the plan"):
        bundle.write_bundle(plan, home / "none.zip")


def test_the_seeds_of_the_only_point_are_trained_side_by_side(home, tmp_path, capsys):
    plan = Plan(resolve({"preset": "small", **ONE_POINT}, Path("presets")), Path("results"))
    assert bundle.write_bundle(plan, home / "bundle.zip").runs == 4
    capsys.readouterr()
    assert train_bundle(home / "bundle.zip", tmp_path / "out", tmp_path / "work", CPU, never) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if " trained " in line]
    assert [line.split()[:2] for line in lines[:4]] == [[f"[{number}/4]", "trained"] for number in range(1, 5)]
    assert len(returned.absorb(plan, tmp_path / "out").taken) == 4


@pytest.mark.parametrize("preset", sorted(path.stem for path in PRESETS.glob("*.yaml")))
def test_what_is_read_back_from_a_bundle_plans_the_same_runs(preset):
    plan = Plan(resolve({"preset": preset, "grid_seed": 9}, PRESETS))
    again = bundle.bundled_plan(json.loads(json.dumps(bundle.settings_document(plan))), plan.results)
    assert again.cells() == plan.cells()
    for cell in plan.cells():
        assert again.first_run(cell).id == plan.first_run(cell).id
        for round_ in plan.rounds(cell.group):
            of_one, of_other = (each.possible_runs(cell, round_) for each in (plan, again))
            assert [run for runs in of_one for run in runs] == [run for runs in of_other for run in runs]
        assert list(again.shared_axes(cell.group)) == list(plan.shared_axes(cell.group))
    assert again.params.evaluation.resolved() == plan.params.evaluation.resolved()


def altered(path: Path, name: str, change: Callable[[bytes], bytes]) -> None:
    """Write a zip file again with the content of the entries of a name changed."""
    with zipfile.ZipFile(path) as archive:
        entries = {entry: archive.read(entry) for entry in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for entry, content in entries.items():
            archive.writestr(entry, change(content) if entry.endswith(name) else content)


def other_evaluation(content: bytes) -> bytes:
    document = json.loads(content)
    document["report"]["bpd"] -= 1
    return as_json(document).encode()


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("curve.jsonl", lambda content: content.replace(b"1", b"2", 1), "expected sha256"),
        (EVALUATION, other_evaluation, f"{EVALUATION}: altered"),
        (RECORD, lambda content: content.replace(b'"numerics_version": ', b'"numerics_version": 1'), "contradict"),
    ],
)
def test_altered_runs_are_refused_by_name(home, tmp_path, trained, capsys, file, change, message):
    shutil.copytree(trained / "out", tmp_path / "out")
    name = next(name for name in RunStore(trained / "work/store").names() if "seed=1" in name)
    altered(tmp_path / "out/runs-1.zip", f"{name}/{file}", change)
    assert main(["absorb", str(tmp_path / "out")]) == 1
    printed = capsys.readouterr()
    assert message in printed.err
    assert name in printed.err
    assert "taken: 4 runs" in printed.out
    assert not RunStore(Path("results/store")).is_finished(name)


def test_damaged_and_foreign_files_are_refused(home, tmp_path, trained, capsys, monkeypatch):
    shutil.copytree(trained / "out", tmp_path / "out")
    damage(tmp_path / "out/runs-1.zip")
    assert main(["absorb", str(tmp_path / "out")]) == 1
    assert "damaged in" in capsys.readouterr().err
    shutil.rmtree("results")
    assert main(["absorb", str(trained / "out"), "--config", "seeds=[7]"]) == 1
    assert capsys.readouterr().err.count("no run of these settings; not taken") == 5
    monkeypatch.setattr(stale, "training_code", lambda _estimator: {"digest": "of another code", "files": {}})
    assert main(["absorb", str(trained / "out")]) == 1
    assert capsys.readouterr().err.count("other source code trained it; not taken") == 5
    assert main(["absorb", str(home)]) == 1
    assert "no runs-*.zip of a borrowed machine in it" in capsys.readouterr().err


def test_results_go_back_before_weights_where_there_is_little_room(home, tmp_path, trained, monkeypatch):
    store = RunStore(trained / "work/store")
    light = sum(path.stat().st_size for path in store.root.rglob("*") if path.is_file() and path.name != WEIGHTS)
    monkeypatch.setattr(returned, "PARTS", 2)
    monkeypatch.setattr(returned, "PART_BYTES", light // 2)
    assert returned.write_parts(store, store.names(), tmp_path / "out", "cpu") != []
    sizes = [path.stat().st_size for path in (tmp_path / "out").iterdir()]
    assert len(sizes) <= 2
    assert max(sizes) <= light // 2
    found = returned.absorb(plan_here(), tmp_path / "out")
    assert found.refused == []
    here = RunStore(Path("results/store"))
    for name in found.taken:
        assert here.unverified(name).digest == store.unverified(name).digest
    bare = {name for name in found.taken if store.unverified(name).has_weights > here.unverified(name).has_weights}
    assert bare

    # A selected run without its weights is not done: the next bundle trains it again, and its weights come home.
    monkeypatch.undo()
    monkeypatch.chdir(home)
    plan = plan_here()
    assert bundle.write_bundle(plan, home / "next.zip").runs > 0
    assert train_bundle(home / "next.zip", tmp_path / "next", tmp_path / "next-work", CPU, never) == 0
    assert set(returned.absorb(plan, tmp_path / "next").taken) >= bare
    assert all(here.unverified(name).has_weights for name in bare)
    make_selections(plan, here)
    with pytest.raises(StoreError, match="has every run of the plan"):
        bundle.write_bundle(plan, home / "none.zip")


def test_a_bundle_that_cannot_be_used_says_so(home, tmp_path, trained, monkeypatch, capsys):
    shutil.copytree(trained / "work", tmp_path / "work")
    assert main(["bundle", "--config", "seeds=[0,1,2]"]) == 0
    for path, work, message in (
        (Path("bundle.zip"), tmp_path / "work", "holds the runs of another bundle"),
        (Path("params.yaml"), tmp_path / "other", "not a bundle, or damaged"),
    ):
        with pytest.raises(StoreError, match=message):
            bundle.unpacked(path, work)
    assert borrowed_main(["params.yaml", "--time-limit=60", f"--out={tmp_path / 'out'}"]) == 1
    assert "params.yaml: not a bundle" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        borrowed_main(["bundle.zip", "--time-limit=5", f"--out={tmp_path / 'out'}"])
    assert "expected more than 20 seconds" in capsys.readouterr().err
    monkeypatch.setattr(bundle, "NUMERICS_VERSION", 0)
    with pytest.raises(StoreError, match="of other source code than runs here"):
        bundle.unpacked(Path("bundle.zip"), tmp_path / "other")


def interrupted(folder: Path, run: RunSettings, epoch: int) -> Path:
    """What a borrowed machine gives back of a run that it has trained for some epochs."""
    store = RunStore(folder / f"there-{epoch}")
    working = store.working_folder(run.name)
    working.mkdir(parents=True)
    write_json(working / CODE, training_code(run.estimator))
    checkpoint.save(working, {"run": run.id, "epoch": epoch, "step": 0})
    returned.write_parts(store, [], folder / f"out-{epoch}", "cpu")
    return folder / f"out-{epoch}"


@pytest.mark.parametrize("order", [(1, 2), (2, 1)])
def test_the_checkpoint_of_the_later_epoch_is_kept(home, tmp_path, order):
    plan = plan_here()
    run = plan.first_run(plan.cells()[0])
    found = [returned.absorb(plan, interrupted(tmp_path, run, epoch)) for epoch in order]
    kept = checkpoint.newest(RunStore(Path("results/borrowed/cpu")).working_folder(run.name))
    assert kept["epoch"] == 2
    assert [each.checkpoints for each in found] == [1, int(order == (1, 2))]
    assert found[1].present == ([] if order == (1, 2) else [run.name])


def encrypted(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[content.find(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)


def outside(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        entries = {entry: archive.read(entry) for entry in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for entry, content in entries.items():
            archive.writestr(entry.replace("borrowed/cpu/", "borrowed/../../"), content)


@pytest.mark.parametrize("change", [encrypted, outside, damage])
def test_files_that_are_no_run_are_refused(home, tmp_path, change):
    plan = plan_here()
    out = interrupted(tmp_path, plan.first_run(plan.cells()[0]), 1)
    change(out / "runs-1.zip")
    (out / "photographs.zip").write_text("of another program")
    before = sorted(tmp_path.rglob("*"))
    found = returned.absorb(plan, out)
    assert found.refused
    assert all("not taken" in message and "photographs" not in message for message in found.refused)
    assert found.checkpoints == 0
    assert [path for path in tmp_path.rglob(CHECKPOINTS[0]) if path not in before] == []
    # The same errors of a bundle.
    with pytest.raises(StoreError, match="not a bundle"):
        bundle.unpacked(out / "runs-1.zip", tmp_path / "work")


@pytest.fixture
def tiny(tmp_path):
    (tmp_path / "data").mkdir()
    return TinyStudy.make(tmp_path / "data", (1, 4, 4), "plain", 96, 24)


def test_the_checkpoint_of_a_run_that_is_trained_again_goes_back(tmp_path, tiny):
    store, run = RunStore(tmp_path / "store"), tiny.settings(snapshot_epochs=(1,))
    (grid_point,) = tiny.train_stored(store, run)
    store.drop_weights(grid_point)
    with pytest.raises(Interrupted):
        tiny.run(pack_of(run, evaluation=EvaluationSettings(**EVALUATION_SETTINGS)), store, stop_at(7))
    assert returned.write_parts(store, [], tmp_path / "out", "cpu") == []
    with zipfile.ZipFile(tmp_path / "out/runs-1.zip") as archive:
        files = {entry.removeprefix(f"borrowed/cpu/{run.name}/") for entry in archive.namelist()}
    assert files == {CHECKPOINTS[0], CODE, "snapshot-1.pt"}


def test_former_files_stay_until_all_new_ones_are_written(tmp_path, tiny, monkeypatch):
    store, out = RunStore(tmp_path / "store"), tmp_path / "out"
    first, second = (tiny.settings("learnable/reparameterization", epochs=2, seed=seed) for seed in (5, 1))
    tiny.run(pack_of(first), store)
    monkeypatch.setattr(returned, "PART_BYTES", 8_000)
    assert returned.write_parts(store, store.names(), out, "cpu") == []
    former = {path.name: path.read_bytes() for path in out.iterdir()}
    kinds = [entry for path in sorted(out.iterdir()) for entry in zipfile.ZipFile(path).infolist()]
    heavy = [".pt" in entry.filename for entry in kinds]
    assert heavy == sorted(heavy)  # light files first
    assert {entry.compress_type for entry in kinds if ".pt" in entry.filename} == {zipfile.ZIP_STORED}

    tiny.run(pack_of(second), store)
    calls = iter(range(3))

    def killed(path, **options):
        if next(calls) == 2:
            raise KeyboardInterrupt
        return atomic_file(path, **options)

    monkeypatch.setattr(returned, "atomic_file", killed)
    with pytest.raises(KeyboardInterrupt):
        returned.write_parts(store, store.names(), out, "cpu")
    assert {path.name: path.read_bytes() for path in out.iterdir()} == former


def test_what_a_folder_holds_already_is_not_lost(home, tmp_path, trained, capsys):
    shutil.copytree(trained / "out", tmp_path / "out")
    former = (tmp_path / "out/runs-1.zip").read_bytes()
    with pytest.raises(StoreError, match="holds what another call gave back"):
        train_bundle(trained / "bundle.zip", tmp_path / "out", tmp_path / "work", CPU, never)
    assert (tmp_path / "out/runs-1.zip").read_bytes() == former
    # The same call goes on.
    assert train_bundle(trained / "bundle.zip", trained / "out", trained / "work", CPU, stop_at(1)) == 0
    assert "5 runs finished" in capsys.readouterr().out
    for option, other in (("--out", "--work"), ("--work", "--out")):
        paths = [f"{option}={home / 'params.yaml'}", f"{other}={tmp_path / 'other'}"]
        assert borrowed_main([str(trained / "bundle.zip"), "--time-limit=60", *paths]) == 1
        assert f"{option} {home / 'params.yaml'}: not a folder" in capsys.readouterr().err


def test_a_full_disk_is_no_damaged_bundle(tmp_path, trained, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(zipfile.ZipFile, "extract", full)
    with pytest.raises(OSError, match=r"No space left on device .* bytes free") as error:
        bundle.unpacked(trained / "bundle.zip", tmp_path)
    assert error.value.filename == str(tmp_path)


def test_runs_of_other_source_code_stay_at_home_though_no_selection_names_them(home, trained):
    store = RunStore(Path("results/store"))
    shutil.copytree(trained / "work/store", store.root)
    (name,) = (name for name in store.names() if "+silent" in name and "seed=0" in name)
    write_json(store.folder(name) / CODE, {"digest": "of another code", "files": {}})
    assert bundle.write_bundle(plan_here(), home / "bundle.zip").runs > 0
    with zipfile.ZipFile(home / "bundle.zip") as archive:
        document = json.loads(archive.read(bundle.DOCUMENT))
    assert name not in [*document["done"], *document["brought"]]
    assert set(document["done"]) <= set(store.names()) - {name}
    assert len(document["done"]) == 3


def two_groups() -> Plan:
    fixed = {"fixed": {"digits": SMALL | {"methods": ["silent-gaussian"]}}}
    return Plan(resolve({"preset": "small", "experiments": fixed}, Path("presets")), Path("results"))


def test_a_failed_run_ends_its_group_alone_and_all_goes_back(home, tmp_path, monkeypatch, capsys):
    asked = []

    def fail(spec, *_):
        asked.append(spec.group)
        if len(asked) == 1:
            raise ExceptionGroup("a run failed", [ValueError("no number")])
        raise OSError(errno.ENOSPC, "No space left on device")

    plan = two_groups()
    bundle.write_bundle(plan, home / "bundle.zip")
    interrupted(tmp_path, run := plan.first_run(plan.cells()[0]), 1)
    monkeypatch.setattr(pack, "run_pack", fail)
    working = RunStore(tmp_path / "work/store").working_folder(run.name)
    shutil.copytree(RunStore(tmp_path / "there-1").working_folder(run.name), working)
    with pytest.raises(OSError, match="No space left"):
        train_bundle(home / "bundle.zip", tmp_path / "out", tmp_path / "work", CPU, never)
    assert sorted(asked) == sorted(plan.groups())
    assert "a run failed" in capsys.readouterr().err
    (tmp_path / "out/runs-1.zip").unlink()  # of the checkpoint


def test_only_open_cells_are_measured_and_no_longer_than_there_is_time(home, tmp_path, trained, monkeypatch):
    plan, store = two_groups(), RunStore(Path("results/store"))
    shutil.copytree(trained / "work/store", store.root)
    make_selections(plan, store)
    assert bundle.write_bundle(plan, home / "bundle.zip").runs == 2
    measured = []
    real = stopwatch.Stopwatch

    def timed(settings, *arguments, **options):
        measured.append(settings.cell)
        return real(settings, *arguments, **options)

    monkeypatch.setattr(stopwatch, "Stopwatch", timed)
    for stop, cells in ((stop_at(1), []), (stop_at(3), ["digits/fixed/silent-gaussian"])):
        assert train_bundle(home / "bundle.zip", tmp_path / "out", tmp_path / "work", CPU, stop) == 0
        assert measured == cells
    assert bundle.bundled_plan(bundle.unpacked(home / "bundle.zip", tmp_path / "work")["settings"], home).groups() == [
        "digits/fixed"
    ]


def test_a_forecast_says_where_no_run_ends_in_time(home):
    plan = plan_here()
    cell = plan.cells()[0]
    pace = stopwatch.measured_pace([plan.first_run(cell)], plan.params.sources, CPU, 1)
    assert f"{cell.name}: 9 runs at most, about " in forecast(plan, {cell: 9}, pace, float("inf"))
    assert "no run ends in that time" not in forecast(plan, {cell: 1}, pace, 1e9)
    assert "no run ends in that time" in forecast(plan, {cell: 1}, pace, 1e-9)
