"""The plan as a function of settings and selections.

There are three rounds (paper, Appendix B.3): ``baselines`` is the grid of every method without a baseline of its own,
``guided`` the grid of the annealed methods at the learning rate selected for their baseline, ``seeds`` the selected
points with every seed. If the grid's seed is one of them, a point has the same run in its grid and among the seeds.
Each group (an experiment on a data set) is selected by itself, so that no group waits for another.
"""

from __future__ import annotations

import json
import math
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from itertools import accumulate, chain, count, groupby, pairwise, product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from silent_study.methods import METHODS, Method
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
from silent_study.store.runs import RunStore, StoreError, read_json

if TYPE_CHECKING:
    # Not at run time: a bundle's plan has settings without pydantic.
    from silent_study.params.schema import Params

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
    method: Method

    @property
    def experiment(self) -> Experiment:
        """The experiment, which the method is of."""
        return self.method.experiment

    @property
    def name(self) -> str:
        """Name in paths and metrics: ``data set/experiment/method``."""
        return f"{self.group}/{self.method.name}"

    @property
    def group(self) -> str:
        """``data set/experiment``, which all runs of a pack share."""
        return f"{self.dataset}/{self.experiment}"


@dataclass(frozen=True)
class Training:
    """A run that a round needs; while a selection is missing, several that may be equally long."""

    round: Round
    cell: str  # name
    candidates: Sequence[RunSettings]  # the run; while a selection is missing, one of every length that it may have
    known: bool  # False while such a selection is missing
    repeated: bool  # whether an earlier round needs the same run, whichever it will be
    count: int = 1


def _combinations(grid: Mapping[str, Sequence[Any]], axes: Sequence[str]) -> list[Point]:
    return [dict(zip(axes, values, strict=True)) for values in product(*(grid[axis] for axis in axes))]


class Plan:
    """The runs, packs and selections that validated settings lead to, with their paths in a folder of results."""

    def __init__(self, params: Params, results: Path = Path("results")) -> None:
        if (results.exists() or results.is_symlink()) and not results.is_dir():
            found, fix = "a file", "move it away"
            if not results.exists():
                found, fix = f"a link to {results.readlink()}, which is not there", "mount its disk, or remove the link"
            raise StoreError(f"{results}: {found}, where the folder of the results should be; {fix}")
        self.params = params
        self.results = results
        self._section = cache(lambda cell: params.for_method(cell.experiment, cell.dataset, cell.method.name))
        self._common = cache(self._settings_of)
        self._packs: dict[tuple[Round, str, str], list[PackSpec]] = {}
        self._cells = [
            Cell(dataset, METHODS[experiment][method])
            for experiment, datasets in params.experiments.items()
            for dataset, section in datasets.items()
            for method in section.methods
        ]

    def renewed(self, params: Params) -> Plan:
        """Return this plan, with the runs that it has made, if it is that of the settings and data; else theirs."""
        digests = [{name: source.sha256 for name, source in each.sources.items()} for each in (params, self.params)]
        return self if params == self.params and digests[0] == digests[1] else Plan(params, self.results)

    @property
    def store(self) -> RunStore:
        """The runs, below the results."""
        return RunStore(self.results / "store")

    @property
    def grid_seed(self) -> int:
        """Seed of the runs of every grid."""
        return self.params.seeds[0] if self.params.grid_seed is None else self.params.grid_seed

    def cells(self) -> list[Cell]:
        """Return every cell, in the order of the settings."""
        return list(self._cells)

    def datasets(self) -> list[str]:
        """Return the data sets that some cell uses."""
        return sorted({cell.dataset for cell in self._cells})

    def groups(self) -> list[str]:
        """Return every ``data set/experiment``, in the order of the settings."""
        return list(dict.fromkeys(cell.group for cell in self._cells))

    def rounds(self, group: str) -> list[Round]:
        """Return the rounds in which a group has packs."""
        return [round_ for round_ in ROUNDS if self.cells_of(round_, group)]

    def rounds_before(self, upto: Round, group: str) -> list[Round]:
        """Return the rounds of a group on whose selections a round depends."""
        rounds = self.rounds(group)
        return rounds[: rounds.index(upto)] if upto in rounds else []

    def shared_axes(self, group: str) -> list[str]:
        """Return the axes whose value is selected jointly over the methods of a group."""
        return self._section(next(cell for cell in self._cells if cell.group == group)).shared_axes

    def cells_of(self, round_: Round, group: str | None = None) -> list[Cell]:
        """Return the cells with packs in a round, of all groups or of one."""
        return [
            cell
            for cell in self._cells
            if group in (None, cell.group)
            and (round_ == "seeds" or (cell.method.baseline is not None) == (round_ == "guided"))
        ]

    def points(self, cell: Cell, selections: Selections) -> list[Point]:
        """Return the points of a cell's grid, which for an annealed cell depends on the selection of its baseline."""
        fixed: Point = {}
        if cell.method.baseline is not None:
            baseline = Cell(cell.dataset, METHODS[cell.experiment][cell.method.baseline])
            chosen = self._selected(selections, baseline)["point"]
            fixed = {"learning_rate": chosen["learning_rate"]}
        return [fixed | point for point in _combinations(vars(self._section(cell).grid), cell.method.axes)]

    def possible_runs(self, cell: Cell, round_: Round) -> list[list[RunSettings]]:
        """Return, for each run that a round may need of a cell, the runs that it may be, depending on the selection.

        A round needs fewer where every point of a cell diverges.
        """
        # An annealed cell trains at one of the learning rates of its baseline.
        axes = list(dict.fromkeys(["learning_rate", *cell.method.axes]))
        points = _combinations(vars(self._section(cell).grid), axes)
        if round_ == "seeds":
            return [[self.run(cell, point, seed) for point in points] for seed in self.params.seeds]
        by_point: dict[tuple[Any, ...], list[RunSettings]] = {}
        for point in points:
            key = tuple(point[axis] for axis in cell.method.axes)
            by_point.setdefault(key, []).append(self.run(cell, point, self.grid_seed))
        return list(by_point.values())

    def all_possible(self, rounds: Iterable[Round], cells: Container[Cell]) -> dict[str, RunSettings]:
        """Return all ``possible_runs`` of some cells in some rounds, by name."""
        return {
            run.name: run
            for round_ in rounds
            for cell in self.cells_of(round_)
            if cell in cells
            for candidates in self.possible_runs(cell, round_)
            for run in candidates
        }

    def ids_of(self, names: Iterable[str]) -> dict[str, str]:
        """Return ids by name: those of the given names that a round may ask for."""
        asked = set(names)
        cells = {name.rpartition("/")[0] for name in asked}
        possible = self.all_possible(ROUNDS, [cell for cell in self._cells if cell.name in cells])
        return {name: run.id for name, run in possible.items() if name in asked}

    def first_run(self, cell: Cell) -> RunSettings:
        """Return the run of the first value of every axis; the steps of all runs of a cell take the same time."""
        grid = vars(self._section(cell).grid)
        return self.run(cell, {axis: values[0] for axis, values in grid.items()}, self.grid_seed)

    def run(self, cell: Cell, point: Point, seed: int) -> RunSettings:
        """Return the resolved settings of one run."""
        section, method, experiment = self._section(cell), cell.method, EXPERIMENTS[cell.experiment]
        learned = experiment.decoder == "two-layer" and section.pixel_variances == "learned"
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
        return RunSettings(
            **self._common(cell),
            silent=silent,
            variance=point["variance"] if "variance" in experiment.axes and not learned else None,
            seed=seed,
            learning_rate=learning_rate,
            mean_rate=rate("mean_rate") if "mean_rate" in experiment.axes else None,
            precision_rate=rate("precision_rate") if "precision_rate" in experiment.axes else None,
        )

    def _settings_of(self, cell: Cell) -> dict[str, Any]:
        """Return the settings that all runs of a cell share."""
        section, source, method = self._section(cell), self.params.sources[cell.dataset], cell.method
        traits = EXPERIMENTS[cell.experiment]
        two_layer, quadratic = traits.decoder == "two-layer", method.guide != "none" and section.guide == "quadratic"
        return {name: getattr(section, name) for name in _COPIED} | {
            "experiment": cell.experiment,
            "method": method.name,
            "data": DataSettings(
                name=source.name,
                sha256=source.sha256,
                shape=source.shape,
                levels=source.levels,
                protocol=self.params.protocol,
                holdout=0 if self.params.protocol == "paper" else section.holdout or source.holdout,
            ),
            "posterior": method.posterior,
            "network": NetworkSettings(
                section.network.architecture,
                tuple(section.network.encoder_channels),
                () if traits.exact else tuple(section.network.decoder_channels),
            ),
            "estimator": method.estimator,
            "estimator_options": section.options_of(method),
            "snapshot_epochs": tuple(section.snapshot_epochs),
            "activation": section.activation if two_layer else None,
            "hidden_units": section.hidden_units if two_layer or quadratic else None,
        }

    def grid_runs(self, cell: Cell, selections: Selections) -> list[tuple[Point, RunSettings]]:
        """Return the runs of a cell's grid, each with its first point: several points may lead to one run."""
        runs: dict[str, tuple[Point, RunSettings]] = {}
        for point in self.points(cell, selections):
            run = self.run(cell, point, self.grid_seed)
            runs.setdefault(run.id, (point, run))
        return list(runs.values())

    def packs(self, round_: Round, selections: Selections, group: str | None = None) -> list[PackSpec]:
        """Return the packs of a round, of all groups or one; raises ``SelectionMissingError`` without a selection."""
        return [
            pack
            for name in (self.groups() if group is None else [group])
            for pack in self._packs_of(round_, name, selections)
        ]

    def _packs_of(self, round_: Round, group: str, selections: Selections) -> list[PackSpec]:
        """Make the packs of a group's round once for all callers: a study may have thousands of runs."""
        cells = self.cells_of(round_, group)
        names = [cell.name for cell in self._cells if cell.group == group] if round_ != "baselines" else []
        chosen = {name: selections.get(name) for name in names}
        key = (round_, group, json.dumps(chosen, sort_keys=True))
        if key not in self._packs:
            parts = [self._runs_of(cell, round_, selections) for cell in cells]
            if self.params.execution.packs == "group":
                parts = [[run for runs in parts for run in runs]]
            total = sum(map(len, parts))
            evaluation, shared = None, tuple(self.shared_axes(group))
            if round_ == "seeds":
                evaluation, shared = self.params.evaluation.resolved(), ()
            self._packs[key] = [
                PackSpec(round_, group, members, evaluation, shared)
                for runs in parts
                for members in self._cut(runs, total)
            ]
        return self._packs[key]

    def known_packs(self, round_: Round, group: str) -> list[PackSpec] | None:
        """Return the packs of a group's round; None while a selection that it depends on is missing."""
        try:
            return self.packs(round_, self.selections(round_, group), group)
        except SelectionMissingError:
            return None

    def all_known_packs(self) -> list[PackSpec]:
        """Return the packs of all rounds and groups, but those that depend on a missing selection."""
        return [pack for round_ in ROUNDS for group in self.groups() for pack in self.known_packs(round_, group) or ()]

    def trainings(self) -> Iterator[Training]:
        """Yield every run that the rounds need, cell by cell, as far as it is known."""
        for round_ in ROUNDS:
            for group in self.groups():
                packs = self.known_packs(round_, group)
                if packs is None:
                    for cell in self.cells_of(round_, group):
                        yield from self.to_come(cell, round_)
                    continue
                for run in (run for pack in packs for run in pack.members):
                    # A point's run with this seed is also in its grid.
                    repeated = round_ == "seeds" and run.seed == self.grid_seed
                    yield Training(round_, run.cell, [run], known=True, repeated=repeated)

    def to_come(self, cell: Cell, round_: Round) -> Iterator[Training]:
        """Yield the runs that a round may need of a cell, before anything is selected, without making each of them."""
        grid = {axis: list(dict.fromkeys(values)) for axis, values in vars(self._section(cell).grid).items()}
        first = {axis: values[0] for axis, values in grid.items()}
        # The time of a run depends on these axes alone.
        axes = [axis for axis in ("annealing_rate", "cutoff_epoch") if axis in cell.method.axes]
        runs = [self.run(cell, first | point, self.grid_seed) for point in _combinations(grid, axes)]
        if round_ == "seeds":
            again = self.params.seeds.count(self.grid_seed)
            for count, repeated in ((again, True), (len(self.params.seeds) - again, False)):
                if count:
                    yield Training(round_, cell.name, runs, known=False, repeated=repeated, count=count)
        else:
            count = math.prod(len(grid[axis]) for axis in cell.method.axes if axis not in axes)
            for run in runs:
                yield Training(round_, cell.name, [run], known=False, repeated=False, count=count)

    def _runs_of(self, cell: Cell, round_: Round, selections: Selections) -> list[RunSettings]:
        if round_ != "seeds":
            return [run for _, run in self.grid_runs(cell, selections)]
        chosen = self._selected(selections, cell)
        if chosen["status"] == "diverged":  # every grid point did: there is nothing to repeat
            return []
        return [self.run(cell, chosen["point"], seed) for seed in self.params.seeds]

    def _cut(self, runs: Sequence[RunSettings], total: int) -> list[tuple[RunSettings, ...]]:
        """Cut runs, of ``total`` ones in the round, into packs of nearly equal length, none too long.

        The packs of the round are enough for every worker, unless that would part runs that share epochs
        (``PackSpec.trunks``).
        """
        execution = self.params.execution
        longest = execution.runs_per_pack
        families = [list(family) for _, family in groupby(runs, lambda run: run.without_cutoff)]
        parts = [family[start : start + longest] for family in families for start in range(0, len(family), longest)]
        workers = -(-execution.workers * len(runs) // max(1, total))
        packs = max(-(-len(runs) // longest), min(workers, len(parts)))
        ends = [0, *accumulate(map(len, parts))]
        while True:
            bounds = [ends[round(len(parts) * position / packs)] for position in range(packs + 1)] if packs else []
            if all(stop - start <= longest for start, stop in pairwise(bounds)):
                return [tuple(runs[start:stop]) for start, stop in pairwise(bounds)]
            packs += 1

    def manifest(self, pack: PackSpec) -> Path:
        """Return the path of a pack's manifest, which carries the id of the pack."""
        return self.results / f"packs/{pack.round}/{pack.group}/{pack.id}.json"

    def selection_id(self, round_: Round, group: str, selections: Selections) -> str:
        """Return twelve hexadecimal digits that change with the packs selected from and the rule of selection."""
        packs = [pack.id for pack in self.packs(round_, selections, group)]
        return digest([round_, packs, self.shared_axes(group)])[:12]

    def selection_file(self, round_: Round, group: str, selections: Selections) -> Path:
        """Return the usual path of the selection of a group's grid round."""
        return self.results / "selections" / group / f"{round_}-{self.selection_id(round_, group, selections)}.json"

    def selection_path(self, round_: Round, group: str, selections: Selections) -> Path:
        """Return the path of the selection of a group's grid round, which is whole if it exists.

        A damaged file stays where it is, since laying out the graph of jobs removes nothing; the first free name with a
        number takes its place.
        """
        usual = self.selection_file(round_, group, selections)
        names = chain([usual.name], (f"{usual.stem}-{number}.json" for number in count(1)))
        paths = map(usual.with_name, names)
        return next(path for path in paths if not path.exists() or self._read(path, round_, group) is not None)

    def selected(self, round_: Round, group: str, selections: Selections) -> Selections:
        """Read a selection, given those before it; raises ``SelectionMissingError`` if it is missing or damaged."""
        path = self.selection_path(round_, group, selections)
        found = self._read(path, round_, group)
        if found is None:
            raise SelectionMissingError(f"{path}: not made yet; run: snakemake --cores all {path}")
        return found["cells"]

    def selections(self, upto: Round, group: str | None = None) -> dict[str, Mapping[str, Any]]:
        """Read the selections that a round depends on, of all groups or of one; raises as ``selected``."""
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
        used, own_sets = self.params.sources, self.params.data.sets
        own = [[used[name].title, used[name].version] for name in self.datasets() if name in own_sets]
        return digest([*made_of, own] if own else made_of)[:12]

    def foreseen(self, group: str) -> Selections | None:
        """Return the selections of a group of which every grid has one point; None for another group."""
        found: dict[str, Mapping[str, Any]] = {}
        for round_ in self.rounds_before("seeds", group):
            for cell in self.cells_of(round_, group):
                points = self.points(cell, found)
                if len(points) > 1:
                    return None
                found[cell.name] = {"status": "selected", "point": points[0]}
        return found

    def _read(self, path: Path, round_: Round, group: str) -> Selection | None:
        """Return the content of a selection; None if it is missing or damaged."""
        try:
            selection: Selection = read_json(path)
            chosen = [(cell, selection["cells"][cell.name]) for cell in self.cells_of(round_, group)]
            whole = all(each["status"] and {*cell.method.axes} <= each["point"].keys() for cell, each in chosen)
        except (StoreError, KeyError, TypeError, AttributeError):
            return None
        return selection if whole else None

    def _selected(self, selections: Selections, cell: Cell) -> Mapping[str, Any]:
        if cell.name not in selections:
            round_ = "baselines" if cell.method.baseline is None else "guided"
            raise SelectionMissingError(f"{cell.group}: the selection of the {round_} round has not been made yet")
        return selections[cell.name]
