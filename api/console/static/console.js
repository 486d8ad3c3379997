// Curves and the playground; everything else is htmx.
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

// The playground. An answer is a stream of events; what a model says goes in as text, never as markup.
async function* events(body) {
  const lines = body.pipeThrough(new TextDecoderStream()).getReader();
  let kept = "";
  for (;;) {
    const { value, done } = await lines.read();
    if (done) return;
    const parts = (kept + value).split("\n\n");
    kept = parts.pop();
    for (const part of parts) {
      const data = part.split("\n").filter((line) => line.startsWith("data: ")).map((line) => line.slice(6)).join("\n");
      if (data) yield data;
    }
  }
}

function failure(answer, said) {
  return (said && said.error && said.error.message) || `The server answered ${answer.status}.`;
}

async function speak(form, place, request, signal) {
  const answer = place.querySelector(".answer"), how = place.querySelector(".how");
  answer.textContent = how.textContent = "";
  answer.classList.remove("wrong");
  const began = performance.now();
  let first = null, tokens = 0, model = request.model, whole = false;
  const wrong = (message) => {
    answer.classList.add("wrong");
    answer.append((answer.textContent ? "\n" : "") + message);
  };
  try {
    const sent = await fetch(form.dataset.chat, {
      method: "POST", signal, body: JSON.stringify(request),
      headers: { "content-type": "application/json", "x-onward-form": form.dataset.csrf },
    });
    if (!sent.ok) return wrong(failure(sent, await sent.json().catch(() => null)));
    for await (const data of events(sent.body)) {
      if (data === "[DONE]") { whole = true; break; }
      const chunk = JSON.parse(data);
      if (chunk.error) { wrong(chunk.error.message); whole = true; break; }
      model = chunk.model || model;
      if (chunk.usage) tokens = chunk.usage.completion_tokens;
      const text = chunk.choices && chunk.choices[0] && chunk.choices[0].delta.content;
      if (text) {
        first = first === null ? performance.now() : first;
        answer.append(text);
      }
    }
    if (!whole) wrong("The answer was cut off.");
  } catch (error) {
    if (error.name !== "AbortError") wrong("The connection was lost.");
  }
  const seconds = (performance.now() - began) / 1000;
  const wait = first === null ? "" : `first words after ${((first - began) / 1000).toFixed(2)} s, `;
  how.textContent = `${model}: ${wait}${tokens ? `${tokens} tokens in ` : ""}${seconds.toFixed(2)} s`;
}

function playground(form) {
  const stop = form.querySelector("[data-stop]"), ask = form.querySelector("[type=submit]");
  let asked = null;
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (asked) return;
    asked = new AbortController();
    ask.disabled = true;
    stop.disabled = false;
    const { said, system, tokens, temperature } = form.elements;
    const messages = [...(system.value ? [{ role: "system", content: system.value }] : []), { role: "user", content: said.value }];
    const places = [...form.querySelectorAll("section")].filter((place) => place.querySelector("select").value);
    await Promise.all(places.map((place) => speak(form, place, {
      model: place.querySelector("select").value, messages, max_completion_tokens: Number(tokens.value),
      temperature: Number(temperature.value), stream: true, stream_options: { include_usage: true },
    }, asked.signal)));
    asked = null;
    ask.disabled = false;
    stop.disabled = true;
  });
  stop.addEventListener("click", () => asked && asked.abort());
}

document.querySelectorAll(".playground").forEach(playground);
