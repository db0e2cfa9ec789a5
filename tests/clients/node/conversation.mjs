// What is said in the scenarios, and what must come of it. The gateway's embedded model answers by rules: it calls
// what it is told to call, and repeats what a tool answered.

import { check } from "./driver.mjs";

const parameters = {
  type: "object", properties: { part: { type: "string" } }, required: ["part"], additionalProperties: false,
};

/** Function tools in the shape that Realtime and Responses share. */
export const TOOLS = [
  { type: "function", name: "check_stock", description: "How many pieces of a part are in stock.", parameters },
  { type: "function", name: "get_price", description: "What a part costs.", parameters },
];

export const ASK_ONE = 'call check_stock with {"part": "bolt"}';
export const ASK_TWO = 'call check_stock with {"part": "bolt"} and call get_price with {"part": "bolt"}';
export const ANSWERS = { check_stock: "There are eight in the drawer.", get_price: "One of them is two euros." };
export const HELLO = "hello";
export const NAME = { told: "my name is Ada", asked: "what is my name", expected: "Ada" };

/** Check the calls of one response (each with name, call_id and arguments) and return their outputs as items. */
export function answer(calls, names) {
  const got = calls.map((call) => call.name);
  check(got.join() === names.join(), `expected calls of ${names}, got ${got.join() || "none"}`);
  for (const call of calls) {
    check(call.call_id, "a call without call_id");
    check(JSON.parse(call.arguments).part === "bolt", `${call.name}: arguments that were not asked for`);
  }
  check(new Set(calls.map((call) => call.call_id)).size === calls.length, "two calls share a call_id");
  return calls.map((call) => ({ type: "function_call_output", call_id: call.call_id, output: ANSWERS[call.name] }));
}

/** Check that a reply tells what these tools answered. */
export function checkTold(text, names) {
  for (const name of names) check(text.includes(ANSWERS[name]), `the reply does not tell what ${name} answered`);
}
