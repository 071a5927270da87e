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
