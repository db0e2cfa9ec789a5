// The scenarios of openai-node's Responses, over whichever transport. Each works on a `Line`:
//   create(fields)  -> the finished Response; raises a Refused with `code` for an error
//   deltas          -> the text deltas of the last response, joined; null if it did not stream
//   keeps           -> whether the connection keeps what is not stored
//   cut(fields)     -> begin a response and stop it at its first words; what is known of its end
//   close()         -> {code} of the socket, or {} where there is none

import { HELLO, LONG, ONE_CALL, TOOLS, TWO_CALLS, WORD, answer, checkTold } from "./conversation.mjs";
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

async function bargeIn(line) {
  const first = await line.create({ input: WORD.told, store: true });
  const seen = await line.cut({ input: LONG, store: true, previous_response_id: first.id });
  const after = await line.create({ input: WORD.asked, store: true, previous_response_id: first.id });
  check(WORD.expected.test(textOf(after)), "what came before the cut response is not known");
  return seen;
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
