// What is said in the scenarios, and what must come of it. The gateways answer by rules: they remember a code word,
// work sums out, call what a text tells them to call, and repeat what a tool answered.

import { check } from "./driver.mjs";

/** JSON Schema of what both tools take. */
export const PARAMETERS = {
  type: "object", properties: { part: { type: "string" } }, required: ["part"], additionalProperties: false,
};
/** Each tool of the client, and what it answers. */
export const ANSWERS = { stock: "There are seventeen in the drawer.", price: "One of them is two euros." };
/** The tools in the shape that Realtime and Responses share. */
export const TOOLS = Object.keys(ANSWERS).map((name) => (
  { type: "function", name, description: `The ${name} of a part.`, parameters: PARAMETERS }
));

export const HELLO = "Hello there.";
export const WORD = { told: "My code word is tiger seven.", asked: "What is my code word?", expected: /tiger seven/i };
export const LONG = "Tell me about the open line.";
/** What the recorded sum comes to, as it is said. */
export const SUM = /84|eighty/i;

/** Each: what to write, and the calls that one response must make of it, in order. */
export const ONE_CALL = { ask: 'call stock with {"part": "bolt"}', names: ["stock"] };
export const TWO_CALLS = { ask: `${ONE_CALL.ask} and call price with {"part": "bolt"}`, names: ["stock", "price"] };

/** Check the calls of one response (each with name, call_id and arguments) and return their outputs as items. */
export function answer(calls, { names }) {
  const got = calls.map((call) => call.name);
  check(got.join() === names.join(), `expected calls of ${names}, got ${got.join() || "none"}`);
  for (const call of calls) {
    check(call.call_id, "a call without call_id");
    check(JSON.parse(call.arguments).part === "bolt", `${call.name}: arguments that were not asked for`);
  }
  check(new Set(calls.map((call) => call.call_id)).size === calls.length, "two calls share a call_id");
  return calls.map((call) => ({ type: "function_call_output", call_id: call.call_id, output: ANSWERS[call.name] }));
}

/** Check that a reply tells what the tools answered. */
export function checkTold(text, { names }) {
  for (const name of names) check(text.includes(ANSWERS[name]), `the reply does not tell what ${name} answered`);
}
