"""Snakemake's own report: made of a finished workflow, with the page and what it says of it."""

import html
import re
import zipfile

import pytest
from tests.workflow.repository import LITERAL

pytestmark = pytest.mark.timeout(1200)


@pytest.mark.slow
def test_the_report_holds_the_page(repository):
    repository.run("snakemake", "--report", "report.zip")
    with zipfile.ZipFile(repository.root / "report.zip") as archive:
        names = archive.namelist()
        (index,) = (name for name in names if name.endswith("report.html") and "/data/" not in name)
        text = html.unescape(archive.read(index).decode())
        data = [archive.read(name) for name in names if "/data/" in name]
    assert '"Report"' in text
    assert "variational autoencoders trained with silent gradients" in text.lower()
    assert "settings, curves and digests of every run" in " ".join(text.split())
    assert (repository.results / "report.html").read_bytes() in data
    # Its parts one by one.
    for folder, pattern, category in (("tables", "*.html", '"Tables"'), ("figures", "*.svg", '"Figures"')):
        assert category in text
        parts = list((repository.results / folder).glob(pattern))
        assert parts
        assert all(part.read_bytes() in data for part in parts)


def test_the_report_is_one_page_too(repository):
    repository.run("snakemake", "--report", "report.html")
    text = (repository.root / "report.html").read_text()
    assert '"Report"' in text
    assert "train_pack" in text
    # Nothing that a browser would fetch.
    assert not re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="https?://', text)


@pytest.mark.slow
def test_what_it_shows_is_of_one_plan_and_made_again_when_lost(repository):
    folder = repository.results / "snakemake-report"
    (first,) = folder.iterdir()
    repository.configure(seeds=[0])
    repository.run(*LITERAL)
    (second,) = folder.iterdir()
    assert first.name != second.name
    assert (second / "report.html").read_bytes() == (repository.results / "report.html").read_bytes()
    (second / "report.html").unlink()
    assert "1 gather" in repository.run(*LITERAL)
    assert "Nothing to be done" in repository.run(*LITERAL)
