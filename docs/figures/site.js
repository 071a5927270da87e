// What is wider than its place is scrolled by keyboard as well, and has a name.
addEventListener("load", () => {
  const watcher = new ResizeObserver((entries) => {
    for (const { target } of entries) {
      const scrolls = target.scrollWidth > target.clientWidth;
      for (const [name, value] of [["tabindex", "0"], ["role", "group"], ["aria-label", "Scrolls sideways"]])
        if (scrolls) target.setAttribute(name, value);
        else target.removeAttribute(name);
    }
  });
  const wide = ".md-typeset__scrollwrap, .md-typeset p:has(> img), .md-typeset pre > code";
  for (const place of document.querySelectorAll(wide)) watcher.observe(place);
});
