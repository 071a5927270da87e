"""What a plan will run, in words."""

from __future__ import annotations

from silent_gradients.packs import PackSpec
from silent_gradients.runs import ROUNDS, Plan, SelectionMissingError


def overview(plan: Plan) -> str:
    """Packs and runs per cell, for every round whose selections are made."""
    lines = [f"preset {plan.params.preset}, protocol {plan.params.protocol}, seeds {plan.params.seeds}"]
    for round_ in ROUNDS:
        try:
            packs = plan.packs(round_, plan.selections(round_))
        except SelectionMissingError:
            cells = plan.cells_of(round_)
            most = sum(plan.most_runs(cell, round_) for cell in cells)
            lines.append(f"{round_}: at most {most} runs in {len(cells)} cells, once the rounds before it are selected")
            continue
        lines.append(f"{round_}: {sum(len(pack.members) for pack in packs)} runs in {len(packs)} packs")
        lines += [
            f"  {cell}: {len(epochs)} runs of {epochs[0]} epochs" for cell, epochs in _epochs_by_cell(packs).items()
        ]
    return "\n".join(lines)


def _epochs_by_cell(packs: list[PackSpec]) -> dict[str, list[int]]:
    cells: dict[str, list[int]] = {}
    for pack in packs:
        for run in pack.members:
            cells.setdefault(run.cell, []).append(run.epochs)
    return cells
