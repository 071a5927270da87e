"""Inputs, parameters and resources of Snakemake's jobs.

Nothing here writes but ``prepare_start``: Snakemake evaluates rules in dry runs, too. A file that exists and is out of
date is therefore never removed. Instead its **renewal** is listed beside it, a file that does not exist yet and that
the rule of the out-of-date file takes as input, so that Snakemake runs the rule.
"""

from __future__ import annotations

import json
import logging
import math
import os
import shlex
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

from silent_study import params
from silent_study.data.prepare import PREPARED, outdated
from silent_study.data.prepared import ARRAYS
from silent_study.jobs.pace import PACE, Pace
from silent_study.params.overlay import settings_over, with_nulls
from silent_study.plan.plan import ROUNDS, Plan, Selections
from silent_study.report.gathered import is_intact, marker_of
from silent_study.settings import SettingsError
from silent_study.store.code import SOURCE
from silent_study.store.files import last_touched, mend_times, touched
from silent_study.store.manifests import SNAKEMAKE_VARIABLE, evaluated_otherwise, is_damaged, seems_done
from silent_study.store.packs import PackSpec, Round
from silent_study.store.recorded import take_recorded
from silent_study.store.runs import StoreError
from silent_study.store.stale import check_code
from silent_study.words import counted, did_you_mean

RENEWALS = ".renewals"
"""Name of the folder of the renewals below the results."""

LIMITED_RETRIES = 24
"""Times that a training which stops at ``execution.time_limit`` is continued by the same call of Snakemake."""

MACHINE_OPTIONS = frozenset({"--cores", "-c", "--jobs", "-j", "--profile", "--workflow-profile"})
LONG_OPTIONS = frozenset({"--configfile", "--configfiles", "--config", "--resources"})
KEPT_OPTIONS = MACHINE_OPTIONS | LONG_OPTIONS | {"--snakefile", "-s"}


def command_again(words: Sequence[str]) -> str:
    """Return Snakemake's command line for other targets: the same machine, profiles and settings as in ``words``."""
    kept, names, left = [], set[str](), 0
    for word in words:
        if word == "--":
            break
        if word.startswith("-"):
            name = word.partition("=")[0] if word.startswith("--") else word[:2]
            names |= {name} & MACHINE_OPTIONS
            left = 0 if name not in KEPT_OPTIONS else len(words) if name in LONG_OPTIONS else 1 + (word == name)
        if left > 0:
            kept.append(word)
            left -= 1
    return shlex.join(["snakemake", *kept, *([] if names else ["--cores", "all", "--resources", "gpu=8"])])


def refuse_repeated(words: Sequence[str]) -> None:
    """Raise ``SettingsError`` for an option of settings given twice in Snakemake's command line."""
    names = [word.partition("=")[0] for word in (words[: words.index("--")] if "--" in words else words)]
    for option, spellings in (("--config", {"--config", "-C"}), ("--configfile", {"--configfile", "--configfiles"})):
        if sum(name in spellings for name in names) > 1:
            raise SettingsError(f"{option}: given twice, of which Snakemake takes the last; put all values after one")


T = TypeVar("T")


class Workflow:
    """Inputs, parameters and resources of the jobs of a study.

    ``config`` is the content of params.yaml with what ``snakemake --configfile`` and ``--config`` set over it;
    ``closer`` is what each of these sets, the closest last. ``wait_for`` is called with the wildcards of a selection
    (``round``, ``group``, ``id``); it raises while Snakemake has yet to make it (``checkpoints.select.get``).

    Raises:
        SettingsError: The settings are invalid; every line of the message names params.yaml.
        StoreError: Other source code than the present one trained or evaluated a run of the plan.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        wait_for: Callable[..., object],
        presets: Path | None = None,
        results: Path = Path("results"),
        closer: Iterable[Mapping[str, Any]] = (),
    ) -> None:
        refuse_repeated(sys.argv[1:])
        own, layers = with_nulls(config), list(filter(None, map(with_nulls, closer)))
        for layer in layers:
            # The values are in config already; the overrides of methods that they replace still are, too. A workflow
            # of which this is a module may have settings of its own.
            own = settings_over(own, {key: layer[key] for key in layer if key in own}, removing=False)
        # workflow/envs/jobs.post-deploy.sh installs this folder; Snakemake deploys before the first job.
        os.environ["SILENT_GRADIENTS_SOURCE"] = str(SOURCE.parent)
        try:
            self.plan = Plan(params.resolve(own, presets or params.presets_folder()), results)
        except SettingsError as error:
            where = ", ".join(["params.yaml", *(["--configfile, --config"] if layers else [])])
            raise SettingsError("\n".join(f"{where}: {line}" for line in str(error).splitlines())) from None
        check_code(self.plan.store, self.plan.all_known_packs())
        self.settings = json.dumps(own)  # in their order, which is that of groups in the plan's id
        self.execution = self.plan.params.execution
        self.renewals = results / RENEWALS
        self._wait_for = wait_for
        self._store = self.plan.store
        self._found: dict[tuple[Path, int], Any] = {}
        self._selection_files: dict[Path, Path] = {}
        self._pace = Pace.read(results / PACE, self.plan.params.sources)
        # Laid out once for all jobs of a round. An exception of a selection to come is not kept.
        self.packs = cache(self._packs)
        self.selections = cache(self._selections)
        self._later = cache(self._seconds_later)

    def prepared(self, dataset: str) -> list[str]:
        """Return the files of a prepared data set, the manifest first, and renewals if they are of other data."""
        files = [str(PREPARED / dataset / file) for name, arrays in ARRAYS.items() for file in (name, *arrays)]
        return files + self._renewals(self._outdated(dataset))

    def all_prepared(self) -> list[str]:
        """Return ``prepared`` of every data set."""
        return [file for dataset in self.plan.datasets() for file in self.prepared(dataset)]

    def data_renewals(self, dataset: str, manifest: str) -> list[str]:
        """Return the renewal of a prepared data set's manifest if it is of other data."""
        return self._renewals(path for path in self._outdated(dataset) if path.name == manifest)

    def data_options(self, dataset: str, *, mirror: bool = True) -> list[str]:
        """Return the options with which the command line finds a data set: its entry in the settings, its mirror."""
        data = self.plan.params.data
        own = [f"--settings={self.plan.params.own_set(dataset)}"] if dataset in data.sets else []
        return own + ([f"--mirror={data.mirror}"] if mirror and data.mirror else [])

    def manifests(self, round_: Round, group: str, _wildcards: object = None) -> list[str]:
        """Return the manifests of a group's round; with renewals where evaluations are by other settings."""
        return self._manifests(self.packs(round_, group).values())

    def manifests_of(self, rounds: Iterable[Round]) -> list[Callable[[Any], list[str]]]:
        """Return an input function per round and group, so that each waits for its own selections alone."""
        return [
            lambda _, round_=round_, group=group: self.manifests(round_, group)  # type: ignore[misc]
            for group in self.plan.groups()
            for round_ in self.plan.rounds(group)
            if round_ in rounds
        ]

    def pack(self, wildcards: Any) -> PackSpec:
        """Return the pack that the path of a manifest names; raises ``StoreError`` if the settings have none."""
        round_, group = wildcards.round, wildcards.group
        found = self.packs(round_, group).get(wildcards.id)
        if found is None:
            raise StoreError(f"params.yaml: has no pack {wildcards.id} in the {round_} round of {group}")
        return found

    def pack_renewals(self, wildcards: Any) -> list[str]:
        """Return the renewal of a pack's manifest if its evaluations are by other settings."""
        return self._renewals([self._outdated_manifest(self.pack(wildcards))])

    def pack_json(self, wildcards: Any) -> str:
        """Return a pack as ``silent-gradients train --pack`` reads it."""
        return json.dumps(self.pack(wildcards).to_json(), sort_keys=True)

    def pack_options(self) -> list[str]:
        """Return the options of ``silent-gradients train`` that are not set in every study."""
        optional = {"--time-limit": self.execution.time_limit, "--tensorboard": self.execution.tensorboard}
        return [f"{option}={value}" for option, value in optional.items() if value]

    @property
    def retries(self) -> int | None:
        """Times that a training is begun again: many if it stops by itself at a time limit, else as in the profile."""
        return None if self.execution.time_limit is None else LIMITED_RETRIES

    def gpus(self, wildcards: Any) -> int:
        """Return the GPUs of a pack's job: 0 if nothing is left to train, so that the job waits for no device."""
        pack = self.pack(wildcards)
        return 0 if seems_done(self._store, pack) and not self._is_damaged(pack) else 1

    def priority(self, wildcards: Any) -> int:
        """Return the priority of a pack's job: the minutes until its group is done, at the earliest.

        Long jobs, and those that much waits for, come first, so that no device waits for one at the end.
        """
        own = sum(map(self._pace.expected, self.pack(wildcards).members))
        return math.ceil((own + self._later(wildcards.round, wildcards.group)) / 60)

    def runtime(self, wildcards: Any) -> int:
        """Return the minutes that a scheduler grants a pack's job."""
        limit = self.execution.time_limit
        return self._pace.granted_minutes(self.pack(wildcards)) if limit is None else math.ceil(limit)

    def memory(self, wildcards: Any) -> int:
        """Return the megabytes that a scheduler grants a pack's job."""
        return self._pace.granted_megabytes(self.pack(wildcards))

    def selections_before(self, wildcards: Any) -> list[str]:
        """Return the selections by which the members of a pack were chosen."""
        return self._selection_paths(wildcards.round, wildcards.group)

    def cell(self, wildcards: Any) -> list[str]:
        """Return the manifests that a cell needs: those of its group's grids, and of its own runs with every seed."""
        group = f"{wildcards.dataset}/{wildcards.experiment}"
        cell, known = f"{group}/{wildcards.method}", [each.name for each in self.plan.cells()]
        if cell not in known:
            raise StoreError(f"params.yaml: has no cell {cell}{did_you_mean(cell, known)}; known: {', '.join(known)}")
        grids = [path for round_ in self.plan.rounds(group)[:-1] for path in self.manifests(round_, group)]
        packs = self.packs("seeds", group).values()
        return grids + self._manifests([pack for pack in packs if any(run.cell == cell for run in pack.members)])

    def last_selections(self) -> list[Callable[[Any], str]]:
        """Return an input function per group: the last selection of its grid."""
        return [
            lambda _, group=group: self._selection_paths("seeds", group)[-1]  # type: ignore[misc]
            for group in self.plan.groups()
        ]

    def selected_from(self, wildcards: Any) -> list[str]:
        """Return the manifests that a selection waits for.

        A selection that exists does not wait: its path carries the ids of the packs, so that it stays right. Snakemake
        9.27 may lose the jobs after a checkpoint whose output exists and is to be made again.
        """
        round_, group = wildcards.round, wildcards.group
        manifests = self.manifests(round_, group)
        selected = self._selection_path(round_, group, self.selections(round_, group))
        return [path for path in manifests if Path(path).exists()] if selected.exists() else manifests

    def lacks_runs(self) -> bool:
        """Return True if a run is to be trained, or may be, once a point is selected."""
        packs = [self.plan.known_packs(round_, group) for group in self.plan.groups() for round_ in ROUNDS]
        return any(own is None or not all(seems_done(self._store, pack) for pack in own) for own in packs)

    def trained_runs(self) -> tuple[frozenset[str], int]:
        """Return the names of the runs of the plan that are done, and how many it has, at most."""
        runs = [each for each in self.plan.trainings() if not each.repeated]
        names = (each.candidates[0].name for each in runs if each.known)
        return frozenset(filter(self._store.is_finished, names)), sum(each.count for each in runs)

    def gathered(self) -> list[str]:
        """Return the marker of the gathered results, and its renewal if one of them, or a run, has changed since."""
        return [str(self._marker()), *self.gathered_renewals()]

    def gathered_renewals(self) -> list[str]:
        """Return the renewal of the marker of the gathered results if one of them, or a run, has changed since."""
        marker = self._marker()
        return [] if is_intact(marker, self.plan.results) else self._renewals([marker])

    def _seconds_later(self, round_: Round, group: str) -> float:
        """Return the seconds of the longest packs of a group's later rounds."""
        rounds, seconds = self.plan.rounds(group), 0.0
        for later in rounds[rounds.index(round_) + 1 :]:
            to_come = [each for cell in self.plan.cells_of(later, group) for each in self.plan.to_come(cell, later)]
            runs = sum(each.count for each in to_come)
            members = min(self.execution.runs_per_pack, -(-runs // self.execution.workers))
            seconds += members * max(self._pace.expected(run) for each in to_come for run in each.candidates)
        return seconds

    def _manifests(self, packs: Collection[PackSpec]) -> list[str]:
        return [str(self.plan.manifest(pack)) for pack in packs] + self._renewals(map(self._outdated_manifest, packs))

    def _marker(self) -> Path:
        chosen = [self.selections("seeds", group).items() for group in self.plan.groups()]
        return marker_of(self.plan, dict(chain.from_iterable(chosen)))

    def _packs(self, round_: Round, group: str) -> dict[str, PackSpec]:
        return {pack.id: pack for pack in self.plan.packs(round_, self.selections(round_, group), group)}

    def _selections(self, upto: Round, group: str) -> Selections:
        """Return the selections before a round of a group, by cell; raises while Snakemake has yet to make one."""
        found: dict[str, Mapping[str, Any]] = {}
        for round_ in self.plan.rounds_before(upto, group):
            path = self._selection_path(round_, group, found)
            self._wait_for(round=round_, group=group, id=path.stem.removeprefix(f"{round_}-"))
            found |= self.plan.selected(round_, group, found)
        return found

    def _selection_paths(self, upto: Round, group: str) -> list[str]:
        found = self.selections(upto, group)
        return [str(self._selection_path(round_, group, found)) for round_ in self.plan.rounds_before(upto, group)]

    def _selection_path(self, round_: Round, group: str, selections: Selections) -> Path:
        """Return the path of a selection, the same for the whole call of Snakemake, which may repair a damaged one."""
        usual = self.plan.selection_file(round_, group, selections)
        return self._selection_files.setdefault(usual, self.plan.selection_path(round_, group, selections))

    def _outdated(self, dataset: str) -> list[Path]:
        folder, source = PREPARED / dataset, self.plan.params.sources[dataset]
        return self._once(folder, last_touched, lambda: outdated(folder, source)) or []

    def _outdated_manifest(self, pack: PackSpec) -> Path | None:
        return self.plan.manifest(pack) if evaluated_otherwise(self._store, pack) or self._is_damaged(pack) else None

    def _is_damaged(self, pack: PackSpec) -> bool:
        path = self.plan.manifest(pack)
        return bool(self._once(path, touched, lambda: is_damaged(self._store, pack, path)))

    def _once(self, path: Path, when: Callable[[Path], int], check: Callable[[], T]) -> T | None:
        """Return what a check of a file or folder finds, made once until it is touched; None if it is missing."""
        try:
            key = (path, when(path))
        except FileNotFoundError:
            return None
        if key not in self._found:
            self._found[key] = check()
        return self._found[key]

    def _renewals(self, outdated_files: Iterable[Path | None]) -> list[str]:
        # A renewal must not exist already. One that a kill left is older than the file which was made after it, and the
        # time of that file is in the name of the next renewal.
        return [
            str(self.renewals / f"{path.as_posix().replace('/', ',')}@{path.stat().st_mtime_ns}")
            for path in outdated_files
            if path is not None and path.exists()
        ]


def prepare_start(study: Workflow) -> None:
    """Do before the first job what no dry run may do: mend times, and take runs that other revisions recorded."""
    # Without an activated environment, jobs find the programs of the one that Snakemake itself is of.
    os.environ["PATH"] = os.pathsep.join((os.environ.get("PATH", os.defpath), str(Path(sys.executable).parent)))
    os.environ[SNAKEMAKE_VARIABLE] = command_again(sys.argv[1:])  # for the messages of jobs
    results = study.plan.results
    inputs = [PREPARED, PREPARED.with_name("raw"), *(results / name for name in ("packs", "selections", RENEWALS))]
    if mended := mend_times(inputs):
        print(f"{counted(mended, 'file')} dated in the future: given the present time", file=sys.stderr)
    if study.lacks_runs():
        take_recorded(study.plan.store, study.plan.ids_of)
    trained, runs = study.trained_runs()
    # The display counts on from here.
    told = {"trained_runs": trained, "planned_runs": runs}
    logging.getLogger("snakemake.logging").info(f"{len(trained)} of {counted(runs, 'run')} trained", extra=told)
