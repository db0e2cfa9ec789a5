// @openai/agents: Agent and Runner, with the Responses WebSocket model. Its native WebSocket carries headers, which
// Node has from 22 on; before, the driver starts Node with --experimental-websocket.

import { ANSWERS, ASK_ONE, ASK_TWO, HELLO, NAME } from "./conversation.mjs";
import { KEY, check, drive, stock } from "./driver.mjs";
import { NOT_APPLICABLE } from "./openai_responses.mjs";

/** A story with a runner; `agent`: more of the Agent. */
function running(story, agent = () => ({})) {
  return async (options) => {
    const agents = await stock("@openai/agents");
    const { Agent, OpenAIProvider, Runner } = agents;
    const runs = [];
    const frames = watched();
    const modelProvider = new OpenAIProvider({ apiKey: KEY, baseURL: options.base, useResponsesWebSocket: true });
    const runner = new Runner({ modelProvider, model: options.model, tracingDisabled: true });
    const workshop = new Agent({ name: "workshop", instructions: "Be brief.", ...agent(agents, runs) });
    try {
      const seen = await story({ runner, workshop, runs, frames, modelProvider, run: (input, more) => runner.run(workshop, input, more) });
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

function withTools(agents, runs) {
  const parameters = {
    type: "object", properties: { part: { type: "string" } }, required: ["part"], additionalProperties: false,
  };
  const tools = Object.entries(ANSWERS).map(([name, output]) => agents.tool({
    name, description: `${name} of a part`, parameters, strict: true,
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
  check(frames.sockets[0].url.startsWith("wss:"), `the socket is ${frames.sockets[0].url}`);
  return { id: result.lastResponseId };
}

async function textTurn({ run, frames }) {
  const first = await run(NAME.told);
  check(first.finalOutput.length > 0, "a reply without words");
  // Streamed, and going on by the id: only what is new is sent.
  const second = await run(NAME.asked, { stream: true, previousResponseId: first.lastResponseId });
  let deltas = "";
  for await (const chunk of second.toTextStream()) deltas += chunk;
  await second.completed;
  check(deltas === second.finalOutput, "the deltas are not the text");
  check(second.finalOutput.includes(NAME.expected), "the second turn knows nothing of the first");
  check(frames.sockets.length === 1, "the socket is not used again");
  const sent = frames.sockets[0].sent.at(-1);
  check(sent.previous_response_id === first.lastResponseId && sent.input.length === 1, "the whole history was sent");
  return { said: second.finalOutput };
}

async function toolCalls({ run, runs, frames }, ask, names) {
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
  notApplicable: NOT_APPLICABLE,
  scenarios: {
    connect: running(connect),
    text_turn: running(textTurn),
    tool_call: running((line) => toolCalls(line, ASK_ONE, ["check_stock"]), withTools),
    parallel_tool_calls: running((line) => toolCalls(line, ASK_TWO, ["check_stock", "get_price"]), withTools),
    error_path: running(errorPath),
    clean_close: running(cleanClose),
  },
});
