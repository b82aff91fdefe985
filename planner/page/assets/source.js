"use strict";
// Sources of plans. A source has `stops`, the number of slider positions from least to most of the run's column, and
// `at(stop)`, the plan at a position or a promise of it. Reports contain all plans; a server solves them on request.

const PAGE = JSON.parse(document.getElementById("data").textContent);
let pictureAddresses = null;

/** Reads the layers on first use, so that the chart need not wait. */
function pictureAddress(place) {
  pictureAddresses ??= JSON.parse(document.getElementById("pictures-data").textContent);
  return typeof place === "number" ? pictureAddresses[place] : place;
}

/** A run with its source, its cells and their indices by name. */
function runAt(index) {
  const run = PAGE.runs[index];
  run.layers ??= PAGE.cells[run.cells];
  run.source ??= listed(run);
  return run;
}

/** The source of plans that are stored in the page. */
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

/** The columns of losses: families first, then metrics. */
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

/** The loss to draw first: a measured metric of the family with the largest weight, or the family itself. */
function firstLoss(run) {
  const losses = lossesOf(run).map((column) => column.name).filter((name) => name !== run.by);
  const families = Object.entries(run.weights).sort((a, b) => b[1] - a[1]).map(([name]) => name);
  const goal = families.find((name) => losses.includes(name)) ?? losses[0];
  const measured = run.points.filter((point) => point.measured);
  const metrics = metricsOf(run, goal).filter((name) => losses.includes(name) && measured.some((p) => name in p.measured)
    && run.source.points.every((point) => point.totals[name] >= 0));
  return metrics.at(0) ?? goal;
}

/** The first position: the smallest plan whose loss does not exceed that of any uniform plan; else the middle. */
function firstStop(run, column) {
  const least = Math.min(...run.uniform.map((one) => one.totals[column] ?? Infinity));
  const { points } = run.source;
  const best = lossesOf(run).some(({ name }) => name === run.by) ? -1 : points.findIndex((point) => point.totals[column] <= least);
  return best > 0 ? best : Math.floor(run.source.stops / 2);
}

/** The smallest uniform plan with at least as much memory. */
function uniformBeside(run, variant) {
  const larger = run.uniform.filter((one) => one.totals.bytes >= variant.totals.bytes);
  return larger.sort((a, b) => a.totals.bytes - b.totals.bytes)[0] ?? null;
}
