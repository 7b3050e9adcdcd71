// Adds filters and a side-by-side table of the chosen runs; the page is complete without it.
"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const metrics = JSON.parse($("chosen").dataset.metrics);
  const rows = [...document.querySelectorAll("tr[data-scores]")];

  const filter = () => {
    const [model, data, setting] = ["model", "data", "setting"].map((id) => $(id).value);
    const words = $("find").value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      const d = row.dataset;
      row.hidden = !((!model || d.model === model) && (!data || d.data === data) && (!setting || d.setting === setting)
        && words.every((word) => d.text.includes(word)));
      shown += !row.hidden;
    }
    $("shown").textContent = `${shown} of ${rows.length} ${rows.length === 1 ? "run" : "runs"}`;
  };

  const cell = (kind, text, name) => {
    const element = document.createElement(kind);
    element.textContent = text;
    if (name) element.className = name;
    return element;
  };

  const beside = () => {
    const chosen = rows.filter((row) => row.querySelector("input").checked);
    $("beside").hidden = $("below").hidden = chosen.length < 2;
    $("below").textContent = `${chosen.length} side by side ↓`;
    if (chosen.length < 2) return;
    const settings = new Set(chosen.map((row) => row.dataset.setting));
    $("same").textContent = settings.size === 1
      ? "All have the same setting. Whether they differ beyond chance says: avbench compare " + chosen.map((row) => row.dataset.typed).join(" ")
      : `They have different settings (${[...settings].join(", ")}): their scores do not say which model is better.`;
    const scores = chosen.map((row) => JSON.parse(row.dataset.scores));
    const names = [...new Set(scores.flatMap((found) => Object.keys(found)))];
    const head = document.createElement("tr");
    head.append(cell("th", "metric"), ...chosen.map((row) => cell("th", `${row.dataset.model} (${row.dataset.setting})`, "num")));
    const body = names.map((name) => {
      const row = document.createElement("tr");
      const [title, description] = metrics[name] ?? [name, ""];
      const metric = cell("th", title);
      metric.title = description;
      row.append(metric, ...scores.map((found) => cell("td", found[name] ?? "–", "num")));
      return row;
    });
    $("chosen").tHead.replaceChildren(head);
    $("chosen").tBodies[0].replaceChildren(...body);
  };

  for (const id of ["model", "data", "setting"]) $(id).addEventListener("change", filter);
  $("find").addEventListener("input", filter);
  for (const row of rows) row.querySelector("input").addEventListener("change", beside);
  for (const one of document.querySelectorAll(".choose")) one.hidden = false;
  $("controls").hidden = false;
  filter();
  beside();
})();
