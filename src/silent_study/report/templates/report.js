"use strict";
// Sorts and filters tables, unfolds what a link leads to and, for printing, everything. The page is whole without it.
(() => {
  const LONG = 8; // Rows from which on a table is worth filtering.
  const number = /[-\u2212+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?/i;
  const collator = new Intl.Collator("en", { numeric: true });

  const value = (cell) => {
    const text = cell.textContent.trim();
    const start = text.replace(/^[<\[(]+/, "");
    const found = start.match(number);
    return {
      text,
      number: found && found.index === 0 ? parseFloat(found[0].replace("\u2212", "-")) : NaN,
      missing: text === "" || text === "\u2013",
    };
  };

  const ascending = (a, b) => {
    if (Number.isNaN(a.number) !== Number.isNaN(b.number)) return Number.isNaN(a.number) ? 1 : -1;
    return Number.isNaN(a.number) ? collator.compare(a.text, b.text) : a.number - b.number || collator.compare(a.text, b.text);
  };

  const sort = (table, header, order) => {
    const body = table.tBodies[0];
    const sign = order === "descending" ? -1 : 1;
    const rows = Array.from(body.rows, (row) => ({ row, at: Number(row.dataset.at), key: value(row.cells[header.cellIndex]) }));
    if (order === "none") rows.sort((a, b) => a.at - b.at);
    // What is missing stays last, whichever way the rest is sorted.
    else rows.sort((a, b) => a.key.missing - b.key.missing || sign * ascending(a.key, b.key) || a.at - b.at);
    body.append(...rows.map(({ row }) => row));
    for (const other of header.parentElement.cells) other.removeAttribute("aria-sort");
    if (order !== "none") header.setAttribute("aria-sort", order);
  };

  const makeSortable = (table) => {
    Array.from(table.tBodies[0].rows).forEach((row, at) => { row.dataset.at = at; });
    for (const header of table.tHead.rows[table.tHead.rows.length - 1].cells) {
      if (header.tagName !== "TH") continue;
      const button = document.createElement("button");
      button.type = "button";
      button.append(...header.childNodes);
      header.append(button);
      const next = { none: "ascending", ascending: "descending", descending: "none" };
      button.addEventListener("click", () => sort(table, header, next[header.getAttribute("aria-sort") || "none"]));
    }
  };

  const words = (text) => text.toLowerCase().replaceAll("\u2212", "-").split(/\s+/).filter(Boolean);
  const shows = (text, wanted) => wanted.every((word) => text.includes(word));

  const filter = (label, items, place, insert) => {
    const box = document.createElement("label");
    box.className = "filter";
    const input = document.createElement("input");
    input.type = "search";
    const count = document.createElement("output");
    box.append(`${label} `, input, " ", count);
    const texts = items.map((item) => {
      const copy = item.cloneNode(true);
      // A figure names what a cell is compared with.
      for (const figure of copy.querySelectorAll("figure")) figure.remove();
      return words(copy.textContent).join(" ");
    });
    input.addEventListener("input", () => {
      const wanted = words(input.value);
      let shown = 0;
      items.forEach((item, at) => { item.hidden = !shows(texts[at], wanted); shown += !item.hidden; });
      count.textContent = !wanted.length ? "" : shown ? `${shown} of ${items.length}` : "nothing here has all of these words";
    });
    insert(place, box);
  };

  for (const table of document.querySelectorAll("table.sortable")) {
    makeSortable(table);
    const rows = Array.from(table.tBodies[0].rows);
    if (rows.length >= LONG) filter("Filter rows", rows, table.closest(".scroll"), (place, box) => place.before(box));
  }
  const cells = document.querySelector("#cells .cells");
  if (cells) filter("Filter cells and runs", Array.from(cells.children), cells, (place, box) => place.before(box));

  const reveal = () => {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!target) return;
    for (let place = target; place; place = place.parentElement) {
      if (place.tagName === "DETAILS") place.open = true;
      place.hidden = false;
    }
    target.scrollIntoView();
    // The next Tab goes on from here, and a screen reader reads from here.
    const folder = target.closest("details");
    (folder ? folder.querySelector("summary") : target).focus({ preventScroll: true });
  };
  addEventListener("hashchange", reveal);
  // The same link again changes no hash, and what it led to may be folded by now.
  addEventListener("click", (event) => {
    const link = event.target.closest("a[href^='#']");
    if (link && link.hash === location.hash) reveal();
  });
  reveal();

  let folded = [];
  addEventListener("beforeprint", () => {
    folded = Array.from(document.querySelectorAll("details:not([open])"));
    for (const details of folded) details.open = true;
  });
  addEventListener("afterprint", () => { for (const details of folded) details.open = false; });
})();
