"""The page of differences to another revision, against the two files of metrics."""

import json
import math
import subprocess

import pytest

from silent_study.report.against import against, write_against
from silent_study.store.runs import StoreError

ABOUT = {"preset": "digits", "protocol": "holdout"}
HERE = {
    **ABOUT,
    "digits": {"fixed": {"reinforce": {"bpd": 2.5, "kl": 20.0, "seeds": 3}, "silent-gaussian": {"seeds": 0}}},
}
THERE = {**ABOUT, "digits": {"fixed": {"reinforce": {"bpd": 2.75, "kl": 19.0, "seeds": 1}}, "learnable": {}}}


def test_changes_are_here_minus_there_and_cells_of_either_have_a_row():
    table = against(HERE, THERE, "main")
    changes = table.data.set_index(["cell", "metric"])["change"]
    assert changes["digits/fixed/reinforce", "bpd"] == -0.25
    assert changes["digits/fixed/reinforce", "kl"] == 1
    (part,) = table.parts
    lines = {row["Method"]: row for row in part.frame.to_dict("records")}
    assert lines["REINFORCE"]["BPD change"] == "−0.250"
    assert (lines["REINFORCE"]["Seeds here"], lines["REINFORCE"]["Seeds main"]) == ("3", "1")
    assert lines["Silent (Gaussian)"]["BPD change"] == "–"


def test_methods_that_are_gone_and_numbers_that_are_missing_have_rows():
    there = THERE | {"digits": {"fixed": {"gone": {"bpd": 3.0}}, "lost": {"reinforce": {"bpd": None}}}}
    data = against(HERE, there, "main").data.set_index(["cell", "metric"])["main"]
    assert data["digits/fixed/gone", "bpd"] == 3.0
    assert math.isnan(data["digits/lost/reinforce", "bpd"])


def test_the_metrics_of_a_revision_come_from_git(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    results = tmp_path / "results"
    with pytest.raises(StoreError, match="not written yet"):
        write_against("HEAD", results.relative_to(tmp_path))
    results.mkdir()
    (results / "metrics.json").write_text(json.dumps(THERE))
    identity = ("-c", "user.name=a", "-c", "user.email=a@b")
    for arguments in (("init", "-q"), ("add", "."), (*identity, "commit", "-qm", "first")):
        subprocess.run(["git", *arguments], check=True)
    (results / "metrics.json").write_text(json.dumps(HERE))
    page = write_against("HEAD", results.relative_to(tmp_path))
    assert page.name == "against-HEAD.html"
    assert "−0.250" in page.read_text()
    with pytest.raises(StoreError, match=r"--against nowhere: git has no results/metrics.json there"):
        write_against("nowhere", results.relative_to(tmp_path))
