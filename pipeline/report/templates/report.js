document.documentElement.classList.add("js");
for (const table of document.querySelectorAll("table.sorts")) {
  const body = table.tBodies[0];
  table.tHead.addEventListener("click", (event) => {
    const head = event.target.closest("th");
    if (!event.target.closest("button")) return;
    const down = head.getAttribute("aria-sort") !== "descending";
    for (const other of table.tHead.querySelectorAll("th")) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const value = (row) => {
      const text = row.cells[head.cellIndex].textContent.trim();
      const number = Number(text.replace(/[, s]/g, ""));
      return text === "" || Number.isNaN(number) ? text : number;
    };
    const order = (a, b) =>
      typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));
    const rows = [...body.rows].map((row) => [value(row), row]);
    rows.sort((a, b) => (down ? order(b[0], a[0]) : order(a[0], b[0])));
    body.append(...rows.map((pair) => pair[1]));
  });
}
const queries = document.getElementById("queries");
if (queries) {
  const find = document.getElementById("find");
  const all = document.getElementById("all");
  let folded = true;
  const show = () => {
    const wanted = find.value.trim().toLowerCase();
    queries.classList.toggle("folded", folded && !wanted);
    for (const row of queries.tBodies[0].rows)
      row.hidden = wanted !== "" && !row.cells[0].textContent.toLowerCase().includes(wanted);
    all.textContent = folded ? all.dataset.all : "Show fewer";
  };
  find.addEventListener("input", show);
  all.addEventListener("click", () => { folded = !folded; show(); });
  show();
}
