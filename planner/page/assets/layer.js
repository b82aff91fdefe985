"use strict";
// One layer with the costs and losses of its schemes; or all layers by role if none is selected.

function showLayer(run, variant, place, pinned) {
  for (const cell of document.querySelectorAll("#map .pinned")) cell.classList.remove("pinned");
  if (pinned) mapped.cells[place].classList.add("pinned");
  document.getElementById("layer").classList.toggle("pinned", pinned);
  fill("layer", ...(place === null ? summary(run, variant) : details(run, variant, place, pinned)));
}

function details(run, variant, place, pinned) {
  const cell = run.layers[place];
  const shape = `${cell.kind}, weight ${cell.weight.join(" × ")}`;
  const work = `${digits(cell.macs)} multiply-adds in ${counted(cell.calls, "call")} a run${cell.share ? `, on ${cell.share}` : ""}`;
  return [
    make("h3", { id: "layer-title" }, ...cell.layer.split(/(?<=[.])/).flatMap((part) => [part, make("wbr")])),
    make("p", { class: "note" }, `${cell.role ? `${cell.role}; ` : ""}${shape}; ${work}. `,
      make("strong", {}, pinned ? "Pinned; Escape lets go." : "")),
    make("div", { class: "scroll", tabindex: pinned ? "0" : null }, optionsTable(run, cell, variant.picks[place])),
  ];
}

function optionsTable(run, cell, pick) {
  const metrics = run.columns.filter((column) => column.family !== "").map((column) => column.name);
  const rows = cell.options.map((option, index) => [
    schemeCell(run, cell, option, index === pick), bytesText(option.bytes), digits(option.ms),
    ...metrics.map((name) => lossCell(option.losses[name])),
  ]);
  const list = table(`Schemes of ${cell.layer}; ${cell.options[pick].scheme} is in this plan`,
    ["scheme", "memory", "ms", ...metrics], rows, (index) => (index === pick ? "chosen" : null));
  if (cell.options.some((option) => !option.real)) list.append(make("tfoot", {}, make("tr", {},
    make("td", { colspan: 3 + metrics.length }, "* simulated: no kernel runs it"))));
  return list;
}

/** The scheme's name; with a server, a button that fixes the layer at it. */
function schemeCell(run, cell, option, picked) {
  const text = option.scheme + (option.real ? "" : " *") + (picked ? " \u25c0" : "");
  if (!run.source.fix) return text;
  return make("button", { type: "button", class: "link", title: `fix ${cell.layer} at ${option.scheme}`,
    onclick: () => run.source.fix(cell.layer, option.scheme) }, text);
}

/** The mean loss and, below it, the standard error; 0 for `keep`. */
function lossCell(loss) {
  if (!loss) return "0";
  const [mean, error] = loss;
  return error === null ? digits(mean, 2) : make("span", {}, digits(mean, 2), make("span", { class: "error" }, `± ${digits(error, 2)}`));
}

function summary(run, variant) {
  const roles = [...boxesOf(run.layers).roles];
  const rows = roles.map((role) => {
    const size = run.layers.reduce((sum, cell, i) => sum + (cell.role === role ? cell.options[variant.picks[i]].bytes : 0), 0);
    const count = run.layers.filter((cell) => cell.role === role).length;
    return [role || "layers", count.toLocaleString("en"), digits(meanBits(run, variant.picks, (cell) => cell.role === role)), bytesText(size)];
  });
  return [make("h3", { id: "layer-title" }, "By role"),
    make("p", { class: "note" }, "Point at a cell to see its layer here."),
    table("Layers by role", ["role", "layers", "bits", "memory"], rows)];
}
