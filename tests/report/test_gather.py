"""Everything that is written: complete, honest, offline, safe and the same twice."""

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote
from xml.etree import ElementTree

import pandas as pd
import pytest
import yaml
from tests.report.conftest import Study

from silent_study.report import page
from silent_study.report.claims import VERDICTS
from silent_study.report.gather import CHART_LIBRARIES, gather
from silent_study.report.printed import significant

VOID = {"meta", "img", "br", "hr", "link", "input", "col", "source"}
ROOT = Path(__file__).parents[2]
SCRIPT = Path(page.__file__).parent / "templates" / "report.js"
FIGURES = ("reconstructions", "latents", "curves", "gradient-variance", "bpd-kl")


class Page(HTMLParser):
    """Collects links, text, tables' captions and scopes; fails on tags that are not closed in order."""

    def __init__(self, text):
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.text: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.links += [value for name, value in attributes if name in {"src", "href"}]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)

    @property
    def words(self):
        return re.sub(r"\s+", " ", "".join(self.text))


def html_of(folder, start, end="</ul>"):
    """The part of the page between two strings."""
    return (folder / "report.html").read_text().partition(start)[2].partition(end)[0]


def page_of(folder):
    return Page((folder / "report.html").read_text())


def test_everything_is_there(gathered):
    names = {path.relative_to(gathered).as_posix() for path in gathered.rglob("*") if path.is_file()}
    stems = (
        "claims",
        "grid",
        "table-1-gradient-variance",
        "table-2-fixed-variance",
        "table-3-bits-per-dimension",
        "table-4-kl-divergence",
    )
    expected = {f"tables/{stem}.{ending}" for stem in stems for ending in ("csv", "html", "md", "tex")}
    drawn = [f"digits-{experiment}-{name}" for experiment in ("fixed", "learnable") for name in FIGURES]
    endings = (".svg", ".pdf", ".png", ".csv", "-column.svg", "-column.pdf")
    expected |= {f"figures/{name}{ending}" for name in ("forest", *drawn) for ending in endings}
    expected |= {"curves/digits/fixed.csv", "curves/digits/learnable.csv"}
    tree = json.loads((gathered / "metrics.json").read_text())
    cells = {
        f"metrics/digits/{experiment}/{method}.json": metrics
        for experiment, methods in tree["digits"].items()
        for method, metrics in methods.items()
    }
    assert {name: json.loads((gathered / name).read_text()) for name in cells} == cells
    assert names == expected | {*cells, "metrics.json", "runs.csv", "report.html", CHART_LIBRARIES}
    figures = sum(path.stat().st_size for path in (gathered / "figures").iterdir())
    assert figures < 3_000_000


def test_two_gatherings_give_the_same_bytes_in_any_order(whole, tmp_path, gathered):
    other = tmp_path / "other"
    gather(list(reversed(whole.records)), whole.context, other)
    for path in gathered.rglob("*"):
        if path.is_file():
            assert path.read_bytes() == (other / path.relative_to(gathered)).read_bytes(), path.name


def test_every_number_of_the_tables_is_in_the_page_and_leads_to_its_cell_or_run(gathered):
    text = (gathered / "report.html").read_text()
    for name in ("table-2-fixed-variance", "table-3-bits-per-dimension", "table-4-kl-divergence"):
        frame = pd.read_csv(gathered / "tables" / f"{name}.csv")
        frame = frame[frame["metric"].isin({"bpd", "kl"}) & frame["measured"].notna()]
        assert len(frame) >= 7
        (section,) = re.findall(rf'<section id="{name}".*?</section>', text, re.DOTALL)
        for entry in frame.to_dict("records"):
            places = 2 if entry["metric"] == "kl" else 3
            cell = re.escape(f"digits/{entry['experiment']}/{entry['method']}")
            assert re.search(rf'<a href="#{cell}">{entry["measured"]:.{places}f}', section)
            assert f"[{entry['low']:.{places}f}, {entry['high']:.{places}f}]" in section
            # What a column is sorted by is the number itself.
            values = [float(value) for value in re.findall('data-value="([^"]*)"', section)]
            assert any(value == pytest.approx(entry["measured"], rel=1e-8) for value in values)
    words = " ".join(page_of(gathered).text)
    for variance in pd.read_csv(gathered / "tables" / "table-1-gradient-variance.csv")["batch_mean"]:
        assert significant(variance) in words
    for entry in pd.read_csv(gathered / "tables" / "grid.csv").to_dict("records"):
        # On the map, and in the list.
        assert len(re.findall(rf'<a href="#{re.escape(entry["name"])}">{entry["selection_bpd"]:.3f}', text)) == 2


def test_the_page_gives_its_verdict_first(gathered):
    text = page_of(gathered).words
    claims = pd.read_csv(gathered / "tables" / "claims.csv")
    primary = claims[claims["family"] == "bits/dim"]
    counts = primary["verdict"].value_counts()
    good = counts.reindex([verdict for verdict, colour in VERDICTS.items() if colour == "good"]).sum()
    lead = f"{good:.0f} of {len(primary)} orderings so far as published, {counts.get('contradicted', 0)} contradicted, "
    lead += f"{counts['undecided']} undecided, {counts['not measured']} not measured."
    # What came out of it, in the forest plot and its words: every ordering of bits/dim with its interval.
    (forest,) = re.findall(r'<img class="forest" src="[^"]*" alt="([^"]*)"', (gathered / "report.html").read_text())
    svg = (gathered / "figures" / "forest.svg").read_text()
    shown = primary[primary["pairs"] > 1]
    for entry in shown.to_dict("records"):
        size = f"{entry['difference']:+.3f} [{entry['low']:+.3f}, {entry['high']:+.3f}], {entry['verdict']}"
        assert size.replace("-", "−") in forest
        assert size.replace("-", "−") in svg
    for expected in (lead, "12 of 13 cells measured", "Gumbel-Softmax + SG, digits, learnable variance: not run"):
        assert text.index(expected) < text.index("Published orderings", text.index(lead))


def test_the_header_says_what_was_changed_from_the_preset(study, tmp_path):
    study.options["overrides"] = {"experiments.fixed.epochs": 5, "seeds": [0]}
    study.options["seeds"] = (0,)
    study.add("digits/fixed/reinforce")
    study.gather(tmp_path)
    text = page_of(tmp_path).words
    assert "Preset digits, changed: experiments fixed epochs = 5, seeds = [0] · protocol holdout · 1 seed · " in text
    assert "1 of 1 cell measured, 1 run, 0 diverged" in text


def test_the_page_flags_edges_of_grids_and_unequal_numbers_of_steps(study, tmp_path, gathered):
    # Each of the twelve cells that ran selected the higher of two rates.
    assert (gathered / "report.html").read_text().count("★ edge") == 12
    flag = "Compared at different numbers of steps:"
    assert flag not in page_of(gathered).words
    for method, epochs, bounds in (("silent-bernoulli", 40, (2.0, 2.1)), ("reinforce", 60, (2.5, 2.7))):
        study.add_seeds(f"digits/learnable/{method}", bounds, epochs=epochs)
    study.gather(tmp_path)
    text = page_of(tmp_path).words
    assert f"{flag} Silent (Bernoulli) (40 epochs) and REINFORCE (60 epochs)." in text
    forest = (tmp_path / "figures" / "forest.svg").read_text()
    assert "Silent (Bernoulli) (40 epochs) − REINFORCE (60 epochs)" in forest
    assert "−0.550 [" in forest


def test_the_page_needs_nothing_from_elsewhere(gathered):
    html = (gathered / "report.html").read_text()
    found = Page(html)
    beside = {link for link in found.links if link.startswith("figures/")}
    (paper,) = {link for link in found.links if not link.startswith(("#", "data:"))} - beside
    assert ("a", {"href": paper}) in found.tags  # followed by a reader, not fetched by the page
    # The files that figures link to lie beside it; none is loaded.
    assert beside == {path.relative_to(gathered).as_posix() for path in (gathered / "figures").iterdir()}
    assert not any(attributes.get("src", "data:")[:5] != "data:" for _, attributes in found.tags)
    anchors = [attributes["id"] for _, attributes in found.tags if "id" in attributes]
    assert len(set(anchors)) == len(anchors)
    assert {link[1:] for link in found.links if link.startswith("#")} <= set(anchors)
    assert not {"iframe", "object", "embed", "base"} & {tag for tag, _ in found.tags}
    # The scripts are the charts' library, once and with its licences, and ours, whole.
    scripts = [attributes for tag, attributes in found.tags if tag == "script"]
    assert sum("type" not in attributes for attributes in scripts) == 2
    assert SCRIPT.read_text().strip() in html
    assert "University of Washington Interactive Data Lab" in html
    assert "Mike Bostock" in html
    # A figure may refer to what is in it, and to nothing else.
    text = re.sub(r'(src|srcset|href)="data:[^"]*"|<script.*?</script>', "", html, flags=re.DOTALL)
    assert "@import" not in text
    assert "url(" not in text
    figures = [unquote(data) for data in re.findall(r'src="(data:image/svg[^"]*)"', html)]
    assert len(figures) >= 6
    targets = [target for figure in figures for target in re.findall(r'(?:url\(|href=")(.)', figure)]
    assert set(targets) <= {"#"}


def test_tables_are_saved_from_the_page_as_they_lie_beside_it(gathered):
    found = {
        attributes["download"]: unquote(attributes["href"].partition(",")[2])
        for tag, attributes in page_of(gathered).tags
        if tag == "a" and "download" in attributes
    }
    kept = [path for path in (gathered / "tables").iterdir() if path.suffix != ".html"]
    assert found == {path.name: path.read_text() for path in kept}


def test_latex_has_the_main_columns_with_the_best_in_bold_and_the_rules_of_booktabs(gathered):
    text = (gathered / "tables" / "table-2-fixed-variance.tex").read_text()
    assert text.startswith("% Table 2: fixed variance. Preamble: \\usepackage{booktabs}\n")
    for rule in ("\\toprule", "\\midrule", "\\bottomrule"):
        assert text.count(rule) == 1
    rows = [line.removesuffix(" \\\\").split(" & ") for line in text.splitlines() if " & " in line]
    assert rows[0][:3] == ["Method", "BPD", "BPD 95\\% interval"]
    frame = pd.read_csv(gathered / "tables" / "table-2-fixed-variance.csv")
    bounds = frame[frame["metric"] == "bpd"]
    best = bounds.groupby("posterior")["measured"].transform("min").eq(bounds["measured"])
    for (_, shown, *_), value, bold in zip(rows[1:], bounds["measured"], best, strict=True):
        assert shown == (f"\\textbf{{{value:.3f}}}" if bold else f"{value:.3f}")
    for path in (gathered / "tables").glob("*.tex"):
        assert not set("−–±") & set(path.read_text())


def test_tables_and_figures_can_be_read_without_seeing_them(gathered):
    tags = page_of(gathered).tags
    assert sum(tag == "table" for tag, _ in tags) == sum(tag == "caption" for tag, _ in tags) > 6
    assert all(attributes.get("scope") in {"col", "colgroup", "row"} for tag, attributes in tags if tag == "th")
    alternatives = [(attributes.get("class"), attributes["alt"]) for tag, attributes in tags if tag == "img"]
    assert all(len(text) > (40 if kind in ("still", "forest") else 5) for kind, text in alternatives)


def test_drawings_are_dated_by_nothing(gathered):
    for path in (gathered / "figures").glob("*.svg"):
        ElementTree.fromstring(path.read_text())
        assert "dc:date" not in path.read_text()
    for path in (gathered / "figures").glob("*.pdf"):
        assert b"/CreationDate" not in path.read_bytes()


def test_hostile_names_are_text_and_runs_of_several_revisions_are_flagged(study, tmp_path):
    hostile = '<script>alert("x")</script>'
    study.add("digits/fixed/reinforce", seed=0, revision=hostile)
    study.add("digits/fixed/reinforce", seed=1, revision="c0ffee0000000000")
    study.options |= {"preset": hostile, "datasets": {"digits": {"version": hostile, "sha256": "0" * 64}}}
    study.gather(tmp_path)
    html = (tmp_path / "report.html").read_text()
    assert html.count("<script>") == 2
    assert hostile not in html
    assert "&lt;script&gt;" in html
    for text in ("Made by 2 source revisions", "c0ffee0000", "source code differs, accepted as equal"):
        assert text in Page(html).words


def test_one_seed_says_that_it_has_no_interval_and_a_table_without_rows_has_no_files(study, tmp_path):
    study.add("digits/learnable/reinforce")
    study.gather(tmp_path)
    text = (tmp_path / "tables" / "table-3-bits-per-dimension.md").read_text()
    assert "| REINFORCE | 2.500 |" in text
    assert "one seed: none" in text
    stems = {path.stem for path in (tmp_path / "tables").iterdir()}
    assert {"table-3-bits-per-dimension", "table-4-kl-divergence"} <= stems
    assert not any(stem.startswith(("table-2", "log-linear")) for stem in stems)
    for path in (tmp_path / "tables").glob("*.csv"):
        assert len(pd.read_csv(path))
    assert "Nothing in this plan belongs here." in page_of(tmp_path).words


def test_a_plan_without_a_finished_run_still_makes_a_page(study, tmp_path):
    study.planned = ("digits/fixed/reinforce", "mnist/learnable/reinforce")
    for seed in range(3):
        study.add("digits/fixed/reinforce", seed=seed, diverged_epoch=1)
    study.gather(tmp_path)
    text = page_of(tmp_path).words
    for expected in ("0 of 2 cells", "No run has anything to draw yet.", "diverged (3 of 3, epoch 1)"):
        assert expected in text
    tree = json.loads((tmp_path / "metrics.json").read_text())
    assert tree["digits"]["fixed"]["reinforce"] == {"diverged": 3, "seeds": 0}
    assert tree["mnist"]["learnable"]["reinforce"] == {"diverged": 0, "seeds": 0}
    assert not list(tmp_path.glob("curves/*/*.csv"))


def test_what_is_not_made_again_is_removed_and_the_rest_stays(whole, tmp_path, gathered):
    out = Path(shutil.copytree(gathered, tmp_path / "results"))
    for name in ("figures/notes.txt", "snakemake-report/another/report.html"):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text("mine")
    fixed = [record for record in whole.records if record.experiment == "fixed"]
    kept = Study(whole.store, fixed, tuple(cell for cell in whole.planned if "/fixed/" in cell), whole.options)
    written = gather(kept.records, kept.context, out, "snakemake-report/this", {"selection.json": b"{}"})
    # The list, which the marker records, has every file of the folder.
    assert {path for path in out.rglob("*") if path.is_file()} == {*written, out / "figures" / "notes.txt"}
    names = {path.relative_to(out).as_posix() for path in written}
    assert {"selection.json", "figures/digits-fixed-curves.svg", "figures/digits-fixed-curves.csv"} <= names
    assert not any("learnable" in name for name in names)
    # Snakemake's own report shows copies of the page, the tables and the figures.
    copies = {
        name for name in names if name.endswith((".html", ".svg")) and "-column" not in name and "snakemake" not in name
    }
    shown = {
        name: name.replace("digits-fixed-", "digits/fixed/").replace("/forest", "/all/all/forest") for name in copies
    }
    assert {name.removeprefix("snakemake-report/this/") for name in names if "snakemake" in name} == {*shown.values()}
    for name, copy in shown.items():
        assert (out / "snakemake-report" / "this" / copy).read_bytes() == (out / name).read_bytes()
    # DVC tracks every file.
    outs = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]["report"]
    paths = [next(iter(out)) for kind in ("outs", "metrics", "plots") for out in outs.get(kind, [])]
    assert all(
        any(f"results/{name}" == path or f"results/{name}".startswith(f"{path}/") for path in paths) for name in names
    )


def test_the_page_counts_our_claims_apart_from_the_papers(study, tmp_path):
    for ending, bpd, slope in (("+silent", 2.0, 1.01), ("+sampled", 2.2, 1)):
        study.add_seeds(f"digits/learnable/reinforce{ending}", [bpd + slope * seed for seed in range(3)])
    study.gather(tmp_path)
    text = page_of(tmp_path).words
    assert "No two cells of this plan are ordered by the paper." in text
    assert "REINFORCE + SG < REINFORCE + sampled guide" in text


def test_a_table_by_itself_has_the_numbers_of_the_page_and_no_links(gathered):
    for path in (gathered / "tables").glob("*.html"):
        own = Page(path.read_text())
        numbers = set(re.findall(r"\d+\.\d{3}", path.with_suffix(".md").read_text()))
        assert numbers <= set(re.findall(r"\d+\.\d{3}", " ".join(own.text)))
        assert own.links == []
