"""What settings that the paper's text has lost are worth: each changed by itself, at equal seeds.

    python studies/sensitivity.py [--preset digits] [--only learnable] [--changes temperature=0.5 ..] [--seeds 3]

Runs are those of the last point of every grid (or the first, ``--point first``); the bounds are those of the images set
aside to select on, with ``--test`` those of the test images. Changes may be joined (``rates/5+samples=4``), also to all
runs (``--base``), and runs be trained for longer than the preset's epochs (``--epochs 30``); the bounds after the
preset's epochs and every multiple of them are then kept as well. Every run is kept in the store of ``--results``, so
that the same command goes on after a kill, and more seeds cost only themselves.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from scipy import stats

from silent_study import params
from silent_study.data.prepare import dequantize, prepare
from silent_study.jobs.pack import TrainingOptions, run_pack
from silent_study.plan.plan import Cell, Plan
from silent_study.settings import EvaluationSettings, RunSettings
from silent_study.store.files import write_text_atomically
from silent_study.store.packs import PackSpec, Round
from silent_study.store.runs import RunStore, StoredRun
from silent_study.training.device import configure_torch

PRESETS = Path(__file__).resolve().parents[1] / "presets"
POINTS = {"first": 0, "last": -1}
Change = Callable[[RunSettings], RunSettings]


def _everywhere(**values: Any) -> Change:
    return lambda run: replace(run, **values)


def _guide(**values: Any) -> Change:
    return lambda run: run if run.silent is None else replace(run, silent=replace(run.silent, **values))


def _option(**values: float) -> Change:
    def change(run: RunSettings) -> RunSettings:
        own = {name: value for name, value in values.items() if name in run.estimator_options}
        return replace(run, estimator_options=run.estimator_options | own)

    return change


def _instead_of(estimator: str, other: str) -> Change:
    """Another estimator that has the same options; guided runs stay."""

    def change(run: RunSettings) -> RunSettings:
        concerned = run.estimator == estimator and run.silent is None
        return replace(run, method=other, estimator=other) if concerned else run

    return change


def _channels(factor: float) -> Change:
    def scaled(channels: Iterable[int]) -> tuple[int, ...]:
        return tuple(max(1, int(width * factor)) for width in channels)

    def change(run: RunSettings) -> RunSettings:
        network = run.network
        wider = replace(
            network,
            encoder_channels=scaled(network.encoder_channels),
            decoder_channels=scaled(network.decoder_channels),
        )
        return replace(run, network=wider)

    return change


def _codes(factor: float) -> Change:
    return lambda run: replace(run, latent_dim=int(run.latent_dim * factor))


def _guide_rates(factor: float) -> Change:
    def change(run: RunSettings) -> RunSettings:
        if run.silent is None:
            return run
        rates = {name: getattr(run.silent, name) * factor for name in ("mean_rate", "precision_rate")}
        return replace(run, silent=replace(run.silent, **rates))

    return change


def _rates(factor: float) -> Change:
    def change(run: RunSettings) -> RunSettings:
        names = ("learning_rate", "mean_rate", "precision_rate")
        own = {name: rate * factor for name in names if (rate := getattr(run, name)) is not None}
        return _guide_rates(factor)(replace(run, **own))

    return change


def _annealed(run: RunSettings) -> bool:
    return run.silent is not None and run.silent.role == "annealed"


def _annealing(factor: float) -> Change:
    def change(run: RunSettings) -> RunSettings:
        if run.silent is None or not _annealed(run):
            return run
        return replace(run, silent=replace(run.silent, annealing_rate=run.silent.annealing_rate * factor))

    return change


def _guide_first(run: RunSettings) -> RunSettings:
    return _guide(plateau_epochs=run.epochs / 4, annealing_rate=1e6)(run) if _annealed(run) else run


def _sampled_guide(run: RunSettings) -> RunSettings:
    if not _annealed(run):
        return run
    return _guide(sampled=True)(replace(run, method=run.method.replace("+silent", "+sampled")))


CHANGES: Mapping[str, Change] = {
    "initialization=torch": _everywhere(initialization="torch"),
    "weight_decay=0": _everywhere(weight_decay=0.0),
    "betas=0.9,0.95": _everywhere(betas=(0.9, 0.95)),
    "batch_size=128": _everywhere(batch_size=128),
    "gradient_clip=null": _everywhere(gradient_clip=None),
    "k/2": _codes(0.5),
    "k*2": _codes(2),
    "channels/2": _channels(0.5),
    "channels*2": _channels(2),
    "temperature=0.5": _option(temperature=0.5),
    "temperature=2": _option(temperature=2.0),
    "decay=0.9": _option(decay=0.9),
    "log_term=auto": _guide(log_term="auto"),
    "guide=log-linear": _guide(guide="log-linear"),
    "annealing_rate/2": _annealing(0.5),
    "annealing_rate*2": _annealing(2),
}
"""By name; one that does not concern a run leaves it as it is."""

ON_REQUEST: Mapping[str, Change] = {
    "rates/2": _rates(0.5),
    "rates/5": _rates(0.2),
    "rates/10": _rates(0.1),
    "learning_rate/5": lambda run: replace(run, learning_rate=run.learning_rate * 0.2),
    "guide_rates*5": _guide_rates(5),
    "guide_rates*20": _guide_rates(20),
    "cooldown=epochs/2": lambda run: replace(run, cooldown_epochs=run.epochs / 2),
    "kl_warmup=epochs/4": lambda run: replace(run, kl_warmup_epochs=run.epochs / 4),
    "kl_warmup=epochs/2": lambda run: replace(run, kl_warmup_epochs=run.epochs / 2),
    "kl_warmup=20": _everywhere(kl_warmup_epochs=20.0),
    "epochs*1.1": lambda run: replace(run, epochs=round(run.epochs * 1.1)),
    "annealing=epochs/4": lambda run: _guide(annealing_rate=4 / run.epochs if _annealed(run) else 0.0)(run),
    "plateau=0": _guide(plateau_epochs=0.0),
    "guide=first-quarter": _guide_first,
    "guide=sampled": _sampled_guide,
    "last_layer=1": _everywhere(last_layer_scale=1.0),
    "last_layer=0.1": _everywhere(last_layer_scale=0.1),
    "gradient_clip=1000": _everywhere(gradient_clip=1000.0),
    "gradient_clip=10000": _everywhere(gradient_clip=10000.0),
    "samples=4": _option(samples=4),
    "temperature=1": _option(temperature=1.0),
    "temperature=0.25": _option(temperature=0.25),
    "temperature=0.1": _option(temperature=0.1),
    "baseline=per-image": _instead_of("reinforce", "reinforce-per-datum"),
    "bits=straight-through": _instead_of("gumbel-softmax", "straight-through-gumbel-softmax"),
}
"""Changes that are made only if ``--changes`` names them: of rates, which grids try, and of what the text does say."""


def change_named(names: str) -> Change:
    """Return the change of a name, or of several names joined by ``+``; raise ``ValueError`` for an unknown one."""
    known = {**CHANGES, **ON_REQUEST}
    if missing := [name for name in names.split("+") if name not in known]:
        raise ValueError(f"{missing[0]!r} is no change; there are: {', '.join(known)}")

    def change(run: RunSettings) -> RunSettings:
        for name in names.split("+"):
            run = known[name](run)
        return run

    return change


def runs_of(
    plan: Plan,
    cell: Cell,
    change: Change,
    seeds: int,
    epochs: int | None = None,
    point: int = -1,
    first_seed: int = 0,
) -> list[RunSettings]:
    """Return a cell's runs under a change of one point of its grid, with every seed, for ``epochs`` or the preset's."""
    grid = plan.params.for_method(cell.experiment, cell.dataset, cell.method.name).grid.model_dump()
    usual = plan.run(cell, {axis: values[point] for axis, values in grid.items()}, seed=0)
    changed = change(replace(usual, epochs=epochs or usual.epochs))
    # What only measures, and would cost time here.
    bare = replace(changed, evaluate_every=usual.epochs, snapshot_epochs=(), threshold_bpd=None)
    return [replace(bare, seed=first_seed + number) for number in range(seeds)]


def bits_per_dim(run: StoredRun) -> float:
    """Return the final bound, on the test images if the run was evaluated on them; NaN if the run diverged."""
    return math.nan if run.diverged else run.metrics("report").get("bpd", run.final_bpd)


def on_record(run: StoredRun) -> dict[str, Any]:
    """Return what is kept of a run: name, origin, metrics on the selection and test images, bounds by epoch."""
    curve = run.curve_entries()
    on_the_way = {row["epoch"]: row["selection_bpd"] for row in curve if row["selection_bpd"] is not None}
    guide = {row["epoch"]: row["guide_bpd"] for row in curve if row["guide_bpd"] is not None}
    made = {"source": run.provenance["source"], "hardware": run.provenance["hardware"]}
    record: dict[str, Any] = {"name": run.name, "made": made | {"seconds": run.provenance["seconds"]}}
    record |= {"selection": run.result["selection"], "bits_per_dim": on_the_way}
    if report := run.metrics("report"):
        record["report"] = report
    return {**record, "guide_bits_per_dim": guide} if guide else record


class Study:
    """Runs, trained where the store lacks them.

    Args:
        results: Folder of the store and of the prepared data.
        stack: Most runs that are trained side by side.
        device: Device that trains.
        evaluation: How to evaluate the runs on the test images; None does not.
    """

    def __init__(
        self, results: Path, stack: int, device: torch.device, evaluation: EvaluationSettings | None = None
    ) -> None:
        self.store, self.data, self.stack, self.device = RunStore(results / "store"), results / "data", stack, device
        self.evaluation = evaluation

    def trained(self, runs: Sequence[RunSettings]) -> list[StoredRun]:
        """Return runs of a cell from the store."""
        folder = self.data / runs[0].data.name
        if not folder.exists():
            prepare(folder.name, folder, os.environ.get("SILENT_GRADIENTS_MIRROR"))
            dequantize(folder.name, folder)
        round_: Round = "baselines" if self.evaluation is None else "seeds"
        pack = PackSpec(round_, "/".join(runs[0].cell.split("/")[:2]), tuple(runs), self.evaluation)
        manifest = run_pack(
            pack,
            self.store,
            folder,
            self.device,
            TrainingOptions(stack=self.stack, captured=self.device.type == "cuda"),
        )
        return [self.store.verified(run["name"], run["id"]) for run in manifest["members"]]


def paired(first: Sequence[float], second: Sequence[float]) -> str:
    """Mean of first minus second with its 95% Student interval; marked where that is clear of zero."""
    differences = [a - b for a, b in zip(first, second, strict=True) if not math.isnan(a - b)]
    if not differences:
        return "diverged"
    if len(differences) == 1:
        return f"{differences[0]:+.3f} (one seed)"
    mean, count = statistics.fmean(differences), len(differences)
    half = stats.t.ppf(0.975, count - 1) * statistics.stdev(differences) / math.sqrt(count)
    return f"{mean:+.3f} ± {half:.3f}{' *' if abs(mean) > half else ''}"


def main() -> None:
    """Train, and print what each change does to each method and to what a guide gains."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="digits")
    parser.add_argument("--only", default="", help="cells whose data set/experiment/method contains this; $ is its end")
    parser.add_argument("--changes", nargs="*", default=list(CHANGES), metavar="NAME[+NAME..]")
    parser.add_argument("--point", choices=POINTS, default="last", help="of every grid; default: %(default)s")
    parser.add_argument("--epochs", type=int, help="default: the preset's")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--base", default="", metavar="NAME[+NAME..]", help="changes of all runs, also `as it is`")
    parser.add_argument("--test", action="store_true", help="bounds of the test images")
    parser.add_argument("--stack", type=int, help="most runs trained side by side; default: the preset's")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--results", type=Path, default=Path("results/sensitivity"), help="default: %(default)s")
    options = parser.parse_args()
    try:
        base = [options.base] if options.base else []
        changes = {name: change_named("+".join([*base, name])) for name in options.changes}
        unchanged = change_named(options.base) if options.base else lambda run: run
    except ValueError as error:
        parser.error(f"--changes, --base: {error}")
    configure_torch()
    plan = Plan(params.resolve({"preset": options.preset}, PRESETS))
    evaluation = plan.params.evaluation.resolved() if options.test else None
    stack = options.stack or plan.params.execution.stack
    study = Study(options.results, stack, torch.device(options.device), evaluation)
    length = (options.seeds, options.epochs, POINTS[options.point], options.first_seed)
    kept: dict[str, dict[str, list[StoredRun]]] = {}
    for cell in plan.cells():
        if options.only not in f"{cell.name}$":
            continue
        as_it_is = runs_of(plan, cell, unchanged, *length)
        kept[cell.name] = {"as it is": study.trained(as_it_is)}
        for name, change in changes.items():
            runs = runs_of(plan, cell, change, *length)
            if runs != as_it_is:
                kept[cell.name][name] = study.trained(runs)
    records = {cell: {name: [on_record(run) for run in runs] for name, runs in of.items()} for cell, of in kept.items()}
    write_text_atomically(options.results / "runs.json", json.dumps(records, indent=1) + "\n")
    found = {
        cell: {name: [bits_per_dim(run) for run in runs] for name, runs in of.items()} for cell, of in kept.items()
    }
    write_text_atomically(options.results / "bits_per_dim.json", json.dumps(found, indent=1) + "\n")
    for cell_name, bounds in found.items():
        reference = bounds["as it is"]
        baseline = found.get(cell_name.removesuffix("+silent"), {}) if cell_name.endswith("+silent") else {}
        print(f"\n{cell_name}: {statistics.fmean(reference):.3f} bits/dim, mean of {options.seeds} seeds")
        for name, values in bounds.items():
            moved = "" if name == "as it is" else f"  change {paired(values, reference)}"
            alone = baseline.get(name, baseline.get("as it is"))
            gain = "" if alone is None else f"  guided below unguided by {paired(alone, values)}"
            print(f"  {name:22}{moved:28}{gain}")


if __name__ == "__main__":
    main()
