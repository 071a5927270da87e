// What is wider than its place is scrolled by keyboard as well; the buttons of programs are no navigation.
addEventListener("load", () => {
  for (const buttons of document.querySelectorAll(".md-code__nav")) buttons.setAttribute("role", "none");
  const watcher = new ResizeObserver((entries) => {
    for (const { target } of entries)
      if (target.scrollWidth > target.clientWidth) target.tabIndex = 0;
      else target.removeAttribute("tabindex");
  });
  const wide = ".md-typeset :is(table:not([class]), .md-typeset__scrollwrap, p:has(> img), pre > code)";
  for (const place of document.querySelectorAll(wide)) watcher.observe(place);
});
