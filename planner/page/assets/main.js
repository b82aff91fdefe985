"use strict";
// The page: its state, and `show`, which draws a plan from any source.

const chosen = { run: null, stop: 0, variant: null, against: null, column: "", looked: null, pinned: null,
  passing: false }; // passing: another plan follows soon
const PAPER = { map: 500, chart: { width: 470, height: 420 } }; // px: sizes for A4 and Letter in landscape
const slider = document.getElementById("slider");

/** Shows a plan. against: the plan with which it is compared layer by layer, or null. */
function show(variant, against = null) {
  const { run } = chosen;
  Object.assign(chosen, { variant, against });
  slider.setAttribute("aria-valuetext", valueText(run, variant));
  fill("slider-label", `Choose by ${columnText(run.by)}: `, make("strong", {}, amount(run.by, variant.totals[run.by])));
  showNumbers(run, variant);
  markChart(run, chosen.column, variant);
  colourMap(variant, against);
  if (!chosen.passing) showChanges(run, variant, against, pinLayer);
  showPictures(run, variant);
  again();
}

function valueText(run, variant) {
  const share = `${percent(variant.totals.bytes, run.full.totals.bytes)} of full precision`;
  if (run.by === "bytes") return `${bytesText(variant.totals.bytes)}, ${share}`;
  return `${columnText(run.by)} ${amount(run.by, variant.totals[run.by])}; ${bytesText(variant.totals.bytes)}, ${share}`;
}

/** Shows the pinned or selected layer in the displayed plan. */
function again() {
  const place = chosen.pinned ?? chosen.looked;
  showLayer(chosen.run, chosen.variant, place, chosen.pinned !== null);
}

function pinLayer(place) {
  chosen.pinned = place;
  moveTo(place, false);
  again();
}

/** Shows the plan at a position of the slider. */
async function goTo(stop) {
  chosen.stop = stop;
  slider.value = String(stop);
  const { source } = chosen.run;
  if (source.ask) { source.ask(stop); return; } // the answer is displayed when it arrives
  const variant = await source.at(stop);
  if (chosen.stop === stop) show(variant ?? chosen.run.full, source.before(stop));
}

function chooseRun(index) {
  const run = runAt(index);
  chosen.run = run;
  Object.assign(chosen, { column: firstLoss(run), looked: null, pinned: null });
  const losses = lossesOf(run).filter((column) => column.name !== run.by);
  fill("column", ...losses.map((column) => make("option", { value: column.name, selected: column.name === chosen.column },
    column.family ? `${column.name} (${column.family})` : columnText(column.name))));
  setSlider(run);
  drawChart(run, chosen.column, choosePlan);
  drawMap(run);
  showLegend(run);
  showPlans(run);
  showAbout(run);
  document.getElementById("run-name")?.replaceChildren(run.label);
  goTo(firstStop(run, chosen.column));
}

function setSlider(run) {
  const { points } = run.source;
  slider.max = String(Math.max(run.source.stops - 1, 0));
  slider.disabled = run.source.stops === 0;
  fill("least", points.length ? `least: ${amount(run.by, points[0].totals[run.by])}` : "no plan");
  fill("most", points.length ? `most: ${amount(run.by, points.at(-1).totals[run.by])}` : "");
}

function choosePlan(name) {
  const stop = chosen.run.source.stopOf(name);
  if (stop >= 0) goTo(stop);
}

function showAbout(run) {
  const missed = run.points.filter((point) => !point.picks.length).length;
  const least = run.smallest === null ? "" : `; the smallest reachable is ${amount(run.by, run.smallest)}`;
  fill("told", missed ? `${counted(missed, "limit")} had no plan${least}.` : "");
  const meanings = Object.entries(PAGE.meanings).filter(([name]) => run.columns.some((column) => column.name === name));
  fill("words", ...meanings.flatMap(([name, text]) => [make("strong", {}, name), `: ${text}. `]));
  fill("about", ...Object.entries({ ...run.model, ...run.about }).filter(([, value]) => factText(value))
    .flatMap(([name, value]) => [make("strong", {}, name), `: ${factText(value)}. `]));
}

function start() {
  slider.addEventListener("input", () => goTo(Number(slider.value)));
  document.getElementById("column").addEventListener("change", (event) => {
    chosen.column = event.target.value;
    drawChart(chosen.run, chosen.column, choosePlan, chosen.variant);
  });
  document.getElementById("runs")?.addEventListener("change", (event) => chooseRun(Number(event.target.value)));
  document.getElementById("views").addEventListener("change", (event) =>
    lookBy(event.target.value, () => showPictures(chosen.run, chosen.variant)));
  listenToMap({
    look: (place) => { chosen.looked = place; if (chosen.pinned === null) again(); },
    pin: pinLayer,
    unpin: () => { chosen.pinned = null; again(); },
  });
  window.addEventListener("resize", () => redraw());
  window.addEventListener("beforeprint", () => { redraw(PAPER.map); sizeChart(PAPER.chart); });
  window.addEventListener("afterprint", () => { redraw(); sizeChart(); });
  chooseRun(0);
  afterFrame(() => {
    performance.mark("read");
    startPlotly();
    drawChart(chosen.run, chosen.column, choosePlan, chosen.variant);
    keepChartFitting();
    afterFrame(() => performance.mark("shown"));
  });
}

function afterFrame(act) {
  requestAnimationFrame(() => setTimeout(act));
}

/** Draws the map again if its width has changed. */
function redraw(width = document.getElementById("map-scroll").clientWidth) {
  if (width === mapped.width) return;
  drawMap(chosen.run, width);
  colourMap(chosen.variant, chosen.against);
  again();
}

start();
