"use strict";
// Constraints on layers: layers fixed at a scheme, and roles kept in full precision.

/** Fixes a layer at a scheme. layer: its name; scheme: null to release it. */
function fixLayer(layer, scheme) {
  begin();
  if (scheme === null) delete live.request.pins[layer];
  else live.request.pins[layer] = scheme;
  showFixed();
  settle();
}

function rolesControls() {
  const counts = new Map();
  for (const cell of chosen.run.layers) counts.set(cell.role, (counts.get(cell.role) ?? 0) + 1);
  const roles = Object.keys(PAGE.roles).filter((role) => counts.has(role));
  const boxes = roles.map((role) => {
    const box = make("input", { type: "checkbox", value: role, name: "kept" });
    box.addEventListener("change", () => fixLayer(`role:${role}`, box.checked ? "keep" : null));
    return make("label", { title: PAGE.roles[role] }, box, ` ${role} (${counts.get(role)})`);
  });
  return make("fieldset", { id: "kept", class: "radios", hidden: roles.length === 0 }, make("legend", {}, "Keep in full precision:"), ...boxes);
}

function fixedControls() {
  return make("div", {}, make("h3", {}, "Fixed layers"), make("ul", { id: "fixed" }));
}

function showFixed() {
  const layers = Object.entries(live.request.pins).filter(([name]) => !name.startsWith("role:"));
  const line = ([name, scheme]) => make("li", {},
    make("button", { type: "button", class: "link", onclick: () => pinLayer(placeNamed(name)) }, name), ` = ${scheme} `,
    make("button", { type: "button", class: "free", "aria-label": `Let go of ${name}`, onclick: () => fixLayer(name, null) }, "\u2715"));
  fill("fixed", ...(layers.length ? layers.map(line) : [make("li", { class: "note" },
    "none; click a cell of the map, then one of its schemes")]));
  markFixed();
}

function placeNamed(layer) {
  return chosen.run.layers.findIndex((cell) => cell.layer === layer);
}

/** Marks the cells of fixed layers and of roles in full precision on the map. */
function markFixed() {
  mapped.cells.forEach((cell, place) => {
    const { layer, role } = chosen.run.layers[place];
    cell.classList.toggle("fixed", layer in live.request.pins || `role:${role}` in live.request.pins);
  });
}
