"use strict";
// Controls for limits and for the weights of losses: sliders with a logarithmic scale.

const PLACES = 1000; // positions of a slider

/** A logarithmic scale between two ends; if the lower end is 0, over five powers of ten. */
function ladder([least, most]) {
  const low = least > 0 ? least : most * 1e-5;
  const ratio = Math.log(most / low) || 1;
  return {
    at: (place) => low * Math.exp((ratio * place) / PLACES),
    placeOf: (value) => Math.max(0, Math.min(PLACES, Math.round((PLACES * Math.log(value / low)) / ratio))),
  };
}

/** A slider: it requests a passing plan while it is dragged, and a proven one when it is released. */
function sliderFor(id, set, properties = {}) {
  const slider = make("input", { type: "range", id, min: 0, max: PLACES, step: 1, ...properties });
  slider.addEventListener("input", () => { set(Number(slider.value)); askForPlan(true); });
  slider.addEventListener("change", () => { set(Number(slider.value)); settle(); });
  return slider;
}

/** Requests the plan of the changed settings, with proof. */
function settle() {
  askForPlan(false);
}

/** Memory: the slider of the page, and a text field for values such as 25% or 6MiB. */
function memoryControls() {
  const steps = ladder(live.start.ranges.bytes);
  const field = make("input", { type: "text", id: "memory", size: 9, title: "such as 25% or 6MiB" });
  field.addEventListener("change", () => {
    begin();
    live.request.memory = field.value.trim() || null;
    settle();
  });
  slider.max = String(PLACES);
  slider.addEventListener("change", settle);
  slider.addEventListener("pointerdown", begin);
  slider.addEventListener("keydown", begin);
  live.listeners.push((question, answer) => {
    const limit = answer.limits?.bytes;
    if (limit === undefined) return;
    if (document.activeElement !== field) field.value = bytesText(limit).replace(" ", "");
    if (document.activeElement !== slider) slider.value = String(steps.placeOf(limit));
  });
  const { run } = chosen;
  run.source = {
    stops: PLACES + 1, points: run.source.points, painted: [],
    ask: (place) => {
      live.request.memory = String(Math.ceil(steps.at(place)));
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

/** Makes the displayed plan the one with which later plans are compared. */
function begin() {
  live.before = chosen.variant;
}

/** A limit that can be switched on. column: of the run; set: called with the amount as text, or null. */
function limitOf(column, title, set, { on = false, remove = null } = {}) {
  const steps = ladder(live.start.ranges[column]);
  const output = make("output", {}, "");
  const put = (place) => {
    output.value = amount(column, steps.at(place));
    set(String(Number(steps.at(place).toPrecision(6))));
  };
  const range = sliderFor(`limit-${column}`, put, { disabled: !on, "aria-labelledby": `title-${column}` });
  const box = make("input", { type: "checkbox", id: `bound-${column}`, checked: on });
  box.addEventListener("change", () => {
    begin();
    range.disabled = !box.checked;
    if (box.checked) range.value = String(steps.placeOf(Math.max(chosen.variant.totals[column], Number.MIN_VALUE)));
    if (box.checked) put(Number(range.value));
    else { set(null); output.value = ""; remove?.(); }
    settle();
  });
  range.addEventListener("pointerdown", begin);
  if (on) {
    range.value = String(steps.placeOf(Math.max(chosen.variant.totals[column], Number.MIN_VALUE)));
    put(Number(range.value));
  }
  return make("div", { class: "limit", "data-column": column },
    make("label", { for: `bound-${column}`, id: `title-${column}` }, box, ` ${title}`), range, output);
}

function labelled(text, control, ...rest) {
  return make("div", { class: "limit" }, make("label", { for: control.id }, text), control, ...rest);
}

/** Limits of losses, which are added from a list. */
function capsControls() {
  const box = make("div", { id: "caps" });
  const names = lossesOf(chosen.run).map((column) => column.name);
  const list = make("select", { id: "add-cap" }, make("option", { value: "" }, "choose \u2026"),
    ...names.map((name) => make("option", { value: name }, columnText(name))));
  list.addEventListener("change", () => {
    const name = list.value;
    list.value = "";
    if (!name || name in live.request.caps) return;
    begin();
    const put = (text) => { if (text === null) delete live.request.caps[name]; else live.request.caps[name] = text; };
    const row = limitOf(name, `${columnText(name)} at most`, put, { on: true, remove: () => row.remove() });
    box.append(row);
    settle();
  });
  return make("div", {}, box, labelled("Limit a loss", list));
}

/** The weights of quality and alignment; they are equal in the middle. */
function balanceControls() {
  const output = make("output", {}, "");
  const put = (place) => {
    const share = place / PLACES;
    const [quality, alignment] = [Math.min(1, 2 - 2 * share), Math.min(1, 2 * share)].map((w) => Number(w.toFixed(3)));
    live.request.objective = { "1,1": "both", "1,0": "quality", "0,1": "alignment" }[`${quality},${alignment}`]
      ?? `quality=${quality},alignment=${alignment}`;
    output.value = quality === alignment ? "alike" : `${digits(quality)} : ${digits(alignment)}`;
  };
  const range = sliderFor("balance", put, { step: 50, title: "from quality alone to alignment alone" });
  range.addEventListener("pointerdown", begin);
  range.value = String(PLACES / 2);
  put(PLACES / 2);
  return make("div", { class: "limit" }, make("label", { for: "balance" }, "Quality \u2194 alignment"), range, output);
}

/** Chooses upper bounds of losses instead of their means. */
function confidenceControls() {
  const list = make("select", { id: "confidence" }, make("option", { value: "" }, "their means"),
    ...[0.9, 0.95, 0.99].map((share) => make("option", { value: share }, `upper bounds of ${100 * share} %`)));
  list.addEventListener("change", () => {
    begin();
    live.request.confidence = list.value ? Number(list.value) : null;
    settle();
  });
  return make("div", { class: "limit" }, make("label", { for: "confidence" }, "Plan losses by"), list);
}
