"""The documents as a site: built without a warning, and read without another host."""

import json
import os
import re
import subprocess
import sys

import pytest
from tests.docs.chromium import PATIENCE, chromium
from tests.docs.notebooks import NOTEBOOKS, ROOT

import silent_gradients

pytestmark = pytest.mark.slow

FOUND = """
const [shown] = Array.from(arguments).slice(-1);
const links = () => Array.from(document.querySelectorAll(".md-search-result__link"), (link) => link.href);
const look = () => (links().length ? shown(links()) : setTimeout(look, 50));
look();
"""
"""Waits for the results of the search and returns where they lead."""
AXE_READS = ("index", "method", "api", "settings", "results/gallery", "notebooks/silent-gradients")
SITE_OF_OTHERS = re.compile(
    r"""(?:<(?:script|link|img|iframe|source)\b[^>]*?(?:src|href)=["']?|url\(["']?)(?:https?:)?//"""
)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    pytest.importorskip("mkdocs")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    # What its theme's makers think of another program's next version is no warning of the documents.
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return folder


def test_every_document_is_a_page_and_nothing_comes_from_another_host(site):
    for path in [*(ROOT / "docs").rglob("*.md"), *NOTEBOOKS]:
        assert site.joinpath(path.relative_to(ROOT / "docs")).with_suffix(".html").exists()
    for name in ("index", "changelog", "contributing"):
        assert (site / f"{name}.html").exists()
    pages = [*site.rglob("*.html"), *site.rglob("*.css")]
    assert len(pages) > 20
    for page in pages:
        assert not SITE_OF_OTHERS.search(page.read_text()), page


@pytest.mark.timeout(PATIENCE)
@pytest.mark.parametrize("page", ["index.html", "notebooks/silent-gradients.html"])
def test_the_search_works_in_a_folder(site, page):
    with chromium() as driver:
        driver.get((site / page).as_uri())
        driver.find_element("css selector", "input.md-search__input").send_keys("Slurm")
        found = driver.execute_async_script(FOUND)
        assert any(link.startswith((site / "clusters.html").as_uri()) for link in found)
        assert driver.get_log("browser") == []
        messages = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    asked = [entry["params"]["request"]["url"] for entry in messages if entry["method"] == "Network.requestWillBeSent"]
    assert (site / "search" / "search_index.js").as_uri() in asked
    assert all(url.startswith(("file://", "data:", "about:")) for url in asked)


@pytest.mark.timeout(PATIENCE)
@pytest.mark.parametrize(("width", "scheme"), [(375, "dark"), (1280, "light")])
def test_axe_finds_no_barrier(site, width, scheme):
    axe = pytest.importorskip("axe_core_python.selenium", reason="axe-core-python is not installed").Axe()
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    with chromium() as driver:
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        for page in AXE_READS:
            driver.get((site / f"{page}.html").as_uri())
            found = axe.run(driver, options={"resultTypes": ["violations"]})["violations"]
            assert [(page, entry["id"], entry["nodes"][0]["html"]) for entry in found] == []


def test_formulas_are_mathml(site):
    for name, displayed, inline in (("method", 5, 80), ("beyond-the-paper", 3, 60)):
        text = re.sub(r"```.*?```|`[^`]*`", "", (ROOT / "docs" / f"{name}.md").read_text(), flags=re.DOTALL)
        page = (site / f"{name}.html").read_text()
        assert page.count('display="block"') == text.count("$$") // 2 >= displayed
        assert page.count('display="inline"') == text.replace("$$", "").count("$") // 2 >= inline
        assert "$" not in re.sub(r"<(script|style|code|math).*?</\1>|<[^>]*>", "", page, flags=re.DOTALL)
        assert "arithmatex" not in page
    assert (site / "figures" / "STIXTwoMath-Regular.ttf").stat().st_size > 1_000_000


def test_the_reference_describes_every_public_name_and_notebooks_show_what_they_printed(site):
    page = (site / "api.html").read_text()
    for name in silent_gradients.__all__:
        assert re.search(rf'id="silent_gradients\.[\w.]*\b{name}"|id="silent_gradients\.{name}\.\w+"', page), name
    page = (site / "notebooks" / "silent-gradients.html").read_text()
    assert 'src="data:image/png;base64,' in page
    assert "load_digits" in page
