"""How far a workflow is: a store laid out by hand, told by hand; and a training that is watched while it runs."""

import fcntl
import json
import os
import pty
import re
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console
from tests.tiny import CPU, write_study

from silent_study.cli import main
from silent_study.jobs.lease import Lease, leased_device
from silent_study.jobs.pace import PACE, Pace, Steps, architecture
from silent_study.params import resolve
from silent_study.plan.plan import Plan
from silent_study.progress.logs import last_line, seconds_waited
from silent_study.progress.status import Failure, StatusReader
from silent_study.progress.status_view import view
from silent_study.store.runs import RunStore

GROUP, CELLS = "digits/fixed", ("digits/fixed/silent-gaussian", "digits/fixed/reparameterization")


@pytest.fixture
def plan(tmp_path, monkeypatch):
    """A small plan, whose jobs hold two runs each."""
    monkeypatch.chdir(tmp_path)
    write_study(tmp_path, epochs=10, grid={"learning_rate": [0.001, 0.002, 0.004]})
    (tmp_path / "params.yaml").write_text("preset: small\nexecution: {workers: 3, runs_per_pack: 2}\n")
    own = {"preset": "small", "execution": {"workers": 3, "runs_per_pack": 2}}
    return Plan(resolve(own, Path("presets")), Path("results"))


def jobs_of(plan):
    return plan.packs("baselines", {}, GROUP)


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def finish(plan, settings, bpd, seconds):
    folder = RunStore(plan.results / "store").folder(settings.name)
    diverged = bpd is None
    files = {"settings.json": "", "curve.jsonl": "", "result.json": ""}
    identity = {"id": settings.id, "name": settings.name, "numerics_version": 2, "files": files}
    write(folder / "record.json", identity | {"result_sha256": "", "replaces": []})
    write(
        folder / "result.json",
        {
            "status": "diverged" if diverged else "finished",
            "epochs": 4 if diverged else settings.epochs,
            "selection": None if diverged else {"bpd": bpd},
        },
    )
    write(folder / "provenance.json", {"seconds": seconds, "images_per_second": 1000.0})


def begin(plan, settings, epoch=3, **told):
    folder = RunStore(plan.results / "store").working_folder(settings.name)
    entries = [
        {"epoch": number, "selection_bpd": 4.0 - 0.1 * number if number % 2 else None, "train_bpd": 3.0}
        for number in range(1, epoch + 1)
    ]
    write(folder / "curve.jsonl", "".join(json.dumps(entry) + "\n" for entry in entries))
    defaults = {"epoch": epoch, "share": 0.35, "images_per_second": 500.0, "seconds_left": 130.0, "seconds": 70.0}
    write(folder / "progress.json", defaults | told)
    write(folder / "checkpoint.pt", "")
    then = time.time() - 50
    os.utime(folder / "checkpoint.pt", (then, then))
    return folder


def status(plan):
    return StatusReader(Path("logs")).read(plan)


def log_of(pack):
    return Path("logs") / "packs" / pack.round / pack.group / f"{pack.id}.log"


def complete(plan, pack):
    write(plan.manifest(pack), {})


@contextmanager
def held(plan, *names):
    """Locks as another process holds them."""
    store = RunStore(plan.results / "store")
    descriptors = []
    for name in names:
        path = store._lock_path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptors.append(os.open(path, os.O_RDWR | os.O_CREAT))
        fcntl.flock(descriptors[-1], fcntl.LOCK_EX | fcntl.LOCK_NB)
    yield
    for descriptor in descriptors:
        os.close(descriptor)


def shown(found, width=160, **options):
    console = Console(width=width, record=True, file=open(os.devnull, "w"))  # noqa: PTH123, SIM115
    console.print(view(found, **options))
    console.file.close()
    return console.export_text()


def test_nothing_has_begun(plan):
    found = status(plan)
    assert found.count() == {"planned": 6}
    assert [job.state for job in found.jobs] == ["planned"] * 3
    assert found.to_come == {("seeds", cell): 2 for cell in CELLS}
    assert (found.spent_hours, found.left_hours, found.report) == (0.0, None, False)
    assert not Path("results").exists()
    text = shown(found)
    assert "0 of 6 runs done, 6 planned, at most 4 more once a point is selected, the report is to come" in text
    assert "left: not known before" in text


def test_every_state_is_told(plan):
    first, second, third = jobs_of(plan)
    finish(plan, first.members[0], 3.25, 100.0)
    finish(plan, first.members[1], None, 60.0)
    complete(plan, first)
    begin(plan, second.members[0])
    write(log_of(second), "[1/2] a line\n[1/2] another\nhalf a li")
    write(log_of(third), "waiting for a CPU slot: cpu-0 in use\n")
    with held(plan, second.members[0].name, second.lock, third.lock):
        found = status(plan)
    assert found.count() == {"finished": 1, "diverged": 1, "running": 1, "planned": 3}
    assert [(job.state, job.news) for job in found.jobs] == [
        ("done", ""),
        ("running", "[1/2] another"),
        ("running", "waiting for a CPU slot: cpu-0 in use"),
    ]
    run = found.runs[second.members[0].name]
    # The bound of the third epoch, since the curve has none of the second.
    assert (run.state, run.epoch, run.epochs, run.share) == ("running", 3, 10, 0.35)
    assert run.bpd == pytest.approx(3.7)
    assert (run.images_per_second, run.seconds_left) == (500.0, 130.0)
    assert run.checkpoint_age == pytest.approx(50, abs=20)
    text = shown(found)
    assert re.search(r"silent-gaussian seed \d +3/10 +3\.7000 +500 +2 min 10 s +\d+ s ago +lr=0.004", text)
    assert f"baselines {GROUP}: waiting for a CPU slot: cpu-0 in use" in text
    assert re.search(r"baselines digits/fixed +2/6 +1 +1 +3 +3\.2500", text)
    assert re.search(r"  silent-gaussian +2/3 +1 +1 +3\.2500", text)
    assert re.search(r"  reparameterization +0/3 +3", text)
    assert re.search(r"seeds digits/fixed +<= 4", text)
    # Nothing is stopped: no column for it.
    assert "stopped" not in text
    assert max(map(len, shown(found, width=80).splitlines())) <= 80
    # A narrow window cuts names.
    assert re.search(r"… +2/6 +1 +1 +3 +3\.2500", shown(found, width=55))


def test_hours_by_hand(plan):
    first, second, third = jobs_of(plan)
    # Of the first cell, 10 epochs took 100 s, 4 took 60 s and 3.5 took 70 s: 230 / 17.5 s each. Nothing tells the other
    # cell's but these.
    finish(plan, first.members[0], 3.25, 100.0)
    finish(plan, first.members[1], None, 60.0)
    begin(plan, second.members[0])
    each = 230 / 17.5
    found = status(plan)
    assert found.spent_hours == pytest.approx(230 / 3600)
    # 6.5 epochs of the one begun, three runs of the other cell, and two seeds each, of which the first seed's are runs
    # of the grid, whichever they will be.
    assert found.left_hours == pytest.approx(each * (6.5 + 3 * 10 + 2 * 10) / 3600)
    # Where the device's pace is measured, it tells the cell that has no run yet.
    run = third.members[0]
    steps = {architecture(run): Steps(1.0, 1.0, 1.0, 0.0)}
    write(plan.results / PACE, Pace("cpu", "a machine", "2.0", 1, steps, {}).to_json())
    measured = (1437 - run.data.holdout) // 128 * 10
    found = status(plan)
    assert found.left_hours == pytest.approx((each * (6.5 + 10) + 4 * measured) / 3600)


def test_what_stopped_and_what_failed_is_told_with_its_log(plan):
    first, second, third = jobs_of(plan)
    begin(plan, first.members[0])
    write(log_of(first), "[1/2] epoch 3\nstopped; the same command goes on from the checkpoint\n")
    begin(plan, second.members[0])
    write(log_of(second), "[1/2] epoch 3\n")
    write(log_of(third), "[1/2] epoch 1\nsilent-gradients train: No space left on device; make room\nmore words\n")
    write(Path("logs/download/digits.log"), "silent-gradients download: no answer from anywhere\n")
    write(Path("logs/prepare/digits.log"), "digits: 1437 training and 360 test images\n")
    write(Path("logs/download/mnist.log"), "silent-gradients download: of a data set that nobody asks for\n")
    found = status(plan)
    assert [job.state for job in found.jobs] == ["stopped", "stopped", "failed"]
    assert found.count() == {"stopped": 2, "planned": 4}
    assert found.failures == (
        Failure(
            "baselines digits/fixed", str(log_of(third)), "silent-gradients train: No space left on device; make room"
        ),
        Failure("download digits", "logs/download/digits.log", "silent-gradients download: no answer from anywhere"),
    )
    text = shown(found)
    for line in (
        "FAILED baselines digits/fixed: silent-gradients train: No space left on device; make room",
        f"  log: {log_of(third)}",
        "stopped baselines digits/fixed: stopped; the same command goes on from the checkpoint",
        "stopped baselines digits/fixed: its process is gone; last line: [1/2] epoch 3",
    ):
        assert line in text


def test_a_later_attempt_is_no_failure(plan):
    first, *_ = jobs_of(plan)
    write(log_of(first), "silent-gradients train: odd\n")
    with held(plan, first.lock):
        assert status(plan).jobs[0].state == "running"
    complete(plan, first)
    found = status(plan)
    assert (found.jobs[0].state, found.failures) == ("done", ())


def test_a_crash_before_the_command_line_runs_is_a_failure(plan):
    first, *_ = jobs_of(plan)
    error = "ModuleNotFoundError: No module named 'torch'"
    write(log_of(first), f"Traceback (most recent call last):\n  File ...\n{error}\n")
    assert [failure.error for failure in status(plan).failures] == [error]


def test_the_last_line_of_a_log_is_its_last_whole_one(tmp_path):
    log = tmp_path / "pack.log"
    assert last_line(log) == ""
    for content, line in (
        ("[1/3] cut sho", ""),
        ("[1/3] trained a\n[2/3] trained b\n[3/3] cut sho", "[2/3] trained b"),
        ("".join(f"line {number}\n" for number in range(100_000)), "line 99999"),
    ):
        log.write_text(content)
        assert last_line(log) == line


def test_a_wait_for_a_device_is_read_from_the_log(tmp_path, monkeypatch, capsys):
    log, clock = tmp_path / "pack.log", iter([100.0, 135.2])
    assert seconds_waited(log) == 0
    log.write_text("waiting for a CPU slot; in use: cpu-0\n")
    assert seconds_waited(log) is None
    monkeypatch.setattr("silent_study.jobs.lease.acquire", lambda: Lease("cpu", "cpu-0"))
    monkeypatch.setattr("silent_study.jobs.lease.time", SimpleNamespace(monotonic=lambda: next(clock)))
    with leased_device():
        pass
    log.write_text(f"{log.read_text()}{capsys.readouterr().err}[1/2] a run\n")
    assert seconds_waited(log) == 35


def test_a_job_that_has_just_been_started_is_not_taken_for_a_planned_one(plan):
    first, second, _ = jobs_of(plan)
    for pack, age in ((first, 1), (second, 100)):
        write(log_of(pack), "")
        os.utime(log_of(pack), (time.time() - age,) * 2)
    assert [job.state for job in status(plan).jobs] == ["running", "planned", "planned"]


def test_a_run_without_progress_is_marked(plan):
    first, *_ = jobs_of(plan)
    folder = begin(plan, first.members[0])
    os.utime(folder / "progress.json", (time.time() - 600,) * 2)
    with held(plan, first.members[0].name, first.lock):
        assert "no progress written for 10 min" in shown(status(plan))


@pytest.mark.parametrize("damage", ["", "{", "[]", "null"])
def test_half_written_files_are_no_errors(plan, damage):
    first, second, _ = jobs_of(plan)
    finish(plan, first.members[0], 3.25, 100.0)
    (RunStore(plan.results / "store").folder(first.members[0].name) / "result.json").write_text(damage)
    folder = begin(plan, second.members[0])
    for name in ("progress.json", "curve.jsonl"):
        (folder / name).write_text(damage + "\n")
    found = status(plan)
    assert found.count() == {"planned": 5, "stopped": 1}
    assert found.runs[second.members[0].name].epoch == 0
    shown(found, every_cell=True)


def test_json_has_everything(plan, capsys):
    first, *_ = jobs_of(plan)
    finish(plan, first.members[0], 3.25, 100.0)
    assert main(["status", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["counts"] == {"finished": 1, "planned": 5}
    assert document["cells"][0] == {"round": "baselines", "cell": CELLS[0], "runs": 3, "finished": 1, "planned": 2}
    assert document["to_come"] == [{"round": "seeds", "cell": cell, "at_most": 2} for cell in CELLS]
    assert [len(document[key]) for key in ("runs", "jobs", "failures")] == [6, 3, 0]
    assert document["runs"][0]["bpd"] == 3.25


def test_a_later_look_reads_no_finished_run_again(plan, monkeypatch):
    first, *_ = jobs_of(plan)
    finish(plan, first.members[0], 3.25, 100.0)
    reader, reads, unverified = StatusReader(Path("logs")), [], RunStore.unverified

    def counted(store, name):
        reads.append(name)
        return unverified(store, name)

    monkeypatch.setattr(RunStore, "unverified", counted)
    before = reader.read(plan)
    assert reader.read(plan).runs == before.runs
    assert reads == [first.members[0].name]
    finish(plan, first.members[1], 3.0, 50.0)
    record = RunStore(plan.results / "store").folder(first.members[0].name) / "record.json"
    os.utime(record, ns=(1, 1))  # of another training
    write(record.parent / "result.json", {"status": "diverged", "epochs": 4, "selection": None})
    assert [reader.read(plan).runs[run.name].state for run in first.members] == ["diverged", "finished"]


def test_watching_ends_with_ctrl_c(plan, capsys, monkeypatch):
    pauses = []

    def sleep(seconds):
        pauses.append(seconds)
        if len(pauses) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr("silent_study.cli.study.time.sleep", sleep)
    assert main(["status", "--watch", "7"]) == 0
    assert pauses == [7.0] * 3
    shown = capsys.readouterr().out
    assert shown.count("0 of 6 runs done") == 3
    assert "\x1b" not in shown


@pytest.mark.parametrize(("variables", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_colours_are_for_terminals_that_want_them(plan, variables, coloured):
    for settings in (member for pack in jobs_of(plan) for member in pack.members):
        finish(plan, settings, 3.0, 1.0)  # what is done is green
    ours, theirs = pty.openpty()
    environment = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "FORCE_COLOR")}
    program = "import sys; from silent_study.cli import main; sys.exit(main())"
    subprocess.run(
        [sys.executable, "-c", program, "status"],
        stdout=theirs,
        env=environment | {"TERM": "xterm-256color"} | variables,
        check=True,
        timeout=120,
    )
    os.close(theirs)
    text = os.read(ours, 65536).decode()
    os.close(ours)
    assert "6 of 6 runs done" in text
    colours = re.findall(r"\x1b\[(?:\d+;)*3\d(?:;\d+)*m", text)
    assert bool(colours) == coloured


def test_it_loads_no_torch(plan):
    program = "import sys; from silent_study.cli import main; main(['status']); print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == "False"


def test_a_run_that_ends_while_it_is_looked_at_is_finished(plan, monkeypatch):
    store = RunStore(plan.results / "store")
    (settings, *_) = [member for pack in jobs_of(plan) for member in pack.members]
    working = store.working_folder(settings.name)
    working.mkdir(parents=True)

    def ends(self, name):
        """The process seals the run and releases its lock between the two questions."""
        if working.exists():
            working.rmdir()
            finish(plan, settings, 3.0, 1.0)
        return False

    monkeypatch.setattr(RunStore, "is_locked", ends)
    assert status(plan).runs[settings.name].state == "finished"


def test_a_training_that_is_watched_while_it_runs(plan, monkeypatch):
    pytest.importorskip("sklearn")
    assert main(["prepare", "digits"]) == main(["dequantize", "digits"]) == 0
    from silent_study.jobs.pack import TrainingOptions, run_pack

    monkeypatch.setattr("silent_study.training.loop.PROGRESS_SECONDS", 0.0)
    store, ended, errors = RunStore(plan.results / "store"), threading.Event(), []
    data = Path("data/prepared/digits")

    def work():
        try:
            for pack in jobs_of(plan):
                with store.locked(pack.lock):
                    manifest = run_pack(pack, store, data, CPU, TrainingOptions(checkpoint_seconds=0.1, stack=2))
                    write(plan.manifest(pack), manifest)
        except BaseException as error:
            errors.append(error)
            raise
        finally:
            ended.set()

    worker = threading.Thread(target=work)
    worker.start()
    seen = []
    while not ended.is_set():
        found = status(plan)
        seen.append(found)
    worker.join()
    assert not errors
    done = [sum(run.ended for run in found.runs.values()) for found in seen]
    assert done == sorted(done)
    assert all(found.count()["stopped"] == 0 for found in seen[1:-1])
    watched = [run for found in seen for run in found.runs.values() if run.state == "running" and run.images_per_second]
    assert watched
    assert all(run.images_per_second > 0 and run.seconds_left >= 0 and 0 <= run.share <= 1 for run in watched)
    found = status(plan)
    assert found.count() == {"finished": 6}
    assert [job.state for job in found.jobs] == ["done"] * 3
