"use strict";
// Where plans come from. A source has `stops`, how many places the slider has, from least to most of the run's column,
// and `at(stop)`, the plan there, or a promise of it. In a report all are known in advance; a server's are solved when
// they are asked for. `show` (main.js) takes a plan from any of them.

const PAGE = JSON.parse(document.getElementById("data").textContent);
let pictureAddresses = null;

/** Read when first asked for: the chart does not wait for them. */
function pictureAddress(place) {
  pictureAddresses ??= JSON.parse(document.getElementById("pictures-data").textContent);
  return typeof place === "number" ? pictureAddresses[place] : place;
}

/** A run with all that belongs to it: its cells, and their place by name. */
function runAt(index) {
  const run = PAGE.runs[index];
  run.layers ??= PAGE.cells[run.cells];
  run.source ??= listed(run);
  return run;
}

/** The plans of a run, known in advance. */
function listed(run) {
  const points = run.points.filter((point) => point.picks.length).sort((a, b) => a.totals[run.by] - b.totals[run.by]);
  return {
    stops: points.length,
    points,
    at: (stop) => points[stop],
    before: (stop) => points[stop - 1] ?? null,
    stopOf: (name) => points.findIndex((point) => point.name === name),
  };
}

/** Columns that are losses: families first, then metrics. */
function lossesOf(run) {
  return run.columns.filter((column) => column.unit === "");
}

/** The metrics of a family, and families themselves: those that stand above others. */
function familiesOf(run) {
  return run.columns.filter((column) => column.unit === "" && column.family === "").map((column) => column.name);
}

function metricsOf(run, family) {
  return run.columns.filter((column) => column.family === family).map((column) => column.name);
}

/** The loss that is drawn first: a measured metric of the heaviest family, or that family itself. */
function firstLoss(run) {
  const losses = lossesOf(run).map((column) => column.name).filter((name) => name !== run.by);
  const wanted = Object.entries(run.weights).sort((a, b) => b[1] - a[1]).map(([name]) => name);
  const goal = wanted.find((name) => losses.includes(name)) ?? losses[0];
  const measured = run.points.filter((point) => point.measured);
  const metrics = metricsOf(run, goal).filter((name) => losses.includes(name) && measured.some((p) => name in p.measured)
    && run.source.points.every((point) => point.totals[name] >= 0));
  return metrics.at(0) ?? goal;
}

/** Where a run is opened: at the smallest plan that loses no more than any uniform one does; else in the middle. */
function firstStop(run, column) {
  const least = Math.min(...run.uniform.map((one) => one.totals[column] ?? Infinity));
  const { points } = run.source;
  const found = lossesOf(run).some(({ name }) => name === run.by) ? -1 : points.findIndex((point) => point.totals[column] <= least);
  return found > 0 ? found : Math.floor(run.source.stops / 2);
}

/** Of the uniform plans that take no less memory, the smallest. */
function uniformBeside(run, variant) {
  const larger = run.uniform.filter((one) => one.totals.bytes >= variant.totals.bytes);
  return larger.sort((a, b) => a.totals.bytes - b.totals.bytes)[0] ?? null;
}
