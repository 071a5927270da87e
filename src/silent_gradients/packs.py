"""The packs of a plan: what one training job is asked for, as plain data that travels as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from silent_gradients.settings import EvaluationSettings, RunSettings, digest

Round = Literal["baselines", "guided", "seeds"]


@dataclass(frozen=True)
class PackSpec:
    """What a pack job is asked for.

    Attributes:
        round: ``baselines`` and ``guided`` are grids, which keep the best member's weights alone; ``seeds`` trains the
            selected points, keeps their weights and evaluates them.
        cell: ``data set/experiment/method``.
        members: The runs, in order.
        evaluation: How to evaluate (``seeds`` only).
    """

    round: Round
    cell: str
    members: tuple[RunSettings, ...]
    evaluation: EvaluationSettings | None

    def to_json(self) -> dict[str, Any]:
        """JSON-ready data; ``from_json`` reads it back."""
        return {
            "round": self.round,
            "cell": self.cell,
            "members": [member.to_json() for member in self.members],
            "evaluation": None if self.evaluation is None else asdict(self.evaluation),
        }

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> PackSpec:
        """Rebuild a pack from ``to_json``'s data."""
        evaluation = document["evaluation"]
        return cls(
            round=document["round"],
            cell=document["cell"],
            members=tuple(RunSettings.from_json(member) for member in document["members"]),
            evaluation=None if evaluation is None else EvaluationSettings.from_json(evaluation),
        )

    @property
    def id(self) -> str:
        """Ten hexadecimal digits that change with any member and with the evaluation asked for."""
        members = [member.id for member in self.members]
        return digest([self.round, members, None if self.evaluation is None else asdict(self.evaluation)])[:10]
