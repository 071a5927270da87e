"use strict";
// Sorts and filters tables, draws the interactive charts and unfolds what a link leads to. The page is whole without it.
(() => {
  const LONG = 8; // Rows from which on a table is worth filtering.
  const collator = new Intl.Collator("en", { numeric: true });
  const missing = (cell) => ["", "\u2013"].includes(cell.textContent.trim());

  // Numbers by their values, words by their letters; what is missing stays last, whichever way the rest is sorted.
  const compare = (a, b, sign) => {
    const first = Number.parseFloat(a.dataset.value), second = Number.parseFloat(b.dataset.value);
    const words = Number.isNaN(first) - Number.isNaN(second);
    if (missing(a) || missing(b)) return missing(a) - missing(b);
    if (words) return words;
    return sign * (Number.isNaN(first) ? collator.compare(a.textContent, b.textContent) : first - second);
  };

  const sort = (table, header, order) => {
    const body = table.tBodies[0], place = header.cellIndex;
    const rows = Array.from(body.rows).sort((a, b) => a.dataset.at - b.dataset.at);
    if (order !== "none") rows.sort((a, b) => compare(a.cells[place], b.cells[place], order === "descending" ? -1 : 1));
    body.append(...rows);
    for (const other of header.parentElement.cells) other.removeAttribute("aria-sort");
    if (order !== "none") header.setAttribute("aria-sort", order);
  };

  const makeSortable = (table) => {
    Array.from(table.tBodies[0].rows).forEach((row, at) => { row.dataset.at = at; });
    for (const header of table.tHead.rows[0].cells) {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...header.childNodes);
      header.append(button);
      const next = { none: "ascending", ascending: "descending", descending: "none" };
      button.addEventListener("click", () => sort(table, header, next[header.getAttribute("aria-sort") || "none"]));
    }
  };

  const words = (text) => text.toLowerCase().replaceAll("\u2212", "-").split(/\s+/).filter(Boolean);

  const filter = (label, items, place) => {
    const box = document.createElement("label");
    box.className = "filter";
    const input = document.createElement("input");
    input.type = "search";
    const count = document.createElement("output");
    box.append(`${label} `, input, " ", count);
    const texts = items.map((item) => words(item.textContent).join(" "));
    input.addEventListener("input", () => {
      const wanted = words(input.value);
      items.forEach((item, at) => { item.hidden = !wanted.every((word) => texts[at].includes(word)); });
      const shown = items.filter((item) => !item.hidden).length;
      count.textContent = !wanted.length ? "" : shown ? `${shown} of ${items.length}` : "nothing here has all of these words";
    });
    place.before(box);
  };

  for (const table of document.querySelectorAll("table.sortable")) {
    makeSortable(table);
    const rows = Array.from(table.tBodies[0].rows);
    if (rows.length >= LONG) filter("Filter rows", rows, table.closest(".scroll"));
  }
  const cells = document.querySelector("#cells .cells");
  if (cells) filter("Filter cells and runs", Array.from(cells.children), cells);

  const json = (id) => JSON.parse(document.getElementById(id).textContent);

  // A chart is drawn when it comes into view: its data are those of its figure, or the curve of its run.
  const draw = async (place) => {
    const { figure, cells: drawn, run } = place.dataset;
    const chart = json(run ? "run-chart" : `${figure}-chart`);
    if (run) chart.data.values = [json("run-curves")[run]];
    if (drawn) {
      chart.data.values = chart.data.values.filter((row) => drawn.split(" ").includes(row.cell));
      const values = [...new Set(chart.data.values.map((row) => row.method))];
      for (const { encoding } of chart.layer) for (const channel of [encoding.color, encoding.strokeDash])
        if (channel) channel.legend = { ...channel.legend, values };
    }
    await vegaEmbed(place, chart, { renderer: "svg", actions: false });
    place.classList.add("drawn");
  };
  const watcher = new IntersectionObserver((entries) => {
    for (const { target } of entries.filter((entry) => entry.isIntersecting)) {
      watcher.unobserve(target);
      draw(target);
    }
  }, { rootMargin: "300px" });
  for (const place of document.querySelectorAll(".live")) watcher.observe(place);

  const reveal = () => {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!target) return;
    for (let place = target; place; place = place.parentElement) {
      if (place.tagName === "DETAILS") place.open = true;
      place.hidden = false;
    }
    // The next Tab goes on from here, and a screen reader reads from here.
    const place = target.closest("details")?.querySelector("summary") ?? target;
    place.scrollIntoView();
    place.focus({ preventScroll: true });
  };
  addEventListener("hashchange", reveal);
  // The same link again changes no hash, and what it led to may be folded by now.
  addEventListener("click", (event) => {
    const link = event.target.closest("a[href^='#']");
    if (link && link.hash === location.hash) reveal();
  });
  reveal();
})();
