"use strict";
// Limits, and what is weighed against what: sliders whose places are even ratios.

const PLACES = 1000; // of a slider

/** Between two ends, by even ratios; from 0 by ratios over five powers of ten. */
function ladder([least, most]) {
  const low = least > 0 ? least : most * 1e-5;
  const ratio = Math.log(most / low) || 1;
  return {
    at: (place) => low * Math.exp((ratio * place) / PLACES),
    placeOf: (value) => Math.max(0, Math.min(PLACES, Math.round((PLACES * Math.log(value / low)) / ratio))),
  };
}

/** A slider: `passing` while it is dragged, `settled` once it is let go. */
function sliderFor(id, text, set, properties = {}) {
  const made = make("input", { type: "range", id, min: 0, max: PLACES, step: 1, "aria-label": text, ...properties });
  made.addEventListener("input", () => { set(Number(made.value)); askForPlan(true); });
  made.addEventListener("change", () => { set(Number(made.value)); settle(); });
  return made;
}

/** What is asked has changed, and is not being dragged. */
function settle() {
  askForPlan(false);
}

/** Memory is the page's own slider, and a field that takes it as people write it. */
function memoryAsked() {
  const steps = ladder(live.start.ranges.bytes);
  const field = make("input", { type: "text", id: "memory", size: 9, "aria-label": "Memory at most, such as 25% or 6MiB" });
  field.addEventListener("change", () => {
    begin();
    live.asked.memory = field.value.trim() || null;
    settle();
  });
  slider.max = String(PLACES);
  slider.addEventListener("change", settle);
  slider.addEventListener("pointerdown", begin);
  slider.addEventListener("keydown", begin);
  live.told.push((question, answer) => {
    const limit = answer.limits?.bytes;
    if (limit === undefined) return;
    if (document.activeElement !== field) field.value = bytesText(limit).replace(" ", "");
    if (document.activeElement !== slider) slider.value = String(steps.placeOf(limit));
  });
  const { run } = chosen;
  run.source = {
    stops: PLACES + 1, points: run.source.points, painted: [],
    ask: (place) => {
      live.asked.memory = String(Math.ceil(steps.at(place)));
      askForPlan(true);
    },
    stopOf: (name) => {
      const point = run.source.points.find((one) => one.name === name);
      return point ? steps.placeOf(point.limit) : -1;
    },
    fix: fixLayer,
  };
  return labelled("Memory at most", field);
}

/** From here on, what changes is told against the plan that is shown now. */
function begin() {
  live.before = chosen.variant;
}

/** A limit that can be switched on. column: of the run; set: told the amount as text, or null. */
function limitOf(column, title, set, { on = false, remove = null } = {}) {
  const steps = ladder(live.start.ranges[column]);
  const told = make("output", {}, "");
  const put = (place) => {
    told.value = amount(column, steps.at(place));
    set(String(Number(steps.at(place).toPrecision(6))));
  };
  const range = sliderFor(`limit-${column}`, title, put, { disabled: !on });
  const box = make("input", { type: "checkbox", id: `bound-${column}`, checked: on });
  box.addEventListener("change", () => {
    begin();
    range.disabled = !box.checked;
    if (box.checked) range.value = String(steps.placeOf(Math.max(chosen.variant.totals[column], Number.MIN_VALUE)));
    if (box.checked) put(Number(range.value));
    else { set(null); told.value = ""; remove?.(); }
    settle();
  });
  range.addEventListener("pointerdown", begin);
  if (on) {
    range.value = String(steps.placeOf(Math.max(chosen.variant.totals[column], Number.MIN_VALUE)));
    put(Number(range.value));
  }
  return make("div", { class: "limit", "data-column": column },
    make("label", { for: `bound-${column}` }, box, ` ${title}`), range, told);
}

function labelled(text, control, ...rest) {
  return make("div", { class: "limit" }, make("label", { for: control.id }, text), control, ...rest);
}

/** Losses with a limit, each added from a list. */
function capsAsked() {
  const box = make("div", { id: "caps" });
  const names = lossesOf(chosen.run).map((column) => column.name);
  const list = make("select", { id: "add-cap", "aria-label": "Limit a loss" }, make("option", { value: "" }, "limit a loss \u2026"),
    ...names.map((name) => make("option", { value: name }, columnText(name))));
  list.addEventListener("change", () => {
    const name = list.value;
    list.value = "";
    if (!name || name in live.asked.caps) return;
    begin();
    const put = (text) => { if (text === null) delete live.asked.caps[name]; else live.asked.caps[name] = text; };
    const row = limitOf(name, `${columnText(name)} at most`, put, { on: true, remove: () => row.remove() });
    box.append(row);
    settle();
  });
  return make("div", {}, box, list);
}

/** Quality against alignment: in the middle both count alike. */
function balanceAsked() {
  const told = make("output", {}, "");
  const put = (place) => {
    const share = place / PLACES;
    const [quality, alignment] = [Math.min(1, 2 - 2 * share), Math.min(1, 2 * share)].map((w) => Number(w.toFixed(3)));
    live.asked.objective = { "1,1": "both", "1,0": "quality", "0,1": "alignment" }[`${quality},${alignment}`]
      ?? `quality=${quality},alignment=${alignment}`;
    told.value = quality === alignment ? "alike" : `${digits(quality)} : ${digits(alignment)}`;
  };
  const range = sliderFor("balance", "From quality alone to alignment alone", put, { step: 50 });
  range.addEventListener("pointerdown", begin);
  range.value = String(PLACES / 2);
  put(PLACES / 2);
  return make("div", { class: "limit" }, make("label", { for: "balance" }, "Quality \u2194 alignment"), range, told);
}

/** Losses at an upper bound instead of their means, where their errors are known. */
function confidenceAsked() {
  const list = make("select", { id: "confidence" }, make("option", { value: "" }, "their means"),
    ...[0.9, 0.95, 0.99].map((share) => make("option", { value: share }, `upper bounds of ${100 * share} %`)));
  list.addEventListener("change", () => {
    begin();
    live.asked.confidence = list.value ? Number(list.value) : null;
    settle();
  });
  return make("div", { class: "limit" }, make("label", { for: "confidence" }, "Plan losses by"), list);
}
