"use strict";
// Formats numbers, and builds elements from text; nothing here parses HTML.

const MINUS = "\u2212";

/** Makes an element. properties: attributes, or `on...` handlers; children: elements or texts. */
function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

function fill(id, ...children) {
  document.getElementById(id).replaceChildren(...children);
}

/** `2.31 MiB`. */
function bytesText(count) {
  const size = Math.abs(count);
  for (const [unit, one] of [["GiB", 2 ** 30], ["MiB", 2 ** 20], ["KiB", 2 ** 10]]) {
    if (size >= one) return `${digits(count / one)} ${unit}`;
  }
  return `${Math.round(count).toString().replace("-", MINUS)} B`;
}

/** Three digits: `0.0123`, `12.3`, `1,230`, `2.1e-6`. */
function digits(value, count = 3) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  let text;
  if (size < 1e-4 || size >= 1e6) text = value.toExponential(count - 1).replace("e+", "e");
  else text = Number(value.toPrecision(count)).toLocaleString("en", { maximumSignificantDigits: count });
  return text.replaceAll("-", MINUS).replace(`e${MINUS}`, "e-");
}

/** `0.0161 ± 0.0031`, the error to two digits. pair: mean and standard error, or the mean alone. */
function spread(mean, error) {
  if (error === null || error === undefined) return digits(mean);
  if (error === 0) return digits(mean);
  return `${digits(mean)} ± ${digits(error, 2)}`;
}

/** A number of a column, with its unit. */
function amount(column, value) {
  if (column === "bytes") return bytesText(value);
  return column === "ms" ? `${digits(value)} ms` : digits(value);
}

/** A time beside full precision's: `6,740 ms (full precision 991 ms, 6.8x)`. */
function besideFull(ms, full) {
  return full ? `${amount("ms", ms)} (full precision ${amount("ms", full)}, ${digits(ms / full, 2)}x)` : amount("ms", ms);
}

/** With a sign: `+0.25 MiB`. */
function change(column, value) {
  if (value === 0) return "0";
  return value > 0 ? `+${amount(column, value)}` : amount(column, value);
}

function percent(part, whole) {
  return `${digits(whole ? (100 * part) / whole : 0)} %`;
}

/** `7 layers`, `1 layer`. */
function counted(count, noun) {
  return `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;
}

function columnText(column) {
  return { bytes: "memory", ms: "time" }[column] ?? (["quality", "alignment"].includes(column) ? `${column} loss` : column);
}

/** The previous plan: the next smaller one in a report, the last displayed one with a server. */
function lowerText(column) {
  if (PAGE.live) return "the plan before";
  return { bytes: "the next smaller plan", ms: "the next faster plan" }[column] ?? `the plan of the next lower ${columnText(column)}`;
}

function capital(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

/** A value of the data as text: `by bytes, points 14`. Settings without a value are left out. */
function factText(value) {
  if (value === null || value === undefined) return "";
  if (typeof value !== "object") return String(value);
  const parts = Array.isArray(value) ? value.map(factText)
    : Object.entries(value).map(([name, one]) => [name, factText(one)]).filter(([, text]) => text)
      .map(([name, text]) => `${name.replaceAll("_", " ")} ${text}`);
  return parts.join(", ");
}

/** A table. head: names; rows: arrays of texts or elements, the first one the row's own name. */
function table(caption, head, rows, marked = () => null) {
  const line = (cells, index) => make("tr", { class: marked(index) }, ...cells.map((cell, place) =>
    place === 0 ? make("th", { scope: "row" }, cell) : make("td", {}, cell)));
  return make("table", {}, make("caption", { class: "unseen" }, caption),
    make("thead", {}, make("tr", {}, ...head.map((name) => make("th", { scope: "col" }, name)))),
    make("tbody", {}, ...rows.map(line)));
}
