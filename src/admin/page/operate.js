// What changes something: purge, reload, drain. Each says what came of it.

import { h, many } from "/page/show.js";

const by = (id) => document.getElementById(id);

/** `ask` sends a request and returns its answer; it throws where there is none. `look` draws what is so now. */
export function operate(ask, look) {
  purge(ask);
  reload(ask, look);
  drain(ask);
}

/** Keeps the choices of the purge as the document has them. */
export function choices(status) {
  const names = status.accounts.shown.map((account) => account.name);
  const select = by("purge-account");
  if ([...select.options].slice(1).map((option) => option.value).join("\n") !== names.join("\n")) {
    const chosen = select.value;
    select.replaceChildren(h("option", { value: "" }, "all accounts"), ...names.map((name) => h("option", { value: name }, name)));
    select.value = names.includes(chosen) ? chosen : "";
    // The account is gone, and the form speaks of all accounts now: what was counted is not that.
    if (select.value !== chosen) select.dispatchEvent(new Event("input", { bubbles: true }));
  }
  const streams = status.collections.shown.filter((collection) => collection.account === select.value);
  const wanted = streams.map((collection) => h("option", { value: collection.stream }, collection.name ?? ""));
  if ([...by("streams").options].map((option) => option.value).join("\n") !== streams.map((stream) => stream.stream).join("\n")) {
    by("streams").replaceChildren(...wanted);
  }
}

/** Asks, and tells meanwhile what it does. Null if there is no answer, or if that is of no interest any more. */
async function told(id, doing, ask, wanted = () => true) {
  const line = by(id);
  line.textContent = doing;
  try {
    const answer = await ask();
    const document = await answer.json().catch(() => ({}));
    return wanted() ? { ok: answer.ok, status: answer.status, document } : null;
  } catch {
    if (wanted()) line.textContent = "The gateway did not answer.";
    return null;
  }
}

function refusal({ document, status }) {
  return `Refused: ${document.detail ?? `status ${status}`}`;
}

function purge(ask) {
  // The query that the button's figures are of, and what it purges. Null while it is hidden.
  let counted = null;
  const subject = () => {
    const [account, stream] = [by("purge-account").value, by("purge-stream").value];
    const query = new URLSearchParams(account === "" ? { all: "true" } : { account });
    if (account !== "" && stream !== "") query.set("stream", stream);
    if (by("purge-soft").checked) query.set("soft", "true");
    return query.toString();
  };
  const copies = ({ pages, lists }) => `${many(pages, "page")} and ${many(lists, "list")}`;
  const forget = () => {
    counted = null;
    by("purge-do").hidden = true;
  };
  by("purge").addEventListener("input", () => {
    const stream = by("purge-stream");
    stream.disabled = by("purge-account").value === "";
    if (stream.disabled) stream.value = "";
    forget();
    by("purge-told").textContent = "";
  });
  by("purge").addEventListener("submit", async (event) => {
    event.preventDefault();
    forget();
    const query = subject();
    const answer = await told("purge-told", "Counting…", () => ask("POST", `/api/purge?${query}&dry_run=true`), () => query === subject());
    if (answer === null) return;
    if (!answer.ok) {
      by("purge-told").textContent = refusal(answer);
      return;
    }
    const soft = answer.document.purge === "soft";
    by("purge-told").textContent = `${copies(answer.document)} would ${soft ? "become stale" : "go"}.`;
    by("purge-do").textContent = soft ? `Make ${copies(answer.document)} stale` : `Purge ${copies(answer.document)}`;
    by("purge-do").hidden = false;
    counted = query;
  });
  by("purge-do").addEventListener("click", async () => {
    const query = counted;
    const answer = await told("purge-told", "Purging…", () => ask("POST", `/api/purge?${query}`), () => query === counted);
    if (answer === null) return;
    by("purge-told").textContent = answer.ok ? (answer.document.purge === "soft" ? "They are stale now." : "They are gone.") : refusal(answer);
    forget();
    // The button that had the focus is not there any more.
    by("purge-count").focus();
  });
}

/** What came of it stands with the last reload, whoever asked for that. */
function reload(ask, look) {
  by("reload").addEventListener("click", async () => {
    const answer = await told("reload-told", "Reloading…", () => ask("POST", "/api/reload"));
    if (answer === null) return;
    by("reload").disabled = answer.status === 404;
    await look();
    const refused = [409, 422].includes(answer.status) ? "Refused. Nothing has changed." : refusal(answer);
    by("reload-told").textContent = answer.ok ? "It is in force." : refused;
  });
}

function drain(ask) {
  const dialog = by("drain-dialog");
  by("drain").addEventListener("click", () => dialog.showModal());
  by("drain-no").addEventListener("click", () => dialog.close());
  by("drain-yes").addEventListener("click", async () => {
    dialog.close();
    const answer = await told("drain-told", "Asking…", () => ask("POST", "/api/drain"));
    if (answer === null) return;
    by("drain").disabled = answer.ok;
    by("drain-told").textContent = answer.ok ? "It drains. This page is answered until the end." : refusal(answer);
  });
}
