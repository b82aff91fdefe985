"use strict";
// The page with a solver behind it: the same page, whose slider asks for plans instead of looking them up.

const CURVE = ["latency", "caps", "pins", "objective", "confidence"]; // what the curve over memory depends on

function buildAsked() {
  const part = (title, ...children) => make("div", { class: "part" }, make("h2", {}, title), ...children);
  const section = make("section", { id: "asked", "aria-label": "What is asked of the solver" },
    part("What you ask", memoryAsked(), limitOf("ms", "Time at most", (text) => { live.asked.latency = text; }), balanceAsked(),
      capsAsked(), ...(erred(chosen.run) ? [confidenceAsked()] : [])),
    part("What you fix", rolesAsked(), fixedAsked()),
    part("What you take", planTaken()));
  document.getElementById("model").before(section);
  document.getElementById("pictures-part").before(pictureTaken());
  document.getElementById("legend").append(make("span", { class: "key" }, make("span", { class: "swatch fixed" }, ""), " fixed by you"));
  document.getElementById("chosen-title").after(make("p", { id: "no-plan", role: "alert" }));
}

/** Whether standard errors are known. */
function erred(run) {
  return Object.keys(run.points.at(-1)?.errors ?? {}).length > 0;
}

/** The curve anew, where something else than memory was asked. */
async function followCurve(question) {
  const key = JSON.stringify(CURVE.map((name) => question.asked[name]));
  if (question.passing || key === live.curve) return;
  live.curve = key;
  try {
    const points = await fetched("/api/curve", question.asked);
    if (live.curve !== key || points.length === 0) return;
    chosen.run.source.points = points.sort((a, b) => a.totals.bytes - b.totals.bytes);
    drawChart(chosen.run, chosen.column, choosePlan, chosen.variant);
  } catch {
    live.curve = null; // the plan itself is shown; its curve is tried again with the next
  }
}

async function startLive() {
  live.start = await fetched("/api/start");
  live.asked.memory = String(chosen.variant.limit);
  live.curve = JSON.stringify(CURVE.map((name) => live.asked[name]));
  begin();
  buildAsked();
  showFixed();
  const { bytes } = live.start.ranges;
  fill("least", `least: ${bytesText(bytes[0])}`);
  fill("most", `full precision: ${bytesText(bytes[1])}`);
  live.told.push(markFixed, followCurve);
  window.addEventListener("resize", markFixed);
  settle();
}

startLive().catch((error) => { document.getElementById("told").textContent = error.message; });
