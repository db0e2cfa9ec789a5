// @openai/agents: Agent and Runner, with the Responses WebSocket model. Its native WebSocket carries headers, which
// Node has from 22 on; before, the driver starts Node with --experimental-websocket.

import { Agent, ModelRefusalError, OpenAIProvider, Runner, tool } from "@openai/agents";

import {
  ANSWERS, FORBIDDEN, HEARD, HELLO, ONE_CALL, PARAMETERS, REFUSED, SUMMARY, Story, THINK, THOUGHTS, TWO_CALLS, WORD,
} from "./conversation.mjs";
import { KEY, check, drive } from "./driver.mjs";

/** A story with a runner; `agent`: more of the Agent. */
function running(story, agent = () => ({})) {
  return async (options) => {
    const runs = [];
    const frames = watched();
    const modelProvider = new OpenAIProvider({ apiKey: KEY, baseURL: options.base, useResponsesWebSocket: true });
    const runner = new Runner({ modelProvider, model: options.model, tracingDisabled: true });
    const workshop = new Agent({ name: "workshop", instructions: "Be brief.", ...agent(runs) });
    try {
      const run = (input, more) => runner.run(workshop, input, more);
      const seen = await story({ run, runs, frames, modelProvider });
      check(frames.sockets.length > 0, "no WebSocket was opened: the model used HTTP");
      return { ...seen, sockets: frames.sockets.length };
    } finally {
      await modelProvider.close();
    }
  };
}

/** The sockets that the SDK opens from now on, and what it sent: it has no event of its own for them. */
function watched() {
  const sockets = [];
  const Native = globalThis.WebSocket;
  globalThis.WebSocket = class extends Native {
    constructor(...given) {
      super(...given);
      const closed = new Promise((resolve) => this.addEventListener("close", resolve));
      const socket = { url: String(given[0]), sent: [], errors: [], closed };
      this.addEventListener("message", ({ data }) => {
        const frame = JSON.parse(data);
        if (frame.type === "error") socket.errors.push(frame.error);
      });
      sockets.push(socket);
      this._watched = socket;
    }

    send(data) {
      this._watched.sent.push(JSON.parse(data));
      super.send(data);
    }
  };
  return { sockets };
}

function withTools(runs) {
  const tools = Object.entries(ANSWERS).map(([name, output]) => tool({
    name, description: `The ${name} of a part.`, parameters: PARAMETERS, strict: true,
    execute: async ({ part }) => {
      runs.push({ name, part });
      return output;
    },
  }));
  return { tools };
}

async function connect({ run, frames }) {
  const result = await run(HELLO);
  check(/^resp_/.test(result.lastResponseId), "no response id");
  check(/^wss?:/.test(frames.sockets[0].url), `the socket is ${frames.sockets[0].url}`);
  return { id: result.lastResponseId };
}

async function textTurn({ run, frames }) {
  const first = await run(WORD.told);
  check(first.finalOutput.length > 0, "a reply without words");
  // Streamed, and going on by the id: only what is new is sent.
  const second = await run(WORD.asked, { stream: true, previousResponseId: first.lastResponseId });
  let deltas = "";
  for await (const chunk of second.toTextStream()) deltas += chunk;
  await second.completed;
  check(deltas === second.finalOutput, "the deltas are not the text");
  check(WORD.expected.test(second.finalOutput), "the second turn knows nothing of the first");
  check(frames.sockets.length === 1, "the socket is not used again");
  const sent = frames.sockets[0].sent.at(-1);
  check(sent.previous_response_id === first.lastResponseId && sent.input.length === 1, "the whole history was sent");
  return { said: second.finalOutput };
}

async function bargeIn({ run }) {
  const first = await run(WORD.told);
  const stop = new AbortController();
  const story = new Story();
  const long = await run(story.ask, { stream: true, previousResponseId: first.lastResponseId, signal: stop.signal });
  let stories = null;
  for await (const delta of long.toTextStream()) {
    if (stories !== null || !story.hear(delta)) continue;
    stories = story.interrupted();
    stop.abort();
  }
  await long.completed.catch(() => {}); // It was aborted.
  check(stories !== null, "the story came to an end");
  const heard = await run(HEARD.asked, { previousResponseId: first.lastResponseId });
  check(heard.finalOutput === HEARD.none, `words of a story in a conversation that has none: ${heard.finalOutput}`);
  const after = await run(WORD.asked, { previousResponseId: heard.lastResponseId });
  check(WORD.expected.test(after.finalOutput), "what came before the cut response is not known");
  return { stories };
}

/** An error of its own, and a handler of its own for who wants to go on from the refused response. */
async function refusal({ run }) {
  const error = await run(FORBIDDEN.asked).then((result) => result, (raised) => raised);
  check(error instanceof ModelRefusalError, `expected a ModelRefusalError, got ${error.finalOutput ?? error}`);
  check(error.refusal === FORBIDDEN.refusal, `the refusal is ${error.refusal}`);
  const modelRefusal = ({ error: raised }) => ({ finalOutput: `It refused: ${raised.refusal}`, includeInHistory: false });
  const result = await run(FORBIDDEN.asked, { errorHandlers: { modelRefusal } });
  check(result.finalOutput === `It refused: ${FORBIDDEN.refusal}`, `it came as ${result.finalOutput}`);
  const chained = await run(REFUSED.asked, { previousResponseId: result.lastResponseId });
  const given = await run([...result.history, { role: "user", content: REFUSED.asked }]);
  for (const { finalOutput } of [chained, given]) {
    check(finalOutput === REFUSED.expected, `it is not known as one: ${finalOutput}`);
  }
  return { error: error.name };
}

/** Its items are given back by itself in the run, and by its history in the next; nothing is stored. */
async function reasoning({ run, runs }) {
  const result = await run(THINK.ask);
  check(runs.map((one) => one.name).join() === "stock", `ran ${runs.map((one) => one.name)}`);
  check(result.finalOutput.includes(ANSWERS.stock), "the reply does not tell what stock answered");
  const thoughts = result.newItems.filter((item) => item.type === "reasoning_item");
  check(thoughts.length === 2, `expected thoughts before the call and the answer, got ${thoughts.length}`);
  for (const { rawItem } of thoughts) {
    check(rawItem.content.map((part) => part.text).join() === SUMMARY.join(), "the summary is another");
  }
  const after = await run([...result.history, { role: "user", content: THOUGHTS.asked }]);
  check(after.finalOutput === THOUGHTS.expected, `the model says: ${after.finalOutput}`);
}

const THINKING = {
  store: false,
  reasoning: { effort: "low", summary: "auto" },
  providerData: { include: ["reasoning.encrypted_content"] },
};

async function toolCalls({ run, runs, frames }, { ask, names }) {
  const result = await run(ask);
  check(runs.map((one) => one.name).join() === names.join(), `expected ${names}, ran ${runs.map((one) => one.name)}`);
  check(runs.every((one) => one.part === "bolt"), "arguments that were not asked for");
  for (const name of names) check(result.finalOutput.includes(ANSWERS[name]), `the reply does not tell what ${name} answered`);
  check(frames.sockets.length === 1 && frames.sockets[0].sent.length === 2, "not one socket and two requests");
  return { runs, said: result.finalOutput };
}

async function errorPath({ run, frames }) {
  const error = await run(HELLO, { previousResponseId: "resp_nowhere" }).then(() => null, (raised) => raised);
  check(error, "an unknown previous_response_id was taken");
  // The SDK says that it failed, not why, and drops the socket.
  check(error.name === "ModelBehaviorError", `expected a ModelBehaviorError, got ${error.name}: ${error.message}`);
  const codes = frames.sockets.flatMap((socket) => socket.errors).map((one) => one.code);
  check(codes.join() === "previous_response_not_found", `the server said ${codes}`);
  check((await run(HELLO)).finalOutput.length > 0, "nothing works after an error");
  return { error: error.name, codes };
}

async function cleanClose({ run, frames, modelProvider }) {
  await run(HELLO);
  await modelProvider.close();
  const { code, wasClean } = await frames.sockets[0].closed;
  check(wasClean, `closed with ${code}`);
  return { code };
}

await drive({
  package: "@openai/agents",
  nativeWebSocket: true,
  scenarios: {
    connect: running(connect),
    text_turn: running(textTurn),
    barge_in: running(bargeIn),
    tool_call: running((line) => toolCalls(line, ONE_CALL), withTools),
    parallel_tool_calls: running((line) => toolCalls(line, TWO_CALLS), withTools),
    refusal: running(refusal),
    reasoning: running(reasoning, (runs) => ({ ...withTools(runs), modelSettings: THINKING })),
    error_path: running(errorPath),
    clean_close: running(cleanClose),
  },
});
