"use strict";
// Results: a plan file, the command that makes it, and a picture painted with it.

const LATER = 400; // milliseconds between requests for the state of a picture
const DOING = { solving: "solving \u2026", loading: "loading the pipeline \u2026", painting: "painting \u2026" };

function planControls() {
  const name = make("input", { type: "text", id: "name", spellcheck: "false" });
  const button = make("button", { type: "button", id: "save" }, "Save the plan");
  const command = make("code", { id: "command", tabindex: "0" }, "");
  const copy = make("button", { type: "button", class: "copy" }, "Copy");
  copy.addEventListener("click", async () => {
    await navigator.clipboard.writeText(command.textContent);
    copy.textContent = "Copied";
  });
  button.addEventListener("click", () => save(button, name, command));
  name.addEventListener("input", () => { name.dataset.own = "yes"; });
  live.listeners.push((question, answer) => {
    if (answer.command) command.textContent = answer.command;
    copy.textContent = "Copy";
    if (answer.variant?.picks.length && !name.dataset.own) name.value = nameOf(answer.variant);
  });
  return make("div", {}, make("div", { class: "line" }, make("label", { for: "name" }, "File"), name, button), make("p", { id: "saved", role: "status" }),
    make("p", { class: "note" }, "The same by command: ", copy), command);
}

function nameOf(variant) {
  const stem = live.start.profile.replace(/\.profile$/, "").replace(/[^A-Za-z0-9._-]/g, "-").replace(/^[._-]+/, "");
  return `${stem || "plan"}-${bytesText(variant.totals.bytes).replace(" ", "")}`;
}

async function save(button, name, command) {
  button.disabled = true;
  fill("saved", "solving to the proof \u2026");
  try {
    const saved = await fetched("/api/save", { asked: live.request, name: name.value.trim() });
    command.textContent = saved.command;
    fill("saved", make("strong", {}, `Saved ${saved.path}`), ` (${saved.status}).`);
    delete name.dataset.own;
  } catch (error) {
    fill("saved", make("span", { class: "refused" }, capital(error.message)), ...(error.reload ? [" ", reloadButton()] : []));
  }
  button.disabled = false;
}

function pictureControls() {
  const prompt = make("input", { type: "text", id: "prompt", value: live.start.prompt, maxlength: 2000 });
  const seed = make("input", { type: "number", id: "seed", value: 0, min: 0, max: 2 ** 31 - 1 });
  const button = make("button", { type: "button", id: "paint" }, "Paint");
  button.addEventListener("click", () => paint(button, prompt.value, Number(seed.value)));
  return make("div", { id: "asked-picture" }, make("h3", {}, "See what it paints, beside full precision"),
    make("div", { class: "line" }, make("label", { for: "prompt" }, "Prompt"), prompt,
      make("label", { for: "seed" }, "Seed"), seed, button),
    make("p", { id: "painting", role: "status", class: "note" }, `with ${live.start.pipeline}`));
}

async function paint(button, prompt, seed) {
  button.disabled = true;
  const variant = chosen.variant;
  try {
    let picture = await fetched("/api/paint", { asked: live.request, prompt, seed });
    while (picture.state in DOING) {
      fill("painting", DOING[picture.state]);
      await new Promise((resolve) => setTimeout(resolve, LATER));
      picture = await fetched("/api/paint");
    }
    if (picture.state === "failed") throw new Error(picture.error);
    fill("painting", "");
    showPainted(variant, picture);
  } catch (error) {
    fill("painting", make("span", { class: "refused" }, capital(error.message)), ...(error.reload ? [" ", reloadButton()] : []));
  }
  button.disabled = false;
}

/** Shows the pictures in the same place as a report. */
function showPainted(variant, { plan, full, prompt, seed }) {
  const { run } = chosen;
  run.full.pictures = [full];
  run.conditions = [`${prompt} (seed ${seed})`];
  variant.pictures = [plan];
  run.source.painted = [variant];
  const same = chosen.variant.picks.every((pick, place) => pick === variant.picks[place]);
  if (same) chosen.variant.pictures = [plan];
  looking.large = 0;
  showPictures(run, chosen.variant);
}
