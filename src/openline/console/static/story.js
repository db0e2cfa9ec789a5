// Facts -> what a timeline shows: spans, marks, gaps in the line, and the state the session is in now.
// Pure. Knows types by pattern, so a fact of a kind it has never seen still gets a place in the list.

/** The kinds facts are shown as: each has its own glyph, so colour is never the only difference. */
export const KINDS = [
  { kind: "caller", glyph: "○", label: "Caller" },
  { kind: "agent", glyph: "●", label: "Agent" },
  { kind: "tool", glyph: "◇", label: "Tools" },
  { kind: "line", glyph: "—", label: "Line" },
  { kind: "problem", glyph: "!", label: "Problems" },
  { kind: "other", glyph: "·", label: "Other" },
];

const PROBLEM = /(error|failed|refused|rewound|abandoned|unknown|silence|exceeded|dropped|conflict)/;
const TOOL = /(tool|function_call|mcp_call|approval)/;
const LINE = /^(openline\.)?(session|connection|link|lease|recording)\b/;
const CALLER = /(speech_started|speech_stopped|turn\.|input_audio|barge_in|interrupt)/;
const AGENT = /^(openline\.)?(response|item|reply)\b|playout|heard|truncated/;

export function kindOf(fact) {
  const { type, data } = fact;
  if (PROBLEM.test(type) || /lost$/.test(type)) return "problem";
  if (TOOL.test(type) || /function_call|mcp_call/.test(data.item?.type ?? data.item_type ?? "")) return "tool";
  if (LINE.test(type)) return "line";
  if (type.startsWith("conversation.item")) {
    const role = data.item?.role ?? data.role;
    return role === "user" ? "caller" : role === "assistant" || /truncated|heard/.test(type) ? "agent" : "other";
  }
  if (CALLER.test(type)) return "caller";
  if (AGENT.test(type)) return "agent";
  return "other";
}

/** One short line of what a fact says, from whichever of the usual fields it has. */
export function summary(fact) {
  const { data } = fact;
  const parts = data.item?.content ?? data.content;
  const content = Array.isArray(parts) ? parts.map((part) => part.transcript ?? part.text ?? "").join(" ") : "";
  const response = data.response ?? {};
  const words = [
    data.name ?? data.item?.name,
    data.text ?? data.transcript ?? content,
    data.status ?? response.status,
    data.reason ?? response.status_details?.reason,
    data.outcome,
    data.role && !data.content ? data.role : "",
    Number.isFinite(data.audio_end_ms) ? `${data.audio_end_ms} ms` : "",
    data.source,
    data.node,
    data.model,
    data.action,
    typeof data.code === "string" ? data.code : "",
    data.request?.origin,
    Number.isFinite(data.confidence) ? `${Math.round(data.confidence * 100)} %` : "",
  ];
  return [...new Set(words.filter((word) => typeof word === "string" && word))].join(" · ");
}

/** Close codes with which a client says goodbye; all else is a cut. */
const GOODBYE = [1000, 1001, 1005];

/** A clean leave is no cut: the far side said goodbye, another took its place, or the session was over. */
const isCleanLeave = (data) => ["ended", "replaced"].includes(data.reason) || (data.reason === "closed" && GOODBYE.includes(data.code));

const NOTICES = [
  [/link\.lost$/, "warn", "The model link was lost."],
  [/link\.opened$/, "plain", "The model link is open."],
  [/session\.parked$/, "plain", "The session is parked."],
  [/session\.ended$/, "plain", "The session ended."],
  [/silence\.exceeded$/, "warn", "The agent was silent for too long."],
  [/media\.dropped$/, "warn", "Audio was dropped."],
  [/reply\.dropped$/, "plain", "The reply was dropped."],
];

/** Facts about the line in words, for the transcript. Remembers who is who: a detach names only the connection. */
export class Notices {
  constructor() {
    this.roles = new Map();
  }

  /** {tone, text, detail}; null for facts that are told elsewhere. */
  of({ type, data }) {
    if (/connection\.attached$/.test(type)) return this.#attached(data);
    if (/connection\.detached$/.test(type)) return this.#detached(data);
    if (/session\.owned$/.test(type)) {
      return data.epoch > 1 ? { tone: "warn", text: "The gateway came back from its log.", detail: `epoch ${data.epoch}` } : null;
    }
    if (/session\.forked$/.test(type)) {
      return { tone: "plain", text: "This conversation goes on from another one.", detail: `${data.parent} after fact ${data.parent_seq}` };
    }
    const found = NOTICES.find(([pattern]) => pattern.test(type));
    if (!found) return null;
    const words = [data.reason, data.code, data.model, data.action, data.policy, data.dropped_ms && `${data.dropped_ms} ms`];
    return { tone: found[1], text: found[2], detail: words.filter((word) => word && typeof word === "string").join(" · ") };
  }

  #attached({ conn, role = "speaker" }) {
    this.roles.set(conn, role);
    return role === "observer" ? null : { tone: "resumed", text: `A ${role} attached.`, detail: "" };
  }

  #detached(data) {
    const role = this.roles.get(data.conn) ?? "speaker";
    this.roles.delete(data.conn);
    if (role === "observer") return null;
    const detail = [data.reason, data.code && `code ${data.code}`].filter(Boolean).join(" · ");
    return isCleanLeave(data) ? { tone: "plain", text: `The ${role} left.`, detail } : { tone: "cut", text: "The line was cut.", detail };
  }
}

const ATTACHED = /connection\.attached$/;
const DETACHED = /connection\.detached$/;
const LINK_UP = /link\.opened$/;
const LINK_DOWN = /link\.lost$/;
const SAMPLES_PER_MS = 24;
const TOOL_WORD = /^openline\.tool\.(\w+)$/;

/** Fold facts into the story. Times are ms since the first fact (or since `startMs` where it is known). */
export function storyOf(facts, startMs = null) {
  const first = facts.find((fact) => fact.at !== null);
  const fold = new Fold(startMs ?? first?.at ?? 0);
  for (const fact of facts) fold.take(fact);
  return fold.result();
}

class Fold {
  constructor(startMs) {
    this.startMs = startMs;
    this.now = 0;
    this.spans = [];
    this.marks = [];
    this.gaps = [];
    this.open = new Map();
    /** The span of the reply that an item belongs to: its sound goes on after the response is done. */
    this.replyOf = new Map();
    this.connections = new Map();
    this.counts = { turns: 0, replies: 0, interruptions: 0, tools: 0, cuts: 0, facts: 0 };
    this.state = { status: "", epoch: null, link: "", model: "", activeResponse: "", node: "" };
  }

  take(fact) {
    if (fact.at !== null) this.now = Math.max(this.now, fact.at - this.startMs);
    this.at = fact.at !== null ? fact.at - this.startMs : this.now;
    this.counts.facts += 1;
    const { type, data } = fact;
    this.state.epoch = fact.epoch ?? this.state.epoch;
    const mark = MARKS.find(([pattern]) => pattern.test(type));
    if (mark) mark[1](this, data, fact);
    const word = TOOL_WORD.exec(type)?.[1];
    if (word) this.tool(word, data, fact);
  }

  begin(key, span) {
    if (this.open.has(key)) return;
    this.open.set(key, span);
    this.spans.push({ from: this.at, to: null, ...span });
    this.open.set(key, this.spans.at(-1));
  }

  end(key, values = {}) {
    const span = this.open.get(key);
    if (!span) return null;
    this.open.delete(key);
    return Object.assign(span, { to: this.at }, values);
  }

  mark(kind, label, fact) {
    this.marks.push({ at: this.at, kind, label, seq: fact.seq });
  }

  committed(data, fact) {
    const item = data.item_id ?? data.item?.id;
    const span = this.end(`turn:${item}`, { label: data.text ?? "" });
    const range = data.item?.content?.find((part) => part.audio)?.audio;
    // Audio positions count from the session's creation, so they are exact where the fact's own time is late.
    if (span?.speechTo) span.to = span.speechTo;
    else if (!span && range) this.spans.push({ lane: "caller", from: range.start / SAMPLES_PER_MS, to: range.end / SAMPLES_PER_MS, label: data.text ?? "", seq: fact.seq });
    this.counts.turns += 1;
    this.mark("commit", data.text ?? "turn committed", fact);
  }

  responseDone(data, fact) {
    const response = data.response ?? data;
    const isCut = response.status === "cancelled" || response.status === "incomplete";
    const reason = response.status_details?.reason ?? data.reason ?? "";
    this.end(`reply:${response.id ?? data.response_id}`, { isCut });
    this.state.activeResponse = "";
    if (isCut && /turn_detected|barge|interrupt|client_cancelled/.test(reason)) {
      this.counts.interruptions += 1;
      this.mark("interruption", `reply interrupted (${reason})`, fact);
    }
  }

  heard(data) {
    const span = this.replyOf.get(data.item_id);
    if (span && span.to !== null && !span.isCut) span.to = Math.max(span.to, this.at);
  }

  connection(data, isUp, fact) {
    const id = data.conn ?? "connection";
    const role = data.role ?? this.connections.get(id) ?? "speaker";
    if (isUp) this.connections.set(id, role);
    else this.connections.delete(id);
    if (role !== "speaker") return;
    const gap = this.gaps.at(-1);
    if (!isUp && isCleanLeave(data)) {
      this.leftAt = this.at;
      return;
    }
    if (isUp && this.leftAt !== undefined) {
      this.gaps.push({ from: this.leftAt, to: this.at });
      this.leftAt = undefined;
    }
    if (!isUp) {
      this.gaps.push({ from: this.at, to: null });
      this.counts.cuts += 1;
      this.mark("cut", data.reason ?? "line cut", fact);
    } else if (gap && gap.to === null) gap.to = this.at;
    this.state.status = isUp ? "live" : "detached";
  }

  tool(word, data, fact) {
    const key = `tool:${data.call_id ?? data.item_id}`;
    if (word === "started") return;
    if (word === "requested") {
      this.counts.tools += 1;
      this.begin(key, { lane: "tool", label: data.name ?? "tool", seq: fact.seq });
    } else if (word !== "approved") this.end(key, { isCut: (data.outcome ?? word) !== "succeeded" });
  }

  result() {
    for (const span of this.spans) span.isOpen = span.to === null;
    const { spans, marks, gaps, counts, state, startMs, now } = this;
    return { spans, marks, gaps, counts, state, startMs, endMs: now, connections: [...this.connections.values()] };
  }
}

const MARKS = [
  [/speech_started$/, (fold, data, fact) => {
    const from = Number.isFinite(data.start) ? data.start / SAMPLES_PER_MS : fold.at;
    fold.begin(`turn:${data.item_id}`, { lane: "caller", label: "", seq: fact.seq, from });
  }],
  [/speech_stopped$/, (fold, data) => {
    const span = fold.open.get(`turn:${data.item_id}`);
    if (span) span.speechTo = Number.isFinite(data.end) ? data.end / SAMPLES_PER_MS : fold.at;
  }],
  [/turn\.committed$/, (fold, data, fact) => fold.committed(data, fact)],
  [/turn\.abandoned$/, (fold, data) => fold.end(`turn:${data.item_id}`, { isCut: true })],
  [/^response\.created$/, (fold, data, fact) => {
    const id = data.response?.id ?? data.response_id;
    fold.begin(`reply:${id}`, { lane: "agent", label: "", seq: fact.seq });
    fold.state.activeResponse = id ?? "";
    fold.counts.replies += 1;
  }],
  [/^response\.output_item\.added$/, (fold, data) => {
    const span = fold.open.get(`reply:${data.response_id}`);
    if (span && data.item?.id) fold.replyOf.set(data.item.id, span);
  }],
  [/item\.heard$/, (fold, data) => fold.heard(data)],
  [/^response\.done$/, (fold, data, fact) => fold.responseDone(data, fact)],
  [ATTACHED, (fold, data, fact) => fold.connection(data, true, fact)],
  [DETACHED, (fold, data, fact) => fold.connection(data, false, fact)],
  [LINK_UP, (fold, data, fact) => {
    fold.state.link = "open";
    fold.state.model = data.model ?? fold.state.model;
    fold.mark("link", "model link open", fact);
  }],
  [LINK_DOWN, (fold, data, fact) => {
    fold.state.link = data.code ? `lost (${data.code})` : "lost";
    fold.mark("link", "model link down", fact);
  }],
  [/session\.(owned|started|created|parked|ended)$/, (fold, data, fact) => {
    const word = fact.type.split(".").pop();
    if (word === "owned") fold.state.node = data.node ?? fold.state.node;
    if (word === "owned" && data.epoch > 1) fold.mark("epoch", `taken over, epoch ${data.epoch}`, fact);
    if (word === "parked" || word === "ended") fold.state.status = word;
    if (word === "parked" || word === "ended") fold.mark("end", `session ${word}`, fact);
  }],
];
