"""The one list of what is to be run: a function of the settings and of the selections made so far.

Three rounds (paper, Appendix B.3): ``baselines`` is the grid of every method that stands by itself, ``guided`` that of
the annealed methods at the learning rate selected for their baseline, ``seeds`` the selected points with every seed.
A point's run with the first seed is the same run in its grid and among the seeds. Each group, which is an experiment on
a data set, is selected by itself, so that none waits for another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise, product
from pathlib import Path
from typing import Any

from silent_study.methods import METHODS, Method
from silent_study.params.schema import ExperimentParams, Params
from silent_study.settings import (
    EXPERIMENTS,
    DataSettings,
    Experiment,
    NetworkSettings,
    RunSettings,
    SilentSettings,
    digest,
)
from silent_study.store.documents import Selection
from silent_study.store.packs import PackSpec, Round
from silent_study.store.runs import StoreError, read_json

GRID_ROUNDS: tuple[Round, ...] = ("baselines", "guided")
ROUNDS: tuple[Round, ...] = (*GRID_ROUNDS, "seeds")

Point = dict[str, float | None]
"""A grid point: value by axis."""

Selections = Mapping[str, Mapping[str, Any]]
"""What was selected so far, by cell name."""


class SelectionMissingError(StoreError):
    """A round was asked for before the selection that it depends on."""


@dataclass(frozen=True)
class Cell:
    """Data set x experiment x method."""

    dataset: str
    experiment: Experiment
    method: Method

    @property
    def name(self) -> str:
        """As in file names and metrics: ``data set/experiment/method``."""
        return f"{self.group}/{self.method.name}"

    @property
    def axes(self) -> tuple[str, ...]:
        """Axes of its grid."""
        return self.method.axes

    @property
    def group(self) -> str:
        """What a pack's runs have in common: ``data set/experiment``."""
        return f"{self.dataset}/{self.experiment}"


class Plan:
    """What the settings ask for.

    Args:
        params: Validated settings.
        results: Folder of the results.
    """

    def __init__(self, params: Params, results: Path = Path("results")) -> None:
        self.params = params
        self.results = results

    def cells(self) -> list[Cell]:
        """Every cell, in the order of the settings."""
        return [
            Cell(dataset, experiment, METHODS[experiment][method])
            for experiment, datasets in self.params.experiments.items()
            for dataset, section in datasets.items()
            for method in section.methods
        ]

    def datasets(self) -> list[str]:
        """Every data set that some cell uses."""
        return sorted({cell.dataset for cell in self.cells()})

    def own_datasets(self) -> list[str]:
        """Those of them that are a user's own images."""
        return [name for name in self.datasets() if name in self.params.data.sets]

    def groups(self) -> list[str]:
        """Every ``data set/experiment``, in the order of the settings."""
        return list(dict.fromkeys(cell.group for cell in self.cells()))

    def rounds(self, group: str) -> list[Round]:
        """The rounds in which a group has packs."""
        return [round_ for round_ in ROUNDS if self.cells_of(round_, group)]

    def shared_axes(self, group: str) -> list[str]:
        """Axes whose value is selected jointly over the methods of a group."""
        return self._section(next(cell for cell in self.cells() if cell.group == group)).shared_axes

    def cells_of(self, round_: Round, group: str | None = None) -> list[Cell]:
        """Cells with packs in a round, of all groups or of one."""
        return [
            cell
            for cell in self.cells()
            if group in (None, cell.group)
            and (round_ == "seeds" or (cell.method.baseline is not None) == (round_ == "guided"))
        ]

    def points(self, cell: Cell, selections: Selections) -> list[Point]:
        """The cell's grid; an annealed cell's needs the selection of the baselines."""
        grid = self._section(cell).grid
        fixed: Point = {}
        if cell.method.baseline is not None:
            baseline = Cell(cell.dataset, cell.experiment, METHODS[cell.experiment][cell.method.baseline])
            chosen = self._selected(selections, baseline)["point"]
            fixed = {"learning_rate": chosen["learning_rate"]}
        names = cell.axes
        return [
            fixed | dict(zip(names, values, strict=True))
            for values in product(*(getattr(grid, name) for name in names))
        ]

    def possible_runs(self, cell: Cell, round_: Round) -> list[list[RunSettings]]:
        """The runs that a round may ask of a cell, known before anything is selected.

        Cells whose every point diverges make it fewer.

        Returns:
            A list of runs for each run of the round: which of them it will be depends on the selection.
        """
        section, seeds = self._section(cell), self.params.seeds
        # An annealed cell takes over one of its baseline's rates.
        axes = cell.axes if "learning_rate" in cell.axes else ("learning_rate", *cell.axes)
        points = [dict(zip(axes, values, strict=True)) for values in product(*(getattr(section.grid, a) for a in axes))]
        if round_ == "seeds":
            return [[self.run(cell, point, seed) for point in points] for seed in seeds]
        by_point: dict[tuple[Any, ...], list[RunSettings]] = {}
        for point in points:
            key = tuple(point[axis] for axis in cell.axes)
            by_point.setdefault(key, []).append(self.run(cell, point, seeds[0]))
        return list(by_point.values())

    def first_run(self, cell: Cell) -> RunSettings:
        """The run of the first value of every axis; a cell's runs differ in what no step's time depends on."""
        grid = self._section(cell).grid.model_dump()
        return self.run(cell, {axis: values[0] for axis, values in grid.items()}, self.params.seeds[0])

    def run(self, cell: Cell, point: Point, seed: int) -> RunSettings:
        """The resolved settings of one run."""
        section, source, method = self._section(cell), self.params.sources[cell.dataset], cell.method
        learning_rate = point["learning_rate"]
        assert learning_rate is not None  # the grid's schema has no null there

        def rate(axis: str) -> float:
            value = point[axis]
            return learning_rate if value is None else value

        silent = None
        if method.guide != "none":
            annealed = method.guide == "annealed"
            cutoff = None if method.guide == "control" else point["cutoff_epoch"]
            silent = SilentSettings(
                role=method.guide,
                sampled=method.sampled,
                plateau_epochs=section.plateau_epochs if annealed else 0.0,
                annealing_rate=float(point["annealing_rate"] or 0.0) if annealed else 0.0,
                cutoff_epoch=None if cutoff is None else int(cutoff),
                mean_rate=rate("mean_rate"),
                precision_rate=rate("precision_rate"),
                guide=section.guide,
                log_term=section.log_term,
            )
        experiment = EXPERIMENTS[cell.experiment]
        return RunSettings(
            experiment=cell.experiment,
            method=method.name,
            data=DataSettings(
                name=source.name,
                sha256=source.sha256,
                shape=source.shape,
                levels=source.levels,
                protocol=self.params.protocol,
                holdout=0 if self.params.protocol == "paper" else section.holdout or source.holdout,
            ),
            posterior=method.posterior,
            latent_dim=section.latent_dim,
            network=NetworkSettings(
                section.network.architecture,
                tuple(section.network.encoder_channels),
                () if experiment.linear else tuple(section.network.decoder_channels),
            ),
            initialization=section.initialization,
            precision=section.precision,
            estimator=method.estimator,
            estimator_options=section.options_of(method),
            silent=silent,
            variance=point["variance"] if experiment.fixed_variance else None,
            seed=seed,
            epochs=section.epochs,
            batch_size=section.batch_size,
            learning_rate=learning_rate,
            mean_rate=rate("mean_rate") if "mean_rate" in experiment.axes else None,
            precision_rate=rate("precision_rate") if "precision_rate" in experiment.axes else None,
            betas=section.betas,
            weight_decay=section.weight_decay,
            gradient_clip=section.gradient_clip,
            evaluate_every=section.evaluate_every,
            evaluation_samples=section.evaluation_samples,
            snapshot_epochs=tuple(section.snapshot_epochs),
            threshold_bpd=section.threshold_bpd,
            cooldown_epochs=section.cooldown_epochs,
        )

    def grid_runs(self, cell: Cell, selections: Selections) -> list[tuple[Point, RunSettings]]:
        """The runs of the cell's grid, each with its point; points that come to the same run are one."""
        seed = self.params.seeds[0]
        runs: dict[str, tuple[Point, RunSettings]] = {}
        for point in self.points(cell, selections):
            run = self.run(cell, point, seed)
            runs.setdefault(run.id, (point, run))
        return list(runs.values())

    def packs(self, round_: Round, selections: Selections, group: str | None = None) -> list[PackSpec]:
        """The packs of a round, of all groups or of one.

        Raises:
            SelectionMissingError: ``selections`` lacks what this round depends on.
        """
        groups: dict[str, list[RunSettings]] = {}
        for cell in self.cells_of(round_, group):
            groups.setdefault(cell.group, []).extend(self._runs_of(cell, round_, selections))
        evaluation = self.params.evaluation.resolved() if round_ == "seeds" else None
        return [
            PackSpec(round_, name, members, evaluation) for name, runs in groups.items() for members in self._cut(runs)
        ]

    def _runs_of(self, cell: Cell, round_: Round, selections: Selections) -> list[RunSettings]:
        if round_ != "seeds":
            return [run for _, run in self.grid_runs(cell, selections)]
        chosen = self._selected(selections, cell)
        if chosen["status"] == "diverged":  # every grid point did: there is nothing to repeat
            return []
        return [self.run(cell, chosen["point"], seed) for seed in self.params.seeds]

    def _cut(self, runs: Sequence[RunSettings]) -> list[tuple[RunSettings, ...]]:
        """Runs cut into packs of nearly equal length: enough of them for every worker, none too long."""
        execution = self.params.execution
        packs = max(-(-len(runs) // execution.runs_per_pack), min(execution.workers, len(runs)))
        bounds = [round(len(runs) * position / packs) for position in range(packs + 1)] if packs else []
        return [tuple(runs[start:stop]) for start, stop in pairwise(bounds)]

    def manifest(self, pack: PackSpec) -> Path:
        """Where a pack's manifest lies; the path carries the pack's id."""
        return self.results / "packs" / pack.round / pack.group / f"{pack.id}.json"

    def selection_id(self, round_: Round, group: str, selections: Selections) -> str:
        """Twelve hexadecimal digits that change with the packs selected from and with the rule of selection."""
        packs = [pack.id for pack in self.packs(round_, selections, group)]
        return digest([round_, packs, self.shared_axes(group)])[:12]

    def selection_path(self, round_: Round, group: str, selections: Selections) -> Path:
        """Where the selection of a group's grid round lies."""
        return self.results / "selections" / group / f"{round_}-{self.selection_id(round_, group, selections)}.json"

    def selected(self, round_: Round, group: str, selections: Selections) -> Selections:
        """Read the selection of a group's grid round.

        Args:
            round_: The grid round.
            group: The group.
            selections: Those of its rounds before.

        Raises:
            SelectionMissingError: It has not been made yet.
        """
        path = self.selection_path(round_, group, selections)
        if not path.exists():
            raise SelectionMissingError(f"{path}: not made yet; run: snakemake --cores all {path}")
        selection: Selection = read_json(path)
        return selection["cells"]

    def selections(self, upto: Round, group: str | None = None) -> dict[str, Mapping[str, Any]]:
        """Read the selections that a round depends on, of all groups or of one.

        Raises:
            SelectionMissingError: One of them has not been made yet.
        """
        found: dict[str, Mapping[str, Any]] = {}
        for name in self.groups() if group is None else [group]:
            rounds = self.rounds(name)
            for round_ in rounds[: rounds.index(upto)] if upto in rounds else ():
                found |= self.selected(round_, name, found)
        return found

    def id(self, selections: Selections) -> str:
        """Twelve hexadecimal digits of the whole plan, of what gathers and of what it is called."""
        packs = [pack.id for round_ in ROUNDS for pack in self.packs(round_, selections)]
        made_of = [self.params.preset, self.params.protocol, packs, asdict(self.params.evaluation.resolved())]
        # What the report says of own images is in the settings; of the others, in the source code.
        own = [[self.params.sources[name].title, self.params.sources[name].version] for name in self.own_datasets()]
        return digest([*made_of, own] if own else made_of)[:12]

    def gathered_marker(self, selections: Selections) -> Path:
        """The file that says for which plan the tables in the results were made; there is one at a time."""
        return self.results / "gathered" / f"{self.id(selections)}.json"

    def _section(self, cell: Cell) -> ExperimentParams:
        return self.params.for_method(cell.experiment, cell.dataset, cell.method.name)

    def _selected(self, selections: Selections, cell: Cell) -> Mapping[str, Any]:
        if cell.name not in selections:
            round_ = "baselines" if cell.method.baseline is None else "guided"
            raise SelectionMissingError(f"{cell.group}: the selection of the {round_} round has not been made yet")
        return selections[cell.name]
