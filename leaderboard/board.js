// Adds sorting, filtering and track selection; the page is complete without it.
"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const tables = [...document.querySelectorAll("table[data-board]")];

  for (const table of tables) {
    sortByHeaders(table, (column, up) => table.classList.toggle("by-rank", column === 0 && up));
    table.tHead.rows[0].cells[0].setAttribute("aria-sort", "ascending");
    table.classList.add("by-rank");
  }

  // the address keeps the view and the filters, so that it can be sent
  const FILTERS = ["track", "backbone", "training", "find"];
  const keep = () => {
    const state = new URLSearchParams();
    const view = document.querySelector("input[name=view]:checked").id.replace("view-", "");
    if (view !== "scores") state.set("view", view);
    if ($("compact").checked) state.set("compact", "1");
    for (const id of FILTERS) if ($(id).value) state.set(id, $(id).value);
    const text = state.toString();
    history.replaceState(null, "", text ? `#${text}` : location.href.split("#")[0]);
  };
  const restore = () => {
    if (!location.hash.includes("=")) return; // a link to a track
    const state = new URLSearchParams(location.hash.slice(1));
    const view = $(`view-${state.get("view") ?? "scores"}`);
    if (view) view.checked = true;
    $("compact").checked = state.get("compact") === "1";
    for (const id of FILTERS) {
      $(id).value = state.get(id) ?? "";
      if ($(id).selectedIndex === -1) $(id).value = ""; // no such choice any more
    }
  };

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
  const changed = () => { filter(); keep(); };
  for (const id of ["track", "backbone", "training"]) $(id).addEventListener("change", changed);
  $("find").addEventListener("input", changed);
  for (const input of document.querySelectorAll(".tab-input")) input.addEventListener("change", keep);
  window.addEventListener("hashchange", () => { restore(); filter(); });
  $("controls").hidden = false;
  restore();
  filter();
})();
