"""The page as a reader has it: in Chromium, with its scripts, on a phone, in the dark, by keyboard, on paper."""

import base64
import io
import json
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np
import pytest
from matplotlib.image import imread
from tests.docs.chromium import PATIENCE, chromium

from silent_study.report.cells import Record

pytestmark = [pytest.mark.slow, pytest.mark.timeout(PATIENCE)]

DARK, LIGHT = "dark", "light"
SHOWN = """
const shown = (element) => element.getClientRects().length > 0 && element.checkVisibility();
return Array.from(document.querySelectorAll(arguments[0])).filter(shown)
"""


OPACITIES = "return Array.from(document.querySelectorAll(arguments[0]), (path) => path.getAttribute('opacity') || '1')"


def until(condition, seconds=60):
    """True as soon as a condition holds, False if it does not within some time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


@dataclass(frozen=True)
class Browser:
    """A headless Chromium with a page open.

    Attributes:
        driver: Selenium's.
        page: The page's file.
    """

    driver: Any
    page: Path

    def open(self, fragment: str = "", width: int = 1280, scheme: str = LIGHT, media: str = "screen") -> None:
        """Load the page anew."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": features})
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        self.driver.get("about:blank")
        self.driver.get(self.page.as_uri() + fragment)

    def run(self, script: str, *arguments: Any) -> Any:
        """The value that a script returns."""
        return self.driver.execute_script(script, *arguments)

    def shown(self, selector: str) -> list[Any]:
        """The elements that are laid out and not hidden."""
        return self.run(SHOWN, selector)

    def texts(self, selector: str) -> list[str]:
        """What these elements show."""
        return self.run(SHOWN + ".map((element) => (element.innerText ?? element.textContent).trim())", selector)

    def element(self, selector: str) -> Any:
        return self.driver.find_element("css selector", selector)

    def wait(self, selector: str) -> bool:
        """True as soon as an element is shown."""
        return until(lambda: bool(self.shown(selector)))

    def unfold(self) -> None:
        """Open everything that can be."""
        self.run("document.querySelectorAll('details').forEach((details) => { details.open = true; })")

    def pixels(self, selector: str) -> np.ndarray:
        """What is seen of an element, ``[height, width, 3]`` in [0, 1]."""
        element = self.element(selector)
        self.run("arguments[0].scrollIntoView()", element)
        image: np.ndarray = imread(io.BytesIO(base64.b64decode(element.screenshot_as_base64)))[..., :3]
        return image

    def requests(self) -> list[str]:
        """Addresses requested since the last call."""
        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        return [
            entry["params"]["request"]["url"] for entry in messages if entry["method"] == "Network.requestWillBeSent"
        ]


@pytest.fixture(scope="module")
def driver():
    with chromium() as started:
        yield started


@pytest.fixture
def browser(driver, gathered):
    found = Browser(driver, gathered / "report.html")
    found.open()
    return found


def column(browser, table, name):
    """The shown texts of a column by the name that its head has."""
    heads = browser.run(
        "return Array.from(document.querySelectorAll(arguments[0]), (head) => head.textContent.toLowerCase())",
        f"{table} thead th",
    )
    return browser.texts(f"{table} tbody tr > :nth-child({heads.index(name.lower()) + 1})")


def test_the_verdict_is_read_first(browser):
    (lead,) = browser.texts("header .lead")
    assert " orderings so far as published, " in lead
    # Above the fold.
    assert browser.run("return document.querySelector('.lead').getBoundingClientRect().bottom") < 400
    for width in (1280, 375):
        browser.open(width=width)
        assert until(lambda: browser.run("return document.querySelector('img.forest').naturalWidth") > 270)


def test_a_number_is_that_of_the_records_and_leads_to_them(browser, whole):
    runs: list[Record] = [run for run in whole.records if run.cell == "digits/fixed/reinforce" and run.round == "seeds"]
    bounds = [run.metrics("report")["bpd"] for run in runs]
    link = browser.element('#table-2-fixed-variance td:not(.more) a[href="#digits/fixed/reinforce"]')
    assert link.text == f"{np.mean(bounds):.3f}"

    assert not browser.shown(".cell[open]")
    link.click()
    assert browser.texts(".cell[open] > .file") == ["digits/fixed/reinforce back to its table"]
    table = ".cell[open] table"
    assert column(browser, table, "BPD")[:3] == [f"{bound:.3f}" for bound in bounds]

    run = runs[1]
    browser.element(f'{table} a[href="#{run.name}"]').click()
    (opened,) = browser.shown(".run[open]")
    for text in (f"results/store/{run.name}", run.identity["id"], "a synthetic processor", "36.0", "torch 2.15.0"):
        assert text in opened.text
    top = browser.run("return arguments[0].getBoundingClientRect().top", opened)
    assert 0 <= top < 200

    # Folded again, the same link opens it again.
    browser.run("arguments[0].open = false", opened)
    browser.element(f'{table} a[href="#{run.name}"]').click()
    assert browser.shown(".run[open]")

    # And back.
    browser.element('.run[open] a[href="#digits/fixed/reinforce"]').click()
    browser.element('.cell[open] a[href="#table-2-fixed-variance"]').click()
    assert (
        0 <= browser.run("return document.querySelector('#table-2-fixed-variance').getBoundingClientRect().top") < 200
    )


def test_an_address_with_a_run_in_it_opens_the_run(browser, whole):
    name = whole.records[-1].name
    browser.open(f"#{name}")
    assert browser.texts(".run[open] > .file") == [f"results/store/{name} back to its cell"]


def test_tables_are_sorted_by_mouse_and_by_keyboard(browser):
    table = "#table-2-fixed-variance table"
    methods = column(browser, table, "Method")
    bounds = [float(text) for text in column(browser, table, "BPD")]
    head = f"{table} thead th:nth-child(3)"

    browser.element(f"{head} button").click()
    assert [float(text) for text in column(browser, table, "BPD")] == sorted(bounds)
    assert browser.element(head).get_attribute("aria-sort") == "ascending"
    browser.element(f"{head} button").send_keys("\ue007")
    assert [float(text) for text in column(browser, table, "BPD")] == sorted(bounds, reverse=True)
    assert browser.element(head).get_attribute("aria-sort") == "descending"
    # Rows stay whole.
    order = np.argsort(bounds)[::-1]
    assert column(browser, table, "Method") == [methods[place] for place in order]
    browser.element(f"{head} button").click()
    assert column(browser, table, "Method") == methods
    assert browser.element(head).get_attribute("aria-sort") is None


def test_every_column_is_sorted_by_its_values(browser):
    """Numbers by the number that is printed, whatever its form, words after them, what is missing at the end."""
    browser.unfold()
    columns = browser.run("""
        const found = [];
        for (const table of document.querySelectorAll("table.sortable"))
            for (const head of table.tHead.rows[0].cells) {
                head.querySelector("button").click();
                found.push(Array.from(table.tBodies[0].rows, (row) => row.cells[head.cellIndex].textContent.trim()));
                head.querySelector("button").click();
                found.push(Array.from(table.tBodies[0].rows, (row) => row.cells[head.cellIndex].textContent.trim()));
            }
        return found
    """)
    assert len(columns) > 200
    numbers = 0
    for ascending, descending in zip(columns[::2], columns[1::2], strict=True):
        for texts, sign in ((ascending, 1), (descending, -1)):
            missing = [text in ("", "–") for text in texts]
            assert missing == sorted(missing)
            values = [parsed(text) for text in texts]
            if any(value is not None for value in values):
                known = [sign * value for value in values if value is not None]
                assert known == sorted(known)
                numbers += max(map(abs, known)) >= 1000
    assert numbers  # with a comma between the thousands


def parsed(text):
    """The number that is printed, or an interval's lower end; None for words, lists and what is missing."""
    number = r"([+-]?[\d,]*\.?\d+(?:e[+-]?\d+)?)"
    found = re.match(rf"(?:\[{number},|<?{number}(?:$| [\[*±(]))", text.replace("−", "-"))
    return float((found[1] or found[2]).replace(",", "")) if found else None


def test_further_columns_are_shown_on_demand(browser):
    table = "#table-2-fixed-variance table"
    heads = browser.texts(f"{table} thead th")
    assert len(heads) == 5
    browser.element("#table-2-fixed-variance .all input").click()
    assert len(browser.texts(f"{table} thead th")) > 12
    browser.element("#table-2-fixed-variance .all input").click()
    assert browser.texts(f"{table} thead th") == heads


def test_every_table_can_be_saved(browser, gathered, tmp_path):
    browser.driver.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    links = browser.driver.find_elements("css selector", "a[download]")
    names = [link.get_attribute("download") for link in links]
    assert {name.partition(".")[2] for name in names} == {"csv", "md", "tex"}
    for link, name in zip(links, names, strict=True):
        assert urlopen(link.get_attribute("href")).read() == (gathered / "tables" / name).read_bytes()
    # Chromium saves ten files of a page without asking.
    for link, name in zip(links[:9], names[:9], strict=True):
        link.click()
        assert until((tmp_path / name).exists)
        assert (tmp_path / name).read_bytes() == (gathered / "tables" / name).read_bytes()


def test_every_file_of_a_figure_opens(browser):
    found = browser.driver.find_elements("css selector", "a[href^='figures/']")
    links = [link.get_attribute("href") for link in found]
    assert len(links) > 40
    for link in links:
        if link.endswith((".svg", ".png")):
            size = browser.driver.execute_async_script(
                "const image = new Image(), done = arguments[1];"
                "image.onload = () => done(image.naturalWidth); image.onerror = () => done(0);"
                "image.src = arguments[0]",
                link,
            )
            assert size > 270


def test_curves_show_seeds_an_axis_above_the_limit_and_chosen_methods(browser):
    browser.open("#digits-fixed-curves")
    assert browser.wait("#digits-fixed-curves .drawn svg")
    chart = "#digits-fixed-curves .live"
    lines = f"{chart} .mark-line path[stroke]"
    assert len(browser.shown(lines)) == 5
    everything = browser.pixels(chart)
    browser.element(f"{chart} input[value='every seed']").click()
    assert until(lambda: len(browser.shown(lines)) == 15)
    assert not np.array_equal(browser.pixels(chart), everything)
    assert not browser.shown("#digits-fixed-curves .still")
    # A click in the legend leaves one method.
    browser.element(f"{chart} .role-legend-label text").click()
    assert until(lambda: sum(opacity == "1" for opacity in browser.run(OPACITIES, lines)) == 3)


@pytest.mark.parametrize("width", [320, 375, 768, 1280])
def test_the_page_never_scrolls_sideways(browser, width):
    browser.open(width=width)
    browser.unfold()
    assert browser.run("return document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    sticking_out = """
        return Array.from(document.querySelectorAll("body *")).filter((element) =>
            element.getBoundingClientRect().right > innerWidth + 1 && !element.closest(".scroll, svg, .skip, nav ul")
        ).map((element) => element.outerHTML.slice(0, 100))
    """
    assert browser.run(sticking_out) == []


def luminance(colour):
    red, green, blue = (int(part) / 255 for part in re.findall(r"\d+", colour)[:3])
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_the_page_and_its_figures_follow_the_colour_scheme(browser):
    seen = {}
    for scheme in (LIGHT, DARK):
        browser.open(scheme=scheme)
        ground, ink = browser.run(
            "const style = getComputedStyle(document.body); return [style.backgroundColor, style.color]"
        )
        curves = browser.pixels('img[alt^="Gradient variance"]').mean(axis=2)
        # The axes and letters of a figure, and the lines of a chart of the page's own, against the ground.
        seen[scheme] = luminance(ground), luminance(ink), curves.min(), curves.max(), np.median(curves)
    ground, ink, darkest, _, figure = seen[LIGHT]
    assert ground > 0.9 > 0.2 > ink
    assert figure == pytest.approx(1, abs=0.01)
    assert darkest < 0.25
    ground, ink, _, lightest, figure = seen[DARK]
    assert ground < 0.15 < 0.7 < ink
    assert figure < 0.15
    assert lightest > 0.75


def test_no_error_no_warning_and_no_request(browser):
    browser.driver.get_log("browser")
    browser.requests()
    browser.open()
    browser.unfold()
    assert browser.driver.get_log("browser") == []
    requested = [url for url in browser.requests() if not url.startswith("data:")]
    assert {url for url in requested if url != "about:blank"} == {browser.page.as_uri()}


def test_on_paper_are_two_pages_with_the_verdict_and_the_main_tables(browser):
    browser.open(media="print")
    assert len(browser.shown("main > section")) == 3
    assert browser.shown("header img.forest")
    assert not browser.shown("nav, .files, .more, .cell, .map")
    # The emulated medium would stand for the printer's.
    browser.open(media="")
    pages = browser.driver.execute_cdp_cmd("Page.printToPDF", {"preferCSSPageSize": True})["data"]
    assert len(re.findall(rb"/Type /Page\b", base64.b64decode(pages))) <= 2


def test_the_contents_stay_in_view(browser):
    for width in (375, 1280):
        browser.open("#cells", width)
        assert 0 <= browser.run("return document.querySelector('nav').getBoundingClientRect().top") < 100


def test_without_its_script_the_page_shows_the_same(browser, whole):
    rows, name = browser.run("return document.querySelectorAll('tbody tr').length"), whole.records[0].name
    browser.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.open(f"#{name}")
        assert len(browser.driver.find_elements("css selector", "tbody tr")) == rows
        assert not browser.driver.find_elements("css selector", "th button, .live svg")
        assert browser.element("img.still").is_displayed()
        # Chromium unfolds by itself what an address leads to.
        assert browser.element(f'[id="{name}"]').is_displayed()
    finally:
        browser.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_the_keyboard_reaches_everything_in_order(browser):
    body = browser.element("body")
    body.send_keys("\ue004")
    assert browser.run("return document.activeElement.className") == "skip"
    assert browser.run("return document.activeElement.getBoundingClientRect().left") >= 0
    browser.driver.switch_to.active_element.send_keys("\ue007")
    assert browser.run("return document.activeElement.id") == "main"
    browser.driver.switch_to.active_element.send_keys("\ue004")
    assert browser.run("return document.activeElement.closest('section').id") == "claims"
    assert browser.run("return getComputedStyle(document.activeElement).outlineStyle") != "none"


@pytest.mark.parametrize(("scheme", "width"), [(LIGHT, 375), (DARK, 1280)])
def test_axe_finds_no_barrier(browser, scheme, width):
    axe = pytest.importorskip("axe_core_python.selenium", reason="axe-core-python is not installed").Axe()
    browser.open(scheme=scheme, width=width)
    browser.unfold()
    found = axe.run(browser.driver, options={"resultTypes": ["violations"]})
    assert [(entry["id"], entry["nodes"][0]["html"], len(entry["nodes"])) for entry in found["violations"]] == []
