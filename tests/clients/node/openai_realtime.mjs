// The scenarios of openai-node's two Realtime classes. They differ in how they connect; what they do is the same.

import OpenAI from "openai";

import { Microphone, isAudible, milliseconds, phrase, understood } from "./caller.mjs";
import { HELLO, ONE_CALL, SUM, TOOLS, TWO_CALLS, WORD, answer, checkTold } from "./conversation.mjs";
import { Events, KEY, check, within } from "./driver.mjs";

/** `open(client, model)` returns an instance of the class. */
export function scenariosOf(open) {
  return {
    connect: (options) => calling(open, options, connect),
    text_turn: (options) => calling(open, options, textTurn),
    audio_turn: (options) => calling(open, options, audioTurn),
    barge_in: (options) => calling(open, options, bargeIn),
    tool_call: (options) => calling(open, options, (call) => tools(call, ONE_CALL)),
    parallel_tool_calls: (options) => calling(open, options, (call) => tools(call, TWO_CALLS)),
    manual_commit: (options) => calling(open, options, manualCommit),
    error_path: (options) => calling(open, options, errorPath),
    clean_close: (options) => calling(open, options, cleanClose),
  };
}

/** One instance of the class. `events`: what it emits as "event"; `errors`: what it emits as "error". */
class Call {
  constructor(rt) {
    this.rt = rt;
    this.events = new Events();
    this.errors = [];
    this.closed = new Promise((resolve) => rt.socket.addEventListener("close", resolve));
    rt.on("event", (event) => this.events.push(event));
    rt.on("error", (error) => {
      this.errors.push(error);
      // One without an event is the transport's; nothing more will come.
      if (!error.error) this.events.fail(new Error(`the client reports: ${error.message}`, { cause: error.cause }));
    });
    void this.closed.then((event) => this.events.fail(new Error(`closed with ${event.code} ${event.reason}`)));
  }

  async configure(session) {
    this.rt.send({ type: "session.update", session: { type: "realtime", ...session } });
    return (await this.events.wait("session.updated")).session;
  }

  write(text) {
    const content = [{ type: "input_text", text }];
    this.rt.send({ type: "conversation.item.create", item: { type: "message", role: "user", content } });
  }

  /** Write and have it answered: the response. */
  async turn(text) {
    this.write(text);
    this.rt.send({ type: "response.create" });
    return this.done();
  }

  async done(status = "completed") {
    const { response } = await this.events.wait("response.done");
    check(response.status === status, `expected a ${status} response, got ${response.status}`);
    return response;
  }

  microphone() {
    return new Microphone((frame) => {
      this.rt.send({ type: "input_audio_buffer.append", audio: frame.toString("base64") });
    });
  }

  audioOf(responseId) {
    const deltas = this.events.of("response.output_audio.delta").filter((event) => event.response_id === responseId);
    return Buffer.concat(deltas.map((event) => Buffer.from(event.delta, "base64")));
  }

  noErrors() {
    check(this.errors.length === 0, () => `the client reports: ${this.errors[0].message}`);
  }
}

async function calling(open, options, story) {
  const client = new OpenAI({ apiKey: KEY, baseURL: options.base, maxRetries: 0 });
  const rt = open(client, options.model);
  const call = new Call(rt);
  const created = await call.events.wait("session.created");
  check(call.events.all[0] === created, `the first event is ${call.events.all[0].type}`);
  call.session = created.session;
  call.options = options;
  try {
    return await story(call);
  } finally {
    call.rt.close();
    await within(5, "close", call.closed);
  }
}

const textOf = (response) =>
  response.output.flatMap((item) => item.content ?? []).map((part) => part.text ?? part.transcript ?? "").join(" ");

async function connect(call) {
  const { session } = call;
  check(session.type === "realtime" && session.object === "realtime.session", "session.created has no realtime session");
  check(session.id && session.model, "session.created without id or model");
  const updated = await call.configure({ instructions: "Be brief." });
  check(updated.instructions === "Be brief.", "session.update changed nothing");
  call.noErrors();
  return { protocol: call.rt.socket.protocol, session: session.id };
}

async function textTurn(call) {
  await call.configure({ output_modalities: ["text"] });
  const response = await call.turn(WORD.told);
  const text = textOf(response);
  check(text.length > 0, "a reply without words");
  const deltas = call.events.of("response.output_text.delta").map((event) => event.delta).join("");
  check(deltas === text, "the deltas are not the text");
  const asked = textOf(await call.turn(WORD.asked));
  check(WORD.expected.test(asked), `the code word was not remembered: ${asked}`);
  check(call.events.count("response.output_audio.delta") === 0, "audio in a text session");
  call.noErrors();
  return { text: asked, usage: response.usage ?? null };
}

async function audioTurn(call) {
  const { events } = call;
  await call.configure({ audio: { input: { turn_detection: { type: "server_vad" } } } });
  const { text, pcm } = phrase(call.options.audio, "times");
  const microphone = call.microphone();
  try {
    await microphone.say(pcm);
    const started = await events.wait("input_audio_buffer.speech_started");
    const stopped = await events.wait("input_audio_buffer.speech_stopped");
    check(stopped.item_id === started.item_id, "speech_started and speech_stopped name different items");
    check(stopped.audio_end_ms > started.audio_start_ms, "speech ends before it starts");
    const committed = await events.wait("input_audio_buffer.committed");
    check(committed.item_id === started.item_id, "another item was committed");
    // The gateway works the sum out by a tool of its own: a response of its own, without words.
    let response = await call.done();
    while (!textOf(response)) response = await call.done();
    check(SUM.test(textOf(response)), `the sum was not spoken: ${textOf(response)}`);
    const heard = await transcript(call, committed.item_id);
    check(understood(text, heard) >= 0.5, `heard ${JSON.stringify(heard)}`);
    const audio = call.audioOf(response.id);
    check(isAudible(audio), "a silent reply");
    call.noErrors();
    return { heard, said: textOf(response), audio_ms: milliseconds(audio.length) };
  } finally {
    microphone.off();
  }
}

/** What was heard of a user's item; it comes whenever the recognizer has it. */
async function transcript(call, itemId) {
  const type = "conversation.item.input_audio_transcription.completed";
  const has = (event) => event.item_id === itemId;
  return (call.events.of(type).find(has) ?? (await call.events.wait(type, has))).transcript;
}

async function bargeIn(call) {
  const { events } = call;
  const microphone = call.microphone();
  try {
    await microphone.say(phrase(call.options.audio, "about").pcm);
    const first = await events.wait("response.output_audio.delta");
    const since = performance.now();
    await events.wait("response.output_audio.delta", () => milliseconds(call.audioOf(first.response_id).length) > 1_500);
    const starts = events.count("input_audio_buffer.speech_started");
    void microphone.say(phrase(call.options.audio, "stop").pcm);
    await events.wait("input_audio_buffer.speech_started");
    check(events.count("input_audio_buffer.speech_started") === starts + 1, "speech started more than once");
    // What a WebSocket client does: it stops its loudspeaker and says how much of it was heard.
    const received = milliseconds(call.audioOf(first.response_id).length);
    const played = Math.min(received, Math.floor(performance.now() - since));
    call.rt.send({
      type: "conversation.item.truncate", item_id: first.item_id, content_index: 0, audio_end_ms: played,
    });
    const cut = await call.done("cancelled");
    check(cut.id === first.response_id, "another response was cancelled");
    check(cut.status_details?.reason === "turn_detected", `cancelled for ${cut.status_details?.reason}`);
    const isIt = (event) => event.item_id === first.item_id;
    const truncated = events.of("conversation.item.truncated").find(isIt)
      ?? (await events.wait("conversation.item.truncated", isIt));
    check(truncated.audio_end_ms <= played + 1, "more was kept than was played");
    const next = await call.done();
    check(textOf(next).length > 0, "no reply after the interruption");
    const late = events.all.slice(events.all.findIndex((event) => event.type === "response.done"))
      .filter((event) => event.type === "response.output_audio.delta" && event.response_id === cut.id);
    check(late.length === 0, "audio of the cancelled response after its end");
    call.noErrors();
    return { played_ms: played, kept_ms: truncated.audio_end_ms, next: textOf(next) };
  } finally {
    microphone.off();
  }
}

async function tools(call, wish) {
  await call.configure({ output_modalities: ["text"], tools: TOOLS, tool_choice: "auto" });
  const response = await call.turn(wish.ask);
  const calls = response.output.filter((item) => item.type === "function_call");
  const dones = call.events.of("response.function_call_arguments.done");
  check(dones.map((event) => event.name).join() === wish.names.join(), "function_call_arguments.done without its name");
  for (const item of answer(calls, wish)) call.rt.send({ type: "conversation.item.create", item });
  call.rt.send({ type: "response.create" });
  const text = textOf(await call.done());
  checkTold(text, wish);
  call.noErrors();
  return { calls: calls.map((item) => `${item.name}(${item.arguments})`), text };
}

async function manualCommit(call) {
  const { events } = call;
  const session = await call.configure({ audio: { input: { turn_detection: null } } });
  check(session.audio.input.turn_detection == null, "turn detection is still on");
  const { text, pcm } = phrase(call.options.audio, "fact-tiger-seven");
  const microphone = call.microphone();
  await microphone.say(pcm);
  microphone.off();
  call.rt.send({ type: "input_audio_buffer.commit" });
  const committed = await events.wait("input_audio_buffer.committed");
  await events.wait("conversation.item.done", (event) => event.item.id === committed.item_id);
  const heard = await transcript(call, committed.item_id);
  check(events.count("response.created") === 0, "a response nobody asked for");
  check(events.count("input_audio_buffer.speech_started") === 0, "turn detection is still on");
  call.rt.send({ type: "response.create" });
  const response = await call.done();
  check(isAudible(call.audioOf(response.id)), "a silent reply");
  check(understood(text, heard) >= 0.5, `heard ${JSON.stringify(heard)}`);
  const asked = textOf(await call.turn(WORD.asked));
  check(WORD.expected.test(asked), `what was said is not known: ${asked}`);
  call.noErrors();
  return { heard, said: textOf(response) };
}

async function errorPath(call) {
  const { rt, errors } = call;
  const refusals = [
    [{ type: "scooby.dooby.doo" }, "invalid_value"],
    [{ type: "response.cancel" }, "response_cancel_not_active"],
    [{ type: "input_audio_buffer.commit" }, "input_audio_buffer_commit_empty"],
    [{ type: "conversation.item.retrieve", item_id: "item_nowhere" }, "item_retrieve_invalid_item_id"],
  ];
  for (const [number, [event, code]] of refusals.entries()) {
    rt.send({ ...event, event_id: `mine_${number}` });
    await call.events.wait("error");
    const error = errors.at(-1)?.error;
    check(errors.length === number + 1, "the client's error listener was not called once for each error");
    check(error.code === code, `${event.type}: expected ${code}, got ${error.code}`);
    check(error.event_id === `mine_${number}`, `${event.type}: the error does not name the event`);
  }
  await call.configure({ output_modalities: ["text"] });
  check(textOf(await call.turn(HELLO)).length > 0, "the session does not live on");
  return { codes: errors.map((error) => error.error.code) };
}

async function cleanClose(call) {
  await call.configure({ output_modalities: ["text"] });
  await call.turn(HELLO);
  call.noErrors();
  call.rt.close();
  const { code, wasClean } = await within(5, "close", call.closed);
  check(code === 1000 && wasClean !== false, `closed with ${code}`);
  check(call.errors.length === 0, "an error while closing");
  return { code, session: call.session.id };
}
