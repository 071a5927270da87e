"""The plan, its cells and their runs, as the report reads them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from silent_study.methods import METHODS, Method
from silent_study.settings import EXPERIMENTS
from silent_study.store.packs import Round
from silent_study.store.runs import StoredRun

BEYOND = "beyond the paper"
COLLAPSED_KL = 5.0
"""Nats per image: a posterior that is closer to the prior has collapsed."""


@dataclass(frozen=True)
class Record(StoredRun):
    """A stored run of a round of the plan; a run of two rounds has a record in each."""

    round: Round


@dataclass(frozen=True)
class Context:
    """The plan of the runs: its cells and seeds, its data sets, and what was selected."""

    preset: str  # name
    protocol: str  # ``holdout`` or ``paper``
    expected_cells: tuple[str, ...]  # names, with runs or without
    selections: Mapping[str, Mapping[str, Any]]  # by cell, see ``documents.Selected``
    grid_axes: Mapping[str, tuple[str, ...]]  # by cell, dotted names of the settings that its grid varies
    seeds: tuple[int, ...]  # of the plan at each selected point
    datasets: Mapping[str, Mapping[str, Any]]  # by name, the prepared ``manifest.json``
    revision: str | None  # of the source that gathers; None outside a repository
    overrides: Mapping[str, Any]  # settings that deviate from the preset, by dotted name
    factor_analysis: Mapping[str, Mapping[str, Any]]  # by ``data set/experiment``, the fields of ``Limit``
    latents: Mapping[str, Mapping[str, Any] | None]  # by cell, ``kept_latents`` of its first reported run

    def title(self, dataset: str) -> str:
        """Return the title of a data set, e.g. ``Tiny ImageNet at 32x32``; its name where it has no manifest."""
        return str(self.datasets.get(dataset, {}).get("title", dataset))

    def group(self, dataset: str, experiment: str, beyond: bool = False) -> str:
        """Return a data set and an experiment in words."""
        return f"{self.title(dataset)}, {EXPERIMENTS[experiment].title}{f', {BEYOND}' if beyond else ''}"


_MADE_ALIKE: Mapping[str, Callable[[Record], object]] = {
    "source code differs, accepted as equal": lambda run: run.code["digest"],
    "versions of torch differ": lambda run: (run.provenance.get("versions") or {}).get("torch"),
    "processors differ": lambda run: device(run),
    "precisions of float32 differ": lambda run: str(run.provenance.get("float32")),
}
"""What the runs of a cell have in common, and what its status says where they do not: their mean mixes numbers."""


@dataclass(frozen=True)
class Cell:
    """A cell of the plan with the runs of its selected point."""

    name: str
    dataset: str
    experiment: str
    method: Method
    runs: tuple[Record, ...]  # one per seed, by seed
    configurations: int | None  # number of grid points that the selection compared; None before a selection
    grid_diverged: bool  # whether every grid point diverged, so that none was selected
    planned_seeds: int

    @property
    def evaluated(self) -> tuple[Record, ...]:
        """The finished runs with an evaluation on the report split."""
        return tuple(run for run in self.runs if not run.diverged and run.metrics("report"))

    @property
    def diverged(self) -> tuple[Record, ...]:
        """The runs that diverged."""
        return tuple(run for run in self.runs if run.diverged)

    @property
    def collapsed(self) -> dict[int, bool]:
        """By seed, whether an evaluated run has collapsed, see ``has_collapsed``."""
        return {run.seed: has_collapsed(run.metrics("report")) for run in self.evaluated}

    @property
    def lengths(self) -> set[tuple[str, ...]]:
        """What decides the number of steps of the runs, see ``length``."""
        settings = [run.settings for run in self.runs]
        return {length(each["epochs"], each["batch_size"], each["data"]["holdout"]) for each in settings}

    @property
    def status(self) -> str:
        """``complete``, or everything that limits the cell's numbers."""
        total = len(self.runs)
        if not total:
            return "diverged (every grid point)" if self.grid_diverged else "not run"
        epochs = sorted({epoch for run in self.diverged if (epoch := run.result["diverged_epoch"]) is not None})
        where = f", epoch{'s' * (len(epochs) > 1)} {', '.join(map(str, epochs))}" if epochs else ""
        counts = {
            "diverged": len(self.diverged),
            "collapsed": sum(self.collapsed.values()),
            "not flattened": sum(not run.result["flattened"] for run in self.runs if not run.diverged),
            "not evaluated": total - len(self.diverged) - len(self.evaluated),
        }
        counted = ((name, count, where if name == "diverged" else "") for name, count in counts.items() if count)
        parts = [f"{name} ({count} of {total}{at})" for name, count, at in counted]
        if total < self.planned_seeds:
            parts.append(f"{total} of {self.planned_seeds} seeds run")
        parts += [words for words, of in _MADE_ALIKE.items() if len({of(run) for run in self.runs}) > 1]
        return "; ".join(parts) or "complete"

    def values(self, metric: str) -> dict[int, float]:
        """Return a reported metric by seed, over the evaluated runs that have it.

        ``epochs_to_threshold`` is a result of the training, all others are metrics on the report split.
        """
        found = {
            run.seed: run.result["epochs_to_threshold"]
            if metric == "epochs_to_threshold"
            else run.metrics("report").get(metric)
            for run in self.evaluated
        }
        return {seed: float(value) for seed, value in found.items() if value is not None}


def cells(records: Iterable[Record], context: Context) -> list[Cell]:
    """Return every cell of the plan, and every other cell with a run of the ``seeds`` round, in the paper's order."""
    runs: dict[str, tuple[Record, ...]] = dict.fromkeys(context.expected_cells, ())
    runs |= by_cell(run for run in records if run.round == "seeds")
    found = []
    for name in sorted(runs, key=rank):
        dataset, experiment, method = name.split("/")
        selection = context.selections.get(name, {})
        found.append(
            Cell(
                name,
                dataset,
                experiment,
                METHODS[experiment][method],
                tuple(sorted(runs[name], key=lambda run: run.seed)),
                selection.get("configurations"),
                selection.get("status") == "diverged",
                len(context.seeds),
            )
        )
    return found


def rank(cell: str) -> tuple[Any, ...]:
    """Return the sort key of a cell's name: data set, then experiments and methods in the paper's order."""
    dataset, experiment, method = cell.split("/")
    return dataset, list(EXPERIMENTS).index(experiment), METHODS[experiment][method].rank


def each_once(records: Iterable[Record]) -> list[Record]:
    """Return the runs sorted by name, each once even if it belongs to several rounds."""
    return sorted({record.name: record for record in records}.values(), key=lambda record: record.name)


def by_cell(records: Iterable[Record]) -> dict[str, tuple[Record, ...]]:
    """Return the runs of every cell by name, each once."""
    return {cell: tuple(runs) for cell, runs in groupby(each_once(records), key=lambda run: run.cell)}


def run_status(run: Record) -> str:
    """Return what became of a run."""
    if run.diverged:
        epoch = run.result["diverged_epoch"]
        return "diverged" if epoch is None else f"diverged (epoch {epoch})"
    return "finished" if run.result["flattened"] else "finished, not flattened"


def revision(run: Record) -> str:
    """Return the source revision that made a run: short, ``+`` for uncommitted changes; ``unknown`` if unrecorded."""
    source = run.provenance["source"]
    return f"{source['revision'][:10]}{'+' if source['modified'] else ''}" if source["revision"] else "unknown"


def device(run: Record) -> str:
    """Return the kind of device and its name."""
    return f"{run.provenance['device']}, {run.provenance['hardware']}"


def has_collapsed(metrics: Mapping[str, Any]) -> bool:
    """Return True if a run's latent variables carry next to no information on an image, by its evaluation.

    Either its KL is under ``COLLAPSED_KL``, or no latent unit is active: a saturated posterior is the same for every
    image, however large its KL. A metric that is missing decides nothing.
    """
    kl = metrics.get("kl")
    return metrics.get("active_units") == 0 or (kl is not None and kl < COLLAPSED_KL)


def length(epochs: float, batch_size: float, holdout: float) -> tuple[str, ...]:
    """Return what decides the number of steps of a run on a data set, in words."""
    return f"{epochs:.0f} epochs", f"batches of {batch_size:.0f}", f"{holdout:.0f} images set aside"


def unequal(lengths: Sequence[Set[tuple[str, ...]]]) -> list[str]:
    """Return what the numbers of steps of several methods on a data set differ by, for each in words.

    They are empty where all are equal, and for a method without a run.
    """
    texts = [[" / ".join(sorted(set(words))) for words in zip(*each, strict=True)] for each in lengths]
    differing = [place for place, words in enumerate(zip(*filter(None, texts), strict=True)) if len(set(words)) > 1]
    return [", ".join(text[place] for place in differing) if text else "" for text in texts]


def unequal_steps(found: Iterable[Cell]) -> dict[str, str]:
    """Return by cell what its number of steps differs by from other cells of its data set and experiment, in words."""
    groups: dict[tuple[str, str], list[Cell]] = {}
    for cell in found:
        groups.setdefault((cell.dataset, cell.experiment), []).append(cell)
    return {
        cell.name: words
        for members in groups.values()
        for cell, words in zip(members, unequal([cell.lengths for cell in members]), strict=True)
    }


def described(values: Sequence[Any]) -> str:
    """Return the distinct values in order of appearance, joined by ``/``."""
    return "/".join(dict.fromkeys(str(value) for value in values))
