"use strict";
// The plan in numbers: costs beside full precision, and losses by family, predicted and measured.

function showNumbers(run, variant) {
  fill("costs", costTile("Memory of the planned layers", "bytes", run, variant), costTile("Time of the planned layers", "ms", run, variant),
    bitsTile(run, variant));
  fill("losses", lossTable(run, variant));
  fill("verdict", ...verdict(run, variant));
}

function costTile(title, column, run, variant) {
  const [value, whole] = [variant.totals[column], run.full.totals[column]];
  return make("div", { class: "tile", "data-column": column }, make("h3", {}, title),
    make("p", { class: "big" }, amount(column, value)),
    make("p", {}, `${percent(value, whole)} of full precision's ${amount(column, whole)}`));
}

function bitsTile(run, variant) {
  return make("div", { class: "tile", "data-column": "bits" }, make("h3", {}, "Bits a weight"),
    make("p", { class: "big" }, digits(meanBits(run, variant.picks))),
    make("p", {}, "on average"));
}

/** The mean bits of weight codes, over all weights of the layers for which `keep` is true. */
function meanBits(run, picks, keep = () => true) {
  let [bits, weights] = [0, 0];
  run.layers.forEach((cell, place) => {
    if (!keep(cell)) return;
    const count = cell.weight.reduce((a, b) => a * b, 1);
    bits += count * cell.options[picks[place]].bits;
    weights += count;
  });
  return weights ? bits / weights : 0;
}

/** The metrics by family: predicted and, if available, measured. */
function lossTable(run, variant) {
  const metrics = run.columns.filter((column) => column.family !== "").sort((a, b) => familyPlace(run, a) - familyPlace(run, b));
  const rows = metrics.map(({ name, family }) => {
    const measured = variant.measured?.[name];
    const row = [make("span", {}, make("span", { class: "family" }, `${family} loss `), name),
      spread(variant.totals[name], variant.errors[name])];
    return variant.measured ? [...row, measured ? spread(...measured) : ""] : row;
  });
  return table("Losses of the plan", ["", "predicted", ...(variant.measured ? ["measured"] : [])], rows);
}

function familyPlace(run, column) {
  const place = familiesOf(run).indexOf(column.family);
  return place < 0 ? run.columns.length : place;
}

/** A sentence that compares the plan with a uniform one and states its optimality gap. */
function verdict(run, variant) {
  const beside = variant.status === "uniform" ? null : uniformBeside(run, variant);
  const parts = [];
  if (beside) {
    const times = familiesOf(run).filter((name) => variant.totals[name] > 0 && beside.totals[name] > 0)
      .map((name) => `${digits(beside.totals[name] / variant.totals[name], 2)} times the ${name}`);
    if (times.length) {
      parts.push(make("strong", {}, `Uniform ${beside.name}, at ${bytesText(beside.totals.bytes)}, is predicted to lose ${times.join(" and ")}. `));
    }
  }
  parts.push(make("span", { class: "status" }, statusText(variant)));
  return parts;
}

function statusText(variant) {
  if (variant.status === "optimal") return "Proven: no better plan within this limit.";
  if (variant.gap !== null && variant.gap !== undefined) {
    return `Within ${digits(100 * variant.gap, 2)} % of the best possible within this limit.`;
  }
  return `${capital(variant.status)}.`;
}

/** A table of all plans of the run, for screen readers and print. */
function showPlans(run) {
  const losses = lossesOf(run).map((column) => column.name);
  const row = (variant) => [
    variant.limit === null ? variant.name : amount(run.by, variant.limit), variant.status, bytesText(variant.totals.bytes),
    besideFull(variant.totals.ms, run.full.totals.ms), ...losses.map((name) => lossText(variant, name)),
  ];
  const all = [run.full, ...run.uniform, ...[...run.source.points].reverse()];
  fill("plans-table", table("All plans", [`${columnText(run.by)} at most`, "status", "memory", "time",
    ...losses.map((name) => `${name}`)], all.map(row)));
}

function lossText(variant, name) {
  const predicted = variant.totals[name] === undefined ? "" : spread(variant.totals[name], variant.errors[name]);
  const measured = variant.measured?.[name];
  if (!measured) return predicted;
  return make("span", {}, predicted, " ", make("span", { class: "error" }, `measured ${spread(...measured)}`));
}
