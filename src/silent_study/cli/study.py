"""Verbs of the whole study: plan, status, pace, select, gather, report, prune."""

from __future__ import annotations

import argparse
import contextlib
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from silent_study.cli.parsing import (
    add_config,
    add_verb,
    check_results,
    load_plan,
    own_settings,
    positive_number,
    whole_number,
)
from silent_study.store.packs import Round

if TYPE_CHECKING:
    from silent_study.cli.parsing import Verbs

WATCH_SECONDS = 2.0
PLAIN_WIDTH = 160
"""Columns of what is written to a file or a pipe."""


def add_verbs(verbs: Verbs) -> None:
    """Add the verbs of the whole study."""
    plan = add_verb(
        verbs,
        "plan",
        _plan,
        "list what will be run",
        (
            "silent-gradients plan",
            """silent-gradients plan --config '{"preset": "mnist-short", "seeds": [0]}'""",
        ),
        "List what params.yaml asks for and how much of it is done, with hours once `silent-gradients pace` has "
        "measured the device.",
    )
    add_config(plan)

    status = add_verb(
        verbs,
        "status",
        _status,
        "show how far a workflow is, running or not",
        (
            "silent-gradients status",
            "silent-gradients status --watch  # until Ctrl-C",
            "silent-gradients status --json | jq .left_hours",
        ),
        "Show how far the workflow is, from another shell or after it has ended: what is done per round and cell, the "
        "runs in training, the jobs that failed with their logs, hours spent and left. It reads alone.",
    )
    add_config(status)
    status.add_argument(
        "--logs", type=Path, default=Path("logs"), metavar="FOLDER", help="the workflow's logs (default: %(default)s)"
    )
    status.add_argument(
        "--cells", action="store_true", help="a line for every cell, also where all of a group is done or to come"
    )
    shown = status.add_mutually_exclusive_group()
    shown.add_argument("--json", action="store_true", help="print it as JSON, with every run")
    shown.add_argument(
        "--watch",
        nargs="?",
        type=positive_number,
        const=WATCH_SECONDS,
        metavar="SECONDS",
        help=f"show it anew every so often, until Ctrl-C (default: {WATCH_SECONDS:g})",
    )

    pace = add_verb(
        verbs,
        "pace",
        _pace,
        "measure how long the plan's training steps take here; plan then tells hours",
        ("silent-gradients pace", "silent-gradients pace --rounds 100"),
    )
    add_config(pace)
    pace.add_argument(
        "--rounds",
        type=whole_number(1),
        default=20,
        metavar="N",
        help="steps measured per method and phase (default: 20)",
    )

    select = add_verb(
        verbs,
        "select",
        _select,
        "select a point per cell after a grid round of a group",
        ("silent-gradients select baselines digits/learnable",),
    )
    select.add_argument("round", choices=get_args(Round)[:2], help="the round of the grid: %(choices)s")
    select.add_argument("group", metavar="DATASET/EXPERIMENT", help="what is selected in, as in params.yaml")
    add_config(select)

    gather = add_verb(
        verbs,
        "gather",
        _gather,
        "verify every run and write tables, figures and the report",
        ("silent-gradients gather",),
    )
    add_config(gather)

    report = add_verb(
        verbs,
        "report",
        _report,
        "say where the report is and whether it is up to date, or open it",
        ("silent-gradients report", "silent-gradients report --open"),
        "Say where the report is and whether it is that of params.yaml, or open it in a browser. The last step of the "
        "workflow writes it, which is `silent-gradients gather`.",
    )
    add_config(report)
    report.add_argument("--open", action="store_true", help="open it in a browser")

    prune = add_verb(
        verbs,
        "prune",
        _prune,
        "list the runs that no kept revision asks for, or remove them",
        ("silent-gradients prune", "silent-gradients prune --keep HEAD~3 --delete"),
    )
    prune.add_argument("--delete", action="store_true", help="remove them; without it, nothing is")
    prune.add_argument(
        "--keep",
        action="append",
        default=[],
        metavar="REVISION",
        help="keep what this revision asks for too, besides the working tree, branches, tags and DVC's experiments; "
        "may be given several times",
    )


def _plan(options: argparse.Namespace) -> int:
    from silent_study.progress.overview import overview

    print(overview(load_plan(options)))
    return 0


def _status(options: argparse.Namespace) -> int:
    from silent_study.progress.status import status

    if options.json:
        print(json.dumps(status(load_plan(options), options.logs).to_json(), indent=1))
        return 0
    from rich.console import Console, RenderableType
    from rich.live import Live

    from silent_study.progress.status_view import view

    def now() -> RenderableType:
        return view(status(load_plan(options), options.logs), every_cell=options.cells)

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = PLAIN_WIDTH
    if options.watch is None:
        console.print(now())
        return 0
    with contextlib.suppress(KeyboardInterrupt):  # the way to end it
        if not console.is_terminal:
            while True:
                console.print(now())
                time.sleep(options.watch)
        with Live(now(), console=console, auto_refresh=False) as live:
            while True:
                time.sleep(options.watch)
                live.update(now(), refresh=True)
    return 0


def _pace(options: argparse.Namespace) -> int:
    from silent_study.data.prepare import PREPARED
    from silent_study.data.prepared import PreparedData
    from silent_study.jobs.lease import acquire

    plan = load_plan(options)
    runs = [plan.first_run(cell) for cell in plan.cells()]
    digests = {run.data.name: run.data.sha256 for run in runs}
    # What is wrong with them is said before the wait for a device.
    prepared = {name: PreparedData.open(PREPARED / name, digest) for name, digest in digests.items()}
    with acquire() as lease:
        import torch

        from silent_study.jobs.pace import PACE
        from silent_study.jobs.stopwatch import measured_pace
        from silent_study.store.files import write_text_atomically
        from silent_study.training.device import settle

        settle()
        execution = plan.params.execution
        pace = measured_pace(
            runs,
            prepared,
            torch.device(lease.device),
            options.rounds,
            # How much runs on streams slow each other is not measured: alone they take the longest that they can.
            1 if execution.steps == "streams" else execution.stack,
            captured=execution.steps != "eager" and lease.device == "cuda",
        )
    write_text_atomically(options.results / PACE, pace.to_json())
    kinds = f"{len(pace.steps)} {'kind' if len(pace.steps) == 1 else 'kinds'} of steps"
    print(f"{pace.hardware}: {kinds} in {options.results / PACE}; see: silent-gradients plan")
    return 0


def _select(options: argparse.Namespace) -> int:
    from silent_study.plan.selection import select
    from silent_study.settings import SettingsError
    from silent_study.store.files import write_text_atomically
    from silent_study.store.runs import RunStore, as_json

    plan = load_plan(options)
    if options.round not in plan.rounds(options.group):
        with_round = [group for group in plan.groups() if options.round in plan.rounds(group)]
        raise SettingsError(f"{options.group}: no group with a round {options.round}; known: {', '.join(with_round)}")
    selections = plan.selections(options.round, options.group)
    document = select(plan, RunStore(options.results / "store"), options.round, options.group, selections)
    path = plan.selection_path(options.round, options.group, selections)
    write_text_atomically(path, as_json(document))
    for cell, chosen in document["cells"].items():
        point = ", ".join(f"{axis} {'null' if value is None else value}" for axis, value in chosen["point"].items())
        tried, bpd = chosen["configurations"], chosen["bpd"]
        print(
            f"{cell}: {point}; {f'all {tried} diverged' if bpd is None else f'{bpd:.4f} bits/dim, the best of {tried}'}"
        )
    print(f"selection: {path}")
    return 0


def _gather(options: argparse.Namespace) -> int:
    from silent_study.params.overlay import set_over_preset
    from silent_study.report.gathering import gather_results

    report = gather_results(load_plan(options), set_over_preset(own_settings(options)))
    print(f"report: {report}")
    return 0


def _report(options: argparse.Namespace) -> int:
    from silent_study.plan.plan import SelectionMissingError
    from silent_study.report.gathered import is_current
    from silent_study.store.runs import StoreError

    plan, page = load_plan(options), options.results / "report.html"
    if not page.is_file():
        raise StoreError(f"{page}: not written yet; run: snakemake --cores all --resources gpu=8 all")
    try:
        current = is_current(plan.gathered_marker(plan.selections("seeds")), plan.results)
    except SelectionMissingError:
        current = False
    print(f"report: {page}")
    if not current:
        print(
            "it is not that of the present settings, source and runs; run: snakemake --cores all --resources gpu=8 all"
        )
    if options.open:
        import webbrowser

        if not webbrowser.open(page.resolve().as_uri()):
            print(f"no browser was found here; open this address in one: {page.resolve().as_uri()}")
    return 0


def _prune(options: argparse.Namespace) -> int:
    from silent_study.progress.prune import Pruning, kept_revisions, lines_for_dvc

    check_results(Path("results"))
    pruning = Pruning.of(Path("results"), kept_revisions(options.keep))
    print(pruning.overview())
    if options.delete:
        print(pruning.delete())
        if lines := lines_for_dvc(options.keep):
            print(lines)
    elif pruning.runs or pruning.promises:
        print("to remove what none asks for: silent-gradients prune --delete")
    return 0
