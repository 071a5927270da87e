"""Verbs of the whole study."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from silent_study.cli.parsing import add_verb, given_path, load_plan, own_settings, positive_number, whole_number
from silent_study.jobs.lease import leased_device
from silent_study.settings import SettingsError
from silent_study.store.packs import Round
from silent_study.store.runs import ACCEPTED, StoreError, write_json
from silent_study.store.stale import accept, check_code, remove, stale_message, stale_runs
from silent_study.words import counted

if TYPE_CHECKING:
    from silent_study.cli.parsing import Verbs

WATCH_SECONDS = 2.0
ALL = "snakemake --cores all --resources gpu=8 all"


def add_verbs(verbs: Verbs) -> None:
    """Add the verbs of the whole study."""
    add_verb(verbs, _plan).add_study()

    status = add_verb(verbs, _status)
    status.add_study()
    status.add_option("--logs", given_path, "FOLDER", "the workflow's logs", Path("logs"))
    status.add_argument(
        "--cells", action="store_true", help="a line for every cell, also of groups that are entirely done or planned"
    )
    shown = status.add_mutually_exclusive_group()
    shown.add_argument("--json", action="store_true", help="print it as JSON, with every run")
    shown.add_argument(
        "--watch",
        nargs="?",
        type=positive_number,
        const=WATCH_SECONDS,
        metavar="SECONDS",
        help=f"show it again after so many seconds, until Ctrl-C (default: {WATCH_SECONDS:g})",
    )

    pace = add_verb(verbs, _pace)
    pace.add_study()
    pace.add_option("--rounds", whole_number(1), "N", "most steps measured per method and phase", 20)

    select = add_verb(verbs, _select)
    select.add_argument("round", choices=get_args(Round)[:2], help="the round of the grid: %(choices)s")
    select.add_argument("group", metavar="DATASET/EXPERIMENT", help="data set and experiment, as in params.yaml")
    select.add_study(several=False)

    bundle = add_verb(verbs, _bundle)
    bundle.add_study()
    bundle.add_argument(
        "-o", "--output", type=given_path, metavar="FILE", default=Path("bundle.zip"), help="default: %(default)s"
    )
    absorb = add_verb(verbs, _absorb)
    absorb.add_argument("folder", type=given_path, help="what `python -m silent_study.jobs BUNDLE --out` wrote")
    absorb.add_study(several=False)

    add_verb(verbs, _retrain).add_study()
    accept = add_verb(verbs, _accept)
    accept.add_study()
    accept.add_argument("--reason", required=True, help="why the change does not change numbers; kept in the store")

    add_verb(verbs, _gather).add_study()

    report = add_verb(verbs, _report)
    report.add_study()
    report.add_argument("--open", action="store_true", help="open it in a browser")
    report.add_option("--against", str, "REVISION", "write a page of differences to the metrics of a revision")

    prune = add_verb(verbs, _prune)
    prune.add_argument("--delete", action="store_true", help="remove them; without it, nothing is removed")
    prune.add_argument(
        "--keep",
        action="append",
        default=[],
        metavar="REVISION",
        help="keep what this revision needs too, besides the working tree and HEAD; may be given several times",
    )


def _plan(options: argparse.Namespace) -> int:
    """List what will be run.

    List the runs of params.yaml and how many of them are done, with hours once `silent-gradients pace` has measured the
    device.

    silent-gradients plan
    silent-gradients plan --config preset=mnist-short 'seeds=[0]'
    """
    from silent_study.params import overrides_in_force, presets_folder
    from silent_study.progress.overview import overview

    plan = load_plan(options)
    print(overview(plan))
    if in_force := overrides_in_force(own_settings(options), presets_folder()):
        print(f"in the sections that the settings change, these overrides of preset {plan.params.preset} still apply:")
        for name, value in in_force.items():
            print(f"  {name}: {json.dumps(value)}")
    return 0


def _status(options: argparse.Namespace) -> int:
    """Show the progress of a workflow, running or not.

    Show the progress of the workflow, from another shell or after its end: what is done per round and cell, the runs in
    training, the failed jobs with their logs, hours spent and left. Read-only.

    silent-gradients status
    silent-gradients status --watch  # until Ctrl-C
    silent-gradients status --json | jq .left_hours
    """
    from silent_study.progress.status import StatusReader

    reader, plan = StatusReader(options.logs), load_plan(options)
    if options.json:
        print(json.dumps(reader.read(plan).to_json(), indent=1))
        return 0
    from rich.console import RenderableType
    from rich.live import Live

    from silent_study.cli.tables import console as standard_output
    from silent_study.progress.status_view import view

    def now() -> RenderableType:
        nonlocal plan
        plan = plan.renewed(load_plan(options).params)
        return view(reader.read(plan), every_cell=options.cells)

    console = standard_output()
    if options.watch is None:
        console.print(now())
        return 0
    with contextlib.suppress(KeyboardInterrupt):  # the user ends it with Ctrl-C
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
    """Measure how long the plan's training steps take here; plan then shows hours.

    Measure how long the plan's training steps take here, on random images of the right shapes: no data set needs to be
    prepared. The verb plan then shows hours.

    silent-gradients pace
    silent-gradients pace --rounds 100
    """
    plan = load_plan(options)
    runs = [plan.first_run(cell) for cell in plan.cells()]
    with leased_device() as device:
        from silent_study.jobs.pace import PACE
        from silent_study.jobs.stopwatch import measured_pace
        from silent_study.store.files import write_text_atomically

        execution = plan.params.execution
        # How much runs on streams slow each other is not measured; one at a time is the upper bound.
        stack = 1 if execution.steps == "streams" else execution.stack
        captured = execution.steps != "eager" and device.type == "cuda"
        pace = measured_pace(runs, plan.params.sources, device, options.rounds, stack, captured=captured)
    path = options.results / PACE
    write_text_atomically(path, pace.to_json())
    print(f"{pace.hardware}: {counted(len(pace.steps), 'kind')} of steps in {path}; see: silent-gradients plan")
    return 0


def _select(options: argparse.Namespace) -> int:
    """Select a point per cell after a grid round of a group.

    silent-gradients select baselines digits/learnable
    """
    from silent_study.plan.selection import select

    plan, round_, group = load_plan(options), options.round, options.group
    check_code(plan.store, plan.all_known_packs())
    if round_ not in plan.rounds(group):
        with_round = [each for each in plan.groups() if round_ in plan.rounds(each)]
        raise SettingsError(f"{group}: no group with a round {round_}; known: {', '.join(with_round)}")
    selections = plan.selections(round_, group)
    document = select(plan, plan.store, round_, group, selections)
    path = plan.selection_path(round_, group, selections)
    for file in {path, plan.selection_file(round_, group, selections)}:  # a damaged one is repaired
        write_json(file, document)
    for cell, chosen in document["cells"].items():
        point = ", ".join(f"{axis} {'null' if value is None else value}" for axis, value in chosen["point"].items())
        tried, bpd = chosen["configurations"], chosen["bpd"]
        found = f"all {tried} diverged" if bpd is None else f"{bpd:.4f} bits/dim, the best of {tried}"
        print(f"{cell}: {point}; {found}")
    print(f"selection: {path}")
    return 0


def _bundle(options: argparse.Namespace) -> int:
    """Write the open runs into one file, for a machine that has torch and numpy alone.

    Write the open runs of params.yaml into one file with their data and the source. On a borrowed machine, `python
    bundle.zip --time-limit 600 --out FOLDER` trains them until the time is up; `silent-gradients absorb FOLDER` brings
    them back.

    silent-gradients bundle
    silent-gradients bundle --configfile studies/mnist-learnable-200-epochs.yaml -o mnist.zip
    """
    from silent_study.jobs.bundle import write_bundle

    written = write_bundle(load_plan(options), options.output)
    size = options.output.stat().st_size
    kinds = ", ".join(f"{kind} {bytes_ / 2**20:.1f}" for kind, bytes_ in written.sizes.items() if bytes_ >= 2**17)
    print(f"{options.output}: {counted(written.runs, 'run')} at most, {size / 2**20:.1f} MiB ({kinds})")
    print(f"there: python {options.output.name} --time-limit 600 --out runs; back here: silent-gradients absorb runs")
    return 0


def _absorb(options: argparse.Namespace) -> int:
    """Bring the runs of a borrowed machine into the store, each one verified.

    silent-gradients absorb runs
    """
    from silent_study.jobs.returned import absorb

    found = absorb(load_plan(options), options.folder)
    for message in found.refused:
        print(message, file=sys.stderr)
    taken, checkpoints = counted(len(found.taken), "run"), counted(found.checkpoints, "checkpoint")
    print(f"taken: {taken}, {len(found.present)} there already; {checkpoints} for the next bundle")
    return 1 if found.refused else 0


def _retrain(options: argparse.Namespace) -> int:
    """Remove the runs that other source code made; the workflow then makes them again.

    Remove the runs of params.yaml that other source code than the present one trained or evaluated, with the manifests
    and selections that name them; the workflow then makes them again. DVC's cache keeps what it recorded of them.

    silent-gradients retrain  # then the workflow again
    """
    plan = load_plan(options)
    stale = stale_runs(plan.store, plan.all_known_packs())
    left_alone = remove(options.results, stale)
    for name in left_alone:
        print(f"{name}: left alone, a process is training it; stop that process and call this again")
    removed = len({each.run for each in stale}) - len(left_alone)
    print(f"removed: what other source code made of {counted(removed, 'run')}; now run the workflow again")
    return 1 if left_alone else 0


def _accept(options: argparse.Namespace) -> int:
    """Keep the runs that other source code made, as equal to those of the present code.

    silent-gradients accept --reason 'renamed a variable'
    """
    plan = load_plan(options)
    stale = stale_runs(plan.store, plan.all_known_packs())
    if not options.reason.strip():
        raise SettingsError("--reason: expected why the change does not change numbers, got nothing")
    if not stale:
        print("nothing to accept: no run is of other source code")
        return 0
    accept(plan.store, stale, options.reason)
    runs = counted(len({each.run for each in stale}), "run")
    print(f"accepted: {runs} of other source code, recorded in {plan.store.root / ACCEPTED}")
    return 0


def _gather(options: argparse.Namespace) -> int:
    """Verify every run and write tables, figures and the report.

    silent-gradients gather
    """
    from silent_study.params.overlay import dotted
    from silent_study.report.gather import gather_results

    over_preset = {key: value for key, value in own_settings(options).items() if key != "preset"}
    plan = load_plan(options)
    check_code(plan.store, plan.all_known_packs())
    print(gather_results(plan, dotted(over_preset)))
    return 0


def _report(options: argparse.Namespace) -> int:
    """Print where the report is and whether it is up to date, open it, or compare it with another revision.

    Print where the report is and whether it is up to date, or open it in a browser. The last step of the workflow,
    `silent-gradients gather`, writes it. With --against, write a page of the differences per cell to the metrics that
    git has of a revision.

    silent-gradients report
    silent-gradients report --against main --open
    """
    from silent_study.report.gathered import is_current

    plan, page = load_plan(options), options.results / "report.html"
    if not page.is_file():
        raise StoreError(f"{page}: not written yet; run: {ALL}")
    print(f"report: {page}")
    if stale := stale_message(stale_runs(plan.store, plan.all_known_packs())):
        print(stale)
    if not is_current(plan):
        print(f"it is not up to date with the settings, source and runs; run: {ALL}")
    if options.against:
        from silent_study.report.against import write_against

        page = write_against(options.against, options.results)
        print(f"against {options.against}: {page}")
    if options.open:
        import webbrowser

        if not webbrowser.open(page.resolve().as_uri()):
            print(f"no browser was found here; open this address in one: {page.resolve().as_uri()}")
    return 0


def _prune(options: argparse.Namespace) -> int:
    """List the runs that no kept revision needs, or remove them.

    silent-gradients prune
    silent-gradients prune --keep HEAD~3 --delete
    """
    from silent_study.progress.prune import Pruning, lines_for_dvc

    pruning = Pruning.of(Path("results"), options.keep)
    print(pruning.overview())
    if options.delete:
        print(pruning.delete())
        if lines := lines_for_dvc(options.keep):
            print(lines)
    elif pruning.runs or pruning.stale:
        print("to remove what none needs: silent-gradients prune --delete")
    return 0
