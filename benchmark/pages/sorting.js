// Makes the headers of a table sort its rows; included before the script of a page that has such a table. Of each header
// that has data-sort, the first click sorts that way ("asc" or "desc"), the next one the other way. A cell is sorted by its
// data-v, or by its text where it has none; empty ones come last. Cells of a column with class "num" are numbers.
"use strict";
const sortedBy = (cell) => (cell ? cell.dataset.v ?? cell.textContent : "");
const sortByHeaders = (table, sorted = () => {}) => {
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    if (!head.dataset.sort) return;
    const compare = (a, b) => (head.classList.contains("num") ? Number(a) - Number(b) : a.localeCompare(b, "en", { numeric: true }));
    const button = document.createElement("button");
    button.type = "button";
    button.className = "sort";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const now = head.getAttribute("aria-sort");
      const up = now ? now !== "ascending" : head.dataset.sort === "asc";
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const keyed = rows.map((row, i) => ({ row, i, v: sortedBy(row.cells[column]) }));
      keyed.sort((a, b) => (a.v === "" || b.v === "" ? (a.v === "") - (b.v === "") : (up ? 1 : -1) * compare(a.v, b.v)) || a.i - b.i);
      body.append(...keyed.map((item) => item.row));
      sorted(column, up);
    });
  });
};
