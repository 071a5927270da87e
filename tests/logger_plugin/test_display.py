"""What is shown while jobs run where there is no terminal."""

import io
import time
from pathlib import Path

import pytest

from snakemake_logger_plugin_silent_gradients.display import PlainDisplay, TerminalDisplay
from snakemake_logger_plugin_silent_gradients.progress import Job, Progress


def wait_for(condition) -> None:
    deadline = time.monotonic() + 10
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)


def test_plain_lines_tell_what_the_packs_are_at(tmp_path, monkeypatch):
    log = tmp_path / "pack.log"
    log.write_text("[2/5] some run: epoch 7 of 60, 3.5000 bits/dim\n")
    manifest = Path("results/packs/seeds/digits/fixed/ab.json")
    progress = Progress(started=time.time())
    progress.running[1] = Job("train_pack", (), (manifest,), time.time(), log)
    progress.running[2] = Job("select", ("guided",), (), time.time())
    display, lines = PlainDisplay(heartbeat=0.01), []
    monkeypatch.setattr(display, "write", lambda text, _style: lines.append(text))
    display.watch(progress)
    wait_for(lambda: len(lines) > 1)
    display.close()
    assert lines[0].startswith("  seeds digits/fixed, ")
    assert lines[0].endswith(": [2/5] some run: epoch 7 of 60, 3.5000 bits/dim")
    assert not any("select" in line for line in lines)
    time.sleep(0.05)
    told = len(lines)
    time.sleep(0.1)
    assert len(lines) == told


@pytest.mark.parametrize(
    ("colour", "variables", "shown"), [(True, {}, True), (True, {"NO_COLOR": "1"}, False), (False, {}, False)]
)
def test_colours_are_for_those_who_want_them(monkeypatch, colour, variables, shown):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    stream = io.StringIO()
    stream.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr("sys.stderr", stream)
    TerminalDisplay(colour=colour).write("FAILED", "red")
    assert "FAILED" in stream.getvalue()
    assert ("\x1b[31m" in stream.getvalue()) == shown


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_a_job_is_a_line_with_its_numbers(tmp_path, width):
    from rich.console import Console

    run = "digits/learnable/gumbel-softmax+silent/lr=0.003,anneal=0.1,seed=100-a17fa449bfe5"
    progress = Progress(started=time.time(), done=4, total=10, runs=75, trained={"a", "b"})
    trained = f"[1/3] already trained a: 3.5 bits/dim on holdout\n[3/3] trained {run}: diverged in epoch 2\n"
    lines = (
        f"{trained}[2/3] {run}: epoch 12 of 20, 3.1189 bits/dim, 106 images/s, about 1 min 27 s left",
        f"[4/4] {run}: epoch 2 of 20, 385 images/s, about 54 s left",
        "waiting for GPU 0, held by process 4711 in /home/somebody/silent-gradients since an hour",
    )
    for number, line in enumerate(lines):
        log = tmp_path / f"{number}.log"
        log.write_text(f"{line}\n")
        outputs = (Path("results/packs/baselines/digits/learnable/ab.json"),)
        progress.running[number] = Job("train_pack", (), outputs, time.time(), log)
    display = TerminalDisplay(colour=False)
    display._progress = progress
    console = Console(width=width, file=io.StringIO())
    console.print(display._render())
    shown = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert all(len(line) <= width for line in shown)
    assert sum("baselines" in line for line in shown) == len(lines)
    if width >= 80:
        first, second, third, bar = map(str.split, shown)
        assert first[:3] == ["baselines", "digits/learnable", "2/3"]
        assert first[-7:] == ["12/20", "3.1189", "1", "min", "27", "s", "left"]
        assert second[-4:] == ["2/20", "54", "s", "left"]
        assert " ".join(third[4:]).startswith("waiting for GPU 0, held by process 4711")
        assert bar[-8:-5] == ["3/75", "runs,", "4/10"], "two before, one in the first log, and one of both"
