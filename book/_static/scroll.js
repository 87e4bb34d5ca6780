// A table that is wider than the page scrolls by itself; so that the keyboard reaches it, it can have the focus.
for (const moment of ["load", "resize"]) {
  addEventListener(moment, () => {
    for (const table of document.querySelectorAll(".bd-article table")) {
      if (table.scrollWidth > table.clientWidth) table.tabIndex = 0;
      else table.removeAttribute("tabindex");
    }
  });
}
