"use strict";
// What is asked of the server behind the page. One question is under way at a time, and of those that wait the latest
// wins: what a dragged slider has overtaken is never asked.

const live = {
  start: null, // what the server told at first
  asked: { memory: null, latency: null, caps: {}, pins: {}, objective: "both", confidence: null },
  next: null, // the question that waits
  flying: null, // the one under way: { passing, abort }
  count: 0, // of questions
  before: null, // the plan that the shown one is compared with
  told: [], // called with each answer
};
const TOKEN = new URLSearchParams(location.search).get("token") ?? "";

/** The server's answer. Throws an Error whose message is its sentence. */
async function fetched(path, body = null, signal = null) {
  const headers = { "X-BitPlan-Token": TOKEN, "Content-Type": "application/json" };
  const options = body === null ? { headers, signal } : { method: "POST", headers, signal, body: JSON.stringify(body) };
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("the server does not answer; start `bitplan explore` again, and open the address that it prints");
  }
  const data = await response.json().catch(() => ({ error: `the server answered ${response.status}` }));
  if (!response.ok) throw new Error(data.error ?? `the server answered ${response.status}`);
  return data;
}

/** Asks for the plan of what is asked now. passing: while a slider is dragged; then it must be quick, not proven. */
function askForPlan(passing) {
  live.count += 1;
  live.next = { passing, number: live.count, asked: structuredClone(live.asked) };
  if (live.flying === null) answerNext();
  else if (!live.flying.passing) live.flying.abort.abort(); // a proof that nobody waits for any more
}

async function answerNext() {
  const question = live.next;
  if (question === null) return;
  live.next = null;
  live.flying = { passing: question.passing, abort: new AbortController() };
  document.body.classList.toggle("asking", !question.passing);
  try {
    const { asked, passing } = question;
    showAnswer(question, await fetched("/api/solve", { asked, passing }, live.flying.abort.signal));
  } catch (error) {
    if (error.name !== "AbortError") showAnswer(question, { variant: null, why: error.message });
  }
  document.body.classList.remove("asking");
  live.flying = null;
  answerNext();
}

/** Shows the plan; where there is none, the last one stays, greyed, beside the reason. */
function showAnswer(question, answer) {
  const found = answer.variant !== null && answer.variant.picks.length > 0;
  document.body.classList.toggle("stale", !found);
  fill("no-plan", ...(found ? [] : [make("strong", {}, "No plan. "), `${capital(answer.why)}.`]));
  chosen.passing = question.passing;
  if (found) show(answer.variant, live.before);
  live.told.forEach((tell) => tell(question, answer));
  document.body.dataset.shown = String(question.number);
}
