"use strict";
// Sorts tables and draws the interactive charts. The page is whole without it.
(() => {
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

  document.querySelectorAll("table.sortable").forEach(makeSortable);

  // A chart is drawn when it comes into view.
  const watcher = new IntersectionObserver((entries) => {
    for (const { target } of entries.filter((entry) => entry.isIntersecting)) {
      watcher.unobserve(target);
      const chart = JSON.parse(document.getElementById(`${target.dataset.figure}-chart`).textContent);
      vegaEmbed(target, chart, { renderer: "svg", actions: false }).then(() => target.classList.add("drawn"));
    }
  }, { rootMargin: "300px" });
  for (const place of document.querySelectorAll(".live")) watcher.observe(place);
})();
