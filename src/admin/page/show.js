// From the document to elements. Texts become text, never markup.

/** An element with attributes and children; texts, elements, or nothing. */
export function h(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) element.setAttribute(key, value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

const clock = new Intl.DateTimeFormat("en", { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const whole = new Intl.NumberFormat("en");

export const number = (value) => whole.format(value);
export const many = (count, what) => `${number(count)} ${what}${count === 1 ? "" : "s"}`;
export const share = (ratio) => (ratio === null ? "–" : `${(100 * ratio).toFixed(ratio < 1 && ratio > 0.9995 ? 2 : 1)} %`);
export const rate = (value) => (value < 100 ? value.toFixed(1) : number(Math.round(value)));
export const milliseconds = (value) => {
  if (value === null) return "–";
  if (value < 1) return `${value.toFixed(2)} ms`;
  if (value < 1000) return `${Number(value.toPrecision(2))} ms`;
  return `${(value / 1000).toFixed(1)} s`;
};

export function bytes(value) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${unit === 0 ? value : value.toFixed(1)} ${units[unit]}`;
}

/** A length of time in its two largest units. */
export function time(seconds) {
  const left = Math.max(0, Math.floor(seconds));
  const parts = [[Math.floor(left / 86400), "d"], [Math.floor(left / 3600) % 24, "h"], [Math.floor(left / 60) % 60, "min"], [left % 60, "s"]];
  const first = parts.findIndex(([count]) => count > 0);
  if (first < 0) return "0 s";
  return parts.slice(first, first + 2).filter(([count]) => count > 0).map(([count, unit]) => `${count} ${unit}`).join(" ");
}

const ago = (seconds) => (seconds === null ? "–" : seconds < 1 ? "now" : `${time(seconds)} ago`);

/** Replaces what an element holds, unless it is the same: what a reader or a screen reader is at stays. */
function put(id, ...children) {
  const holder = document.getElementById(id);
  const next = h("div", {}, ...children);
  const [before, after] = [[...holder.childNodes], [...next.childNodes]];
  const same = before.length === after.length && before.every((child, place) => child.isEqualNode(after[place]));
  if (!same) holder.replaceChildren(...after);
}

/** A table. `heads` are names, or [name, class]; each row is its cells in that order. */
function table(label, heads, rows) {
  const named = heads.map((head) => (Array.isArray(head) ? head : [head, null]));
  // The roles are said because narrow screens show the table as cards, and browsers then forget what it is.
  return h("table", { role: "table", "aria-label": label },
    h("thead", { role: "rowgroup" },
      h("tr", { role: "row" }, named.map(([name, kind]) => h("th", { role: "columnheader", scope: "col", class: kind }, name)))),
    h("tbody", { role: "rowgroup" }, rows));
}

function row(heads, cells, attributes = {}) {
  return h("tr", { role: "row", ...attributes }, cells.map((cell, place) => {
    const [name, kind] = Array.isArray(heads[place]) ? heads[place] : [heads[place], null];
    if (place === 0) return h("th", { role: "rowheader", scope: "row" }, cell);
    return h("td", { role: "cell", class: kind, "data-name": name }, cell);
  }));
}

const nothing = (text) => h("p", { class: "nothing" }, text);
const below = (text) => h("span", { class: "below" }, text);
const pill = (level, text) => h("span", { class: `pill ${level}` }, text);

/** A bar, `done` of `all`. What it says to those who do not see it is `label`. */
function bar(label, done, all) {
  const part = all > 0 ? Math.min(1, done / all) : 0;
  const inner = h("div");
  inner.style.width = `${(100 * part).toFixed(1)}%`;
  const full = part >= 1 && all > 0;
  return h("div", {
    class: full ? "bar full" : "bar", role: "progressbar", "aria-label": label,
    "aria-valuemin": 0, "aria-valuemax": all, "aria-valuenow": Math.min(done, all),
  }, inner);
}

function place({ account, stream, name }) {
  return [`${account} / ${name ?? stream}`, name === null ? null : below(stream)];
}

export function about(status) {
  const phase = { starting: "starting", serving: "serving", draining: "draining" }[status.phase];
  const { level, until_s: until } = status.log;
  const log = until === null ? "" : ` · log: ${level} until ${clock.format(1000 * until)}`;
  document.getElementById("about").textContent = `${status.version} · ${phase} · up ${time(status.uptime_s)} · breaker ${status.upstream.breaker.replace("_", "-")}${log}`;
}

export function summary({ level, text, reasons }) {
  document.getElementById("summary").className = level;
  const sentence = document.getElementById("sentence");
  // A screen reader reads it again whenever it is written.
  if (sentence.textContent !== text) sentence.textContent = text;
  put("reasons", reasons.map((reason) => h("li", {}, reason)));
}

export function figures({ totals, history }) {
  const last = (column) => (column.length > 0 ? column[column.length - 1] : null);
  const now = last(history.rate);
  const figure = (id, name, value, note) => h("div", {}, h("dt", {}, name), h("dd", { id }, value), h("dd", { class: "note" }, note));
  put("figures",
    figure("figure-requests", "Requests", number(totals.requests), now === null ? "the first seconds" : `${rate(now)} a second`),
    figure("figure-hits", "Answered from copies", share(totals.hit_ratio), `${number(totals.hits)} of ${number(totals.asked)}`),
    figure("figure-calls", "Calls to upstream", number(totals.calls), `${number(totals.calls - totals.calls_ok)} of them failed`),
    figure("figure-failed", "Failed", number(totals.failed), `and ${number(totals.refused)} refused`),
    figure("figure-waiting", "Waiting now", number(totals.waiting), many(totals.connections, "connection")),
    figure("figure-copies", "Copies", bytes(totals.cache_bytes), `${many(totals.pages, "page")}, ${many(totals.lists, "list")}`));
}

export function accounts({ total, shown }) {
  if (total === 0) return put("accounts", nothing("No account is configured."));
  const heads = ["Account", "State", ["Calls of this minute", "wide"], "Token", "Upstream answered", "Last fault"];
  const rows = shown.flatMap((account) => {
    const { budget, token, last_fault: fault } = account;
    const learned = budget.allowance < budget.per_minute ? ` (of ${budget.per_minute} configured)` : "";
    const waiting = budget.waiting > 0 ? `, ${number(budget.waiting)} waiting` : "";
    const paused = budget.paused_s === null ? "" : `, paused for ${time(budget.paused_s + 1)}`;
    const spent = `${budget.taken} of ${budget.allowance} taken${learned}, ${budget.left} left${waiting}${paused}`;
    const level = account.state === "unasked" ? "quiet" : account.level;
    const explained = account.level !== "ok";
    const cells = [
      account.name,
      pill(level, account.state === "unasked" ? "not asked yet" : account.state),
      [h("span", { class: "spent" }, spent), bar(`${account.name}: calls of this minute`, budget.taken, budget.allowance)],
      token.mode === "once" ? "one for each call" : token.expires_s === null ? "none yet" : token.expires_s > 0 ? `for ${time(token.expires_s)}` : "expired",
      ago(account.answered_ago_s),
      fault === null ? "–" : [h("code", {}, fault.code), below(ago(fault.ago_s))],
    ];
    const first = row(heads, cells, { "data-account": account.name, class: explained ? "explained" : null });
    if (!explained) return [first];
    const words = account.words.charAt(0).toUpperCase() + account.words.slice(1);
    return [first, h("tr", { role: "row", class: "explanation" },
      h("td", { role: "cell", class: "wide", colspan: heads.length }, `${words}.`, account.advice === null ? null : below(`What to do: ${account.advice}`)))];
  });
  put("accounts", table("Accounts", heads, rows), more(total, shown.length, "accounts"));
}

export function walks({ total, shown }) {
  document.getElementById("walks-section").hidden = total === 0;
  const heads = ["List", ["Pages", "wide"], ["Contacts", "number"], "Running for", "Left"];
  const rows = shown.map((walk) => {
    const needed = walk.pages_needed ?? 0;
    const done = walk.pages_needed === null ? `${walk.pages_done} pages so far` : `${walk.pages_done} of ${needed} pages`;
    const held = walk.held_up === null ? null : below(`rests: ${walk.held_up.charAt(0).toLowerCase()}${walk.held_up.slice(1)}`);
    return row(heads, [
      place(walk),
      [done, bar(`${walk.account} ${walk.name ?? walk.stream}: pages read`, walk.pages_done, needed), held],
      number(walk.records),
      time(walk.running_s),
      walk.estimate_s === null ? "–" : `about ${time(walk.estimate_s)}`,
    ], { "data-walk": walk.stream });
  });
  put("walks", table("Lists being read", heads, rows), more(total, shown.length, "lists"));
}

export function collections({ total, shown }) {
  if (total === 0) return put("collections", nothing("Nobody has asked for contacts yet."));
  const heads = ["Collection", ["A second", "number"], ["Requests", "number"], ["From copies", "number"], "List held", "Upstream answered", "Fault since"];
  const rows = shown.map((collection) => {
    const { list, fault } = collection;
    return row(heads, [
      place(collection),
      rate(collection.rate),
      number(collection.requests),
      share(collection.hit_ratio),
      list === null ? "–" : [`${list.verdict}, ${number(list.records)} contacts`, below(`${list.freshness}, ${time(list.age_s)} old`)],
      ago(collection.answered_ago_s),
      fault === null ? "–" : [h("code", {}, fault.code), below(`${fault.words}, ${ago(fault.ago_s)}`)],
    ], { "data-stream": collection.stream });
  });
  put("collections", table("Collections", heads, rows), more(total, shown.length, "collections; those asked for most are shown"));
}

export function faults(list) {
  if (list.length === 0) return put("faults", nothing("None since the start."));
  const heads = ["When", "Collection", ["Times", "number"], ["What", "wide"]];
  const rows = list.map((fault) => row(heads, [
    ago(fault.ago_s),
    place(fault),
    number(fault.times),
    [fault.words.charAt(0).toUpperCase() + fault.words.slice(1), " ", h("code", {}, fault.code), fault.advice === null ? null : below(`What to do: ${fault.advice}`)],
  ], { "data-code": fault.code }));
  put("faults", table("Recent faults", heads, rows));
}

export function reload(last) {
  document.getElementById("reload-last").hidden = last === null;
  if (last === null) return;
  const { applied, trigger, words: { total, shown } } = last;
  const by = trigger === "signal" ? "by a signal" : "by an operator";
  const kept = applied ? "" : "; the configuration before it is in force";
  put("reload-when", pill(applied ? "ok" : "bad", applied ? "applied" : "refused"), ` ${ago(last.ago_s)}, ${by}${kept}`);
  put("reload-words",
    applied ? shown.map((sentence) => h("p", {}, sentence)) : h("pre", {}, shown.join("\n")),
    more(total, shown.length, "lines"));
}

function more(total, shown, what) {
  return total > shown ? h("p", { class: "more" }, `${number(total - shown)} more ${what}.`) : null;
}
