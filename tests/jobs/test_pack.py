"""Packs train what the store lacks and nothing else, whatever happens in between."""

import dataclasses
import json
import math
import os
import re
import signal
import sys
from pathlib import Path

import pytest
import torch
from tests.tiny import damage, pack_of, terminate_in_training, train_arguments

from silent_study import cli
from silent_study.cli.exits import TIME_LIMIT
from silent_study.data.errors import DataError
from silent_study.jobs import pack as pack_module
from silent_study.jobs.pack import TrainingOptions, epoch_report
from silent_study.jobs.stopping import StopSignal, TimeLimit
from silent_study.settings import EvaluationSettings
from silent_study.store.files import sha256_of
from silent_study.store.packs import PackSpec
from silent_study.store.runs import EVALUATION, RECONSTRUCTIONS, RunStore, as_json
from silent_study.training.loop import Interrupted, Trainer

EVALUATION_ASKED = EvaluationSettings(samples=3, variance_images=4, variance_draws=3, reconstructions=2)


@pytest.fixture
def store(tmp_path):
    return RunStore(tmp_path / "store")


@pytest.fixture
def trained(monkeypatch):
    """Names of the runs that were trained, in order."""
    names = []
    original = Trainer.begin

    def begin(self):
        names.append(self.settings.name)
        original(self)

    monkeypatch.setattr(Trainer, "begin", begin)
    return names


def grid(tiny, *cells, rates=(1e-3, 3e-3), **changes):
    changes = {"epochs": 2} | changes
    return pack_of(*(tiny.settings(cell, learning_rate=rate, **changes) for cell in cells for rate in rates))


def seeds(pack, *members):
    return pack_of(*(members or pack.members), evaluation=EVALUATION_ASKED)


def folders(store, pack):
    return [store.folder(settings.name) for settings in pack.members]


def weights_kept(store, pack):
    return [(folder / "weights.pt").exists() for folder in folders(store, pack)]


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "provenance.json"}


def test_a_pack_trains_its_members_and_says_what_they_are(tiny, store, trained, capsys):
    pack = grid(tiny, "learnable/reinforce", "learnable/silent-gaussian")
    manifest = tiny.run(pack, store)
    assert trained == [settings.name for settings in pack.members]
    heading = {"pack": pack.id, "round": "baselines", "group": "tiny/learnable"}
    assert manifest == {**heading, "members": manifest["members"]}
    for entry, settings in zip(manifest["members"], pack.members, strict=True):
        found = store.verified(settings.name, settings.id)
        assert entry == {
            "name": settings.name,
            "id": settings.id,
            "result_sha256": found.digest,
            "evaluation_sha256": None,
            "status": "finished",
        }
        assert json.loads((found.folder / "settings.json").read_text()) == settings.to_json()
        assert len((found.folder / "curve.jsonl").read_text().splitlines()) == 2
        assert set(found.identity["files"]) >= {"settings.json", "curve.jsonl", "result.json", "provenance.json"}
    assert not list(store.root.rglob("*.partial"))
    assert not list(store.root.rglob("checkpoint*"))
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == [
        f"[{number}/4] trained {settings.name}" for number, settings in enumerate(pack.members, 1)
    ]
    assert all(line.endswith("bits/dim on holdout") for line in lines)
    # A second call trains nothing.
    before = {path: path.read_bytes() for path in store.root.rglob("*") if path.is_file()}
    trained.clear()
    assert tiny.run(pack, store) == manifest
    assert trained == []
    assert capsys.readouterr().out.count("already trained") == 4
    assert {path: path.read_bytes() for path in before} == before


def test_where_a_run_came_from(tiny, store):
    pack = grid(tiny, "learnable/reinforce", rates=(1e-3,))
    working = store.working_folder(pack.members[0].name)
    working.mkdir(parents=True)
    (working / ".checkpoint.pt.x1y2.tmp").write_bytes(b"half")  # of a killed process: not sealed
    tiny.run(pack, store)
    assert not list(store.root.rglob("*.tmp"))
    provenance = json.loads((folders(store, pack)[0] / "provenance.json").read_text())
    assert provenance["versions"]["torch"] == torch.__version__
    assert (provenance["device"], provenance["threads"]) == ("cpu", torch.get_num_threads())
    assert provenance["float32"].keys() == {"products", "convolutions", "NVIDIA_TF32_OVERRIDE"}
    assert provenance["seconds"] > 0
    # 72 training images, 2 epochs; seconds are rounded.
    assert provenance["images_per_second"] == pytest.approx(144 / provenance["seconds"], rel=0.05)
    assert provenance["hardware"].endswith(f", {torch.backends.cpu.get_cpu_capability()}")
    assert provenance["started"] <= provenance["finished"]


def test_only_what_the_store_lacks_is_trained(tiny, store, trained):
    small, large = grid(tiny, "learnable/reinforce"), grid(tiny, "learnable/reinforce", rates=(1e-3, 2e-3, 3e-3))
    tiny.run(small, store)
    trained.clear()
    tiny.run(large, store)
    assert trained == [large.members[1].name]


def test_a_grid_keeps_the_weights_of_each_cells_best(tiny, store):
    pack = grid(tiny, "learnable/reinforce", "learnable/silent-gaussian", rates=(1e-5, 1e-2, 1e-3), epochs=4)
    tiny.run(pack, store)
    bpds = [json.loads((folder / "result.json").read_text())["selection"]["bpd"] for folder in folders(store, pack)]
    expected = [False] * 6
    for cell in (slice(0, 3), slice(3, 6)):
        expected[cell.start + bpds[cell].index(min(bpds[cell]))] = True
    assert weights_kept(store, pack) == expected
    assert [(folder / "snapshot-2.pt").exists() for folder in folders(store, pack)] == expected


def test_a_grid_keeps_the_weights_that_a_shared_axis_may_select(tiny, store, trained):
    members = tuple(
        tiny.settings(cell, variance=variance, learning_rate=rate, epochs=2)
        for cell in ("fixed/reparameterization", "fixed/silent-gaussian")
        for variance in (0.02, 0.05)
        for rate in (1e-5, 1e-2)
    )
    pack = dataclasses.replace(pack_of(*members), shared_axes=("variance",))
    tiny.run(PackSpec.from_json(json.loads(json.dumps(pack.to_json()))), store)
    bpds = [json.loads((folder / "result.json").read_text())["selection"]["bpd"] for folder in folders(store, pack)]
    expected = [bpd == min(bpds[place // 2 * 2 : place // 2 * 2 + 2]) for place, bpd in enumerate(bpds)]
    assert weights_kept(store, pack) == expected
    # Whichever variance is selected, the selected run of a method is not trained again, in another stack.
    trained.clear()
    best = [run for run, kept in zip(members, expected, strict=True) if kept]
    tiny.run(pack_of(*best, evaluation=EVALUATION_ASKED), store)
    assert trained == []


@pytest.mark.parametrize("file", ["curve.jsonl", "record.json", "weights.pt"])
def test_an_altered_run_is_trained_again_and_said_so(tiny, store, trained, capsys, file):
    pack = grid(tiny, "learnable/reinforce", rates=(1e-3,))
    first = tiny.run(pack, store)
    (folder,) = folders(store, pack)
    before = contents(folder)
    damage(folder / file)
    trained.clear()
    capsys.readouterr()
    assert tiny.run(pack, store) == first
    assert trained == [pack.members[0].name]
    said = capsys.readouterr().err
    assert str(folder) in said
    assert "training this run again" in said
    assert {name: content for name, content in contents(folder).items() if name != "record.json"} == {
        name: content for name, content in before.items() if name != "record.json"
    }


def test_a_diverged_member_does_not_stop_the_others(tiny, store, capsys):
    pack = grid(tiny, "learnable/reinforce", rates=(1e-3, 1e18, 2e-3), epochs=4)
    manifest = tiny.run(pack, store)
    assert [member["status"] for member in manifest["members"]] == ["finished", "diverged", "finished"]
    folder = folders(store, pack)[1]
    result = json.loads((folder / "result.json").read_text())
    assert (result["status"], result["selection"]) == ("diverged", None)
    assert f"diverged in epoch {result['diverged_epoch']}" in capsys.readouterr().out.splitlines()[1]
    assert not list(folder.glob("*.pt"))
    assert tiny.run(pack, store) == manifest


def test_the_weights_of_a_run_in_a_stack_are_its_own_alone(tiny, store):
    pack = seeds(grid(tiny, "learnable/reinforce", rates=(1e-3, 2e-3, 3e-3), epochs=1, snapshot_epochs=()))
    tiny.run(pack, store, stack=3)
    tiny.run(pack, alone := RunStore(store.root.parent / "alone"))
    sizes = [(each.folder(pack.members[0].name) / "weights.pt").stat().st_size for each in (store, alone)]
    assert sizes[0] == sizes[1]


@pytest.mark.parametrize("stack", [1, 3])
@pytest.mark.parametrize("step", ["compute", "end_step", "snapshot", "evaluate"])
def test_a_failing_member_is_named_and_the_others_are_done(tiny, store, trained, monkeypatch, step, stack):
    pack = seeds(grid(tiny, "learnable/reinforce", rates=(1e-3, 2e-3, 3e-3), snapshot_epochs=(2,)))
    failing = pack.members[1]
    undisturbed = tiny.run(pack, RunStore(store.root.parent / "undisturbed"), stack=stack)

    def fail_for(settings, original):
        def call(*arguments, **options):
            given = arguments[0]
            if getattr(given, "settings", given) in (settings, settings.to_json()):
                raise RuntimeError("this estimator has a mistake")
            return original(*arguments, **options)

        return call

    owner, name = {"evaluate": (pack_module, "evaluate_selected")}.get(step, (Trainer, step))
    if step == "compute" and stack > 1:
        name = "update"  # a stack's step ends in that of each of its runs
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, fail_for(failing, getattr(owner, name)))
        with pytest.raises(
            ExceptionGroup, match=f"1 of 3 runs failed: {re.escape(failing.name)}; all others"
        ) as caught:
            tiny.run(pack, store, stack=stack)
    (error,) = caught.value.exceptions
    assert (str(error), error.__notes__) == ("this estimator has a mistake", [failing.name])
    others = [pack.members[0], pack.members[2]]
    assert all((store.folder(run.name) / EVALUATION).exists() for run in others)
    assert not (store.folder(failing.name) / EVALUATION).exists()
    # Mended, the same command does what is left.
    trained.clear()
    manifest = tiny.run(pack, store, stack=stack)
    assert [member["id"] for member in manifest["members"]] == [run.id for run in pack.members]
    if stack == 1:  # smaller stacks round differently
        assert manifest == undisturbed
    assert trained == ([] if step == "evaluate" else [failing.name])


def test_seeds_are_evaluated_and_keep_their_weights(tiny, store, trained):
    baselines = grid(tiny, "learnable/reinforce")
    tiny.run(baselines, store)
    trained.clear()
    chosen = baselines.members[weights_kept(store, baselines).index(True)]
    pack = seeds(baselines, *(dataclasses.replace(chosen, seed=seed) for seed in (0, 1)))
    manifest = tiny.run(pack, store)
    assert trained == [pack.members[1].name]  # the first seed's run is the grid's
    assert weights_kept(store, pack) == [True, True]
    for entry, folder in zip(manifest["members"], folders(store, pack), strict=True):
        assert entry["evaluation_sha256"] == sha256_of(folder / EVALUATION)
        document = json.loads((folder / EVALUATION).read_text())
        assert (document["report"]["split"], document["report"]["images"]) == ("test", 24)
        assert document["reconstructions_sha256"] == sha256_of(folder / RECONSTRUCTIONS)
    trained.clear()
    assert tiny.run(pack, store) == manifest
    assert trained == []


def test_a_selected_run_without_weights_is_trained_again_in_its_own_place(tiny, store, trained):
    baselines = grid(tiny, "learnable/reinforce")
    manifest = tiny.run(baselines, store)
    position = weights_kept(store, baselines).index(False)
    worse = baselines.members[position]
    trained.clear()
    tiny.run(seeds(baselines, worse), store)
    assert trained == [worse.name]
    again = store.verified(worse.name, worse.id)
    assert again.has_weights
    promised = manifest["members"][position]["result_sha256"]
    assert again.digest == promised  # the training is deterministic
    assert again.identity["replaces"] == [promised]
    # The grid that is run once more takes no weights from the seeds.
    for _ in range(2):
        assert weights_kept(store, baselines) == [True, True]
        tiny.run(baselines, store)


def test_a_diverged_seed_is_recorded_without_numbers(tiny, store):
    pack = seeds(grid(tiny, "learnable/reinforce", rates=(1e18,), epochs=4))
    manifest = tiny.run(pack, store)
    assert manifest["members"][0]["status"] == "diverged"
    (folder,) = folders(store, pack)
    document = json.loads((folder / EVALUATION).read_text())
    assert (document["report"], document["train"], document["gradient_variance"]) == (None, None, [])
    assert not (folder / RECONSTRUCTIONS).exists()
    assert tiny.run(pack, store) == manifest


@pytest.mark.parametrize("how", ["number", "broken"])
def test_an_altered_evaluation_is_made_again_not_signed_again(tiny, store, capsys, how):
    pack = seeds(grid(tiny, "learnable/reinforce", rates=(1e-3,)))
    manifest = tiny.run(pack, store)
    (folder,) = folders(store, pack)
    path = folder / EVALUATION
    document = json.loads(path.read_text())
    document["report"]["bpd"] /= 2
    path.write_text(as_json(document) if how == "number" else "{")
    assert tiny.run(pack, store) == manifest
    assert "altered; evaluating this run again" in capsys.readouterr().err


def test_another_evaluation_is_made_where_it_is_asked_for(tiny, store, trained):
    pack = seeds(grid(tiny, "learnable/reinforce", rates=(1e-3,)))
    tiny.run(pack, store)
    trained.clear()
    other = dataclasses.replace(pack, evaluation=dataclasses.replace(EVALUATION_ASKED, samples=5))
    tiny.run(other, store)
    assert trained == []
    assert json.loads((folders(store, pack)[0] / EVALUATION).read_text())["report"]["samples"] == 5


def test_a_stop_keeps_what_is_done(tiny, store, trained):
    pack = grid(tiny, "learnable/reinforce", epochs=4)
    undisturbed = tiny.run(pack, RunStore(store.root.parent / "undisturbed"))
    # Asked after each of the first run's 16 steps but for the last one, then in the second run.
    answers = iter([False] * 15 + [True])
    with pytest.raises(Interrupted):
        tiny.run(pack, store, stop=lambda: next(answers))
    assert store.find(pack.members[0].name, pack.members[0].id) is not None
    assert (store.working_folder(pack.members[1].name) / "checkpoint.pt").exists()
    trained.clear()
    assert tiny.run(pack, store) == undisturbed
    assert trained == [pack.members[1].name]


def family(tiny, cell="learnable/reinforce+silent", cutoffs=(None, 1, 3, 1)):
    """A pack of runs that differ in their cut-off, but for the last one, which has another learning rate as well."""
    runs = [
        tiny.settings(cell, silent={"cutoff_epoch": cutoff}, epochs=4, snapshot_epochs=(1, 2)) for cutoff in cutoffs
    ]
    return seeds(None, *runs[:-1], dataclasses.replace(runs[-1], learning_rate=2e-3))


def trained_apart(tiny, pack, folder):
    """The content of the runs' files, each run trained by a job of its own."""
    store = RunStore(folder)
    for settings in pack.members:
        tiny.run(seeds(None, settings), store)
    return [results(folder) for folder in folders(store, pack)]


def results(folder):
    return {name: content for name, content in contents(folder).items() if name != "record.json"}


@pytest.mark.parametrize("cell", ["learnable/reinforce+silent", "learnable/silent-bernoulli"])
def test_runs_that_differ_in_their_cutoff_share_their_epochs_before_it(tiny, store, tmp_path, monkeypatch, cell):
    pack = family(tiny, cell)
    apart, steps = trained_apart(tiny, pack, tmp_path / "apart"), []
    compute = Trainer.compute

    def counted(self, *given):
        steps.append(self.settings)
        compute(self, *given)

    monkeypatch.setattr(Trainer, "compute", counted)
    tiny.run(pack, store)
    assert [results(folder) for folder in folders(store, pack)] == apart
    # Four steps an epoch, of which the second and third run leave out one and three.
    assert [steps.count(run) for run in pack.members] == [16, 12, 4, 16]
    assert not list(store.root.rglob("*.partial"))


@pytest.mark.parametrize("stops", [[3, 7], [11, 2, 2], [14], [19, 1, 5]])
def test_shared_epochs_are_the_same_after_stops(tiny, store, tmp_path, stops):
    """Stops in the epochs before the first cut-off, between both, after the last one and in the runs that fork."""
    pack = family(tiny)
    for steps in stops:
        answers = iter([False] * steps + [True])
        with pytest.raises(Interrupted):
            tiny.run(pack, store, stop=lambda answers=answers: next(answers))
    tiny.run(pack, store)
    assert [results(folder) for folder in folders(store, pack)] == trained_apart(tiny, pack, tmp_path / "apart")


def test_a_stack_shares_epochs_as_single_runs_do(tiny, store, tmp_path, trained):
    pack = family(tiny)
    tiny.run(pack, store, stack=4)
    assert trained == [pack.members[0].name, pack.members[3].name, pack.members[1].name, pack.members[2].name]
    for found, wanted in zip(folders(store, pack), trained_apart(tiny, pack, tmp_path / "apart"), strict=True):
        lines = ((found / "curve.jsonl").read_text().splitlines(), wanted["curve.jsonl"].splitlines())
        for ours, alone in zip(*(map(json.loads, each) for each in lines), strict=True):
            assert ours["frozen"] == alone["frozen"]
            # A stack rounds otherwise than a run alone.
            assert ours["train_bpd"] == pytest.approx(alone["train_bpd"], rel=1e-4)


def test_a_trunk_past_the_cutoff_is_not_forked(tiny, store, tmp_path):
    """A cut-off that is added to the grid after the trunk was stopped in the middle of the next epoch."""
    pack = family(tiny)
    trunk, later = pack.members[0], pack.members[2]
    answers = iter([False] * (4 * later.unfrozen_epochs + 1) + [True])
    with pytest.raises(Interrupted):
        tiny.run(dataclasses.replace(pack, members=(trunk,)), store, stop=lambda: next(answers))
    both = dataclasses.replace(pack, members=(trunk, later))
    tiny.run(both, store)
    assert [results(folder) for folder in folders(store, both)] == trained_apart(tiny, both, tmp_path / "apart")


def test_other_data_than_the_plans_are_refused(tiny, store):
    pack = grid(tiny, "learnable/reinforce", rates=(1e-3,))
    settings = pack.members[0]
    foreign = dataclasses.replace(settings, data=dataclasses.replace(settings.data, sha256="0" * 64))
    with pytest.raises(DataError, match="expected tiny with sha256 0000"):
        tiny.run(dataclasses.replace(pack, members=(foreign,)), store)


@pytest.fixture
def command_line(tmp_path, monkeypatch, cpu_command):
    """The arguments of the training command as a job runs it, in this process or in another."""
    monkeypatch.setenv("PYTHONPATH", str(Path(cli.__file__).parents[2]))
    return lambda tiny, pack, name: train_arguments(tiny, pack, tmp_path / name)


def test_a_terminated_job_goes_on_to_the_result_of_an_undisturbed_one(tiny, tmp_path, command_line):
    pack = grid(tiny, "learnable/reinforce+silent", rates=(1e-3,), epochs=60, evaluate_every=20)
    pack = dataclasses.replace(pack, members=(*pack.members, dataclasses.replace(pack.members[0], epochs=3)))
    assert cli.main(command_line(tiny, pack, "undisturbed")) == 0
    arguments = command_line(tiny, pack, "terminated")
    working = RunStore(tmp_path / "terminated").working_folder(pack.members[0].name)
    program = "import sys; from silent_study.cli import main; sys.exit(main())"
    said = terminate_in_training([sys.executable, "-c", program, *arguments], working)
    assert said.strip() == "stopped; the same command goes on from the checkpoint"
    assert not (tmp_path / "terminated.json").exists()
    reached = len((working / "curve.jsonl").read_text().splitlines())
    assert 3 <= reached < 60
    assert (working / "checkpoint.pt").exists()
    assert cli.main(arguments) == 0
    assert (tmp_path / "terminated.json").read_bytes() == (tmp_path / "undisturbed.json").read_bytes()
    for settings in pack.members:
        one, other = (contents(tmp_path / name / settings.name) for name in ("undisturbed", "terminated"))
        assert one.keys() == other.keys()
        assert all(one[name] == other[name] for name in ("curve.jsonl", "result.json", "settings.json"))
    weights = [
        torch.load(tmp_path / name / pack.members[0].name / "weights.pt")["vae"]
        for name in ("undisturbed", "terminated")
        if (tmp_path / name / pack.members[0].name / "weights.pt").exists()
    ]
    assert len(weights) == 2
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_the_command_names_the_failing_runs_last(tiny, command_line, monkeypatch, capsys):
    pack = grid(tiny, "learnable/reinforce", rates=(1e-3, 2e-3))

    def begin(self):
        raise DataError("no such image") if self.settings.learning_rate == 1e-3 else KeyError("a mistake")

    monkeypatch.setattr(Trainer, "begin", begin)
    assert cli.main(command_line(tiny, pack, "failing")) == 70
    first, second, last = capsys.readouterr().err.splitlines()[-3:]
    names = [run.name for run in pack.members]
    assert first == f"silent-gradients train: {names[0]}: no such image"
    assert second.startswith(f"silent-gradients train: {names[1]}: unexpected KeyError: 'a mistake'; its traceback")
    assert last == f"silent-gradients train: 2 of 2 runs failed: {', '.join(names)}; all others are done and kept"


def test_a_time_limit_leaves_time_for_what_may_come():
    now = 0.0
    limit = TimeLimit(100.0, clock=lambda: now)
    answers = {}
    for now in (1.0, 2.0, 3.0, 23.0, 24.0, 60.0, 61.0):
        answers[now] = limit()
    # After something that took 20 s, 30 s are kept; after 36 s, 54 s.
    assert [moment for moment, stop in answers.items() if stop] == [60.0, 61.0]
    late = TimeLimit(100.0, clock=lambda: now)
    now += 50.0  # a start that took that long
    assert not late()
    now = 0.0
    short = TimeLimit(15.0, clock=lambda: now)
    now = 4.0
    assert not short()
    now = 6.0
    assert short()
    now = 1e9
    assert not TimeLimit(math.inf, clock=lambda: now)()


def test_a_pack_that_stops_at_its_time_limit_says_so_and_goes_on(tiny, tmp_path, command_line, capsys):
    pack = grid(tiny, "learnable/reinforce", rates=(1e-3,), epochs=3)
    arguments = command_line(tiny, pack, "limited")
    # Less than the reserve: it stops after every step.
    codes: list[int] = []
    while not codes or codes[-1] == TIME_LIMIT:
        codes.append(cli.main([*arguments, "--time-limit", "0.01"]))
    assert codes == [75] * 11 + [0]
    message = "stopped before the limit of 0.01 minutes; the same command goes on from the checkpoint"
    assert message in capsys.readouterr().err.splitlines()
    assert cli.main(command_line(tiny, pack, "undisturbed")) == 0
    assert (tmp_path / "limited.json").read_bytes() == (tmp_path / "undisturbed.json").read_bytes()


def test_on_a_cpu_streams_are_one_run_after_another(tiny, command_line, monkeypatch):
    asked: list[TrainingOptions] = []

    def run_pack(_spec, _store, _data, _device, options, *_):
        asked.append(options)
        return {}

    monkeypatch.setattr("silent_study.jobs.pack.run_pack", run_pack)
    for steps in ("streams", "graph"):
        arguments = command_line(tiny, grid(tiny, "learnable/reinforce"), steps)
        assert cli.main([*arguments, "--stack", "2", "--steps", steps]) == 0
    assert asked == [TrainingOptions(stack=1), TrainingOptions(stack=2)]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
def test_only_ctrl_c_after_a_request_does_not_wait(cpu_command, number):
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as in the background of a script
    stop = StopSignal()
    assert not stop()
    for sent in (number, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        os.kill(os.getpid(), sent)
    assert stop()
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_that_snakemake_forwards_too_is_one_request(cpu_command):
    stop = StopSignal()
    for number in (signal.SIGUSR1, signal.SIGINT, signal.SIGUSR1):
        os.kill(os.getpid(), number)
    assert stop.number == signal.SIGINT


def test_nohup_is_respected(cpu_command):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    stop = StopSignal()
    os.kill(os.getpid(), signal.SIGHUP)
    assert not stop()


def test_an_evaluation_is_interrupted_at_once(cpu_command):
    stop = StopSignal()
    with pytest.raises(KeyboardInterrupt), stop.at_once():
        os.kill(os.getpid(), signal.SIGTERM)
    assert stop.number == signal.SIGTERM


def test_a_run_tells_its_epoch_every_now_and_then(tiny, tmp_path, monkeypatch, capsys):
    clock = iter([0.0, 1.0, 6.0, 7.0, 12.0])
    settings = tiny.settings(epochs=9)
    trainer = tiny.trainer(settings, tmp_path)
    monkeypatch.setattr("silent_study.jobs.pack.time.monotonic", lambda: next(clock))
    report = epoch_report("[1/2] run")
    report(trainer)  # as it begins
    for trainer.epoch, bound in enumerate([3.5, None, 3.25], 1):
        trainer.curve.append({"epoch": trainer.epoch, "selection_bpd": bound})
        # 64 images in 4 steps of 16: a second an epoch.
        trainer.speed.mark(float(trainer.epoch), 64 * trainer.epoch)
        report(trainer)
    assert capsys.readouterr().out.splitlines() == [
        "[1/2] run: epoch 1 of 9, 3.5000 bits/dim",
        "[1/2] run: epoch 3 of 9, 3.2500 bits/dim, 64 images/s, about 6.0 s left",
    ]
