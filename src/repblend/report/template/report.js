"use strict";
// The page can be read without any of this: it opens what a link leads to, sorts tables, and keeps choices alike.
(() => {
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];

  // Contents are open where there is room beside the text, and mark the section that is read.
  const contents = document.querySelector("nav details"), wide = matchMedia("(min-width: 1100px)");
  const fit = () => { contents.open = wide.matches; };
  wide.addEventListener("change", fit);
  fit();
  contents.addEventListener("click", (event) => {
    if (event.target.closest("a") && !wide.matches) contents.open = false;
  });
  const links = all("nav a"), headings = links.map((link) => document.getElementById(link.hash.slice(1)));
  const mark = () => {
    const read = headings.findLastIndex((heading) => heading.getBoundingClientRect().top < innerHeight / 3);
    links.forEach((link, place) => link.toggleAttribute("aria-current", place === Math.max(read, 0)));
  };
  addEventListener("scroll", mark, { passive: true });
  mark();

  // A link to something folded opens it.
  const reveal = () => {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    for (let each = target; each; each = each.parentElement) if (each.localName === "details") each.open = true;
    if (target) target.scrollIntoView();
  };
  addEventListener("hashchange", reveal);
  if (location.hash) reveal();

  // One choice of protocol is a choice everywhere.
  all(".tabs > input").forEach((input) => input.addEventListener("change", () => {
    for (const other of all(".tabs > input")) if (other.dataset.tab === input.dataset.tab) other.checked = true;
  }));

  // A line of a plot alone, while its entry in the key is pointed at or has the focus.
  all(".key li").forEach((entry) => {
    const alone = (name) => all("[data-line]", entry.closest(".panel")).forEach((each) =>
      each.classList.toggle("dim", name !== null && each.dataset.line !== name));
    for (const event of ["mouseenter", "focus"]) entry.addEventListener(event, () => alone(entry.dataset.line));
    for (const event of ["mouseleave", "blur"]) entry.addEventListener(event, () => alone(null));
  });

  // Tables are sorted by a click on a column's title: down, up, and as they were.
  const value = (row, column) => {
    const words = row.cells[column].textContent.trim(), number = parseFloat(words.replaceAll(",", ""));
    return words === "not run" || words === "" ? null : Number.isNaN(number) ? words : number;
  };
  const order = (one, other) => typeof one === typeof other
    ? (one < other ? -1 : one > other ? 1 : 0) : typeof one === "number" ? -1 : 1;
  for (const table of all("table[id]")) {
    const body = table.tBodies[0], rows = [...body.rows];
    if (rows.length < 3) continue;
    all("tr.columns > th", table).forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const next = { none: "descending", descending: "ascending", ascending: "none" }[head.ariaSort || "none"];
        all("th", table).forEach((each) => { each.ariaSort = null; });
        if (next !== "none") head.ariaSort = next;
        table.classList.toggle("sorted", next !== "none");
        const sign = next === "descending" ? -1 : 1, sorted = next === "none" ? rows : [...rows].sort((one, other) => {
          const [first, second] = [value(one, column), value(other, column)];
          if (first === null || second === null) return (first === null) - (second === null);
          return sign * order(first, second);
        });
        body.append(...sorted);
      });
    });
  }
})();
