// What the page is looked at in front of: the simulator, and a gateway with an account that is well, one that Kore.ai
// refuses, and one without a secret. Everything on free ports, and ended at the end.

import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const GATEWAY = process.env.CONTACTS_GATEWAY ?? "target/debug/contacts-gateway";
const ACCOUNT = "65f7d49a5dd06e2cefa00000";
const REFUSED = "65f7d49a5dd06e2cefa00001";
export const SECRET = "the-secret-of-the-page-test-0000000000000000";

/** One more account. */
export const ANOTHER = `
[[accounts]]
name = "dahlia"
account_id = "65f7d49a5dd06e2cefa00003"
client_id = "cs-more"
client_secret_env = "DAHLIA_SECRET"
`;

export const TOKEN = "the-operators-token";
// Its SHA-256.
const TOKEN_HASH = "6b52ebc70ec73a0f799315b06f788e25066f33e5737ddffaee8827af3b03a8fa";

/** Starts a process and waits for a line of its output that matches; gives that match. */
function start(folder, args, pattern, env = {}) {
  const child = spawn(GATEWAY, args, { env: { ...process.env, ...env }, stdio: ["ignore", "pipe", "pipe"] });
  let said = "";
  const matched = new Promise((resolve, reject) => {
    const listen = (piece) => {
      said += piece;
      const match = said.match(pattern);
      if (match !== null) resolve(match);
    };
    child.stdout.on("data", listen);
    child.stderr.on("data", (piece) => { said += piece; });
    child.on("error", reject);
    child.on("exit", (code) => reject(new Error(`${args[0]} ended with ${code}: ${said}`)));
  });
  return { child, matched };
}

const ended = (child) => new Promise((resolve) => (child.exitCode !== null || child.signalCode !== null ? resolve() : child.once("exit", resolve)));

export class World {
  /** `told` is added to the configuration. */
  static async start({ token = false } = {}) {
    const world = new World();
    world.folder = mkdtempSync(join(tmpdir(), "ops-page-"));
    world.children = [];
    const secret = join(world.folder, "secret");
    writeFileSync(secret, SECRET, { mode: 0o600 });
    const wrong = join(world.folder, "wrong");
    writeFileSync(wrong, "no-secret-of-anybody-000000000000000000000", { mode: 0o600 });
    const simulator = start(world.folder, [
      "simulate", "--listen", "127.0.0.1:0", "--account-id", ACCOUNT, "--client-secret-file", secret, "--client-id", "cs-page",
      "--latency", "15ms", "--jitter", "30ms", "--stream", "st-support=1000", "--stream", "st-orders=340", "--stream", "st-archive=12000",
    ], /http:\/\/(127\.0\.0\.1:\d+)/);
    world.children.push(simulator.child);
    world.kore = `http://${(await simulator.matched)[1]}`;
    const config = join(world.folder, "gateway.toml");
    world.config = config;
    writeFileSync(config, `
[listen]
address = "127.0.0.1:0"

[admin]
address = "127.0.0.1:0"
${token ? `token_sha256 = ["${TOKEN_HASH}"]` : ""}

[upstream]
base_url = "${world.kore}"
allow_plaintext = true

[budget]
start_share = 1.0

[cache]
fresh_for = "20s"

[[accounts]]
name = "acme"
account_id = "${ACCOUNT}"
client_id = "cs-page"
client_secret_file = "secret"

[[accounts.streams]]
name = "support"
stream_id = "st-support"

[[accounts.streams]]
name = "orders"
stream_id = "st-orders"

[[accounts.streams]]
name = "archive"
stream_id = "st-archive"

[[accounts]]
name = "borealis"
account_id = "${REFUSED}"
client_id = "cs-other"
client_secret_file = "wrong"

[[accounts]]
name = "cumulus"
account_id = "65f7d49a5dd06e2cefa00002"
client_id = "cs-none"
client_secret_env = "CUMULUS_SECRET"
`);
    const gateway = start(world.folder, ["serve", "--config", config], /callers on http:\/\/([\d.:]+), operators on http:\/\/([\d.:]+)/);
    world.children.push(gateway.child);
    world.gateway = gateway.child;
    const [, traffic, admin] = await gateway.matched;
    world.traffic = `http://${traffic}`;
    world.admin = `http://${admin}`;
    return world;
  }

  /** Writes the configuration anew. The gateway reads it when it is told to. */
  async configure(change) {
    writeFileSync(this.config, change(readFileSync(this.config, "utf8")));
  }

  /** Asks as a caller does, to the answer's end. */
  async get(stream, query = "", account = ACCOUNT) {
    const answer = await fetch(`${this.traffic}/agentassist/api/v1/public/${stream}/contacts${query}`, { headers: { accountId: account } });
    await answer.arrayBuffer();
    return answer.status;
  }

  async getRefused() {
    return this.get("st-other", "", REFUSED);
  }

  /** A fault on every call from now on, or none any more. */
  async fault(fault) {
    const target = `${this.kore}/_simulator/faults`;
    await (fault === null ? fetch(target, { method: "DELETE" }) : fetch(`${target}?fault=${fault}`, { method: "POST" }));
  }

  /** The sum of a metric's series whose labels match. */
  async metric(name, labels = "") {
    const text = await (await fetch(`${this.admin}/metrics`)).text();
    const lines = text.split("\n").filter((line) => line.startsWith(`contacts_gateway_${name}{`) || line.startsWith(`contacts_gateway_${name} `));
    const fitting = lines.filter((line) => new RegExp(labels).test(line));
    return fitting.reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(" ") + 1)), 0);
  }

  async stop() {
    for (const child of this.children) {
      child.kill("SIGKILL");
      await ended(child);
    }
    rmSync(this.folder, { recursive: true, force: true });
  }
}
