// What every driver of a Node client has in common: its command line, its one line of result, its patience.
//
//   node openai_realtime_ws.mjs --url https://127.0.0.1:PORT --scenario text_turn --audio DIR [--model NAME] [--ca FILE]
//
// Runs one scenario against a gateway that already runs. The last line on stdout is JSON:
//   {"scenario": "text_turn", "passed": true, "version": "7.59.0", "why": "", "seen": {…}}
// Exit code: 0 passed, 1 failed, 3 the scenario does not apply to this client (and why).
// No packages are imported here; `stock` brings those that `tests/clients/node/package.json` names.

import { spawnSync } from "node:child_process";
import { existsSync, readFileSync, symlinkSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const HERE = dirname(fileURLToPath(import.meta.url));
const MODULES = join(HERE, "node_modules");
const INSTALLED = join(HERE, "..", "..", "..", ".clients", "node", "node_modules");

const SCENARIO_S = 55;
/** The runner ends a driver after 60 s; this one says what it waited for. */
const DRAIN_S = 5;
/** After the scenario the process must end by itself: a socket that stays open is a finding. */
export const KEY = "sk-stock-client-key";
/** Any key does on loopback. */

export const SCENARIOS = [
  "connect", "text_turn", "audio_turn", "barge_in", "tool_call", "parallel_tool_calls", "manual_commit", "error_path",
  "clean_close",
];

/** The scenario found something that must not be. */
export class Failure extends Error {}

/** The scenario has no meaning for this client; the message says why. */
export class NotApplicable extends Error {}

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

/** A package as a program would import it. */
export async function stock(name) {
  return import(name);
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
    this._wake = () => {};
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

  /** Any further event. */
  async more(seconds) {
    const before = this.all.length;
    if (this.problem) throw this.problem;
    await within(seconds, "further event", new Promise((wake) => (this._wake = wake)));
    if (this.problem && this.all.length === before) throw this.problem;
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
        if (this.problem) throw this.problem;
        await new Promise((wake) => (this._wake = wake));
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
 * `client`: {package, nativeWebSocket, notApplicable: {scenario: why}, scenarios: {scenario: async (options) => seen}}.
 */
export async function drive(client) {
  const options = read();
  const again = nodeAgain(client, options);
  if (again) {
    const { status } = spawnSync(process.execPath, again.arguments, { stdio: "inherit", env: again.env });
    process.exit(status ?? 1);
  }
  linkModules();
  const result = { scenario: options.scenario, passed: false, version: "", why: "", seen: {} };
  let code = 1;
  try {
    result.version = versionOf(client.package);
    const why = client.notApplicable?.[options.scenario];
    if (why) throw new NotApplicable(why);
    const scenario = client.scenarios[options.scenario];
    check(scenario, `this client has no scenario ${options.scenario}`);
    result.seen = (await within(SCENARIO_S, "end of the scenario", scenario(options))) ?? {};
    result.passed = true;
    code = 0;
  } catch (error) {
    code = error instanceof NotApplicable ? 3 : 1;
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

/** Packages are installed under .clients/node; imports of these files find them here. */
function linkModules() {
  if (existsSync(MODULES) || !existsSync(INSTALLED)) return;
  try {
    symlinkSync(INSTALLED, MODULES, "dir");
  } catch (error) {
    if (error.code !== "EEXIST") throw error; // Another driver was quicker.
  }
}
