"use strict";
// What is taken from here: a plan file, the command that makes it, and a picture painted with it.

const LATER = 400; // milliseconds until a picture is asked for again
const DOING = { solving: "solving \u2026", loading: "loading the pipeline \u2026", painting: "painting \u2026" };

function planTaken() {
  const name = make("input", { type: "text", id: "name", "aria-label": "Name of the plan file", spellcheck: "false" });
  const button = make("button", { type: "button", id: "save" }, "Save the plan");
  const command = make("code", { id: "command", tabindex: "0" }, "");
  const copy = make("button", { type: "button", class: "copy" }, "Copy");
  copy.addEventListener("click", async () => {
    await navigator.clipboard.writeText(command.textContent);
    copy.textContent = "Copied";
  });
  button.addEventListener("click", () => save(button, name, command));
  name.addEventListener("input", () => { name.dataset.own = "yes"; });
  live.told.push((question, answer) => {
    if (answer.command) command.textContent = answer.command;
    copy.textContent = "Copy";
    if (answer.variant?.picks.length && !name.dataset.own) name.value = nameOf(answer.variant);
  });
  return make("div", {}, make("div", { class: "line" }, name, button), make("p", { id: "saved", role: "status" }),
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
    const done = await fetched("/api/save", { asked: live.asked, name: name.value.trim() });
    command.textContent = done.command;
    fill("saved", make("strong", {}, `Saved ${done.path}`), ` (${done.status}).`);
    delete name.dataset.own;
  } catch (error) {
    fill("saved", make("span", { class: "refused" }, capital(error.message)));
  }
  button.disabled = false;
}

function pictureTaken() {
  const prompt = make("input", { type: "text", id: "prompt", "aria-label": "Prompt", value: live.start.prompt, maxlength: 2000 });
  const seed = make("input", { type: "number", id: "seed", "aria-label": "Seed", value: 0, min: 0, max: 2 ** 31 - 1 });
  const button = make("button", { type: "button", id: "paint" }, "Paint");
  button.addEventListener("click", () => paint(button, prompt.value, Number(seed.value)));
  return make("div", { id: "asked-picture" }, make("h3", {}, "See what it paints, beside full precision"),
    make("div", { class: "line" }, prompt, seed, button),
    make("p", { id: "painting", role: "status", class: "note" }, `with ${live.start.pipeline}`));
}

async function paint(button, prompt, seed) {
  button.disabled = true;
  const variant = chosen.variant;
  try {
    let told = await fetched("/api/paint", { asked: live.asked, prompt, seed });
    while (told.state in DOING) {
      fill("painting", DOING[told.state]);
      await new Promise((done) => setTimeout(done, LATER));
      told = await fetched("/api/paint");
    }
    if (told.state === "failed") throw new Error(told.error);
    fill("painting", "");
    showPainted(variant, told);
  } catch (error) {
    fill("painting", make("span", { class: "refused" }, capital(error.message)));
  }
  button.disabled = false;
}

/** The pictures stand where a report has them. */
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
