"use strict";
// The trade-off, drawn by Plotly. Series differ in colour (Okabe and Ito) and in shape.

let ringEdge = 0; // position of a plan without loss

const INK = { predicted: "#0072b2", measured: "#b34700", uniform: "#555555", chosen: "#000000", grid: "#e3e3e3" };

const SIDES = [ // of a mark, for its label: anchors, and pixels from the mark
  { x: "left", y: "middle", across: 7, down: 0 }, { x: "right", y: "middle", across: -7, down: 0 },
  { x: "center", y: "bottom", across: 0, down: -6 }, { x: "center", y: "top", across: 0, down: 6 },
];

/** Starts Plotly after the rest of the page is visible, because it is the slowest part. */
function startPlotly() {
  document.head.append(make("script", {}, document.getElementById("plotly").textContent));
}

/** Escapes text for Plotly, which interprets tags in labels. */
function plain(text) {
  return String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}

/** The unit of the axis: MiB or GiB for bytes. */
function scaleOf(run) {
  if (run.by !== "bytes") return { unit: run.by === "ms" ? "ms" : "", one: 1 };
  const most = Math.max(...[...run.source.points, ...run.uniform].map((one) => one.totals.bytes));
  return most >= 2 ** 31 ? { unit: "GiB", one: 2 ** 30 } : { unit: "MiB", one: 2 ** 20 };
}

function pointsOf(run, variants, value, error) {
  const { one } = scaleOf(run);
  const valued = variants.filter((variant) => value(variant) !== undefined);
  return {
    x: valued.map((variant) => variant.totals[run.by] / one),
    y: valued.map(value),
    customdata: valued.map((variant) => variant.name),
    text: valued.map((variant) => `${plain(hoverText(run, variant))}: ${plain(spread(value(variant), error?.(variant)))}`),
    error: valued.map((variant) => error?.(variant) ?? 0),
  };
}

function hoverText(run, variant) {
  const costs = `${bytesText(variant.totals.bytes)}, ${besideFull(variant.totals.ms, run.full.totals.ms)}`;
  return variant.limit === null ? `uniform ${variant.name}: ${costs}` : costs;
}

function series(name, data, style) {
  const hovertemplate = `${name}: %{text}<extra></extra>`;
  const error = data.error.some((value) => value > 0)
    ? { error_y: { type: "data", array: data.error, thickness: 1.2, width: 3, color: style.marker.color } } : {};
  const { error: _, ...rest } = data;
  return { type: "scatter", name, hovertemplate, ...rest, ...error, ...style };
}

function tracesOf(run, column, chosen) {
  const points = run.source.points;
  const traces = [series("predicted", pointsOf(run, points, (p) => p.totals[column], (p) => p.errors[column]), {
    mode: "lines+markers", line: { color: INK.predicted, width: 2 }, marker: { color: INK.predicted, size: 5 },
  })];
  const measured = pointsOf(run, points, (p) => p.measured?.[column]?.[0], (p) => p.measured[column][1]);
  if (measured.x.length) {
    traces.push(series("measured", measured, {
      mode: "markers", marker: { color: INK.measured, size: 8, symbol: "diamond-open", line: { width: 1.6 } },
    }));
  }
  const uniform = uniformsShown(run);
  if (uniform.length) {
    traces.push(series("uniform", pointsOf(run, uniform, (p) => p.totals[column]), {
      mode: "markers", marker: { color: INK.uniform, size: 8, symbol: "x" },
    }));
  }
  traces.push({ type: "scatter", name: "chosen", ...placeOf(run, column, chosen), mode: "markers", hoverinfo: "skip",
    marker: { size: 17, color: "rgba(0,0,0,0)", line: { color: INK.chosen, width: 3 } } });
  return traces;
}

/** Uniform plans within the run's other budgets and near the range of its plans. */
function uniformsShown(run) {
  const all = run.source.points.map((point) => point.totals[run.by]);
  if (!all.length) return run.uniform;
  const [least, most] = [Math.min(...all), Math.max(...all)];
  return run.uniform.filter((one) => one.totals[run.by] >= least / 1.5 && one.totals[run.by] <= most * 1.5
    && Object.entries(run.budgets).every(([name, limit]) => one.totals[name] <= limit));
}

/** Whether to use a logarithmic axis; values of 0 are then drawn at its lower edge. */
function isLog(values) {
  const above = values.filter((value) => value > 0);
  return above.length > 1 && Math.min(...values) >= 0 && Math.max(...above) > 4 * Math.min(...above);
}

/** The position of 0 on a logarithmic axis for these values. */
function edgeOf(values) {
  return Math.min(...values.filter((value) => value > 0)) / 3;
}

function axis(title, values) {
  const common = { title: { text: plain(title), standoff: 8 }, gridcolor: INK.grid, zeroline: false, automargin: true, exponentformat: "power" };
  if (!isLog(values)) return { ...common, type: "linear" };
  const above = values.filter((value) => value > 0);
  const [least, most] = [Math.min(...above), Math.max(...above)];
  return { ...common, type: "log", ...(most > 60 * least ? { dtick: 1 } : { tickmode: "array", ...roundNumbers(least, most) }) };
}

/** The ticks 1, 2, 5, 10, ... for axes that are too short for powers of ten. */
function roundNumbers(least, most) {
  const powers = [];
  for (let power = Math.floor(Math.log10(least)); power <= Math.ceil(Math.log10(most)); power += 1) powers.push(10 ** power);
  const tickvals = powers.flatMap((power) => [1, 2, 3, 5, 7].map((one) => one * power));
  return { tickvals, ticktext: tickvals.map((value) => plain(digits(value))) };
}

function layoutOf(run, column, traces) {
  const drawn = traces.filter((trace) => trace.name !== "chosen");
  const [x, y] = ["x", "y"].map((name) => {
    const values = drawn.flatMap((trace) => trace[name]);
    if (!isLog(values)) return values;
    const raised = (value) => value || edgeOf(values);
    for (const trace of traces) trace[name] = trace[name].map(raised);
    return values.map(raised);
  });
  ringEdge = isLog(y) ? Math.min(...y) : 0;
  const { unit, one } = scaleOf(run);
  const name = capital(columnText(run.by)) + (unit ? ` (${unit})` : "");
  return {
    margin: { l: 60, r: 16, t: 8, b: 44 }, paper_bgcolor: "#ffffff", plot_bgcolor: "#ffffff", hovermode: "closest",
    font: { family: "system-ui, sans-serif", size: 13, color: "#1a1a1a" }, dragmode: false,
    xaxis: axis(`${name} \u2192 more`, x), yaxis: axis(`${columnText(column)}, lower is better`, y),
    legend: { orientation: "h", x: 0, y: 1.01, yanchor: "bottom" }, showlegend: true,
    annotations: [...labelsOf(run, column, x, y), fullMark(run, one)],
  };
}

/** Labels of the uniform plans, each on the first side of its mark where it covers no other label and no mark. */
function labelsOf(run, column, x, y) {
  const box = document.getElementById("chart");
  const [width, height] = [0.92 * (box.clientWidth - 100), 0.92 * (box.clientHeight - 95)]; // of the data, at least
  const along = (value, values) => {
    const place = isLog(values) ? Math.log10 : (one) => one;
    const [least, most] = [place(Math.min(...values)), place(Math.max(...values))];
    return { at: place(value), share: (place(value) - least) / (most - least || 1) };
  };
  const marks = uniformsShown(run).filter((one) => one.totals[column] !== undefined).map((one) => ({
    name: one.name, x: along(one.totals[run.by] / scaleOf(run).one, x), y: along(one.totals[column], y),
  })).map((mark) => ({ ...mark, across: mark.x.share * width, down: (1 - mark.y.share) * height }));
  const taken = marks.map(({ across, down }) => ({ left: across - 3, right: across + 3, top: down - 2, bottom: down + 2 }));
  return marks.flatMap((mark, own) => {
    const isFree = (area) => area.left >= 0 && area.right <= box.clientWidth - 90 && area.top >= -8
      && taken.every((other, i) => i === own || !overlap(area, other));
    const side = SIDES.find((one) => isFree(areaOf(mark, one)));
    if (!side) return []; // its name is in the text that appears over the mark, and in the table of all plans
    taken.push(areaOf(mark, side));
    return [{ x: mark.x.at, y: mark.y.at, text: plain(mark.name), showarrow: false, xanchor: side.x, yanchor: side.y,
      xshift: side.across, yshift: -side.down, font: { size: 11, color: INK.uniform } }];
  });
}

/** The area of a mark's label on a side of it, in pixels. */
function areaOf(mark, side) {
  const [wide, high] = [8 * mark.name.length, 13];
  const left = mark.across + side.across - wide * { left: 0, center: 0.5, right: 1 }[side.x];
  const top = mark.down + side.down - high * { top: 0, middle: 0.5, bottom: 1 }[side.y];
  return { left, right: left + wide, top, bottom: top + high };
}

function overlap(a, b) {
  return a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
}

/** The mark of full precision, whose loss of 0 is drawn at the edge of a logarithmic axis. */
function fullMark(run, one) {
  const right = run.full.totals[run.by] > 0;
  const where = amount(run.by, run.full.totals[run.by]);
  const text = right ? `full precision: ${where}, no loss \u25b6` : "\u25c0 full precision: no loss";
  return { xref: "paper", yref: "paper", x: right ? 1 : 0, y: 0, xanchor: right ? "right" : "left", yanchor: "bottom",
    text: plain(text), showarrow: false, font: { size: 12, color: INK.chosen }, bgcolor: "rgba(255,255,255,.85)" };
}

function placeOf(run, column, variant) {
  return variant ? { x: [variant.totals[run.by] / scaleOf(run).one], y: [variant.totals[column]] } : { x: [], y: [] };
}

/** Draws the run's plans by one loss. choose: called with the name of a clicked plan; chosen: the displayed plan. */
function drawChart(run, column, choose, chosen = null) {
  const left = run.uniform.length - uniformsShown(run).length;
  fill("chart-note", left ? `${counted(left, "uniform plan")} lie${left === 1 ? "s" : ""} outside of this chart, or of the other budgets.` : "");
  if (!window.Plotly) return;
  const traces = tracesOf(run, column, chosen);
  const chart = document.getElementById("chart");
  Plotly.react(chart, traces, layoutOf(run, column, traces), { displayModeBar: false, responsive: false });
  chart.removeAllListeners("plotly_click");
  chart.on("plotly_click", (event) => choose(event.points[0].customdata));
}

/** Fits the chart to its box, whose height depends on the pictures beside it. */
function keepChartFitting() {
  const chart = document.getElementById("chart");
  const size = () => `${chart.clientWidth} ${chart.clientHeight}`;
  let drawn = size();
  new ResizeObserver(() => {
    if (size() === drawn) return;
    drawn = size();
    Plotly.Plots.resize(chart);
  }).observe(chart);
}

/** Sets the size for printing, and resets it afterwards. */
function sizeChart(size = { width: undefined, height: undefined }) {
  if (window.Plotly) Plotly.relayout("chart", { ...size, autosize: size.width === undefined });
}

/** A ring around the displayed plan. */
function markChart(run, column, variant) {
  const chart = document.getElementById("chart");
  if (!window.Plotly) return;
  const { x, y } = placeOf(run, column, variant);
  const up = y.map((value) => value || ringEdge);
  if (!moveRing(chart, x[0], up[0])) Plotly.restyle(chart, { x: [x], y: [up] }, [chart.data.length - 1]);
}

/** Moves only the ring, because drawing the whole chart is slow. Returns false if the ring would leave the chart. */
function moveRing(chart, x, y) {
  const { xaxis, yaxis } = chart._fullLayout ?? {};
  const rings = chart.querySelectorAll(".scatterlayer > .trace:last-child .point");
  const last = chart.data.length - 1;
  const known = chart.calcdata?.[last]?.[0];
  if (!xaxis?.d2p || rings.length !== 1 || !known || x === undefined || y === undefined) return false;
  const [across, down] = [xaxis.d2p(x), yaxis.d2p(y)];
  if (!(across >= 0 && across <= xaxis._length && down >= 0 && down <= yaxis._length)) return false;
  Object.assign(known, { x: xaxis.d2c(x), y: yaxis.d2c(y) }); // for the next complete drawing
  Object.assign(chart.data[last], { x: [x], y: [y] });
  rings[0].setAttribute("transform", `translate(${across},${down})`);
  return true;
}
