"""Packs as plain data."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal

from silent_study.settings import EvaluationSettings, RunSettings, digest

Round = Literal["baselines", "guided", "seeds"]


@dataclass(frozen=True)
class PackSpec:
    """A pack: the runs of one training job."""

    round: Round
    """``baselines`` and ``guided`` are grids, which keep the weights of the members that may be selected; ``seeds``
    trains the selected points, keeps their weights and evaluates them."""
    group: str
    """``data set/experiment``; members share their data, not always their method."""
    members: tuple[RunSettings, ...]
    """The runs, in order."""
    evaluation: EvaluationSettings | None
    """How to evaluate (``seeds`` only)."""
    shared_axes: tuple[str, ...] = ()
    """Axes whose value is selected jointly over the methods of the group (grids only); no result depends on them."""

    def to_json(self) -> dict[str, Any]:
        """Return JSON-ready data, in which settings that all members share are written once; see ``from_json``."""
        members = [member.to_json() for member in self.members]
        shared = {key: value for key, value in members[0].items() if all(other.get(key) == value for other in members)}
        return {
            "round": self.round,
            "group": self.group,
            "shared": shared,
            "members": [{key: value for key, value in each.items() if key not in shared} for each in members],
            "evaluation": None if self.evaluation is None else asdict(self.evaluation),
            "shared_axes": list(self.shared_axes),
        }

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> PackSpec:
        """Rebuild a pack from ``to_json``'s data."""
        evaluation = document["evaluation"]
        return cls(
            round=document["round"],
            group=document["group"],
            members=tuple(RunSettings.from_json(document["shared"] | member) for member in document["members"]),
            evaluation=None if evaluation is None else EvaluationSettings.from_json(evaluation),
            shared_axes=tuple(document.get("shared_axes", ())),
        )

    @cached_property
    def trunks(self) -> dict[str, RunSettings]:
        """By a member's name, the member with the latest cut-off of those that differ in it alone; itself for most.

        Until its own cut-off a member trains as its trunk does, so that it goes on from the trunk's state there.
        """
        families: dict[str, list[RunSettings]] = {}
        for member in self.members:
            families.setdefault(member.without_cutoff.id, []).append(member)
        trunks = {key: max(family, key=lambda run: run.unfrozen_epochs) for key, family in families.items()}
        return {run.name: trunks[key] for key, family in families.items() for run in family}

    @cached_property
    def id(self) -> str:
        """Ten hexadecimal digits that change with the round, with any member and with the evaluation."""
        members = [member.id for member in self.members]
        return digest([self.round, members, None if self.evaluation is None else asdict(self.evaluation)])[:10]

    @property
    def lock(self) -> str:
        """Name of the store's lock that the pack's job holds."""
        return f"pack {self.id}"
