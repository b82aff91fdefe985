"use strict";
// The chosen plan in numbers: costs beside full precision, and each family's losses, predicted and measured.

function showNumbers(run, variant) {
  fill("costs", costTile("Memory", "bytes", run, variant), costTile("Time of all layers", "ms", run, variant),
    bitsTile(run, variant));
  fill("losses", ...familiesOf(run).filter((name) => metricsOf(run, name).length).map((name) => lossTile(run, name, variant)),
    ...ownTile(run, variant));
  fill("verdict", ...verdict(run, variant));
}

function costTile(title, column, run, variant) {
  const [value, whole] = [variant.totals[column], run.full.totals[column]];
  return make("div", { class: "tile", "data-column": column }, make("h3", {}, title),
    make("p", { class: "big" }, amount(column, value)),
    make("p", {}, `${percent(value, whole)} of full precision`));
}

function bitsTile(run, variant) {
  return make("div", { class: "tile", "data-column": "bits" }, make("h3", {}, "Bits a weight"),
    make("p", { class: "big" }, digits(meanBits(run, variant.picks))),
    make("p", {}, "in the mean"));
}

/** Bits of the weights' codes, in the mean over all weights of the layers that `keep` takes. */
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

function lossTile(run, family, variant) {
  const measured = metricsOf(run, family).some((name) => variant.measured?.[name]);
  const rows = metricsOf(run, family).map((name) => {
    const found = variant.measured?.[name];
    const row = [name, spread(variant.totals[name], variant.errors[name])];
    return measured ? [...row, found ? spread(...found) : ""] : row;
  });
  const head = ["", "predicted", ...(measured ? ["measured"] : [])];
  return make("div", { class: "tile losses", "data-column": family },
    make("h3", {}, `${capital(family)} loss`), table(`${family} loss`, head, rows));
}

/** Metrics of no family of the planner's own. */
function ownTile(run, variant) {
  const families = familiesOf(run);
  const own = run.columns.filter((column) => column.unit === "" && column.family !== "" && !families.includes(column.family));
  return [...new Set(own.map((column) => column.family))].map((family) => lossTile(run, family, variant));
}

/** In a sentence: against a uniform plan, and how sure it is that there is no better one. */
function verdict(run, variant) {
  const beside = variant.status === "uniform" ? null : uniformBeside(run, variant);
  const parts = [];
  if (beside) {
    const times = familiesOf(run).filter((name) => variant.totals[name] > 0 && beside.totals[name] > 0)
      .map((name) => `${digits(beside.totals[name] / variant.totals[name], 2)} times the ${name} loss`);
    if (times.length) {
      parts.push(make("strong", {}, `Uniform ${beside.name}, at ${bytesText(beside.totals.bytes)}, has ${times.join(" and ")}. `));
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

/** All plans of the run, for those who do not see the chart, and for print. */
function showPlans(run) {
  const losses = lossesOf(run).map((column) => column.name);
  const row = (variant) => [
    variant.limit === null ? variant.name : amount(run.by, variant.limit), variant.status, bytesText(variant.totals.bytes),
    amount("ms", variant.totals.ms), ...losses.map((name) => lossText(variant, name)),
  ];
  const all = [run.full, ...run.uniform, ...[...run.source.points].reverse()];
  fill("plans-table", table("All plans", [`${columnText(run.by)} at most`, "status", "memory", "time",
    ...losses.map((name) => `${name}`)], all.map(row)));
}

function lossText(variant, name) {
  const predicted = variant.totals[name] === undefined ? "" : spread(variant.totals[name], variant.errors[name]);
  const measured = variant.measured?.[name];
  return measured ? `${predicted}; measured ${spread(...measured)}` : predicted;
}
