// @openai/agents-realtime: RealtimeAgent and RealtimeSession over their WebSocket transport.

import { OpenAIRealtimeWebSocket, RealtimeAgent, RealtimeSession, tool } from "@openai/agents-realtime";

import { Microphone, isAudible, milliseconds, phrase, understood } from "./caller.mjs";
import { ANSWERS, HELLO, ONE_CALL, PARAMETERS, SUM, TWO_CALLS, WORD } from "./conversation.mjs";
import { Events, KEY, check, drive, within } from "./driver.mjs";

/**
 * One session. `events` are the server's, as the transport shows them ("*"), and the session's own with a type of
 * their own (`agent_end`, `audio_interrupted`, …).
 */
class Call {
  constructor(session, transport) {
    this.session = session;
    this.transport = transport;
    this.events = new Events();
    this.errors = [];
    this.audio = new Map();
    this._came = new Map();
    this._understood = new Map();
    transport.on("*", (event) => this._server(event));
    session.on("audio", ({ data, responseId }) => {
      this.audio.set(responseId, [...(this.audio.get(responseId) ?? []), Buffer.from(data)]);
    });
    session.on("audio_interrupted", () => this.events.push({ type: "audio_interrupted" }));
    session.on("agent_end", (_context, _agent, output) => this.events.push({ type: "agent_end", output }));
    session.on("agent_tool_end", (_context, _agent, tool, result, { toolCall }) => {
      this.events.push({ type: "agent_tool_end", name: tool.name, result, toolCall });
    });
    session.on("error", (event) => {
      this.errors.push(event.error?.error?.error ?? event.error?.error ?? event.error);
      this.events.push({ type: "session_error" });
    });
    transport.on("connection_change", (status) => this.events.push({ type: "connection_change", status }));
  }

  /**
   * The SDK parses each frame strictly; one that does not fit is shown under "*" and then ignored without a word.
   * What it understood is shown under its own type as well, right after.
   */
  _server(event) {
    const { type } = event;
    if (!this._came.has(type)) {
      this._came.set(type, 0);
      this._understood.set(type, 0);
      this.transport.on(type, () => this._understood.set(type, this._understood.get(type) + 1));
    }
    this._came.set(type, this._came.get(type) + 1);
    this.events.push(event);
  }

  /** Nothing went wrong, and every frame was taken for what it is. */
  checkAllUnderstood() {
    check(this.errors.length === 0, () => `the session reports: ${this.errors[0]?.message ?? JSON.stringify(this.errors[0])}`);
    const lost = [...this._came].filter(([type, count]) => type !== "error" && this._understood.get(type) !== count);
    check(lost.length === 0, () => `frames that the SDK ignored: ${lost.map(([type]) => type).join(", ")}`);
  }

  audioOf(responseId) {
    return Buffer.concat(this.audio.get(responseId) ?? []);
  }

  async turn(text) {
    this.session.sendMessage(text);
    return this.reply();
  }

  async reply(status = "completed") {
    const { response } = await this.events.wait("response.done");
    check(response.status === status, `expected a ${status} response, got ${response.status}`);
    return response;
  }

  /** The first item of the session's own history that passes; Failure after 10 s. */
  async inHistory(what, test) {
    for (let tries = 0; tries < 200; tries += 1) {
      const found = this.session.history.find(test);
      if (found) return found;
      await new Promise((wake) => setTimeout(wake, 50));
    }
    const items = this.session.history.map((item) => `${item.type} ${item.role ?? ""} ${item.status}`);
    check(false, `the history has no ${what}; it has ${items.join(", ") || "nothing"}`);
  }

  microphone() {
    return new Microphone((frame) => {
      this.session.sendAudio(frame.buffer.slice(frame.byteOffset, frame.byteOffset + frame.length));
    });
  }
}

const wordsOf = (item) => (item.content ?? []).map((part) => part.transcript ?? part.text ?? "").join(" ");
const isReply = (item) => item.type === "message" && item.role === "assistant" && item.status === "completed";

/** A story with a session that is connected. `agent`: more of the RealtimeAgent; `config`: of the session's. */
function calling(story, { agent = () => ({}), config = {} } = {}) {
  return async (options) => {
    const runs = [];
    const url = `${options.base.replace(/^http/, "ws")}/realtime?model=${options.model}`;
    const transport = new OpenAIRealtimeWebSocket({ url });
    const session = new RealtimeSession(
      new RealtimeAgent({ name: "workshop", instructions: "Be brief.", ...agent(runs) }), { transport, config },
    );
    const call = new Call(session, transport);
    call.runs = runs;
    call.options = options;
    await within(10, "connection", session.connect({ apiKey: KEY }));
    try {
      // The SDK sends two: its settings, and on session.created its tracing.
      for (let updates = 0; updates < 2; updates += 1) await call.events.wait("session.updated");
      return await story(call);
    } finally {
      session.close();
    }
  };
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

async function connect(call) {
  const created = call.events.of("session.created")[0];
  check(created && call.events.all.find((event) => event.event_id) === created, "session.created is not the first event");
  const updated = call.events.of("session.updated").at(-1).session;
  check(updated.instructions === "Be brief.", "the agent's instructions did not arrive");
  check(call.transport.status === "connected", `the transport is ${call.transport.status}`);
  call.checkAllUnderstood();
  return { session: created.session.id };
}

async function textTurn(call) {
  const response = await call.turn(HELLO);
  const { output } = await call.events.wait("agent_end");
  const reply = await call.inHistory("reply", isReply);
  check(output.length > 0 && wordsOf(reply) === output, "history and agent_end tell different replies");
  check(isAudible(call.audioOf(response.id)), "a silent reply");
  await call.inHistory("question", (item) => item.role === "user" && wordsOf(item) === HELLO);
  // The history can be edited: one item taken out, one put in that the model then knows.
  const told = { type: "message", role: "user", itemId: "told_before", status: "completed" };
  const content = [{ type: "input_text", text: WORD.told }];
  call.session.updateHistory((history) => [...history.filter((item) => item !== reply), { ...told, content }]);
  await call.events.wait("conversation.item.deleted", (event) => event.item_id === reply.itemId);
  await call.inHistory("item that was put in", (item) => item.itemId === "told_before");
  check(!call.session.history.some((item) => item.itemId === reply.itemId), "the deleted item is still there");
  await call.turn(WORD.asked);
  const { output: answer } = await call.events.wait("agent_end");
  check(WORD.expected.test(answer), "the model does not know what was put into the history");
  call.checkAllUnderstood();
  return { said: output, then: answer, items: call.session.history.length };
}

async function audioTurn(call) {
  const { text, pcm } = phrase(call.options.audio, "times");
  const microphone = call.microphone();
  try {
    await microphone.say(pcm);
    // The gateway works the sum out by a tool of its own: a response of its own, without words.
    const spoken = (response) => response.output.some((item) => item.type === "message");
    let response = await call.reply();
    while (!spoken(response)) response = await call.reply();
    const heard = await call.inHistory(
      "transcript of what was said", (item) => item.role === "user" && item.status === "completed" && wordsOf(item),
    );
    const reply = await call.inHistory("reply", isReply);
    check(SUM.test(wordsOf(reply)), `the sum was not spoken: ${wordsOf(reply)}`);
    check(understood(text, wordsOf(heard)) >= 0.5, `heard ${JSON.stringify(wordsOf(heard))}`);
    const audio = call.audioOf(response.id);
    check(isAudible(audio), "a silent reply");
    check(call.session.history.indexOf(heard) < call.session.history.indexOf(reply), "the reply stands before the question");
    call.checkAllUnderstood();
    return { heard: wordsOf(heard), said: wordsOf(reply), audio_ms: milliseconds(audio.length) };
  } finally {
    microphone.off();
  }
}

async function bargeIn(call) {
  const { events } = call;
  const microphone = call.microphone();
  try {
    await microphone.say(phrase(call.options.audio, "about").pcm);
    const first = await events.wait("response.output_audio.delta");
    const since = performance.now();
    await events.wait("response.output_audio.delta", () => milliseconds(call.audioOf(first.response_id).length) > 1_500);
    void microphone.say(phrase(call.options.audio, "stop").pcm);
    await events.wait("audio_interrupted");
    const played = Math.min(milliseconds(call.audioOf(first.response_id).length), Math.floor(performance.now() - since));
    const cut = await call.reply("cancelled");
    check(cut.id === first.response_id, "another response was cancelled");
    const isIt = (event) => event.item_id === first.item_id;
    const truncated = events.of("conversation.item.truncated").find(isIt)
      ?? (await events.wait("conversation.item.truncated", isIt));
    // The SDK fetches the item that was cut and puts it into its history.
    await events.wait("conversation.item.retrieved", (event) => event.item.id === first.item_id);
    const next = await call.reply();
    check(next.output.length > 0, "no reply after the interruption");
    const kept = await call.inHistory("item that was cut", (item) => item.itemId === first.item_id);
    call.checkAllUnderstood();
    return { played_ms: played, kept_ms: truncated.audio_end_ms, kept_words: wordsOf(kept).split(" ").length, status: kept.status };
  } finally {
    microphone.off();
  }
}

async function toolCalls(call, { ask, names }) {
  call.session.sendMessage(ask);
  const ends = [];
  for (const _ of names) ends.push(await call.events.wait("agent_tool_end"));
  check(call.runs.map((run) => run.name).sort().join() === [...names].sort().join(), "each tool must run once");
  check(call.runs.every((run) => run.part === "bolt"), "arguments that were not asked for");
  // The SDK asks for a response after each output, and does not wait for the others.
  const isLast = (event) => event.output.includes(ANSWERS[names.at(-1)]);
  const { output } = await call.events.wait("agent_end", isLast);
  const done = await call.inHistory("finished call", (item) => item.type === "function_call" && item.status === "completed");
  check(done.output === ANSWERS[done.name], "the history has another output than the tool");
  call.checkAllUnderstood();
  return { runs: call.runs, replies: call.events.count("agent_end"), said: output };
}

async function manualCommit(call) {
  const { text, pcm } = phrase(call.options.audio, "fact-tiger-seven");
  const microphone = call.microphone();
  await microphone.say(pcm);
  microphone.off();
  call.session.sendAudio(new ArrayBuffer(960), { commit: true });
  await call.events.wait("input_audio_buffer.committed");
  const heard = await call.inHistory("transcript of what was said", (item) => item.role === "user" && wordsOf(item));
  check(call.events.count("response.created") === 0, "a response nobody asked for");
  call.transport.requestResponse();
  const response = await call.reply();
  check(isAudible(call.audioOf(response.id)), "a silent reply");
  check(understood(text, wordsOf(heard)) >= 0.5, `heard ${JSON.stringify(wordsOf(heard))}`);
  check(call.events.count("input_audio_buffer.speech_started") === 0, "turn detection is still on");
  await call.events.wait("agent_end");
  await call.turn(WORD.asked);
  const { output } = await call.events.wait("agent_end");
  check(WORD.expected.test(output), `what was said is not known: ${output}`);
  call.checkAllUnderstood();
  return { heard: wordsOf(heard) };
}

async function errorPath(call) {
  call.transport.sendEvent({ type: "scooby.dooby.doo", event_id: "mine" });
  await call.events.wait("session_error");
  const [error] = call.errors;
  check(call.errors.length === 1, `expected one error, got ${call.errors.length}`);
  check(error.code === "invalid_value" && error.event_id === "mine", `got ${JSON.stringify(error)}`);
  await call.turn(HELLO);
  const { output } = await call.events.wait("agent_end");
  check(output.length > 0, "the session does not live on");
  return { code: error.code };
}

async function cleanClose(call) {
  await call.turn(HELLO);
  const session = call.events.of("session.created")[0].session.id;
  call.session.close();
  await call.events.wait("connection_change", (event) => event.status === "disconnected");
  call.checkAllUnderstood();
  check(call.transport.status === "disconnected", `the transport is ${call.transport.status}`);
  return { status: call.transport.status, session };
}

await drive({
  package: "@openai/agents-realtime",
  scenarios: {
    connect: calling(connect),
    text_turn: calling(textTurn),
    audio_turn: calling(audioTurn),
    barge_in: calling(bargeIn),
    tool_call: calling((call) => toolCalls(call, ONE_CALL), { agent: withTools }),
    parallel_tool_calls: calling((call) => toolCalls(call, TWO_CALLS), { agent: withTools }),
    manual_commit: calling(manualCommit, { config: { audio: { input: { turnDetection: null } } } }),
    error_path: calling(errorPath),
    clean_close: calling(cleanClose),
  },
});
