"use strict";
// The page with a solver: its slider requests plans from the server instead of selecting stored ones.

const CURVE = ["latency", "caps", "pins", "objective", "confidence"]; // the settings on which the curve over memory depends

function buildControls() {
  const part = (title, ...children) => make("div", { class: "part" }, make("h2", {}, title), ...children);
  const section = make("section", { id: "asked", "aria-label": "What is asked of the solver" },
    part("What you ask", memoryControls(), limitOf("ms", "Time at most", (text) => { live.request.latency = text && `${text}ms`; }), balanceControls(),
      capsControls(), ...(hasErrors(chosen.run) ? [confidenceControls()] : [])),
    part("What you fix", rolesControls(), fixedControls()),
    part("What you take", planControls()));
  document.getElementById("model").before(section);
  document.getElementById("pictures-part").before(pictureControls());
  document.getElementById("legend").append(make("span", { class: "key" }, make("span", { class: "swatch fixed" }, ""), " fixed by you"));
  document.getElementById("chosen-title").after(make("p", { id: "no-plan", role: "alert" }));
}

/** Whether the run has standard errors. */
function hasErrors(run) {
  return Object.keys(run.points.at(-1)?.errors ?? {}).length > 0;
}

/** Updates the curve after a change of another setting than memory. */
async function followCurve(question) {
  const key = JSON.stringify(CURVE.map((name) => question.request[name]));
  if (question.passing || key === live.curve) return;
  live.curve = key;
  try {
    const points = await fetched("/api/curve", question.request);
    if (live.curve !== key || points.length === 0) return;
    chosen.run.source.points = points.sort((a, b) => a.totals.bytes - b.totals.bytes);
    drawChart(chosen.run, chosen.column, choosePlan, chosen.variant);
  } catch {
    live.curve = null; // the plan is displayed; the next answer requests its curve again
  }
}

async function startLive() {
  live.start = await fetched("/api/start");
  live.request.memory = String(chosen.variant.limit);
  live.curve = JSON.stringify(CURVE.map((name) => live.request[name]));
  begin();
  buildControls();
  showFixed();
  const { bytes } = live.start.ranges;
  fill("least", `least: ${bytesText(bytes[0])}`);
  fill("most", `full precision: ${bytesText(bytes[1])}`);
  live.listeners.push(markFixed, followCurve);
  window.addEventListener("resize", markFixed);
  settle();
}

startLive().catch((error) => { document.getElementById("told").textContent = error.message; });
