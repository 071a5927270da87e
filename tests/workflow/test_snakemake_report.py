"""Snakemake's own report: made of a finished workflow, with what it shows and says of it."""

import html
import re
import zipfile

import pytest
from tests.workflow.repository import LITERAL

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

CATEGORIES = {"Report", "Tables", "Figures"}


def test_the_report_holds_the_page_the_tables_and_the_figures(repository):
    repository.run("snakemake", "--report", "report.zip")
    with zipfile.ZipFile(repository.root / "report.zip") as archive:
        names = archive.namelist()
        (index,) = (name for name in names if name.endswith("report.html") and "/data/" not in name)
        text = html.unescape(archive.read(index).decode())
        data = {name: archive.read(name) for name in names if "/data/" in name}
    for category in CATEGORIES:
        assert f'"{category}"' in text
    assert "variational autoencoders trained with silent gradients" in text.lower()
    assert "means over seeds with their 95% Student intervals" in text
    shown = repository.contents("report.html", "tables", "figures")
    wanted = {content for name, content in shown.items() if not name.endswith(".md")}
    assert len(wanted) > 10
    assert wanted <= set(data.values())


def test_the_report_is_one_page_too(repository):
    repository.run("snakemake", "--report", "report.html")
    text = (repository.root / "report.html").read_text()
    assert set(re.findall(r'"(\w+)"', text)) >= CATEGORIES
    # Nothing that a browser would fetch.
    assert not re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="https?://', text)


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
