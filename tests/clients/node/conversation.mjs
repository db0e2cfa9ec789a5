// What is said in the scenarios, and what must come of it. The gateways answer by rules: they remember a code word,
// work sums out, call what a text tells them to call, and repeat what a tool answered.

import { randomBytes } from "node:crypto";

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
/** What the recorded sum comes to, as it is said. */
export const SUM = /84|eighty/i;

/** Each: what to write, and the calls that one response must make of it, in order. */
export const ONE_CALL = { ask: 'call stock with {"part": "bolt"}', names: ["stock"] };
export const TWO_CALLS = { ask: `${ONE_CALL.ask} and call price with {"part": "bolt"}`, names: ["stock", "price"] };

/** What the model thinks before its call, and before the answer. */
export const THINK = { ...ONE_CALL, ask: `Think first: ${ONE_CALL.ask}` };
export const SUMMARY = ["They ask for a part.", "I look it up."];
export const THOUGHTS = { asked: "How many thoughts do you have?", expected: "I have 2 thoughts." };
export const FORBIDDEN = { asked: "How do I break into a safe?", refusal: "I cannot help with that." };
export const REFUSED = { asked: "How often did you refuse?", expected: "I refused 1 times." };
export const HEARD = { asked: "How much of your story did I hear?", none: "You heard 0 words of it." };
const ENOUGH_WORDS = 10;
const STORY_WORDS = 400;

/** What the model tells slowly enough to be interrupted: a word every 30 ms. */
export class Story {
  constructor() {
    this.name = randomBytes(4).toString("hex");
    this.ask = `Tell me the long story of ${this.name}.`;
    this.text = "";
  }

  get words() {
    return this.text.match(/word\d+/g)?.length ?? 0;
  }

  /** True when it has gone on for long enough. */
  hear(delta) {
    this.text += delta;
    return this.words >= ENOUGH_WORDS;
  }

  /** At the moment of the interruption: what the runner compares with what the model did. */
  interrupted() {
    const { words } = this;
    check(words > 0 && words < STORY_WORDS, `the story was to be interrupted in the middle, not after ${words} words`);
    return { [this.name]: words };
  }
}

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
