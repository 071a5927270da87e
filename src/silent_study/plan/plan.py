"""What is to be run, as a function of the settings and of the selections made so far.

There are three rounds (paper, Appendix B.3): ``baselines`` is the grid of every method without a baseline of its own,
``guided`` the grid of the annealed methods at the learning rate selected for their baseline, ``seeds`` the selected
points with every seed. A point's run with the first seed is the same run in its grid and among the seeds. Each group
(an experiment on a data set) is selected by itself, so that no group waits for another.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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

_COPIED = (
    *("latent_dim", "initialization", "precision", "epochs", "batch_size", "betas", "weight_decay", "gradient_clip"),
    *("evaluate_every", "evaluation_samples", "threshold_bpd", "cooldown_epochs", "kl_warmup_epochs"),
    "last_layer_scale",
)
"""Settings that the runs of a section copy from it."""

Point = dict[str, float | None]
"""A grid point: value by axis."""

Selections = Mapping[str, Mapping[str, Any]]
"""Selected points so far, by name of the cell."""


class SelectionMissingError(StoreError):
    """A selection that a round depends on has not been made yet."""


@dataclass(frozen=True)
class Cell:
    """Data set x experiment x method."""

    dataset: str
    experiment: Experiment
    method: Method

    @property
    def name(self) -> str:
        """Name in paths and metrics: ``data set/experiment/method``."""
        return f"{self.group}/{self.method.name}"

    @property
    def axes(self) -> tuple[str, ...]:
        """Axes of its grid."""
        return self.method.axes

    @property
    def group(self) -> str:
        """``data set/experiment``, which all runs of a pack share."""
        return f"{self.dataset}/{self.experiment}"


@dataclass(frozen=True)
class Training:
    """A run that a round needs.

    Attributes:
        round: The round.
        cell: Name of the cell.
        candidates: The run; while a selection that it depends on is missing, the runs that it may be.
        known: False while such a selection is missing.
        repeated: True if an earlier round needs the same run, whichever of the candidates it will be.
    """

    round: Round
    cell: str
    candidates: Sequence[RunSettings]
    known: bool
    repeated: bool


class Plan:
    """The runs, packs and selections that the settings lead to.

    Args:
        params: Validated settings.
        results: Folder of the results.
    """

    def __init__(self, params: Params, results: Path = Path("results")) -> None:
        self.params = params
        self.results = results

    def cells(self) -> list[Cell]:
        """Return every cell, in the order of the settings."""
        return [
            Cell(dataset, experiment, METHODS[experiment][method])
            for experiment, datasets in self.params.experiments.items()
            for dataset, section in datasets.items()
            for method in section.methods
        ]

    def datasets(self) -> list[str]:
        """Return the data sets that some cell uses."""
        return sorted({cell.dataset for cell in self.cells()})

    def own_datasets(self) -> list[str]:
        """Return the data sets that some cell uses and that are a user's own images."""
        return [name for name in self.datasets() if name in self.params.data.sets]

    def groups(self) -> list[str]:
        """Return every ``data set/experiment``, in the order of the settings."""
        return list(dict.fromkeys(cell.group for cell in self.cells()))

    def rounds(self, group: str) -> list[Round]:
        """Return the rounds in which a group has packs."""
        return [round_ for round_ in ROUNDS if self.cells_of(round_, group)]

    def rounds_before(self, upto: Round, group: str) -> list[Round]:
        """Return the rounds of a group on whose selections a round depends."""
        rounds = self.rounds(group)
        return rounds[: rounds.index(upto)] if upto in rounds else []

    def shared_axes(self, group: str) -> list[str]:
        """Return the axes whose value is selected jointly over the methods of a group."""
        return self._section(next(cell for cell in self.cells() if cell.group == group)).shared_axes

    def cells_of(self, round_: Round, group: str | None = None) -> list[Cell]:
        """Return the cells with packs in a round, of all groups or of one."""
        return [
            cell
            for cell in self.cells()
            if group in (None, cell.group)
            and (round_ == "seeds" or (cell.method.baseline is not None) == (round_ == "guided"))
        ]

    def points(self, cell: Cell, selections: Selections) -> list[Point]:
        """Return the points of a cell's grid, which for an annealed cell depends on the selection of its baseline."""
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
        """Return the runs that a round may need of a cell, before anything is selected.

        There are fewer where every point of a cell diverges.

        Returns:
            For each run of the round, the runs that it may be, depending on the selection.
        """
        section, seeds = self._section(cell), self.params.seeds
        # An annealed cell trains at one of the learning rates of its baseline.
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
        """Return the run of the first value of every axis; the steps of all runs of a cell take the same time."""
        grid = self._section(cell).grid.model_dump()
        return self.run(cell, {axis: values[0] for axis, values in grid.items()}, self.params.seeds[0])

    def run(self, cell: Cell, point: Point, seed: int) -> RunSettings:
        """Return the resolved settings of one run."""
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
        copied: dict[str, Any] = {name: getattr(section, name) for name in _COPIED}
        return RunSettings(
            **copied,
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
            network=NetworkSettings(
                section.network.architecture,
                tuple(section.network.encoder_channels),
                () if experiment.linear else tuple(section.network.decoder_channels),
            ),
            estimator=method.estimator,
            estimator_options=section.options_of(method),
            silent=silent,
            variance=point["variance"] if experiment.fixed_variance else None,
            seed=seed,
            learning_rate=learning_rate,
            mean_rate=rate("mean_rate") if "mean_rate" in experiment.axes else None,
            precision_rate=rate("precision_rate") if "precision_rate" in experiment.axes else None,
            snapshot_epochs=tuple(section.snapshot_epochs),
        )

    def grid_runs(self, cell: Cell, selections: Selections) -> list[tuple[Point, RunSettings]]:
        """Return the runs of a cell's grid, each with its first point: several points may lead to one run."""
        seed = self.params.seeds[0]
        runs: dict[str, tuple[Point, RunSettings]] = {}
        for point in self.points(cell, selections):
            run = self.run(cell, point, seed)
            runs.setdefault(run.id, (point, run))
        return list(runs.values())

    def packs(self, round_: Round, selections: Selections, group: str | None = None) -> list[PackSpec]:
        """Return the packs of a round, of all groups or of one.

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

    def known_packs(self, round_: Round, group: str) -> list[PackSpec] | None:
        """Return the packs of a group's round; None while a selection that it depends on is missing."""
        try:
            return self.packs(round_, self.selections(round_, group), group)
        except SelectionMissingError:
            return None

    def trainings(self) -> Iterator[Training]:
        """Yield every run that the rounds need, cell by cell, as far as it is known."""
        earlier: set[str] = set()
        for round_ in ROUNDS:
            packs = {group: self.known_packs(round_, group) for group in self.groups()}
            for cell in self.cells_of(round_):
                known = packs[cell.group]
                if known is None:
                    possible = self.possible_runs(cell, round_)
                else:
                    possible = [[run] for pack in known for run in pack.members if run.cell == cell.name]
                for candidates in possible:
                    names = {run.name for run in candidates}
                    yield Training(round_, cell.name, candidates, known is not None, names <= earlier)
                    earlier |= names

    def _runs_of(self, cell: Cell, round_: Round, selections: Selections) -> list[RunSettings]:
        if round_ != "seeds":
            return [run for _, run in self.grid_runs(cell, selections)]
        chosen = self._selected(selections, cell)
        if chosen["status"] == "diverged":  # every grid point did: there is nothing to repeat
            return []
        return [self.run(cell, chosen["point"], seed) for seed in self.params.seeds]

    def _cut(self, runs: Sequence[RunSettings]) -> list[tuple[RunSettings, ...]]:
        """Cut runs into packs of nearly equal length: enough packs for every worker, none too long."""
        execution = self.params.execution
        packs = max(-(-len(runs) // execution.runs_per_pack), min(execution.workers, len(runs)))
        bounds = [round(len(runs) * position / packs) for position in range(packs + 1)] if packs else []
        return [tuple(runs[start:stop]) for start, stop in pairwise(bounds)]

    def manifest(self, pack: PackSpec) -> Path:
        """Return the path of a pack's manifest, which carries the id of the pack."""
        return self.results / "packs" / pack.round / pack.group / f"{pack.id}.json"

    def selection_id(self, round_: Round, group: str, selections: Selections) -> str:
        """Return twelve hexadecimal digits that change with the packs selected from and the rule of selection."""
        packs = [pack.id for pack in self.packs(round_, selections, group)]
        return digest([round_, packs, self.shared_axes(group)])[:12]

    def selection_path(self, round_: Round, group: str, selections: Selections) -> Path:
        """Return the path of the selection of a group's grid round."""
        return self.results / "selections" / group / f"{round_}-{self.selection_id(round_, group, selections)}.json"

    def selected(self, round_: Round, group: str, selections: Selections) -> Selections:
        """Read the selection of a group's grid round.

        Args:
            round_: The grid round.
            group: The group.
            selections: Selections of the rounds before.

        Raises:
            SelectionMissingError: It has not been made yet.
            StoreError: The file is damaged.
        """
        path = self.selection_path(round_, group, selections)
        if not path.exists():
            raise SelectionMissingError(f"{path}: not made yet; run: snakemake --cores all {path}")
        try:
            selection: Selection = read_json(path)
            return selection["cells"]
        except (StoreError, KeyError, TypeError) as error:
            raise StoreError(f"{path}: cannot be read ({error}); delete it: the workflow makes it again") from error

    def selections(self, upto: Round, group: str | None = None) -> dict[str, Mapping[str, Any]]:
        """Read the selections that a round depends on, of all groups or of one.

        Raises:
            SelectionMissingError: One of them has not been made yet.
        """
        found: dict[str, Mapping[str, Any]] = {}
        for name in self.groups() if group is None else [group]:
            for round_ in self.rounds_before(upto, name):
                found |= self.selected(round_, name, found)
        return found

    def id(self, selections: Selections) -> str:
        """Return twelve hexadecimal digits that change with anything that the report shows of the plan."""
        packs = [pack.id for round_ in ROUNDS for pack in self.packs(round_, selections)]
        made_of = [self.params.preset, self.params.protocol, packs, asdict(self.params.evaluation.resolved())]
        # Titles of own images are settings; titles of the package's data sets are source code.
        own = [[self.params.sources[name].title, self.params.sources[name].version] for name in self.own_datasets()]
        return digest([*made_of, own] if own else made_of)[:12]

    def _section(self, cell: Cell) -> ExperimentParams:
        return self.params.for_method(cell.experiment, cell.dataset, cell.method.name)

    def _selected(self, selections: Selections, cell: Cell) -> Mapping[str, Any]:
        if cell.name not in selections:
            round_ = "baselines" if cell.method.baseline is None else "guided"
            raise SelectionMissingError(f"{cell.group}: the selection of the {round_} round has not been made yet")
        return selections[cell.name]
