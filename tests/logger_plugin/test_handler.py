"""A throw-away workflow, run by Snakemake itself with this plugin."""

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

import snakemake_logger_plugin_silent_gradients

SOURCE = Path(snakemake_logger_plugin_silent_gradients.__file__).parents[1]
LITERAL = ("--cores", "8", "--resources", "gpu=8", "all")

SNAKEFILE = """
onstart:
    logger.info("0 of 2 runs trained", extra={"trained_runs": frozenset(), "planned_runs": 2})

rule all:
    input:
        "results/packs/seeds/digits/learnable/reinforce+silent/0-abc.json",
        "results/report.html",

rule train_pack:
    output:
        "results/packs/{round}/{dataset}/{experiment}/{method}/{pack}.json",
    log:
        "logs/{round}/{dataset}/{experiment}/{method}/{pack}.log",
    resources:
        gpu=1,
    shell:
        "python3 train.py {output} > {log} 2>&1"

rule report:
    output:
        "results/report.html",
    log:
        "logs/report.log",
    shell:
        "sh report.sh {output} > {log} 2>&1"
"""

# Stands in for a training: one run that finishes and one that diverges.
TRAIN = """
import json, pathlib, sys, time
manifest = pathlib.Path(sys.argv[1])
cell = pathlib.Path(*manifest.parts[3:-1])
members = []
for seed, (status, bpd) in enumerate([("finished", 3.412), ("diverged", None)]):
    run = cell / f"seed={seed}-3f9c2a"
    folder = "results/store" / run
    folder.mkdir(parents=True)
    print(f"[{seed + 1}/2] {run}: epoch 7 of 9, 3.5000 bits/dim", flush=True)
    time.sleep(0.6)
    print(f"[{seed + 1}/2] trained {run}: 3.5000 bits/dim on holdout", flush=True)
    (folder / "result.json").write_text(json.dumps({"status": status, "selection": {"bpd": bpd}}))
    members.append({"name": str(run)})
manifest.write_text(json.dumps({"members": members}))
"""


@pytest.fixture
def workflow(tmp_path):
    (tmp_path / "Snakefile").write_text(SNAKEFILE)
    (tmp_path / "train.py").write_text(TRAIN)
    (tmp_path / "report.sh").write_text("touch $1\n")
    (tmp_path / "profiles" / "default").mkdir(parents=True)
    profile = Path(__file__).parents[2] / "profiles" / "default" / "profile.yaml"
    (tmp_path / "profiles" / "default" / "profile.yaml").write_bytes(profile.read_bytes())
    return tmp_path


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "snakemake", *arguments]


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(SOURCE), "TERM": "xterm", "COLUMNS": "120"}


def snakemake(workflow: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments),
        cwd=workflow,
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_literal_command_runs_everything_and_then_nothing(workflow):
    first = snakemake(workflow, *LITERAL)
    assert first.returncode == 0, first.stderr
    assert re.search(r"^3 jobs: (?=.*1 train_pack)(?=.*1 report)", first.stderr, re.MULTILINE)
    assert re.search(
        r"^\[\d/3\] seeds digits/learnable/reinforce\+silent: 2 runs, 1 diverged, best 3\.412 bits/dim, \d\.\d s \(",
        first.stderr,
        re.MULTILINE,
    )
    assert re.search(r"^\[\d/3\] report, \d\.\d s", first.stderr, re.MULTILINE)
    assert re.search(r"^3 of 3 jobs done, in \d\.\d s$", first.stderr, re.MULTILINE)
    assert len(first.stderr.splitlines()) < 10
    second = snakemake(workflow, *LITERAL)
    assert second.returncode == 0, second.stderr
    assert "Nothing to be done" in second.stderr


def test_a_failed_job_shows_the_end_of_its_log(workflow):
    (workflow / "report.sh").write_text("for i in $(seq 50); do echo line $i; done; exit 3\n")
    run = snakemake(workflow, *LITERAL)
    assert run.returncode == 1
    assert "FAILED report (rule report" in run.stderr
    assert "  log: logs/report.log, last 20 of 50 lines:" in run.stderr
    assert [line for line in run.stderr.splitlines() if line.startswith("    line ")] == [
        f"    line {i}" for i in range(31, 51)
    ]
    assert "returned non-zero exit status 3" in run.stderr
    # The command itself is long, and in .snakemake/log.
    assert "sh report.sh" not in run.stderr
    assert "WorkflowError" not in run.stderr
    # The job that does not need it goes on.
    assert "best 3.412 bits/dim" in run.stderr
    assert re.search(r"^1 of 3 jobs done, 1 failed", run.stderr, re.MULTILINE)


@pytest.mark.slow
@pytest.mark.parametrize("end", ["echo 'stopped; the same command goes on'; exit 75", "kill -HUP $$"])
def test_a_job_that_was_stopped_has_not_failed(workflow, end):
    (workflow / "report.sh").write_text(f"{end}\n")
    run = snakemake(workflow, *LITERAL)
    assert run.returncode == 1
    assert "stopped report; the same command goes on" in run.stderr
    assert re.search(r"^1 of 3 jobs done, 1 stopped", run.stderr, re.MULTILINE)
    assert not re.search("FAILED|Error|exit status", run.stderr)


@pytest.mark.slow
def test_errors_come_through_however_quiet(workflow):
    (workflow / "report.sh").write_text("echo what went wrong; exit 1\n")
    run = snakemake(workflow, "--quiet", "all", "--cores", "2", "--", "results/report.html")
    assert run.returncode == 1
    assert "    what went wrong" in run.stderr
    assert "jobs done" not in run.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "text", "code", "shown"),
    [
        (
            "train.py",
            "import sys; open(sys.argv[1], 'w').write('{}')",
            0,
            "finished, but its results cannot be read (KeyError('members'))",
        ),
        ("Snakefile", "rule all:\n    input: 'missing'\n", 1, "MissingInputException"),
    ],
)
def test_what_is_wrong_is_shown(workflow, file, text, code, shown):
    (workflow / file).write_text(text)
    run = snakemake(workflow, *LITERAL)
    assert run.returncode == code, run.stderr
    assert shown in run.stderr


SETTINGS_ERROR = 'from silent_study.settings import SettingsError\nraise SettingsError("seeds: expected numbers")\n'
STORE_ERROR = """
from silent_study.store.runs import StoreError

def wrong(wildcards):
    raise StoreError("params.yaml: has no cell a\\nknown: b")

rule all:
    input:
        wrong,
"""


@pytest.mark.parametrize("options", [(), ("-n",)])
@pytest.mark.parametrize(
    ("snakefile", "message"),
    [(SETTINGS_ERROR, ["seeds: expected numbers"]), (STORE_ERROR, ["params.yaml: has no cell a", "known: b"])],
    ids=["settings", "input function"],
)
def test_a_mistake_of_the_user_is_its_message(workflow, snakefile, message, options):
    (workflow / "Snakefile").write_text(snakefile)
    run = snakemake(workflow, *options, *LITERAL)
    assert run.returncode == 1
    assert [line.strip() for line in run.stderr.splitlines()][-len(message) :] == message
    assert not re.search(r"Traceback|Error in|File \"|, line ", run.stderr + run.stdout)


def test_a_dry_run_is_snakemakes_own(workflow):
    run = snakemake(workflow, "-n", *LITERAL)
    assert run.returncode == 0, run.stderr
    assert re.search(r"^train_pack +1$", run.stdout, re.MULTILINE)
    assert "reason: Missing output files: results/report.html" in run.stdout
    assert "This was a dry-run" in run.stdout
    assert not (workflow / "results").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--lint"], "Lints for rule train_pack"),
        (["--list-rules"], "train_pack"),
        (["--dag"], "digraph snakemake_dag"),
        (["--unlock"], "Unlocked working directory"),
        (["--summary"], "results/report.html"),
    ],
)
def test_other_commands_say_what_they_always_say(workflow, arguments, expected):
    run = snakemake(workflow, *arguments)
    assert expected in run.stdout + run.stderr


def test_a_terminal_shows_what_is_being_trained(workflow):
    screen, terminal = pty.openpty()
    process = subprocess.Popen(command(*LITERAL), cwd=workflow, env=environment(), stdout=terminal, stderr=terminal)
    os.close(terminal)
    shown = b""
    while True:
        try:
            part = os.read(screen, 4096)
        except OSError:  # the other side is closed
            break
        if not part:
            break
        shown += part
    os.close(screen)
    assert process.wait(timeout=60) == 0
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
    assert "reinforce+silent seed 0: epoch 7 of 9" in text
    assert re.search(r"[012]/2 runs, [0-3]/3 jobs", text)
    assert re.search(r"\[\d/3\] seeds digits/learnable/reinforce\+silent: 2 runs", text)
    assert "3 of 3 jobs done" in text
