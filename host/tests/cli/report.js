/* Uses the report as a reader does and tells the page around it what it saw. */
const seen = {};
const cells = (table, at) =>
  [...table.querySelectorAll("tbody tr")].map((row) => row.cells[at].textContent);
const shown = () =>
  [...document.querySelectorAll("[data-bits]")]
    .filter((part) => getComputedStyle(part).display !== "none")
    .map((part) => Number(part.dataset.bits));

const table = document.querySelector("table.numbers");
const headings = [...table.tHead.rows[0].cells];
const at = headings.findIndex((heading) => heading.textContent.startsWith("SQNR"));
const button = headings[at].querySelector("button");
seen.sorted = [cells(table, at)];
seen.order = [headings[at].getAttribute("aria-sort")];
for (let i = 0; i < 3; i++) {
  button.focus();
  document.activeElement.click();
  seen.sorted.push(cells(table, at));
  seen.order.push(headings[at].getAttribute("aria-sort"));
}
headings[1].querySelector("button").click();
seen.schemes = cells(table, 1);

const ranges = [...document.querySelectorAll("input[type=range]")];
seen.ranges = ranges.length;
seen.shown = [shown()];
ranges[0].value = 1;
ranges[0].dispatchEvent(new Event("input", { bubbles: true }));
seen.shown.push(shown());
seen.moved = ranges.map((range) => range.value);

seen.loaded = performance.getEntriesByType("resource").map((entry) => entry.name);
seen.pictures = [...document.images].filter((image) => image.naturalWidth > 0).length;
seen.width = [document.documentElement.scrollWidth, innerWidth];
console.log("the probe is through");
parent.postMessage(seen, "*");
