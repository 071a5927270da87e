"""What goes wrong is told in one line, with an exit code that says of which kind it was."""

import errno
import os
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from silent_study.cli import failures, main
from silent_study.data import prepared
from silent_study.data.errors import DataError
from silent_study.settings import SettingsError
from silent_study.store.runs import StoreError

PROGRAM = "import sys; from silent_study.cli import main; sys.exit(main())"


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder, and a temporary folder of its own in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    monkeypatch.delenv(failures.TRACEBACK_VARIABLE, raising=False)
    return tmp_path


@pytest.fixture
def fails(monkeypatch):
    """Let ``report`` fail with an error."""

    def with_error(error):
        def load_plan(options):
            raise error

        monkeypatch.setattr("silent_study.cli.study.load_plan", load_plan)
        return main(["report"])

    return with_error


def kept_in(folder):
    return list(folder.glob("silent-gradients-report-*.log"))


def test_an_unexpected_error_is_a_line_that_names_the_file_with_its_traceback(here, fails, capsys):
    assert fails(KeyError("members\nand more")) == 70
    (log,) = kept_in(here / "tmp")
    assert capsys.readouterr().err == (
        f"silent-gradients report: unexpected KeyError: 'members\\nand more'; its traceback is in {log}\n"
    )
    text = log.read_text()
    assert "Traceback (most recent call last)" in text
    assert "KeyError" in text
    assert sys.version in text


def test_the_traceback_lies_beside_the_logs_of_a_workflow(here, fails, capsys):
    (here / "logs").mkdir()
    assert fails(RuntimeError()) == 70
    (log,) = kept_in(Path("logs/errors"))
    assert capsys.readouterr().err == f"silent-gradients report: unexpected RuntimeError; its traceback is in {log}\n"
    assert not kept_in(here / "tmp")


def test_where_no_folder_takes_the_traceback_it_is_shown(here, fails, capsys, monkeypatch):
    (here / "logs").mkdir()
    (here / "logs" / "errors").write_text("a file where a folder should be")
    monkeypatch.setattr(tempfile, "tempdir", str(here / "nowhere" / "tmp"))
    assert fails(RuntimeError("odd")) == 70
    shown = capsys.readouterr().err
    assert shown.startswith("Traceback")
    assert shown.endswith("silent-gradients report: unexpected RuntimeError: odd\n")


@pytest.mark.parametrize("by", ["option", "environment"])
def test_the_traceback_of_any_error_is_shown_if_asked_for(here, capsys, monkeypatch, by):
    if by == "environment":
        monkeypatch.setenv(failures.TRACEBACK_VARIABLE, "1")
    assert main(["report", *(["--traceback"] if by == "option" else [])]) == 1
    shown = capsys.readouterr().err
    assert shown.startswith("Traceback")
    assert shown.splitlines()[-1].startswith("silent-gradients report: params.yaml: cannot be read")
    assert not kept_in(here / "tmp")


@pytest.mark.parametrize("kind", [DataError, SettingsError, StoreError])
def test_errors_that_were_foreseen_are_their_message(here, fails, capsys, kind):
    assert fails(kind("what is wrong")) == 1
    assert capsys.readouterr().err == "silent-gradients report: what is wrong\n"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(errno.EACCES, "Permission denied", "results/pace.json"), "results/pace.json: Permission denied"),
        (OSError(errno.EROFS, "Read-only file system", "a", None, "b"), "b: Read-only file system"),
        (
            OSError(errno.ENOSPC, "No space left on device", "results/pace.json"),
            "results/pace.json: No space left on device; make room and repeat the command: finished work is kept",
        ),
        (OSError("a message alone"), "a message alone"),
        (
            ModuleNotFoundError("No module named 'rich'", name="rich"),
            "the package rich is not installed; pip install 'silent-gradients[workflow]'",
        ),
        (MemoryError(), "no memory left; use a smaller execution.stack or batch_size, or another device"),
    ],
)
def test_errors_of_the_machine_say_what_to_do(here, fails, capsys, error, line):
    assert fails(error) == 1
    assert capsys.readouterr().err == f"silent-gradients report: {line}\n"


def test_errors_of_the_system_without_a_file_are_no_bare_words(here, fails, capsys):
    assert fails(OSError(errno.EINVAL, "Invalid argument")) == 70
    assert "unexpected OSError: [Errno 22] Invalid argument; its traceback is in" in capsys.readouterr().err
    assert fails(OSError(errno.ENOSPC, "No space left on device")) == 1
    error = capsys.readouterr().err
    assert re.search(rf"No space left on device \({Path.cwd()}: \d+ bytes free, .*\); make room and repeat", error)


def test_a_missing_module_of_this_package_is_a_defect(here, fails):
    assert fails(ModuleNotFoundError("No module", name="silent_gradients.lost")) == 70


def test_ctrl_c_is_a_line(here, fails, capsys):
    assert fails(KeyboardInterrupt()) == 130
    assert capsys.readouterr().err == "stopped: silent-gradients report was interrupted\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_a_signal_to_any_verb_leaves_no_part_of_a_file(here, monkeypatch, capsys, number):
    monkeypatch.setattr(prepared, "evaluation_noise", lambda _shape: os.kill(os.getpid(), number))
    inherited, before = signal.signal(number, signal.SIG_DFL), signal.getsignal(number)  # nohup ignores SIGHUP
    assert main(["dequantize", "digits"]) == 128 + number
    assert capsys.readouterr().err == "stopped: silent-gradients dequantize was interrupted\n"
    assert list((here / "data/prepared/digits").iterdir()) == []
    assert signal.getsignal(number) == before
    signal.signal(number, inherited)


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_a_closed_stream_is_no_error(closed):
    command = ["sh", "-c", f'"$@" {closed}', "sh", sys.executable, "-c", PROGRAM, "completion", "bash"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, "")
    assert ("complete" in run.stdout) == (closed == "2>&-")


def test_a_reader_that_has_enough_ends_it_quietly(tmp_path):
    (tmp_path / "presets").mkdir()
    source, sink = os.pipe()
    os.close(source)
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, "completion", "bash"],
        stdout=sink,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(sink)
    assert (run.returncode, run.stderr) == (141, "")


def test_a_misspelt_verb_or_choice_is_told_with_what_was_meant(capsys):
    for arguments, line in (
        (["evalute", "run"], "(did you mean 'evaluate'?)"),
        (["train", "--steps", "egaer"], "egaer"),
        (["plan", "--confg", "{}"], "--confg"),
        (["report", "--opn"], "silent-gradients report: unrecognized arguments: --opn (did you mean '--open'?); see"),
    ):
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        assert stopped.value.code == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert line in error
        assert re.search(r"; see: silent-gradients[a-z ]* --help\n$", error)
