"""docs/settings.md is the settings themselves, and no key is without a description."""

from pathlib import Path

from docs.settings_reference import markdown
from tests.params.test_minimal_reruns import keys

from silent_study.params.schema import Params

DOCUMENT = Path(__file__).parents[2] / "docs" / "settings.md"


def test_every_key_has_a_description():
    assert not [row for row in markdown().splitlines() if row.endswith("|  |")]


def test_the_page_is_that_of_the_settings():
    assert DOCUMENT.read_text() == markdown(), "run: make reference"


def test_the_page_has_every_key():
    text = DOCUMENT.read_text()
    for key in keys(Params):
        assert f"| `{key.rpartition('.')[2]}` | " in text


def test_values_are_told_as_yaml_has_them():
    """Of each kind of type one, by hand."""
    rows = dict(row.strip("| ").split(" | ", 1) for row in markdown().splitlines() if row.startswith("| `"))
    assert rows["`seed`"].startswith("whole number ≥ 0 | `0` | Seed of the order")
    assert rows["`levels`"].startswith("whole number ≥ 2 and ≤ 256 | `256` | ")
    assert rows["`betas`"].startswith("list of 2: number ≥ 0 and < 1 | `[0.9, 0.999]` | ")
    assert rows["`size`"].startswith("null or list of 2: whole number > 0 | `null` | ")
    assert rows["`channels`"].startswith("null or `1` or `3` | `null` | ")
    assert rows["`mean_rate`"].startswith("list of: null or number > 0 | `[null]` | ")
    assert rows["`steps`"].startswith('`graph` or `streams` or `eager` | `"graph"` | ')
    assert rows["`substitute`"].startswith("mapping of names to text | `{}` | ")
    assert rows["`sets`"].startswith("section by name | `{}` | ")
    assert rows["`grid`"].startswith("section, see below | required | ")
