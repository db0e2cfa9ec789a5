// The scenarios of openai-node's Responses, over whichever transport. Each works on a `Line`:
//   create(fields) -> the finished Response; raises a Refused with `code` for an error
//   deltas         -> the text deltas of the last response, joined
//   close()        -> {code} of the socket, or {} where there is none

import { ASK_ONE, ASK_TWO, HELLO, NAME, TOOLS, answer, checkTold } from "./conversation.mjs";
import { check } from "./driver.mjs";

const NO_AUDIO = "Responses carries text only; the client has no audio";
export const NOT_APPLICABLE = Object.fromEntries(["audio_turn", "barge_in", "manual_commit"].map((name) => [name, NO_AUDIO]));

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
    tool_call: on((line) => tools(line, ASK_ONE, ["check_stock"])),
    parallel_tool_calls: on((line) => tools(line, ASK_TWO, ["check_stock", "get_price"])),
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
  const warm = await line.create({ input: NAME.told, store: false, generate: false });
  check(warm.status === "completed" && warm.output.length === 0, "a warm-up must complete without output");
  const after = await line.create({ input: NAME.asked, store: false, previous_response_id: warm.id });
  check(textOf(after).includes(NAME.expected), "nothing is known of what was warmed up");
  return { id: response.id, warm: warm.id };
}

async function textTurn(line) {
  const seen = {};
  for (const store of [true, false]) {
    const first = await line.create({ input: NAME.told, store });
    check(textOf(first).length > 0, "a reply without words");
    check(line.deltas === null || line.deltas === textOf(first), "the deltas are not the text");
    if (!store && !line.keeps) continue;
    const second = await line.create({ input: NAME.asked, store, previous_response_id: first.id });
    check(second.previous_response_id === first.id, "previous_response_id is not shown again");
    check(textOf(second).includes(NAME.expected), `store=${store}: the second turn knows nothing of the first`);
    check(second.usage.input_tokens > first.usage.input_tokens, "usage does not count the first turn");
    seen[store ? "stored" : "passing"] = textOf(second);
  }
  return seen;
}

async function tools(line, ask, names) {
  const common = { tools: TOOLS, store: true };
  const response = await line.create({ ...common, input: ask });
  const calls = response.output.filter((item) => item.type === "function_call");
  const input = answer(calls, names);
  const told = await line.create({ ...common, previous_response_id: response.id, input });
  checkTold(textOf(told), names);
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
  await line.create({ input: HELLO });
  const cut = line.abandon ? await line.abandon({ input: "tell me about openline" }) : null;
  const closed = await line.close();
  check(closed.code === undefined || closed.code === 1000, `closed with ${closed.code}`);
  return { ...closed, ...(cut ?? {}) };
}
