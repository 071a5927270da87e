"""The tables as people read them: numbers turned into text, in the paper's layout where it has one."""

from __future__ import annotations

from collections.abc import Sequence

from silent_study.report.claims import Claim
from silent_study.report.context import Context, Record
from silent_study.report.layout.gradient_variances import table_1
from silent_study.report.layout.grids import grid
from silent_study.report.layout.learnable_variance import by_guidance
from silent_study.report.layout.linear_decoders import log_linear, table_2
from silent_study.report.layout.orderings import at_equal_budgets, orderings
from silent_study.report.layout.printed import Table
from silent_study.report.summary import Cell


def layout(cells: Sequence[Cell], found: Sequence[Claim], records: Sequence[Record], context: Context) -> list[Table]:
    """Every table of the report, in its order: claims, Tables 1 to 4, what is beyond the paper, the grids."""
    return [
        orderings(found, context),
        table_1(cells, context),
        table_2(cells, context),
        by_guidance(
            "table-3-bits-per-dimension", "Table 3: learnable variance, bits per dimension", "bpd", cells, context
        ),
        by_guidance("table-4-kl-divergence", "Table 4: learnable variance, KL divergence", "kl", cells, context),
        *log_linear(cells, context),
        at_equal_budgets(found, records, context),
        grid(records, context),
    ]
