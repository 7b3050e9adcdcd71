// Adds sorting, filtering and track selection; the page is complete without it.
"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const tables = [...document.querySelectorAll("table[data-board]")];

  const value = (row, column) => {
    const text = row.cells[column] ? row.cells[column].dataset.v : "";
    const n = Number(text);
    return text === "" || text === undefined ? null : Number.isNaN(n) ? text : n;
  };
  const compare = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en"));

  for (const table of tables) {
    const body = table.tBodies[0];
    const rows = [...body.rows];
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      if (!head.dataset.sort) return;
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
        const ordered = rows
          .map((row, i) => ({ row, i, v: value(row, column) }))
          .sort((a, b) => (a.v === null || b.v === null ? (a.v === null) - (b.v === null) : (up ? 1 : -1) * compare(a.v, b.v)) || a.i - b.i);
        body.append(...ordered.map((item) => item.row));
        table.classList.toggle("by-rank", column === 0 && up);
      });
    });
    heads[0].setAttribute("aria-sort", "ascending");
    table.classList.add("by-rank");
  }

  const filter = () => {
    const [track, backbone, training] = ["track", "backbone", "training"].map((id) => $(id).value);
    const words = $("find").value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0, all = 0;
    for (const section of document.querySelectorAll("section.track")) {
      const here = !track || section.dataset.track === track;
      section.hidden = !here;
      for (const row of section.querySelectorAll("tr.entry")) {
        const fits = (!backbone || row.dataset.backbone === backbone) && (!training || row.dataset.training === training)
          && words.every((word) => row.dataset.text.includes(word));
        row.hidden = !fits;
        all += 1;
        shown += here && fits;
      }
    }
    $("shown").textContent = `${shown} of ${all} ${all === 1 ? "entry" : "entries"}`;
  };
  for (const id of ["track", "backbone", "training"]) $(id).addEventListener("change", filter);
  $("find").addEventListener("input", filter);
  $("controls").hidden = false;
  filter();
})();
