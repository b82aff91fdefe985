"use strict";
// Pictures of the plan and of full precision: side by side, alternating, or their difference.

const AMPLIFIED = 8, TURN = 600; // times; milliseconds
const CALM = window.matchMedia("(prefers-reduced-motion: reduce)");
const looking = { way: "pair", turning: false, full: false, timer: null, large: null };

/** The variant whose pictures are displayed: the plan itself, or the nearest one with pictures. */
function paintedNear(run, variant) {
  if (variant.pictures.length) return variant;
  const painted = (run.source.painted ?? run.source.points).filter((point) => point.pictures.length);
  const away = (point) => Math.abs(point.totals[run.by] - variant.totals[run.by]);
  return painted.sort((a, b) => away(a) - away(b))[0] ?? null;
}

function showPictures(run, variant) {
  const painted = paintedNear(run, variant);
  document.getElementById("pictures-part").hidden = painted === null || !run.full.pictures.length;
  if (painted === null || !run.full.pictures.length) return;
  fill("pictures-note", ...pictureNotes(run, variant, painted));
  const figures = run.full.pictures.map((place, index) =>
    figure(index, run.conditions[index] ?? `picture ${index + 1}`, place, painted.pictures[index]));
  fill("pictures", ...figures.filter((one) => one !== null));
  document.getElementById("pictures").dataset.way = looking.way;
  showTurn();
}

function pictureNotes(run, variant, painted) {
  const notes = [];
  if (painted !== variant) {
    notes.push(make("strong", {}, `This plan was not painted: these are of the nearest one that was, ${amount(run.by, painted.totals[run.by])}. `));
  }
  if (looking.way === "difference") notes.push(`Absolute difference of colours, ${AMPLIFIED} times amplified: black is the same. `);
  if (looking.way === "flicker") notes.push(flickerButton());
  if (PAGE.fit) notes.push(`Pictures are made smaller for this page (${PAGE.fit}).`);
  return notes;
}

function flickerButton() {
  const label = () => (looking.turning ? "Pause" : "Play");
  const button = make("button", { type: "button", id: "flicker", onclick: () => {
    turn(!looking.turning);
    button.textContent = label();
  } }, label());
  const other = make("button", { type: "button", id: "swap", onclick: () => { looking.full = !looking.full; showTurn(); } }, "Swap");
  return make("span", {}, button, " ", other, " now: ", make("strong", { id: "turn-now" }, ""));
}

/** One condition: a button that enlarges it. */
function figure(index, text, fullPlace, place) {
  if (place === undefined) return null;
  const image = (kind, at) => make("img", { src: pictureAddress(at), class: kind, alt: kind === "full"
    ? `full precision: ${text}` : `this plan: ${text}`, draggable: "false", onload: pixels });
  const frame = (kind, tag, ...images) => make("span", { class: `frame ${kind}` }, ...images, make("span", { class: "tag" }, tag));
  const frames = looking.way === "pair"
    ? [frame("one", "full", image("full", fullPlace)), frame("one", "plan", image("plan", place))]
    : [frame(looking.way, "", image("full", fullPlace), image("plan", place))];
  const large = looking.large === index;
  const button = make("button", { type: "button", class: "enlarge", "aria-expanded": String(large),
    onclick: () => enlarge(index), title: text }, make("span", { class: "frames" }, ...frames));
  return make("figure", { class: large ? "large" : "" }, button, make("figcaption", {}, text));
}

/** Small pictures are enlarged without interpolation. */
function pixels(event) {
  event.target.classList.toggle("pixels", event.target.naturalWidth < 200);
}

function enlarge(index) {
  looking.large = looking.large === index ? null : index;
  document.querySelectorAll("#pictures figure").forEach((one, place) => {
    one.classList.toggle("large", place === looking.large);
    one.querySelector("button").setAttribute("aria-expanded", String(place === looking.large));
  });
}

/** Handles the radio buttons. again: shows the pictures again. */
function lookBy(way, again) {
  looking.way = way;
  turn(way === "flicker" && !CALM.matches);
  again();
}

/** Starts or stops alternating. */
function turn(on) {
  looking.turning = on;
  clearInterval(looking.timer);
  looking.timer = on ? setInterval(() => { looking.full = !looking.full; showTurn(); }, TURN) : null;
}

function showTurn() {
  const box = document.getElementById("pictures");
  box.classList.toggle("full-now", looking.full);
  if (looking.way !== "flicker") return;
  const now = looking.full ? "full precision" : "this plan";
  box.querySelectorAll(".frame.flicker .tag").forEach((tag) => { tag.textContent = looking.full ? "full" : "plan"; });
  document.getElementById("turn-now").textContent = now;
}

CALM.addEventListener("change", () => { if (CALM.matches) turn(false); });
