// The ops page in a real Chromium: what it shows is so, it can be read and used by everybody, and it asks nobody else.

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { resolve } from "node:path";

import { ANOTHER, SECRET, TOKEN, World } from "./world.mjs";

const installed = createRequire(resolve("target/page/package.json"));
const { chromium } = installed("playwright-core");
const AXE = installed.resolve("axe-core/axe.min.js");

const PICTURE = process.argv.includes("--picture") ? "tests/page/ops-page.png" : null;
const FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];
const WATCHDOG_MS = 20_000;
const PICTURE_MS = 200_000;
const WIDE = { width: 1280, height: 900 };
const NARROW = { width: 390, height: 844 };

const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: FLAGS });
const worlds = [];

/** A page of its own, that notes whatever must not be. */
async function open(world, { viewport = WIDE, scheme = "light" } = {}) {
  const context = await browser.newContext({ viewport, colorScheme: scheme });
  const page = await context.newPage();
  page.setDefaultTimeout(WATCHDOG_MS);
  const complaints = [];
  page.on("console", (message) => { if (["error", "warning"].includes(message.type())) complaints.push(message.text()); });
  page.on("pageerror", (error) => complaints.push(String(error)));
  page.on("request", (request) => {
    const { origin, protocol } = new URL(request.url());
    if (origin !== world.admin && protocol !== "data:") complaints.push(`a request to ${request.url()}`);
  });
  await page.goto(`${world.admin}/`);
  return { page, complaints, close: () => context.close() };
}

const text = (page, selector) => page.locator(selector).innerText();
const figure = async (page, id) => Number((await text(page, `#figure-${id}`)).replaceAll(",", ""));

/** Enter, on what is there: a press does not wait for that, and what is hidden has no focus to get it. */
async function press(page, selector) {
  await page.locator(selector).waitFor();
  await page.locator(selector).press("Enter");
}

/** Looks until it is so. */
async function until(what, so) {
  const end = Date.now() + WATCHDOG_MS;
  let last;
  while (Date.now() < end) {
    try {
      last = await so();
      if (last === true) return;
    } catch (error) {
      last = error;
    }
    await new Promise((next) => setTimeout(next, 100));
  }
  assert.fail(`did not happen: ${what} (${last})`);
}

const checks = {
  /** Catches a figure that is counted otherwise than Prometheus's. */
  async "the figures are those of /metrics"({ world, page }) {
    const requests = await world.metric("requests_total", 'listener="traffic"');
    const hits = await world.metric("cache_requests_total", 'result="(hit|slice|stale|floor)"');
    const asked = await world.metric("cache_requests_total");
    const calls = await world.metric("upstream_attempts_total");
    assert.ok(requests > 20 && hits > 10 && calls > 2, `${requests} ${hits} ${calls}`);
    await until("the page has the same figures", async () =>
      (await figure(page, "requests")) === requests && (await figure(page, "calls")) === calls
      && (await text(page, "#figures")).includes(`${hits} of ${asked}`));
    for (const account of ["acme", "borealis", "cumulus"]) {
      const [taken, allowance] = [await world.metric("budget_taken_calls", account), await world.metric("budget_allowance_calls", account)];
      const row = page.locator(`tr[data-account=${account}]`);
      // Of an account that was never asked for, the metrics say nothing yet.
      if (allowance > 0) assert.match(await row.locator(".spent").innerText(), new RegExp(`^${taken} of ${allowance} taken`));
      assert.equal(await row.getByRole("progressbar").getAttribute("aria-valuenow"), String(taken));
    }
  },

  /** A newcomer finds out from the page alone. */
  async "the refused accounts are named, with the reason and what to do"({ page }) {
    await until("the sentence names both", async () => {
      const sentence = await text(page, "#sentence");
      return sentence === "Serving. 2 accounts are refused: borealis - Kore.ai refuses its credential; cumulus - it has no usable secret." || sentence;
    });
    const table = await text(page, "#accounts");
    assert.match(table, /Kore\.ai refuses its credential: it does not say why/);
    assert.match(table, /What to do: Compare, in this order: the client secret/);
    assert.match(table, /the environment variable CUMULUS_SECRET is not set/);
    assert.equal(await page.locator("tr[data-account=acme] .pill").innerText(), "well");
    assert.match(await text(page, "#faults"), /upstream_auth_rejected/);
  },

  async "collections are there, with their list"({ page }) {
    await until("the list is shown", async () => /verified, 340 contacts/.test(await text(page, "tr[data-stream=st-orders]")));
    assert.match(await text(page, "tr[data-stream=st-support]"), /acme \/ support/);
  },

  async "charts are drawn"({ page }) {
    await until("three charts with figures", async () => {
      const shown = await page.locator(".chart canvas").count() === 3;
      return shown && /^\d/.test(await text(page, "#rate-value")) && /%$/.test(await text(page, "#hits-value")) && /ms/.test(await text(page, "#latency-value"));
    });
    const painted = await page.locator("#rate-chart canvas").evaluate((canvas) => {
      const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
      return pixels.some((value) => value !== 0);
    });
    assert.ok(painted);
  },

  /** What is wrong beside accounts and calls. Catches a page that knows less than the alerts. */
  async "contacts of another account are named"({ world, page }) {
    await world.fault("other-account");
    assert.equal(await world.get("st-support", "?skip=700&limit=3"), 200);
    await world.fault(null);
    await until("they are told", async () => /^acme: Kore\.ai sent contacts that say that they are another account's/m.test(await text(page, "#reasons")) || text(page, "#reasons"));
  },

  /** Twelve thousand contacts are more pages than there are calls in a minute. */
  async "a list that is being read has a bar that grows"({ world, page }) {
    const reading = world.get("st-archive", "?all=true").catch(() => {});
    const bar = page.locator("tr[data-walk=st-archive]").getByRole("progressbar");
    await until("the bar is there", async () => Number(await bar.getAttribute("aria-valuemax")) >= 120);
    await until("pages are read", async () => Number(await bar.getAttribute("aria-valuenow")) > 2);
    assert.match(await text(page, "tr[data-walk=st-archive]"), /of 1\d\d pages/);
    const { width, all } = await bar.evaluate((bar) => ({ width: bar.firstChild.getBoundingClientRect().width, all: bar.getBoundingClientRect().width }));
    assert.ok(width > 0 && width < all, `${width} of ${all}`);
    void reading;
  },

  async "nothing scrolls sideways, and axe finds nothing, in light and dark, wide and narrow"({ world }) {
    for (const scheme of ["light", "dark"]) {
      for (const viewport of [WIDE, NARROW]) {
        const { page, complaints, close } = await open(world, { viewport, scheme });
        await page.locator("#accounts table").waitFor();
        const overflow = await page.evaluate(() => {
          const wide = [...document.querySelectorAll("body *")].filter((element) => element.getBoundingClientRect().right > innerWidth + 1 && !element.closest(".chart, thead, dialog:not([open])"));
          return [document.documentElement.scrollWidth - innerWidth, wide.map((element) => element.outerHTML.slice(0, 80))];
        });
        assert.deepEqual(overflow, [0, []], `${scheme} ${viewport.width}`);
        await findNothing(page, `${scheme} ${viewport.width}`);
        assert.deepEqual(complaints, []);
        await close();
      }
    }
  },

  /** Catches a control that only a mouse reaches, and a focus that nobody sees. */
  async "every control is reached by the keyboard, and seen to be"({ page }) {
    await page.locator("#purge-account").selectOption("acme");
    const wanted = await page.evaluate(() => [...document.querySelectorAll("button, input, select")].filter((control) => control.checkVisibility() && !control.disabled && !control.closest("dialog")).map((control) => control.id));
    assert.deepEqual(wanted, ["purge-account", "purge-stream", "purge-soft", "purge-count", "reload", "drain"]);
    await page.evaluate(() => document.activeElement.blur());
    const reached = [];
    for (let press = 0; press < 20 && reached.at(-1) !== wanted.at(-1); press += 1) {
      await page.keyboard.press("Tab");
      const { id, outline } = await page.evaluate(() => {
        const style = getComputedStyle(document.activeElement);
        return { id: document.activeElement.id, outline: style.outlineStyle === "solid" ? parseFloat(style.outlineWidth) : 0 };
      });
      if (wanted.includes(id)) assert.ok(outline >= 2, `${id} has no visible focus`);
      reached.push(id);
    }
    assert.deepEqual(reached.filter((id) => wanted.includes(id)), wanted);
    // The page draws itself anew, and whoever is somewhere stays there.
    await page.waitForTimeout(2500);
    assert.equal(await page.evaluate(() => document.activeElement.id), "drain");
  },

  /** By the keyboard alone. */
  async "a purge counts first, and nothing goes before"({ world, page }) {
    const copies = () => world.metric("cache_entries", 'cache="lists"');
    assert.equal(await world.get("st-orders", "?all=true"), 200);
    await page.locator("#purge-account").selectOption("acme");
    await page.locator("#purge-stream").focus();
    await page.keyboard.type("st-orders");
    assert.equal(await page.locator("#purge-do").isVisible(), false);
    await page.keyboard.press("Enter");
    await page.locator("#purge-do").waitFor();
    assert.match(await text(page, "#purge-told"), /^\d+ pages? and 1 list would go\.$/);
    assert.match(await text(page, "#purge-do"), /^Purge \d+ pages? and 1 list$/);
    const before = await copies();
    assert.ok(before >= 1);
    // What was counted is not what would go any more.
    await page.locator("#purge-soft").check();
    assert.equal(await page.locator("#purge-do").isVisible(), false);
    await page.locator("#purge-soft").uncheck();
    await press(page, "#purge-count");
    await press(page, "#purge-do");
    await until("they are gone", async () => {
      const said = await text(page, "#purge-told");
      return said === "They are gone." || said;
    });
    assert.equal(await page.evaluate(() => document.activeElement.id), "purge-count");
    const answer = await fetch(`${world.admin}/api/purge?account=acme&stream=st-orders&dry_run=true`, { method: "POST" });
    assert.deepEqual(await answer.json(), { subject: "collection", purge: "hard", dry_run: true, pages: 0, lists: 0 });
  },

  /** Catches a button whose figures are of something else than it purges. */
  async "what is purged is what was counted"({ page }) {
    let release;
    const released = new Promise((resolve) => { release = resolve; });
    await page.route(/dry_run=true/, async (route) => {
      const response = await route.fetch();
      await released;
      await route.fulfill({ response });
    }, { times: 1 });
    await page.locator("#purge-account").selectOption("acme");
    const counted = page.waitForResponse(/dry_run=true/);
    await page.locator("#purge-count").click();
    await page.locator("#purge-account").selectOption("");
    release();
    await counted;
    // The next answer comes after it.
    await page.waitForResponse(/api\/status/);
    assert.equal(await page.locator("#purge-do").isVisible(), false);
    assert.equal(await text(page, "#purge-told"), "");
    await page.locator("#purge-account").selectOption("borealis");
    await page.locator("#purge-count").click();
    await page.locator("#purge-do").waitFor();
    // However the form came to say something else.
    await page.evaluate(() => { document.getElementById("purge-account").value = ""; });
    const purged = page.waitForRequest((request) => request.method() === "POST");
    await page.locator("#purge-do").click();
    assert.equal(new URL((await purged).url()).search, "?account=borealis");
    await until("it is told", async () => (await text(page, "#purge-told")) === "They are gone.");
  },

  /** Catches a page that tells nothing of a reload, or as if it were in force, and one that would purge what is gone. */
  async "a reload tells what changed, or what is wrong"({ world, page, complaints }) {
    const clicked = async (said) => {
      await page.locator("#reload").click();
      await until("it is told", async () => (await text(page, "#reload-told")) === said || text(page, "#reload-told"));
      return { when: await text(page, "#reload-when"), words: await text(page, "#reload-words") };
    };
    const accounts = () => page.locator("tr[data-account]").count();
    assert.equal(await page.locator("#reload-last").isVisible(), false);
    const same = await clicked("It is in force.");
    assert.match(same.when, /^applied now, by an operator$/);
    assert.match(same.words, /^Nothing changed\.\n+The account cumulus has no usable secret, and is disabled: .*CUMULUS_SECRET is not set$/);

    await world.configure((before) => `${before}${ANOTHER}`);
    const { words } = await clicked("It is in force.");
    assert.match(words, /^Accounts added: dahlia\.\n[^]*The account dahlia has no usable secret, and is disabled: .*DAHLIA_SECRET is not set$/);
    await page.locator("tr[data-account=dahlia]").waitFor();

    await world.configure((before) => `${before}\nclient_secret = "${SECRET}"\ncalls_per_minute = "many"\n`);
    const refused = await clicked("Refused. Nothing has changed.");
    assert.match(refused.when, /^refused now, by an operator; the configuration before it is in force$/);
    const lines = refused.words.split("\n");
    assert.match(lines[0], /gateway\.toml:\d+:1: .*a secret does not belong in this file/);
    assert.match(lines[1], /^\d+ \| client_secret = \*\*\*$/);
    assert.match(lines[2], /^ +\| \^+$/);
    assert.match(refused.words, /calls_per_minute/);
    assert.match(await text(page, "#reasons"), /^The last reload was refused; the configuration before it is in force\.$/m);
    assert.match(await page.locator("#reload-when .pill").getAttribute("class"), /\bbad\b/);
    assert.equal(await accounts(), 4);
    assert.equal(await world.get("st-orders"), 200);
    await findNothing(page, "a refused reload");
    // By whoever it is asked for.
    await page.locator("#purge-account").selectOption("dahlia");
    await page.locator("#purge-count").click();
    await page.locator("#purge-do").waitFor();
    await world.configure((before) => before.slice(0, before.indexOf(ANOTHER)));
    world.gateway.kill("SIGHUP");
    await until("the signal's is told", async () => /^applied .*by a signal$/.test(await text(page, "#reload-when")));
    assert.match(await text(page, "#reload-words"), /^Accounts removed: dahlia\.\n/);
    await until("it is gone", async () => (await accounts()) === 3);
    // The form speaks of all accounts now, and what was counted was one of them.
    assert.equal(await page.locator("#purge-do").isVisible(), false);
    assert.ok(!(await page.content()).includes(SECRET));
    // The browser's own line about an answer that it was asked for.
    complaints.splice(0, complaints.length, ...complaints.filter((line) => !/Failed to load resource: .*422/.test(line)));
  },

  async "the log's level is told while it is another"({ world, page }) {
    assert.doesNotMatch(await text(page, "#about"), /log/);
    const level = (query) => fetch(`${world.admin}/api/log?${query}`, { method: "POST" });
    const { until: end } = await (await level("level=debug&for=3m")).json();
    const clock = new Intl.DateTimeFormat("en", { hour: "2-digit", minute: "2-digit", hourCycle: "h23" }).format(new Date(end));
    await until("it is told", async () => (await text(page, "#about")).endsWith(` · log: debug until ${clock}`) || text(page, "#about"));
    await level("level=default");
    await until("it is told no more", async () => !/log/.test(await text(page, "#about")));
  },

  /** Catches the page that says that all is well while upstream is down. */
  async "an upstream that fails is named"({ world, page }) {
    await world.fault("status=503");
    for (let skip = 0; skip < 6; skip += 1) await world.get("st-support", `?skip=${900 + skip}&limit=3`);
    await until("the breaker is told", async () => /Upstream keeps failing/.test(await text(page, "#summary")) || text(page, "#summary"));
    await until("the fault is told", async () => /upstream_5xx/.test(await text(page, "#faults")));
    await world.fault(null);
  },

  async "a drain is asked for twice, and the page says when the gateway is gone"({ world, page, complaints }) {
    await press(page, "#drain");
    assert.equal(await page.evaluate(() => document.activeElement.id), "drain-no");
    await findNothing(page, "the question");
    await page.keyboard.press("Escape");
    assert.equal(await page.locator("#drain-dialog").isVisible(), false);
    assert.equal((await fetch(`${world.admin}/readyz`)).status, 200);
    const gone = new Promise((resolve) => world.gateway.once("exit", resolve));
    await page.locator("#drain").click();
    await page.locator("#drain-yes").click();
    assert.equal(await gone, 0);
    await until("it is said", async () => /^The gateway does not answer\. What follows was so/.test(await text(page, "#gone")));
    // The browser's own lines about that.
    complaints.splice(0, complaints.length, ...complaints.filter((line) => !/ERR_CONNECTION_(REFUSED|RESET)|ERR_EMPTY_RESPONSE/.test(line)));
  },
};

/** The README's picture: a gateway that has been busy for a while, with a list on its way. */
async function picture() {
  const world = await World.start();
  worlds.push(world);
  await world.getRefused();
  await world.get("st-orders", "?all=true");
  const end = Date.now() + PICTURE_MS;
  for (let round = 0; Date.now() < end; round += 1) {
    const callers = 5 + Math.round(9 * Math.abs(Math.sin(round / 150)));
    const streams = Array.from({ length: callers }, (_, caller) => (caller % 3 > 0 ? "st-support" : "st-orders"));
    await Promise.all(streams.map((stream, caller) => world.get(stream, `?skip=${10 * ((round + 3 * caller) % 5)}`)));
    await new Promise((next) => setTimeout(next, 50));
    // It takes longer than what is left.
    if (round > 0 && end - Date.now() < 60_000 && !world.reading) world.reading = world.get("st-archive", "?all=true").catch(() => {});
  }
  const { page, close } = await open(world, { viewport: { width: 1280, height: 1180 } });
  await page.locator("[data-walk]").waitFor();
  await page.waitForTimeout(500);
  await page.screenshot({ path: PICTURE });
  await close();
}

async function findNothing(page, where) {
  // Past the page's policy, which lets no other script in: through the debugger.
  if (!(await page.evaluate(() => "axe" in window))) await page.evaluate(await source());
  const { violations, passes } = await page.evaluate(() => axe.run());
  assert.ok(passes.length > 15);
  assert.deepEqual(violations.map(({ id, nodes }) => [id, nodes.map(({ html }) => html)]), [], where);
}

let axe = null;
async function source() {
  const { readFile } = await import("node:fs/promises");
  axe ??= await readFile(AXE, "utf8");
  return axe;
}

/** The page asks for the operators' token, keeps it for its tab, and shows nothing without one. */
async function asksForTheToken() {
  const world = await World.start({ token: true });
  worlds.push(world);
  const { page, complaints, close } = await open(world);
  await page.locator("#token").waitFor();
  assert.equal(await page.locator("#content").isVisible(), false);
  await findNothing(page, "the entry");
  await page.keyboard.type("something else");
  await page.keyboard.press("Enter");
  await until("it is refused", async () => /not the operators/.test(await text(page, "#entry-why")));
  await page.keyboard.type(TOKEN);
  await page.keyboard.press("Enter");
  await page.locator("#accounts table").waitFor();
  await page.reload();
  await page.locator("#accounts table").waitFor();
  assert.deepEqual(complaints.filter((line) => !/Failed to load resource: .*401/.test(line)), []);
  // Another tab asks again.
  const other = await open(world);
  await other.page.locator("#token").waitFor();
  await Promise.all([close(), other.close()]);
}

const began = Date.now();
try {
  const world = await World.start();
  worlds.push(world);
  for (const skip of [0, 10, 20]) await world.get("st-support", `?skip=${skip}`);
  for (let count = 0; count < 40; count += 1) await world.get("st-support", `?skip=${10 * (count % 3)}`);
  assert.equal(await world.get("st-orders", "?all=true"), 200);
  await world.getRefused();
  await asksForTheToken();
  console.log("ok - the page asks for the operators' token");
  const { page, complaints, close } = await open(world);
  await page.locator("#accounts table").waitFor();
  for (const [name, check] of Object.entries(checks)) {
    try {
      await check({ world, page, complaints });
      assert.deepEqual(complaints, [], "the console is quiet, and nobody else is asked");
    } catch (error) {
      console.error(`not ok - ${name}`);
      throw error;
    }
    console.log(`ok - ${name}`);
  }
  await close();
  if (PICTURE !== null) await picture();
  console.log(`${Object.keys(checks).length + 1} checks of the ops page, ${((Date.now() - began) / 1000).toFixed(0)} s`);
} finally {
  await browser.close();
  for (const world of worlds) await world.stop();
}
