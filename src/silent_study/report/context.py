"""The plan and its runs, as the report reads them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from silent_study.store.packs import Round
from silent_study.store.runs import StoredRun


@dataclass(frozen=True)
class Record(StoredRun):
    """A stored run of a round of the plan; a run of two rounds has a record in each.

    Attributes:
        round: The round.
    """

    round: Round


@dataclass(frozen=True)
class Context:
    """The plan of the runs: its cells and seeds, its data sets, and what was selected.

    Attributes:
        preset: Name of the preset, as every table shows it.
        protocol: ``holdout`` or ``paper``.
        expected_cells: Every cell of the plan, with runs or without.
        selections: What was selected, by cell; see ``documents.Selected``.
        grid_axes: By cell, the settings that its grid varies, by dotted name (``silent.annealing_rate``).
        seeds: Seeds of the plan at each selected point.
        datasets: By data set, its prepared ``manifest.json``.
        revision: Source revision that gathers; ``None`` outside a repository.
        overrides: Settings that deviate from the preset, by dotted name.
        factor_analysis: By ``data set/experiment``, what factor analysis reaches with the experiment's latent
            dimension, as the fields of ``Limit``.
        latents: By cell, images decoded from latent variables of its first reported run, as of ``kept_latents``;
            ``None`` if the store keeps no weights of it.
    """

    preset: str
    protocol: str
    expected_cells: tuple[str, ...]
    selections: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    grid_axes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    seeds: tuple[int, ...] = ()
    datasets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    revision: str | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)
    factor_analysis: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    latents: Mapping[str, Mapping[str, Any] | None] = field(default_factory=dict)

    def title(self, dataset: str) -> str:
        """Return the title of a data set, e.g. ``Tiny ImageNet at 32x32``; its name where it has no manifest."""
        return str(self.datasets.get(dataset, {}).get("title", dataset))
