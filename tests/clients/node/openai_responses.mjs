// The scenarios of openai-node's Responses, over whichever transport. Each works on a `Line`:
//   create(fields)  -> the finished Response; raises a Refused with `code` for an error
//   deltas          -> the text deltas of the last response, joined; null if it did not stream
//   keeps           -> whether the connection keeps what is not stored
//   refusal         -> the refusal deltas of the last response, joined; null if it did not stream
//   cut(fields, story) -> begin a response and interrupt it when there is enough of the story; what is known of it
//   close()         -> {code} of the socket, or {} where there is none

import {
  FORBIDDEN, HEARD, HELLO, ONE_CALL, REFUSED, SUMMARY, Story, THINK, THOUGHTS, TOOLS, TWO_CALLS, WORD, answer, checkTold,
} from "./conversation.mjs";
import { check } from "./driver.mjs";

/** The server refused a request. */
export class Refused extends Error {
  constructor(message, code) {
    super(message);
    this.code = code;
  }
}

/** `open(options)` returns a Line. */
export function scenariosOf(open) {
  const on = (story) => async (options) => {
    const line = await open(options);
    try {
      return await story(line);
    } finally {
      await line.close();
    }
  };
  return {
    connect: on(connect),
    text_turn: on(textTurn),
    barge_in: on(bargeIn),
    tool_call: on((line) => tools(line, ONE_CALL)),
    parallel_tool_calls: on((line) => tools(line, TWO_CALLS)),
    refusal: on(refusal),
    reasoning: on(reasoning),
    error_path: on(errorPath),
    clean_close: on(cleanClose),
  };
}

export const textOf = (response) =>
  response.output.flatMap((item) => item.content ?? []).map((part) => part.text ?? "").join("");

async function connect(line) {
  const response = await line.create({ input: HELLO, store: false });
  check(response.object === "response" && /^resp_/.test(response.id), "no response object");
  check(response.status === "completed", `status ${response.status}`);
  if (!line.keeps) return { id: response.id };
  const warm = await line.create({ input: WORD.told, store: false, generate: false });
  check(warm.status === "completed" && warm.output.length === 0, "a warm-up must complete without output");
  const after = await line.create({ input: WORD.asked, store: false, previous_response_id: warm.id });
  check(WORD.expected.test(textOf(after)), "nothing is known of what was warmed up");
  return { id: response.id, warm: warm.id };
}

async function textTurn(line) {
  const seen = {};
  for (const store of [true, false]) {
    const first = await line.create({ input: WORD.told, store });
    check(textOf(first).length > 0, "a reply without words");
    check(line.deltas === null || line.deltas === textOf(first), "the deltas are not the text");
    if (!store && !line.keeps) continue;
    const second = await line.create({ input: WORD.asked, store, previous_response_id: first.id });
    check(second.previous_response_id === first.id, "previous_response_id is not shown again");
    check(WORD.expected.test(textOf(second)), `store=${store}: the second turn knows nothing of the first`);
    check(second.usage.input_tokens > first.usage.input_tokens, "usage does not count the first turn");
    seen[store ? "stored" : "passing"] = textOf(second);
  }
  return seen;
}

/** Twice: the next turn goes on from before the story, then it brings the words that were heard of it. */
async function bargeIn(line) {
  const first = await line.create({ input: WORD.told, store: true });
  const stories = {};
  for (const brings of [false, true]) {
    const story = new Story();
    Object.assign(stories, await line.cut({ input: story.ask, store: true, previous_response_id: first.id }, story));
    const told = [{ role: "user", content: story.ask }, { role: "assistant", content: story.text }];
    const input = [...(brings ? told : []), { role: "user", content: HEARD.asked }];
    const heard = textOf(await line.create({ input, store: true, previous_response_id: first.id }));
    const expected = `You heard ${brings ? story.words : 0} words of it.`;
    check(heard === expected, () => `expected ${expected}, the model says: ${heard}`);
  }
  const after = await line.create({ input: WORD.asked, store: true, previous_response_id: first.id });
  check(WORD.expected.test(textOf(after)), "what came before the cut response is not known");
  return { stories };
}

/** In a chain, and given back with nothing stored. */
async function refusal(line) {
  const refused = await line.create({ input: FORBIDDEN.asked, store: true });
  const parts = refused.output.flatMap((item) => item.content);
  check(parts.length === 1 && parts[0].type === "refusal", () => `the answer is ${JSON.stringify(parts)}`);
  check(parts[0].refusal === FORBIDDEN.refusal, () => `the refusal is ${parts[0].refusal}`);
  check(!refused.output_text && !line.deltas, "a refusal came as text");
  check(line.refusal === null || line.refusal === FORBIDDEN.refusal, () => `the refusal's deltas are ${line.refusal}`);
  const chained = await line.create({ input: REFUSED.asked, store: true, previous_response_id: refused.id });
  const input = [
    { role: "user", content: FORBIDDEN.asked }, ...refused.output, { role: "user", content: REFUSED.asked },
  ];
  const given = await line.create({ input, store: false });
  for (const said of [chained, given].map(textOf)) check(said === REFUSED.expected, () => `it is not known as one: ${said}`);
  return { refusal: parts[0].refusal };
}

/** Stored, in a chain; then with nothing stored: sealed thoughts are given back with the output. */
async function reasoning(line) {
  for (const store of [true, false]) {
    const common = { tools: TOOLS, store, reasoning: { effort: "low", summary: "auto" } };
    if (!store) common.include = ["reasoning.encrypted_content"];
    const known = [{ role: "user", content: THINK.ask }];
    let last;
    const turn = async (...input) => {
      const whole = last && !store ? known.concat(last.output, input) : input;
      if (!store) known.splice(0, known.length, ...whole);
      last = await line.create({ ...common, input: whole, ...(last && store ? { previous_response_id: last.id } : {}) });
      return last.output.map((item) => item.type).join();
    };
    check((await turn(...known)) === "reasoning,function_call", "expected thoughts, then a call");
    const [thought, ...calls] = last.output;
    check(thought.summary.map((part) => part.text).join() === SUMMARY.join(), "the summary is another");
    check(store || thought.encrypted_content, "no sealed content, which was asked for");
    check((await turn(...answer(calls, THINK))) === "reasoning,message", "expected thoughts, then words");
    checkTold(textOf(last), THINK);
    await turn({ role: "user", content: THOUGHTS.asked });
    check(textOf(last) === THOUGHTS.expected, () => `store=${store}: the model says: ${textOf(last)}`);
  }
}

async function tools(line, wish) {
  const common = { tools: TOOLS, store: true };
  const response = await line.create({ ...common, input: wish.ask });
  const calls = response.output.filter((item) => item.type === "function_call");
  const input = answer(calls, wish);
  const told = await line.create({ ...common, previous_response_id: response.id, input });
  checkTold(textOf(told), wish);
  return { calls: calls.map((item) => `${item.name}(${item.arguments})`), text: textOf(told) };
}

async function errorPath(line) {
  const refusals = [
    [{ input: HELLO, previous_response_id: "resp_nowhere" }, "previous_response_not_found"],
    [{ input: [{ type: "scooby", role: "user" }] }, "invalid_value"],
  ];
  const codes = [];
  for (const [fields, code] of refusals) {
    const refused = await line.create(fields).then(() => null, (error) => error);
    check(refused instanceof Refused, () => `expected a refusal, got ${refused?.stack ?? "a response"}`);
    check(refused.code === code, `expected ${code}, got ${refused.code}`);
    codes.push(refused.code);
  }
  check(textOf(await line.create({ input: HELLO })).length > 0, "nothing works after an error");
  return { codes };
}

async function cleanClose(line) {
  const response = await line.create({ input: HELLO, store: true });
  const closed = await line.close();
  check(closed.code === undefined || closed.code === 1000, `closed with ${closed.code}`);
  return { ...closed, response: response.id };
}
