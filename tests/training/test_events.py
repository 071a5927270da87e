"""Curves in TensorBoard, as its own reader reads them."""

import dataclasses
import json
import subprocess
import sys

import pytest
from tests.tiny import never, pack_of, train_arguments

from silent_study import cli
from silent_study.store.runs import RunStore
from silent_study.training.loop import Interrupted

pytest.importorskip("tensorboard")

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from silent_study.training.events import IMAGES, LEARNING_RATE, SCALARS


def seeds(tiny):
    run = tiny.settings(
        "learnable/reinforce+silent", epochs=8, evaluate_every=3, cooldown_epochs=4.0, snapshot_epochs=()
    )
    return pack_of(run, dataclasses.replace(run, seed=1))


def run(tiny, pack, folder, stop=never, **options):
    store = RunStore(folder / "store")
    tiny.run(pack, store, stop, **{"tensorboard": folder / "events"} | options)
    return store


def shown(folder):
    """Points by tag, as TensorBoard reads all events of a folder."""
    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    accumulator.Reload()
    return {
        tag: [(event.step, event.value) for event in accumulator.Scalars(tag)] for tag in accumulator.Tags()["scalars"]
    }


def expected(run_folder):
    """The same of the curve in the store."""
    curve = [json.loads(line) for line in (run_folder / "curve.jsonl").read_text().splitlines()]
    points = {
        tag: [(entry["epoch"], pytest.approx(entry[key], rel=1e-6)) for entry in curve if entry[key] is not None]
        for key, tag in SCALARS.items()
    }
    points[LEARNING_RATE] = [
        (entry["epoch"], pytest.approx(1e-3 * min(1, (8 - entry["epoch"]) / 4), rel=1e-6)) for entry in curve
    ]
    return {tag: of_tag for tag, of_tag in points.items() if of_tag}


@pytest.mark.parametrize("stack", [1, 2])
def test_the_events_are_the_curve(tiny, tmp_path, stack):
    pack = seeds(tiny)
    store = run(tiny, pack, tmp_path, stack=stack)
    for settings in pack.members:
        found = shown(tmp_path / "events" / settings.name)
        assert set(found) == {*SCALARS.values(), LEARNING_RATE}
        assert [step for step, _ in found["bits_per_dim/selection"]] == [3, 6, 8]
        assert found == expected(store.folder(settings.name))
        accumulator = EventAccumulator(str(tmp_path / "events" / settings.name))
        accumulator.Reload()
        images = accumulator.Images(IMAGES)
        assert [image.step for image in images] == [3, 6, 8]
        assert {(image.width, image.height) for image in images} == {(8 * 4, 2 * 4)}
        given = accumulator.summary_metadata["_hparams_/session_start_info"].plugin_data.content
        shown_settings = HParamsPluginData.FromString(given).session_start_info.hparams
        assert shown_settings["learning_rate"].number_value == 1e-3
        assert shown_settings["silent.annealing_rate"].number_value == 0.2
        assert shown_settings["method"].string_value == "reinforce+silent"


def test_a_run_that_goes_on_neither_loses_nor_repeats_a_point(tiny, tmp_path):
    pack = seeds(tiny)
    stops = iter([False] * 13 + [True])
    with pytest.raises(Interrupted):
        run(tiny, pack, tmp_path, stop=lambda: next(stops))
    events = tmp_path / "events" / pack.members[0].name
    reached = len(shown(events)["bits_per_dim/train"])
    assert 0 < reached < 8
    # Points that the checkpoint does not know, and one that is lost, as a kill leaves them.
    (earlier,) = events.glob("events.out.tfevents.*")
    earlier.write_bytes(earlier.read_bytes()[:-40])
    live = EventAccumulator(str(events), size_guidance={"scalars": 0})
    live.Reload()
    store = run(tiny, pack, tmp_path)
    assert shown(events) == expected(store.folder(pack.members[0].name))
    live.Reload()  # a TensorBoard that was there all the time
    steps = [event.step for event in live.Scalars("bits_per_dim/train")]
    assert steps == sorted(set(steps))


def test_a_run_is_the_same_with_and_without(tiny, tmp_path):
    pack = seeds(tiny)
    one = run(tiny, pack, tmp_path / "with")
    other = run(tiny, pack, tmp_path / "without", tensorboard=None)
    for settings in pack.members:
        assert one.verified(settings.name, settings.id).digest == other.verified(settings.name, settings.id).digest
    assert not (tmp_path / "without" / "events").exists()


@pytest.mark.usefixtures("cpu_command")
def test_where_tensorboard_is_not_installed_one_line_says_what_to_do(tiny, tmp_path, monkeypatch, capsys):
    for name in ("torch.utils.tensorboard", "silent_study.training.events"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    arguments = train_arguments(tiny, seeds(tiny), tmp_path / "store")
    assert cli.main([*arguments, f"--tensorboard={tmp_path / 'events'}"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("silent-gradients train: execution.tensorboard: the package tensorboard is not installed")
    assert error.count("\n") == 1
    assert RunStore(tmp_path / "store").names() == []


def test_a_training_without_it_does_not_load_it():
    program = "import sys, silent_study.jobs.pack; print([m for m in sys.modules if 'tensorboard' in m])"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"
