// The players' running marker, and sorting, filtering and saving the table of segments; the page is complete without it.
"use strict";
(() => {
  // ---- players: one plays at a time, and its twin goes on where it was left
  for (const card of document.querySelectorAll(".player")) {
    const videos = [...card.querySelectorAll("video")];
    const start = Number(card.dataset.start);
    const steps = JSON.parse(card.dataset.steps);
    const svg = card.querySelector("svg.believed");
    const cursor = svg.querySelector(".cursor");
    const [from, to] = [Number(cursor.dataset.from), Number(cursor.dataset.to)];
    const told = card.querySelector("output");
    const length = Number(card.dataset.end) - start;
    let frame = 0;
    if (videos.length) told.textContent = "Play one: the marker runs along, and the other goes on where it was left.";

    const show = (video) => {
      const t = video.currentTime;
      svg.classList.add("playing");
      cursor.setAttribute("transform", `translate(${(Math.min(t / length, 1) * (to - from)).toFixed(2)} 0)`);
      const known = steps.filter(([end]) => end <= start + t);
      const at = `${(start + t).toFixed(1)} s`;
      told.textContent = known.length ? `At ${at}: ${known[known.length - 1][1]}` : `At ${at}: the first window has not ended`;
    };
    const run = (video) => {
      show(video);
      if (!video.paused && !video.ended) frame = requestAnimationFrame(() => run(video));
    };
    for (const video of videos) {
      video.addEventListener("play", () => {
        for (const other of document.querySelectorAll("video")) {
          if (other === video || other.paused) continue;
          other.pause();
          if (videos.includes(other)) video.currentTime = other.currentTime;
        }
        cancelAnimationFrame(frame);
        run(video);
      });
      for (const kind of ["seeked", "timeupdate"]) video.addEventListener(kind, () => show(video));
      const refused = () => { told.textContent = "This browser cannot play the clip, or it is not beside the page."; };
      video.addEventListener("error", refused);
      if (video.error) refused();
    }
  }

  // ---- the table
  const table = document.getElementById("segments");
  if (!table) return;
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const heads = [...table.tHead.rows[0].cells];
  const text = (row, column) => sortedBy(row.cells[column]);
  sortByHeaders(table);

  const $ = (id) => document.getElementById(id);
  const names = rows.map((row) => `${text(row, 0)} ${text(row, 1)}`.toLowerCase());
  const filter = () => {
    const [group, answer] = [$("by-class").value, $("by-answer").value];
    const category = $("by-category") ? $("by-category").value : "";
    const words = $("by-name").value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    rows.forEach((row, i) => {
      const fits = (!group || row.dataset.class === group) && (!answer || row.dataset.off === answer)
        && (!category || text(row, 2) === category) && words.every((word) => names[i].includes(word));
      row.hidden = !fits;
      shown += fits;
    });
    $("count").textContent = `${shown} of ${rows.length} segment${rows.length === 1 ? "" : "s"}`;
  };
  for (const id of ["by-class", "by-answer", "by-category"]) if ($(id)) $(id).addEventListener("change", filter);
  $("by-name").addEventListener("input", filter);

  const quoted = (value) => (/[",\r\n]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value);
  $("save").addEventListener("click", () => {
    const lines = [heads.map((head) => head.dataset.name)];
    for (const row of body.rows) if (!row.hidden) lines.push(heads.map((_, column) => quoted(text(row, column))));
    const blob = new Blob([lines.map((line) => line.join(",")).join("\n") + "\n"], { type: "text/csv" });
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = "segments.csv";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  });
  $("controls").hidden = false;
  filter();
})();
