// Joins the timeline and the video: a click on the one seeks the other; the page is complete without it.
"use strict";
(() => {
  const video = document.querySelector("video");
  if (!video) return;
  const shift = Number(video.dataset.shift);
  const now = document.querySelector("output");
  const rows = [...document.querySelectorAll("tr[data-start]")];
  const charts = [...document.querySelectorAll("svg.timeline")].map((svg) => {
    const hit = svg.querySelector(".hit");
    const [x, width] = ["x", "width"].map((name) => Number(hit.getAttribute(name)));
    return { svg, hit, x, width, duration: Number(hit.dataset.duration), cursor: svg.querySelector(".cursor") };
  });

  const seek = (seconds) => {
    video.currentTime = Math.max(0, seconds + shift);
    show();
  };
  const show = () => {
    const t = video.currentTime - shift;
    for (const { svg, x, width, duration, cursor } of charts) {
      svg.classList.add("playing");
      const dx = Math.min(Math.max(t / duration, 0), 1) * width;
      cursor.setAttribute("transform", `translate(${dx.toFixed(2)} 0)`);
    }
    let told = "";
    for (const row of rows) {
      const inside = t >= Number(row.dataset.start) && t < Number(row.dataset.end);
      row.classList.toggle("now", inside);
      if (inside) told = row.dataset.words;
    }
    now.textContent = told;
    document.getElementById("now").hidden = !told;
  };

  for (const { svg, hit, duration } of charts) {
    svg.addEventListener("click", (event) => {
      const box = hit.getBoundingClientRect();
      seek(Math.min(Math.max((event.clientX - box.left) / box.width, 0), 1) * duration);
    });
  }
  for (const button of document.querySelectorAll("button[data-at]")) {
    button.addEventListener("click", () => seek(Number(button.dataset.at)));
  }
  video.addEventListener("timeupdate", show);
  video.addEventListener("seeked", show);
  const refused = (id) => { document.getElementById(id).hidden = false; };
  const looked = () => {
    if (!video.videoWidth) refused("unseen");
    show();
  };
  video.addEventListener("error", () => refused("unplayable"));
  video.addEventListener("loadedmetadata", looked);
  if (video.error) refused("unplayable");
  if (video.readyState) looked();
})();
