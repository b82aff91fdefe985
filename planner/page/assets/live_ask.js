"use strict";
// Requests to the server of the page. One request is pending at a time; of those that wait, only the latest is sent, so
// that a dragged slider does not queue outdated requests.

const live = {
  start: null, // the first response of the server
  request: { memory: null, latency: null, caps: {}, pins: {}, objective: "both", confidence: null },
  next: null, // the question to send next
  pending: null, // the question that was sent: { passing, abort }
  count: 0, // number of questions
  before: null, // the plan with which the displayed one is compared
  listeners: [], // functions (question, answer), called for each answer
};
const TOKEN = new URLSearchParams(location.search).get("token") ?? "";
const PAGE_ID = String(Math.random()); // the server answers the newest request of each page

/** Returns the server's response as data. Throws an Error with the server's message. */
async function fetched(path, body = null, signal = null) {
  const headers = { "X-BitPlan-Token": TOKEN, "X-BitPlan-Page": PAGE_ID, "Content-Type": "application/json" };
  if (typeof PAGE.live === "string") headers["X-BitPlan-Profile"] = PAGE.live; // the profile that this page shows
  const options = body === null ? { headers, signal } : { method: "POST", headers, signal, body: JSON.stringify(body) };
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("the server does not answer; start `bitplan explore` again, and open the address that it prints");
  }
  const data = await response.json().catch(() => ({ error: `the server answered ${response.status}` }));
  if (!response.ok) throw Object.assign(new Error(data.error ?? `the server answered ${response.status}`), { reload: data.reload === true });
  return data;
}

/** Requests the plan of the current settings. passing: a slider is being dragged, and speed matters more than proof. */
function askForPlan(passing) {
  live.count += 1;
  live.next = { passing, number: live.count, request: structuredClone(live.request) };
  if (live.pending === null) answerNext();
  else if (!live.pending.passing) live.pending.abort.abort(); // its proof is outdated
}

async function answerNext() {
  const question = live.next;
  if (question === null) return;
  live.next = null;
  live.pending = { passing: question.passing, abort: new AbortController() };
  document.body.classList.toggle("asking", !question.passing);
  try {
    const { request, passing } = question;
    showAnswer(question, await fetched("/api/solve", { asked: request, passing }, live.pending.abort.signal));
  } catch (error) {
    if (error.name !== "AbortError") showAnswer(question, { variant: null, why: error.message, reload: error.reload });
  }
  document.body.classList.remove("asking");
  live.pending = null;
  answerNext();
}

/** The offer to open the page again, with the profile as it is now. */
function reloadButton() {
  return make("button", { type: "button", class: "reload", onclick: () => location.reload() }, "Reload the page");
}

/** Shows the plan, or the reason if there is none; then the previous plan stays visible in grey. */
function showAnswer(question, answer) {
  const solved = answer.variant !== null && answer.variant.picks.length > 0;
  document.body.classList.toggle("stale", !solved);
  fill("no-plan", ...(solved ? [] : [make("strong", {}, "No plan. "), `${capital(answer.why)}.`, ...(answer.reload ? [reloadButton()] : [])]));
  chosen.passing = question.passing;
  if (solved) show(answer.variant, live.before);
  live.listeners.forEach((listener) => listener(question, answer));
  document.body.dataset.shown = String(question.number);
}
