// The ops page: asks for the status every two seconds while somebody looks, and draws it.

import { about, accounts, collections, faults, figures, reload, summary, time, walks } from "/page/show.js";
import { charts } from "/page/charts.js";
import { choices, operate } from "/page/operate.js";

const EVERY_MS = 2000;
const TIMEOUT_MS = 5000;
const KEPT = "contacts-gateway-token";

const by = (id) => document.getElementById(id);

// For this tab alone: gone when it is closed.
let token = sessionStorage.getItem(KEPT);
let timer = null;
let answered = null;

function ask(method, path) {
  const headers = token === null ? {} : { authorization: `Bearer ${token}` };
  return fetch(path, { method, headers, cache: "no-store", signal: AbortSignal.timeout(TIMEOUT_MS) });
}

async function look() {
  clearTimeout(timer);
  timer = null;
  if (document.hidden) return;
  try {
    const answer = await ask("GET", "/api/status");
    if (answer.status === 401) return enter();
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    show(await answer.json());
  } catch (error) {
    gone(error);
  }
  // Another look may have begun meanwhile, when the page was shown again.
  clearTimeout(timer);
  timer = setTimeout(look, EVERY_MS);
}

function show(status) {
  answered = Date.now();
  by("gone").hidden = true;
  by("entry").hidden = true;
  by("content").hidden = false;
  by("content").classList.remove("stale");
  document.title = `${status.summary.level === "ok" ? "" : "! "}contacts-gateway`;
  about(status);
  summary(status.summary);
  figures(status);
  charts(status);
  accounts(status.accounts);
  walks(status.walks);
  collections(status.collections);
  faults(status.faults);
  choices(status);
  reload(status.reload);
}

/** What is drawn is no longer so, or was never known. */
function gone(error) {
  const why = error instanceof TypeError || error.name === "TimeoutError" ? "does not answer" : `answers with ${error.message}`;
  const since = answered === null ? "" : ` What follows was so ${time((Date.now() - answered) / 1000)} ago.`;
  const text = `The gateway ${why}.${since}`;
  if (by("gone").textContent !== text) by("gone").textContent = text;
  by("gone").hidden = false;
  by("content").classList.add("stale");
  document.title = "? contacts-gateway";
}

/** A token is wanted. */
function enter() {
  by("content").hidden = true;
  by("gone").hidden = true;
  by("entry").hidden = false;
  if (token !== null) by("entry-why").textContent = "That is not the operators’ token.";
  sessionStorage.removeItem(KEPT);
  token = null;
  by("token").value = "";
  by("token").focus();
}

by("entry-form").addEventListener("submit", (event) => {
  event.preventDefault();
  token = by("token").value.trim();
  sessionStorage.setItem(KEPT, token);
  look();
});

document.addEventListener("visibilitychange", look);
operate(ask, look);
look();
