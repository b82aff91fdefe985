"use strict";
// The differences between two plans, layer by layer.

const LISTED = 100; // layers; the remaining ones are only counted

/** Lists the changed layers. against: the previous plan or null; pin: called with the index of a clicked layer. */
function showChanges(run, variant, against, pin) {
  const title = against === null ? `There is no plan of less ${columnText(run.by)} to compare with.` : changesText(run, variant, against);
  fill("changes-note", title);
  const places = against === null ? [] : run.layers.map((_, i) => i).filter((i) => variant.picks[i] !== against.picks[i]);
  document.getElementById("changes-list").hidden = !places.length;
  const gain = (i, value) => value(run.layers[i].options[variant.picks[i]]) - value(run.layers[i].options[against.picks[i]]);
  places.sort((a, b) => Math.abs(gain(b, (o) => o.bytes)) - Math.abs(gain(a, (o) => o.bytes)));
  const metrics = run.columns.filter((column) => column.family !== "").map((column) => column.name);
  const row = (i) => {
    const [from, to] = [against, variant].map((one) => run.layers[i].options[one.picks[i]].scheme);
    const button = make("button", { type: "button", class: "link", onclick: () => pin(i) }, run.layers[i].layer);
    return [button, `${from} \u2192 ${to}`, change("bytes", gain(i, (o) => o.bytes)), change("ms", gain(i, (o) => o.ms)),
      ...metrics.map((name) => change(name, gain(i, (o) => o.losses[name]?.[0] ?? 0)))];
  };
  const list = table("Layers that change", ["layer", "scheme", "memory", "time", ...metrics], places.slice(0, LISTED).map(row));
  const rest = places.length - LISTED;
  fill("changes-list", list, ...(rest > 0 ? [make("p", { class: "note" }, `and ${counted(rest, "layer")} more`)] : []));
}

function changesText(run, variant, against) {
  const count = variant.picks.filter((pick, i) => pick !== against.picks[i]).length;
  if (!count) return `${capital(lowerText(run.by))} is the same.`;
  const families = familiesOf(run).filter((name) => against.totals[name] > 0).map((name) => {
    const share = (100 * (variant.totals[name] - against.totals[name])) / against.totals[name];
    return `${share > 0 ? "+" : ""}${digits(share, 2)} % ${name} loss`;
  });
  const gained = ["bytes", "ms"].filter((name) => variant.totals[name] !== against.totals[name]).map((name) => change(name, variant.totals[name] - against.totals[name]));
  return `From ${lowerText(run.by)} (${amount(run.by, against.totals[run.by])}) to this one ${counted(count, "layer")} `
    + `change${count === 1 ? "s" : ""}: ${[...gained, ...families].join(", ")}.`;
}
