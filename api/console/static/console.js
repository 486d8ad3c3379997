// Curves; everything else is htmx.
"use strict";

const COLOURS = ["#0a60c2", "#c2410c", "#15803d", "#7e22ce"];
const DASHES = { train: [], valid: [6, 4] };
const AGAIN = 2000; // ms between looks at a job that trains

function element(tag, about = {}, ...children) {
  const made = Object.assign(document.createElement(tag), about);
  made.append(...children);
  return made;
}

function smoothed(values, by) {
  if (!by) return values;
  let kept = null;
  return values.map((value) => (kept = kept === null ? value : by * kept + (1 - by) * value));
}

// One table [x, y, y, ...] for uPlot and its series, of all jobs' curves of a measure.
function table(jobs, view) {
  const names = view.measure === "loss" ? ["train", "valid"] : ["accuracy"];
  const series = [{ label: view.x === "step" ? "step" : "seconds" }];
  const tables = [];
  jobs.forEach((job, number) => {
    for (const name of names) {
      const points = (job.curves[name] || []).slice().sort((a, b) => a[view.x === "step" ? 0 : 1] - b[view.x === "step" ? 0 : 1]);
      if (!points.length) continue;
      const by = name === "train" ? view.smooth : 0;
      tables.push([points.map((p) => p[view.x === "step" ? 0 : 1]), smoothed(points.map((p) => p[2]), by)]);
      series.push({
        label: jobs.length > 1 ? `${job.name} ${name}` : name,
        stroke: COLOURS[(jobs.length > 1 ? number : names.indexOf(name)) % COLOURS.length],
        dash: DASHES[name] || [], width: 2, spanGaps: true, points: { show: points.length < 60 },
      });
    }
  });
  return [tables.length ? uPlot.join(tables) : null, series];
}

function drawn(place) {
  const jobs = [...place.querySelectorAll("[data-points]")].map((one) => ({
    url: one.dataset.points, name: one.dataset.name, curves: {}, ended: false,
  }));
  const view = { x: "step", measure: "loss", smooth: 0 };
  const chosen = (title, choices, set) => {
    const list = element("select", {}, ...choices.map(([value, text]) => element("option", { value, textContent: text })));
    list.addEventListener("change", () => { set(list.value); draw(); });
    return element("label", {}, `${title} `, list);
  };
  const canvas = element("div", { className: "canvas" });
  place.append(
    element("div", { className: "choices" },
      chosen("Over", [["step", "steps"], ["time", "seconds"]], (value) => (view.x = value)),
      chosen("Of", [["loss", "loss"], ["accuracy", "accuracy"]], (value) => (view.measure = value)),
      chosen("Smooth", [["0", "not"], ["0.8", "some"], ["0.95", "much"]], (value) => (view.smooth = Number(value)))),
    canvas);
  let plot = null;

  function draw() {
    const [data, series] = table(jobs, view);
    if (plot) plot.destroy();
    plot = null;
    if (!data) {
      canvas.textContent = jobs.every((job) => job.ended) ? "Nothing was measured." : "Nothing measured yet.";
      return;
    }
    canvas.textContent = "";
    const ink = getComputedStyle(document.body).color;
    const axis = { stroke: ink, grid: { stroke: "#8883" }, ticks: { stroke: "#8885" } };
    plot = new uPlot({
      width: canvas.clientWidth || 600, height: 300, scales: { x: { time: false } }, series,
      axes: [{ ...axis }, { ...axis, size: 64 }],
    }, data, canvas);
  }

  async function look() {
    let changed = false;
    for (const job of jobs) {
      if (job.ended) continue;
      try {
        const answer = await fetch(job.url, { headers: { accept: "application/json" } });
        if (!answer.ok || !(answer.headers.get("content-type") || "").includes("json")) continue;
        Object.assign(job, await answer.json());
        changed = true;
      } catch { /* the API is away for a moment: the next look may find it */ }
    }
    if (changed) draw();
    if (jobs.some((job) => !job.ended)) setTimeout(look, AGAIN);
  }

  look();
  let wide = 0;
  new ResizeObserver(() => {
    if (plot && canvas.clientWidth !== wide) plot.setSize({ width: (wide = canvas.clientWidth), height: 300 });
  }).observe(canvas);
}

document.querySelectorAll(".plot").forEach(drawn);
