"use strict";
// A map of the layers, coloured by the bits of their weights.

const mapped = { run: null, cells: [], rows: [], current: 0, width: 0 };

/** Draws all cells; `colourMap` then fills them. */
function drawMap(run, width = document.getElementById("map-scroll").clientWidth) {
  const box = document.getElementById("map");
  const boxes = boxesOf(run.layers);
  const { size, across } = fitted(boxes, width);
  Object.assign(mapped, { run, cells: new Array(run.layers.length), rows: [], width,
    current: Math.min(mapped.current, run.layers.length - 1) });
  box.style.setProperty("--cell", `${size}px`);
  box.style.gridTemplateColumns = `${HEAD}px repeat(${boxes.blocks.length}, max-content)`;
  box.classList.toggle("small", size < TEXT_FROM);
  box.setAttribute("role", "grid");
  box.setAttribute("aria-label", "Layers by role and place in the network");
  box.setAttribute("aria-describedby", "map-help");
  box.replaceChildren(blockHeads(boxes.blocks, across, size), ...boxes.roles.map((role) => rowOf(run, boxes, role, across)));
  mapped.cells[mapped.current].tabIndex = 0;
}

function blockHeads(blocks, across, size) {
  const names = shortNames(blocks);
  return make("div", { class: "row heads", role: "row" }, make("span", { class: "corner", role: "columnheader" }, ""),
    ...names.map((name, i) => {
      const head = make("span", { class: "block", role: "columnheader", title: blocks[i] }, name);
      head.classList.toggle("upright", across[i] * size < 8 * name.length);
      return head;
    }));
}

function rowOf(run, { blocks, boxes }, role, across) {
  const places = [];
  const filled = blocks.map((block, i) => {
    const box = make("div", { class: "box", role: "presentation" });
    box.style.gridTemplateColumns = `repeat(${across[i]}, var(--cell))`;
    for (const place of boxes.get(role).get(block)) {
      places.push(place);
      mapped.cells[place] = make("div", { class: "cell", role: "gridcell", tabindex: "-1", "data-place": place });
      box.append(mapped.cells[place]);
    }
    return box;
  });
  mapped.rows.push(places);
  const name = make("span", { class: "role", role: "rowheader", title: PAGE.roles[role] ?? "" }, role || "layers");
  return make("div", { class: "row", role: "row" }, name, ...filled);
}

/** Fills the cells with the bits of the plan. against: outline differences from this plan; or null. */
function colourMap(variant, against) {
  mapped.cells.forEach((cell, place) => {
    const option = mapped.run.layers[place].options[variant.picks[place]];
    const changed = against !== null && against.picks[place] !== variant.picks[place];
    const [paper, ink] = PAGE.palette[option.bits];
    if (cell.dataset.scheme !== option.scheme) {
      cell.dataset.scheme = option.scheme;
      cell.style.backgroundColor = paper;
      cell.style.color = ink;
      cell.textContent = option.bits;
      cell.setAttribute("aria-label", `${mapped.run.layers[place].layer}: ${option.scheme}`);
    }
    cell.classList.toggle("changed", changed);
    cell.classList.toggle("simulated", !option.real);
  });
}

function showLegend(run) {
  const bits = [...new Set(run.layers.flatMap((cell) => cell.options.map((option) => option.bits)))].sort((a, b) => a - b);
  const swatch = (bit) => {
    const swatch = make("span", { class: "swatch" }, String(bit));
    [swatch.style.backgroundColor, swatch.style.color] = PAGE.palette[bit];
    return swatch;
  };
  fill("legend", make("span", {}, "bits of a weight: "), ...bits.map(swatch),
    make("span", { class: "key" }, make("span", { class: "swatch changed" }, ""), ` changed from ${lowerText(run.by)}`));
}

/** The cell that the Tab key focuses. */
function moveTo(place, focus = true) {
  mapped.cells[mapped.current].tabIndex = -1;
  mapped.current = place;
  mapped.cells[place].tabIndex = 0;
  if (focus) mapped.cells[place].focus();
}

/** Left and right move within a role, up and down to the nearest cell of the next role, Home and End to its ends. */
function placeBy(key, from) {
  const row = mapped.rows.findIndex((places) => places.includes(from));
  const at = mapped.rows[row].indexOf(from);
  const step = { ArrowLeft: -1, ArrowRight: 1 }[key];
  if (step) return mapped.rows[row][at + step] ?? from;
  if (key === "Home") return mapped.rows[row][0];
  if (key === "End") return mapped.rows[row].at(-1);
  const other = mapped.rows[row + { ArrowUp: -1, ArrowDown: 1 }[key]];
  if (!other) return from;
  const across = (place) => mapped.cells[place].getBoundingClientRect().left;
  const column = across(from);
  const nearest = key === "ArrowUp" ? [...other].reverse() : other;
  return nearest.reduce((best, place) => (Math.abs(across(place) - column) < Math.abs(across(best) - column) ? place : best));
}

/** Adds the handlers. look: selects a layer, or none for null; pin: keeps it selected. */
function listenToMap({ look, pin, unpin }) {
  const box = document.getElementById("map");
  const placeOf = (event) => event.target.closest?.(".cell")?.dataset.place;
  const on = (name, act) => box.addEventListener(name, (event) => {
    const place = placeOf(event);
    if (place !== undefined) act(Number(place), event);
  });
  on("mouseover", look);
  on("focusin", (place) => { moveTo(place, false); look(place); });
  on("click", (place) => { moveTo(place); pin(place); });
  on("keydown", (place, event) => {
    if (event.key === "Enter" || event.key === " ") pin(place);
    else if (/^(Arrow(Left|Right|Up|Down)|Home|End)$/.test(event.key)) moveTo(placeBy(event.key, place));
    else return;
    event.preventDefault();
  });
  box.addEventListener("mouseleave", () => look(null));
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") unpin(); });
}
