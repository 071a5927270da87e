"""The marker names one plan and one state of the code, and is intact until a gathered file or a run changes."""

import re
from pathlib import Path

import pytest

from silent_study import params
from silent_study.plan.plan import Plan
from silent_study.report import gathered
from silent_study.store.files import sha256_of

ROOT = Path(__file__).parents[2]
RUN = "digits/fixed/reparameterization/lr=0.001-0123456789ab"
FILES = ("report.html", "metrics.json", "tables/grid.csv", "figures/curves.svg", f"store/{RUN}/record.json")


@pytest.fixture
def results(tmp_path):
    for name in FILES:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path


@pytest.fixture
def marker(results):
    path = results / "gathered" / "0123456789ab.json"
    gathered.record(path, results, [RUN], [results / name for name in FILES if not name.startswith("store")])
    return path


def test_it_is_intact_until_something_changes(results, marker):
    assert gathered.is_intact(marker, results)
    (results / "tables" / "notes.txt").write_text("mine")  # no gathered file
    assert gathered.is_intact(marker, results)
    assert not gathered.is_intact(marker.with_name("another.json"), results)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("change", ["lost", "edited"])
def test_a_file_that_is_lost_or_edited_is_noticed(results, marker, name, change):
    if change == "lost":
        (results / name).unlink()
    else:
        (results / name).write_text("edited")
    assert not gathered.is_intact(marker, results)


@pytest.mark.parametrize("content", ["", '{"files": {', "[]", "{}", '{"files": [], "runs": {}}'])
def test_a_damaged_marker_is_not_intact(results, marker, content):
    marker.write_text(content)
    assert not gathered.is_intact(marker, results)


def test_the_code_has_every_module_beside_the_report_that_it_imports():
    package = Path(gathered.__file__).parents[1]
    texts = "".join(path.read_text() for path in (package / "report").rglob("*.py"))
    imported = {f"{name}.py" for name in re.findall(r"^ *from silent_study\.(\w+) import", texts, re.MULTILINE)}
    assert imported & {path.name for path in package.glob("*.py")} == set(gathered.READ)


@pytest.mark.parametrize("file", [*gathered.READ, "report/page.py", "report/templates/report.html.j2"])
def test_an_edit_of_what_the_report_prints_is_other_code(monkeypatch, file):
    before = gathered._sources_digest()
    monkeypatch.setattr(gathered, "sha256_of", lambda path: "1" if path.as_posix().endswith(file) else sha256_of(path))
    gathered._sources_digest.cache_clear()
    assert gathered._sources_digest() != before
    gathered._sources_digest.cache_clear()


def test_another_plan_and_other_code_have_another_marker(tmp_path, monkeypatch):
    plan = Plan(params.load(ROOT / "params.yaml"), tmp_path)
    found = set()
    for plan_id, code in (("a" * 12, "0" * 64), ("b" * 12, "0" * 64), ("a" * 12, "1" * 64)):
        monkeypatch.setattr(Plan, "id", lambda *_, plan_id=plan_id: plan_id)
        monkeypatch.setattr(gathered, "_sources_digest", lambda code=code: code)
        found.add(gathered.marker_of(plan, {}))
    assert len(found) == 3
    assert {path.parent for path in found} == {tmp_path / "gathered"}
