"""What a plan will run, in words."""

from __future__ import annotations

from silent_gradients.runs import ROUNDS, Plan, SelectionMissingError


def overview(plan: Plan) -> str:
    """Packs and runs per cell, for every round whose selections are made."""
    lines = [f"preset {plan.params.preset}, protocol {plan.params.protocol}, seeds {plan.params.seeds}"]
    for round_ in ROUNDS:
        try:
            packs = plan.packs(round_, plan.selections(round_))
        except SelectionMissingError:
            lines.append(f"{round_}: {len(plan.cells_of(round_))} cells, once the rounds before it are selected")
            continue
        lines.append(f"{round_}: {sum(len(pack.members) for pack in packs)} runs in {len(packs)} packs")
        lines += [
            f"  {pack.cell}: {len(pack.members)} runs of {pack.members[0].epochs} epochs"
            for pack in packs
            if pack.members
        ]
    return "\n".join(lines)
