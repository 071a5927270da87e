"""The notebooks of the documents run, and their stored outputs are those of their code."""

import json
import math
import re

import nbformat
import pytest
from tests.docs.notebooks import NOTEBOOKS, ROOT, code, execute, read

VALUES = {
    "silent-gradients": "{'variances': variances, 'normal': {n: v.tolist() for n, v in normal.items()}, "
    "'bits': {n: v.tolist() for n, v in of_bits.items()}, 'linear': exact}",
    "gradient-variance": "{'variances': variances, 'distances': distances, 'network': network}",
}
"""What the tests ask of each, as an expression of its names."""


@pytest.fixture(scope="module", params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request, tmp_path_factory):
    """Name, the cells as they are stored, the cells as executed now, and values from the end of the execution."""
    path = request.param
    executed = read(path)
    executed.cells.append(nbformat.v4.new_code_cell(f"import json\nprint(json.dumps({VALUES[path.stem]}))"))
    execute(executed, tmp_path_factory.mktemp(path.stem))
    *cells, last = code(executed)
    return path.stem, code(read(path)), cells, json.loads(last.outputs[0].text)


def lines(notebook, tag):
    """The lines of code in the cells of a tag, without those that are blank."""
    cells = [cell.source for cell in code(notebook) if tag in cell.metadata.get("tags", [])]
    assert cells
    return [line for cell in cells for line in cell.splitlines() if line.strip()]


def test_stored_outputs_are_those_of_the_code(notebook):
    """The same words, and numbers that differ by rounding along a training alone; notebooks stay small."""
    name, stored, executed, _ = notebook
    (path,) = (path for path in NOTEBOOKS if path.stem == name)
    assert path.stat().st_size < 100_000
    nbformat.validate(read(path))
    number = re.compile(r"-?\d+(?:\.\d+)?(?:e[+-]\d+)?")
    for place, (before, now) in enumerate(zip(stored, executed, strict=True), 1):
        assert before.execution_count == place
        assert [each.output_type for each in before.outputs] == [each.output_type for each in now.outputs]
        for old, new in zip(before.outputs, now.outputs, strict=True):
            if old.output_type == "stream":
                assert old.name == "stdout"
                assert number.sub("", old.text).split() == number.sub("", new.text).split()
                for first, second in zip(number.findall(old.text), number.findall(new.text), strict=True):
                    assert math.isclose(float(first), float(second), rel_tol=0.1, abs_tol=1), (old.text, new.text)
            else:
                assert set(old.data) == set(new.data) == {"image/png", "text/plain"}


def test_what_the_notebooks_say_is_so(notebook):
    name, _, _, values = notebook
    if name == "silent-gradients":
        noise = values["variances"]
        assert noise["guide, exact"] == 0 < noise["guide, sampled"]
        for kind in ("normal", "bits"):
            bounds = values[kind]
            assert bounds["silent"][3] > bounds["plain"][3] + 10  # faster
            assert bounds["silent"][-1] > bounds["plain"][-1] + 2  # and further
        assert abs(values["normal"]["silent"][-1] - values["normal"]["sampled guide"][-1]) < 4
        assert values["bits"]["silent"][-1] > values["bits"]["sampled guide"][-1] + 4
        assert values["linear"][0] < values["linear"][-1] < values["normal"]["silent"][-1]
    else:
        for row in values["variances"]:
            assert row["silent"] == 0 < row["antithetic"] < row["reparameterization"] < row["rloo"]
        linear, network = values["variances"][-1], values["network"]
        ratios = [found["reparameterization"] / found["antithetic"] for found in (linear, network)]
        assert ratios[0] > ratios[1] > 1
        assert values["distances"].pop("careless") > 10
        assert all(0.5 < distance < 1.5 for distance in values["distances"].values())


def test_silent_gradients_in_a_plain_vae_are_few_lines():
    notebook = read(ROOT / "docs" / "notebooks" / "silent-gradients.ipynb")
    plain, silent = lines(notebook, "plain"), lines(notebook, "silent")
    assert not any("silent_gradients" in line for line in plain)
    assert sum("silent_gradients" in line for line in silent) == 1
    assert len(silent) < 40
