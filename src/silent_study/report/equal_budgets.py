"""What a selection among fewer configurations would have come to: methods compared at equal budgets.

A method with more knobs tries more configurations and is selected among more. Had it drawn, without replacement, as few
of its own as the other tried, its best would have been the minimum of that draw. With bits/dim ``b_1 <= .. <= b_n`` of
all that it tried, its expectation is ``sum_i b_i C(n - i, m - 1) / C(n, m)`` (Dodge et al. 2019, *Show Your Work*, have
it with replacement).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import pandas as pd

from silent_study.report.claims import Claim
from silent_study.report.context import Context, Record
from silent_study.report.tables import grid_points


def expected_best(values: Iterable[float], budget: int) -> float:
    """The expected minimum of ``budget`` values that are drawn without replacement.

    Args:
        values: Bits/dim of every configuration; infinite for one that diverged.
        budget: How many are drawn, at most all.

    Returns:
        The expectation; infinite where all of a draw may have diverged.

    Raises:
        ValueError: The budget is not between 1 and the number of values.
    """
    ordered = sorted(values)
    if not 1 <= budget <= len(ordered):
        raise ValueError(f"expected a budget of 1 to {len(ordered)}, found {budget}")
    draws = [math.comb(len(ordered) - rank, budget - 1) for rank in range(1, len(ordered) + 1)]
    total = math.comb(len(ordered), budget)
    return sum(value * count / total for value, count in zip(ordered, draws, strict=True) if count)


def equal_budgets(found: Sequence[Claim], records: Sequence[Record], context: Context) -> pd.DataFrame:
    """Both methods of each ordering of bits/dim at the smaller of their budgets, on the images that are selected on.

    One row per ordering whose two methods have a grid: configurations tried, each method's best of all, and what its
    best of as many as the other tried is on average. One seed: this says how much of a difference may be the search's,
    not how sure it is. Of a grid over fixed variances, whose bounds are those of different models, the configurations
    of the selected one count.
    """
    points = grid_points(records, context)
    selected = {point.run.cell: point.run.settings["variance"] for point in points if point.selected}
    tried: dict[str, list[float]] = {}
    for point in points:
        variance = point.run.settings["variance"]
        if selected.get(point.run.cell, variance) != variance:
            continue
        tried.setdefault(point.run.cell, []).append(math.inf if math.isnan(point.bpd) else point.bpd)
    rows = []
    for claim in found:
        first, second = (tried.get(cell.name, []) for cell in (claim.first, claim.second))
        if claim.metric != "bpd" or not first or not second:
            continue
        budget = min(len(first), len(second))
        best = expected_best(first, budget), expected_best(second, budget)
        rows.append(
            {
                "preset": context.preset,
                "protocol": context.protocol,
                "dataset": claim.first.dataset,
                "experiment": claim.first.experiment,
                "first": claim.first.method.name,
                "second": claim.second.method.name,
                "tried_first": len(first),
                "tried_second": len(second),
                "best_first": min(first),
                "best_second": min(second),
                "budget": budget,
                "expected_first": best[0],
                "expected_second": best[1],
                "expected": "lower" if claim.expected < 0 else "higher",
            }
        )
    return pd.DataFrame(rows)
