// What every driver of a Node client has in common: its command line, its one line of result, its patience.
// The contract is in ../README.md. Drivers run from a copy of this folder that has its packages installed.

import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const HERE = dirname(fileURLToPath(import.meta.url));
const MODULES = join(HERE, "node_modules");

/** The runner ends a driver after 60 s; before that it says itself what it waited for. */
const SCENARIO_S = 54;
/** After the scenario the process must end by itself: a socket that stays open is a finding. */
const DRAIN_S = 4;
/** Any key does on loopback. */
export const KEY = "sk-stock-client-key";

/** The scenario found something that must not be. */
export class Failure extends Error {}

/** The client itself cannot do this; the message says why. */
export class Cannot extends Error {}

export function check(holds, message) {
  if (!holds) throw new Failure(typeof message === "function" ? message() : message);
}

/** `promise`, or Failure that names `what` after `seconds`. */
export async function within(seconds, what, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Failure(`no ${what} within ${seconds} s`)), seconds * 1000);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** The installed version, from the package's own package.json. */
export function versionOf(name) {
  return JSON.parse(readFileSync(join(MODULES, name, "package.json"), "utf8")).version;
}

/** Events in the order they came; each waiting story reads on from where the last one stopped. */
export class Events {
  constructor() {
    this.all = [];
    this.problem = null;
    this._looked = 0;
    this._waiting = [];
  }

  push(event) {
    this.all.push(event);
    this._wake();
  }

  /** Every wait from now on fails with `problem`. */
  fail(problem) {
    this.problem ??= problem;
    this._wake();
  }

  of(type) {
    return this.all.filter((event) => event.type === type);
  }

  _wake() {
    for (const wake of this._waiting.splice(0)) wake();
  }

  /** Any further event. */
  async more() {
    if (this.problem) throw this.problem;
    await new Promise((wake) => this._waiting.push(wake));
  }

  count(type) {
    return this.of(type).length;
  }

  /** The next event of `type` that passes `test`. Failure after `seconds`, with the last types seen. */
  async wait(type, test = () => true, seconds = 20) {
    const look = async () => {
      for (;;) {
        while (this._looked < this.all.length) {
          const event = this.all[this._looked++];
          if (event.type === type && test(event)) return event;
        }
        await this.more();
      }
    };
    try {
      return await within(seconds, type, look());
    } catch (error) {
      if (!(error instanceof Failure)) throw error;
      const last = this.all.slice(-8).map((seen) => seen.type);
      throw new Failure(`${error.message}; last ${last.join(", ") || "nothing"}`);
    }
  }
}

/**
 * Run the scenario that the command line asks for.
 *
 * `client`: {package, nativeWebSocket, scenarios: {scenario: async (options) => seen}}.
 */
export async function drive(client) {
  const options = read();
  const again = nodeAgain(client, options);
  if (again) {
    const { status } = spawnSync(process.execPath, again.arguments, { stdio: "inherit", env: again.env });
    process.exit(status ?? 1);
  }
  const result = { scenario: options.scenario, passed: false, version: "", why: "", seen: {} };
  let code = 1;
  try {
    result.version = versionOf(client.package);
    const scenario = client.scenarios[options.scenario];
    check(scenario, `this driver has no scenario ${options.scenario}`);
    result.seen = (await within(SCENARIO_S, "end of the scenario", scenario(options))) ?? {};
    result.passed = true;
    code = 0;
  } catch (error) {
    code = error instanceof Cannot ? 3 : 1;
    result.why = error instanceof Failure || code === 3 ? error.message : `${error?.stack ?? error}`;
  }
  result.seen = { node: process.version, ...result.seen };
  end(result, code);
}

/** The result is told when nothing holds the process any more, or when it is held too long. */
function end(result, code) {
  const tell = () => {
    process.stdout.write(`${JSON.stringify(result)}\n`);
  };
  const held = setTimeout(() => {
    if (result.passed) {
      const kinds = process.getActiveResourcesInfo().filter((kind) => kind !== "Timeout");
      Object.assign(result, { passed: false, why: `the process does not end: ${kinds.join(", ") || "a timer"}` });
    }
    tell();
    process.exit(code || 1);
  }, DRAIN_S * 1000);
  held.unref();
  process.exitCode = code;
  process.once("beforeExit", () => {
    clearTimeout(held);
    tell();
  });
}

function read() {
  const { values } = parseArgs({
    options: {
      url: { type: "string" }, scenario: { type: "string" }, audio: { type: "string" },
      model: { type: "string", default: "gpt-realtime" }, ca: { type: "string" },
    },
  });
  for (const name of ["url", "scenario"]) {
    if (!values[name]) {
      console.error(`expected --${name}`);
      process.exit(2);
    }
  }
  return { ...values, base: `${values.url.replace(/\/$/, "")}/v1` };
}

/**
 * How Node must be started once more, or null.
 *
 * A certificate authority counts only from the environment of a new process. Before Node 22 the native
 * WebSocket is there but needs a flag.
 */
function nodeAgain(client, options) {
  const env = { ...process.env };
  const flags = [];
  if (options.ca && env.NODE_EXTRA_CA_CERTS !== options.ca) env.NODE_EXTRA_CA_CERTS = options.ca;
  if (client.nativeWebSocket && typeof globalThis.WebSocket === "undefined") {
    if (process.execArgv.includes("--experimental-websocket")) return null;
    flags.push("--experimental-websocket", "--no-warnings");
  }
  if (flags.length === 0 && env.NODE_EXTRA_CA_CERTS === process.env.NODE_EXTRA_CA_CERTS) return null;
  return { env, arguments: [...process.execArgv, ...flags, ...process.argv.slice(1)] };
}
