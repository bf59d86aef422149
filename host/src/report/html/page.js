"use strict";

/* Tables sort by a heading: up, down, and back to the order of the page. */
for (const table of document.querySelectorAll("table.numbers")) {
  const bodies = [...table.tBodies].map((body) => [body, [...body.rows]]);
  const headings = [...table.tHead.rows[0].cells];
  const value = (row, column) => {
    const text = row.cells[column].textContent;
    const number = parseFloat(text.replace("∞", "Infinity"));
    return Number.isNaN(number) ? text : number;
  };
  const compare = (a, b) =>
    typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));
  const sort = (column, sign) => {
    const rows = bodies.flatMap(([, rows]) => rows);
    rows.sort((a, b) => {
      const [x, y] = [value(a, column), value(b, column)];
      /* What was not measured comes last either way. */
      return (x === "") - (y === "") || sign * compare(x, y);
    });
    bodies[0][0].append(...rows);
  };
  headings.forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const next = { ascending: "descending", descending: null }[heading.ariaSort];
      const order = next === undefined ? "ascending" : next;
      for (const other of headings) other.removeAttribute("aria-sort");
      table.classList.toggle("sorted", order !== null);
      if (order === null) {
        for (const [body, rows] of bodies) body.append(...rows);
      } else {
        heading.setAttribute("aria-sort", order);
        sort(column, order === "ascending" ? 1 : -1);
      }
    });
  });
}

/* Sliders over the bits, which move together. */
const sliders = [];
for (const section of document.querySelectorAll(".by-bits")) {
  const parts = [...section.querySelectorAll("[data-bits]")];
  const counts = [...new Set(parts.map((part) => Number(part.dataset.bits)))].sort((a, b) => a - b);
  if (counts.length < 2) continue;
  const label = document.createElement("label");
  const range = document.createElement("input");
  const shown = document.createElement("output");
  range.type = "range";
  range.max = counts.length - 1;
  label.className = "slider";
  label.append("Bits ", range, shown);
  section.prepend(label);
  section.classList.add("one");
  const show = (bits) => {
    if (!counts.includes(bits)) return;
    range.value = counts.indexOf(bits);
    range.setAttribute("aria-valuetext", `${bits} bits`);
    shown.textContent = bits;
    for (const part of parts) part.classList.toggle("on", Number(part.dataset.bits) === bits);
  };
  range.addEventListener("input", () => {
    for (const slider of sliders) slider(counts[range.value]);
  });
  sliders.push(show);
  show(counts[0]);
}
