"""The marker vouches for the gathered files and their runs, and for nothing that has changed since."""

import pytest

from silent_study.report import gathered

RUN = "digits/fixed/reparameterization/lr=0.001-0123456789ab"


@pytest.fixture
def results(tmp_path):
    for name in ("report.html", "metrics.json", "tables/grid.csv", "figures/curves.svg", f"store/{RUN}/record.json"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path


@pytest.fixture
def marker(results):
    path = results / "gathered" / "0123456789ab.json"
    gathered.record(path, results, [RUN], [path for path in results.rglob("*.*") if "store" not in path.parts])
    return path


def test_it_vouches_for_what_is_as_it_was(results, marker):
    assert gathered.is_current(marker, results)


def test_without_a_marker_nothing_is_vouched_for(results, marker):
    assert not gathered.is_current(marker.with_name("another.json"), results)


@pytest.mark.parametrize("name", ["report.html", "tables/grid.csv", "figures/curves.svg", f"store/{RUN}/record.json"])
@pytest.mark.parametrize("change", ["lost", "edited"])
def test_a_file_that_is_lost_or_edited_is_noticed(results, marker, name, change):
    if change == "lost":
        (results / name).unlink()
    else:
        (results / name).write_text("edited")
    assert not gathered.is_current(marker, results)


def test_files_of_other_sources_are_not_vouched_for(results, marker, monkeypatch):
    monkeypatch.setattr(gathered, "_sources_digest", lambda: "another version")
    assert not gathered.is_current(marker, results)


def test_a_stray_file_does_not_matter(results, marker):
    (results / "tables" / "notes.txt").write_text("mine")
    assert gathered.is_current(marker, results)
