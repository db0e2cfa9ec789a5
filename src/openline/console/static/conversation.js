// What was said, as a list of entries. Fed with wire frames (live) or facts (from the log): the two share
// one vocabulary, so there is one reducer. No DOM.
//
// entry: {id, kind: user|agent|tool|notice, at, text, isPartial, ...}. Unknown types change nothing.

/** Below this a recognizer's own confidence is shown as doubt, and text is offered instead. */
export const UNSURE_BELOW = 0.6;

const MS_PER_BYTE = 1 / 48; // PCM16 mono at 24,000 samples/s
const base64Bytes = (text) => Math.floor((text.length * 3) / 4) - (text.endsWith("==") ? 2 : text.endsWith("=") ? 1 : 0);

export class Conversation {
  /** onchange(entry, isNew) after each change. */
  constructor(onchange = () => {}) {
    this.onchange = onchange;
    this.entries = [];
    this.byId = new Map();
    this.byCall = new Map();
    /** When each response was asked for: facts hold an item when it is done, its time is when it began. */
    this.began = new Map();
    this.ordinal = 0;
  }

  /** Apply one frame or fact. `at` is Unix ms, `seq` the fact's place in the log where it is known. */
  apply(frame, at, seq = null) {
    const handler = HANDLERS[frame.type];
    if (handler) handler(this, frame, at, seq);
    else if (frame.type?.startsWith("openline.tool.")) toolFact(this, frame, at);
  }

  notice(tone, text, at, detail = "") {
    return this.#add({ id: `notice-${++this.ordinal}`, kind: "notice", tone, text, detail, at });
  }

  get(id) {
    return this.byId.get(id);
  }

  ensure(id, kind, at) {
    const known = this.byId.get(id);
    if (known) return known;
    return this.#add({ id, kind, at, text: "", isPartial: true, status: "in_progress", audioMs: 0 });
  }

  change(entry, values) {
    Object.assign(entry, values);
    this.onchange(entry, false);
  }

  #add(entry) {
    this.entries.push(entry);
    this.byId.set(entry.id, entry);
    this.onchange(entry, true);
    return entry;
  }

  /** What was shown after `seq` never became durable: mark it, do not hide it. */
  rewind(seq) {
    for (const entry of this.entries) {
      if (entry.seq !== undefined && entry.seq !== null && entry.seq > seq) this.change(entry, { isVoid: true });
    }
  }
}

/** Where the heard part of an agent entry ends, in characters; null when all of it counts as heard. */
export function heardEnd(entry) {
  if (!entry.isCut) return null;
  if (Number.isInteger(entry.textEnd)) return Math.min(entry.textEnd, entry.text.length);
  const whole = entry.audioMs || entry.totalMs;
  if (!whole || entry.heardMs === undefined) return null;
  const raw = Math.round(entry.text.length * Math.min(1, entry.heardMs / whole));
  const word = entry.text.lastIndexOf(" ", raw);
  return raw >= entry.text.length ? entry.text.length : Math.max(0, word);
}

// ---------------------------------------------------------------------------------------- handlers

function userSpeech(talk, frame, at) {
  const entry = talk.ensure(frame.item_id ?? `turn-${frame.turn_id ?? at}`, "user", at);
  talk.change(entry, { isListening: true, isSpoken: true });
}

function partial(talk, frame, at) {
  const id = frame.item_id ?? lastListening(talk)?.id ?? `turn-${frame.turn_id ?? at}`;
  const entry = talk.ensure(id, "user", at);
  if (entry.isPartial) talk.change(entry, { text: frame.text ?? "", isSpoken: true });
}

const lastListening = (talk) => talk.entries.findLast((entry) => entry.kind === "user" && entry.isPartial);

function finalText(talk, frame, at, seq) {
  // A typed turn is made of items that are shown already.
  if (!frame.item_id && !frame.item && frame.text_items?.length) return;
  const text = frame.text ?? frame.transcript ?? "";
  const entry = talk.ensure(frame.item_id ?? frame.item?.id ?? frame.turn_id ?? `turn-${at}`, "user", at);
  const confidence = frame.confidence ?? entry.confidence ?? null;
  talk.change(entry, {
    text: text || entry.text, isPartial: false, isListening: false, confidence, status: "completed",
    turnId: frame.turn_id ?? entry.turnId, seq: seq ?? entry.seq,
    isUnsure: Boolean(entry.isSpoken) && ((confidence !== null && confidence < UNSURE_BELOW) || !(text || entry.text)),
  });
}

function item(talk, frame, at, seq) {
  const value = frame.item ?? (frame.role || frame.content ? { ...frame, type: frame.item_type ?? "message" } : null);
  const id = value?.id ?? frame.item_id;
  if (!value || !id) return;
  if (value.type === "function_call" || value.type === "mcp_call") tool(talk, value, at, frame.type);
  else if (value.type === "function_call_output") output(talk, value);
  else if (value.role === "user") userItem(talk, id, value, at, seq);
  else if (value.role === "assistant") agentItem(talk, id, value, at, frame, seq);
}

function contentText(content = []) {
  return content.map((part) => part.transcript ?? part.text ?? "").filter(Boolean).join(" ");
}

function userItem(talk, id, value, at, seq) {
  const entry = talk.ensure(id, "user", at);
  const isSpoken = (value.content ?? []).some((part) => part.type === "input_audio");
  const text = contentText(value.content);
  const values = { isListening: false, isSpoken: isSpoken || entry.isSpoken, seq: seq ?? entry.seq };
  if (text) Object.assign(values, { text, isPartial: false });
  talk.change(entry, values);
}

function agentItem(talk, id, value, at, frame, seq) {
  const responseId = frame.response_id ?? value.response_id;
  const entry = talk.ensure(id, "agent", talk.get(id) ? at : talk.began.get(responseId) ?? at);
  const isDone = frame.type.endsWith("done") || value.status === "completed" || value.status === "incomplete";
  const text = contentText(value.content);
  const values = { responseId: responseId ?? entry.responseId, seq: seq ?? entry.seq };
  // A cut item comes back with only its heard text; keep what was said so that the rest can be struck.
  if (isDone && text.length >= entry.text.length) values.text = text;
  if (isDone) Object.assign(values, { isPartial: false, status: value.status ?? "completed" });
  if (value.status === "incomplete") values.isCut = true;
  const heardMs = value.heard_ms ?? value.openline?.heard_ms;
  if (Number.isInteger(heardMs)) values.heardMs = heardMs;
  if (Number.isInteger(frame.audio_ms) && frame.audio_ms > 0) Object.assign(values, { totalMs: frame.audio_ms, isSpoken: true });
  talk.change(entry, values);
}

function tool(talk, value, at, type) {
  const entry = (value.call_id && talk.byCall.get(value.call_id)) || talk.ensure(value.id, "tool", at);
  if (value.call_id) talk.byCall.set(value.call_id, entry);
  const isDone = /done$/.test(type) || value.status === "completed";
  const failed = value.error ? "failed" : null;
  const settled = value.output !== undefined && value.output !== null && value.output !== "" ? "succeeded" : null;
  talk.change(entry, {
    name: value.name || entry.name, arguments: value.arguments || entry.arguments || "", server: value.server_label ?? entry.server,
    output: value.output || entry.output, error: describeError(value.error) || entry.error,
    state: failed ?? settled ?? (isSettled(entry) ? entry.state : isDone ? entry.state ?? "requested" : entry.state ?? "writing"),
    isPartial: false,
  });
}

const isSettled = (entry) => ["succeeded", "failed", "cancelled", "unknown", "refused"].includes(entry.state);
const describeError = (error) => (typeof error === "string" ? error : error?.message ?? "");

function output(talk, value) {
  const entry = talk.byCall.get(value.call_id);
  if (entry) talk.change(entry, { output: value.output, state: isSettled(entry) ? entry.state : "succeeded" });
}

function toolFact(talk, frame, at) {
  const call = frame.call_id ?? frame.item_id;
  if (!call) return;
  const id = frame.item_id ?? frame.item?.id;
  const entry = talk.byCall.get(call) ?? talk.get(id) ?? talk.ensure(id ?? call, "tool", at);
  talk.byCall.set(call, entry);
  const word = frame.type.split(".").pop();
  talk.change(entry, {
    name: frame.name ?? frame.item?.name ?? entry.name, arguments: frame.arguments || frame.item?.arguments || entry.arguments || "",
    state: word === "settled" ? frame.outcome ?? "succeeded" : word, server: frame.item?.server_label ?? entry.server,
    output: frame.output || frame.item?.output || entry.output, error: describeError(frame.error ?? frame.item?.error) || entry.error,
    startedAt: word === "started" ? at : entry.startedAt ?? at, settledAt: /started|requested|approved/.test(word) ? undefined : at,
    isPartial: false,
  });
}

function delta(talk, frame, at) {
  const entry = talk.ensure(frame.item_id, "agent", at);
  const piece = frame.delta ?? "";
  talk.change(entry, { text: entry.text + piece, responseId: frame.response_id ?? entry.responseId });
}

/** After a resume: the text so far, in place of the deltas that were missed. */
function wholeText(talk, frame, at) {
  const entry = talk.ensure(frame.item_id, "agent", at);
  // Audio that was released but cannot have been heard comes again: it must not count twice.
  if (Number.isFinite(frame.audio_start_ms)) entry.audioMs = frame.audio_start_ms;
  if (entry.isPartial) talk.change(entry, { text: frame.text ?? entry.text, responseId: frame.response_id ?? entry.responseId });
}

function audioDelta(talk, frame, at) {
  const entry = talk.ensure(frame.item_id, "agent", at);
  const ms = base64Bytes(frame.delta ?? "") * MS_PER_BYTE;
  const start = frame.audio_start_ms ?? frame.openline?.audio_start_ms;
  entry.audioMs = Number.isFinite(start) ? Math.max(entry.audioMs, start + ms) : entry.audioMs + ms;
  entry.isSpoken = true;
}

function deltaDone(talk, frame, at) {
  const entry = talk.ensure(frame.item_id, "agent", at);
  const text = frame.transcript ?? frame.text ?? "";
  if (text.length >= entry.text.length) talk.change(entry, { text });
}

function argumentsDelta(talk, frame, at) {
  const entry = (frame.call_id && talk.byCall.get(frame.call_id)) || talk.ensure(frame.item_id, "tool", at);
  const text = frame.arguments ?? (entry.arguments ?? "") + (frame.delta ?? "");
  talk.change(entry, { arguments: text, name: frame.name ?? entry.name });
}

const mcpState = (state) => (talk, frame, at) => {
  const entry = talk.ensure(frame.item_id, "tool", at);
  const isOver = state !== "started";
  talk.change(entry, { state, isPartial: false, startedAt: isOver ? entry.startedAt : at, settledAt: isOver ? at : undefined });
};

function heard(talk, frame) {
  const entry = talk.get(frame.item_id);
  if (!entry) return;
  const textEnd = Number.isInteger(frame.text_end) ? frame.text_end : entry.textEnd;
  const isShort = Number.isInteger(textEnd) && textEnd < entry.text.trimEnd().length;
  // A later word may say that all of it was heard after all; a reply that was cut off stays so.
  const isCutOff = Boolean(entry.isCut) && !entry.isShort;
  talk.change(entry, {
    heardMs: frame.audio_end_ms, textEnd, isEstimated: frame.estimated === true, source: frame.source ?? entry.source, isHeardKnown: true,
    isCut: isCutOff || (isShort && !entry.isPartial), isShort: !isCutOff && isShort,
  });
}

function truncated(talk, frame) {
  const entry = talk.get(frame.item_id);
  if (entry) talk.change(entry, { heardMs: frame.audio_end_ms, isCut: true, isPartial: false });
}

function responseDone(talk, frame) {
  const response = frame.response ?? frame;
  const id = response.id ?? frame.response_id;
  const isCut = response.status === "cancelled" || response.status === "incomplete";
  for (const entry of talk.entries) {
    if (entry.responseId !== id || entry.kind !== "agent") continue;
    const reason = response.status_details?.reason ?? frame.reason;
    talk.change(entry, { isPartial: false, isCut: entry.isCut || isCut, cutReason: isCut ? reason : undefined });
  }
}

const HANDLERS = {
  "input_audio_buffer.speech_started": userSpeech,
  "openline.turn.partial": partial,
  "openline.turn.committed": finalText,
  "openline.turn.transcribed": finalText,
  "conversation.item.input_audio_transcription.delta": (talk, frame, at) =>
    partial(talk, { ...frame, text: (talk.get(frame.item_id)?.text ?? "") + (frame.delta ?? "") }, at),
  "conversation.item.input_audio_transcription.completed": finalText,
  "conversation.item.input_audio_transcription.failed": finalText,
  "openline.turn.abandoned": (talk, frame, at) => {
    const entry = talk.get(frame.item_id) ?? lastListening(talk);
    if (entry) talk.change(entry, { isPartial: false, isListening: false, isAbandoned: true, reason: frame.reason });
    else talk.notice("warn", "A turn was abandoned.", at, frame.reason ?? "");
  },
  "conversation.item.added": item,
  "conversation.item.created": item,
  "conversation.item.done": item,
  "response.output_item.added": item,
  "response.output_item.done": item,
  "openline.item.partial": wholeText,
  "response.output_audio_transcript.delta": delta,
  "response.output_text.delta": delta,
  "response.output_audio_transcript.done": deltaDone,
  "response.output_text.done": deltaDone,
  "response.output_audio.delta": audioDelta,
  "response.function_call_arguments.delta": argumentsDelta,
  "response.function_call_arguments.done": argumentsDelta,
  "response.mcp_call_arguments.delta": argumentsDelta,
  "response.mcp_call_arguments.done": argumentsDelta,
  "response.mcp_call.in_progress": mcpState("started"),
  "response.mcp_call.completed": mcpState("succeeded"),
  "response.mcp_call.failed": mcpState("failed"),
  "conversation.item.truncated": truncated,
  "openline.item.heard": heard,
  "response.created": (talk, frame, at) => talk.began.set(frame.response?.id ?? frame.response_id, at),
  "response.done": responseDone,
};
