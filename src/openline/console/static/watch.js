// Watching one session: what was said, what state it is in, every fact, and the line drawn over time.

import { followFacts, getSession, key } from "./api.js";
import { Conversation } from "./conversation.js";
import { ago, clock, h, plural, replace, setText, setWire, shortcuts, span } from "./dom.js";
import { Ledger } from "./ledger.js";
import { Line } from "./protocol.js";
import { Notices, storyOf } from "./story.js";
import { Timeline } from "./timeline.js";
import { Transcript } from "./transcript.js";

const MOST_FACTS = 20_000;

export function watchView(main, sessionId) {
  const view = new Watch(main, sessionId);
  view.begin();
  return () => view.close();
}

export class Watch {
  constructor(main, sessionId) {
    this.sessionId = sessionId;
    this.facts = [];
    this.notices = new Notices();
    this.startMs = null;
    this.row = null;
    const startMs = () => this.startMs ?? 0;
    this.transcript = new Transcript({ startMs, isFollowing: false, onpick: (entry) => this.pickTime(entry.at - startMs()) });
    this.talk = new Conversation((entry) => this.transcript.changed(entry));
    this.ledger = new Ledger({ startMs, onpick: (fact) => this.pickFact(fact), isFollowing: false });
    this.canvas = h("canvas", { class: "strip-canvas", tabindex: "-1", role: "img", "aria-label": "The session over time: caller above the line, agent below, tools underneath" });
    this.stateNode = h("dl", { class: "state" });
    this.title = h("h1", { class: "mono" }, sessionId);
    this.statusNode = h("p", { class: "status", role: "status" }, "Loading");
    this.actions = h("nav", { class: "page-actions", "aria-label": "This session" }, this.links());
    this.under = h("div", { class: "under" });
    this.root = h("div", { class: "view watch" },
      h("header", { class: "page-head" }, h("div", {}, this.title, this.statusNode), this.actions),
      h("div", { class: "strip tall" }, h("span", { class: "lane caller" }, "caller"), h("span", { class: "lane agent" }, "agent"), this.canvas),
      this.under, this.stateNode,
      h("div", { class: "columns" },
        h("section", { class: "panel words", "aria-label": "Conversation" }, h("header", { class: "panel-head" }, h("h2", {}, "Conversation")), this.transcript.scroller),
        this.ledger.node));
    replace(main, this.root);
    this.timeline = new Timeline(this.canvas, { onseek: (ms) => this.pickTime(ms) });
    this.keys();
    this.stop = new AbortController();
  }

  links() {
    const path = encodeURIComponent(this.sessionId);
    return [
      h("a", { class: "button", href: `#/sessions/${path}/play` }, "Play recording"),
      h("a", { class: "button", href: `#/talk/${path}` }, "Continue"),
    ];
  }

  keys() {
    shortcuts("view", [
      { keys: ["j", "ArrowDown"], label: "Next fact", repeats: true, run: () => this.ledger.move(1) },
      { keys: ["k", "ArrowUp"], label: "Previous fact", repeats: true, run: () => this.ledger.move(-1) },
      { keys: ["Enter"], label: "Open or close the fact", run: () => this.ledger.toggleCurrent() },
      { keys: ["/", "f"], label: "Filter facts", run: () => this.ledger.filter.focus() },
      { keys: ["r"], label: "Play the recording", run: () => (location.hash = `#/sessions/${encodeURIComponent(this.sessionId)}/play`) },
    ]);
  }

  async begin() {
    await this.refresh();
    if (this.stop.signal.aborted) return;
    this.unfollow = followFacts(this.sessionId, {
      onfact: (fact) => this.#fact(fact),
      onstate: (state, error) => this.#feed(state, error),
    });
    this.timer = setInterval(() => this.#tick(), 500);
    this.attach();
  }

  async refresh() {
    try {
      this.row = await getSession(this.sessionId, { signal: this.stop.signal });
      // Offsets count from the session's creation, as the recording and all audio positions do.
      if (this.row.created_ms) this.startMs = this.row.created_ms;
      // A session that is over is read from its start; a live one is followed at its end.
      if (this.isLive && !this.transcript.isFollowing) this.#followEnd();
      this.showState();
    } catch (error) {
      if (!this.stop.signal.aborted) setText(this.statusNode, error.status === 404 ? "There is no session of this name." : error.message);
    }
  }

  get isLive() {
    return this.row?.status === "live" || this.row?.status === "detached";
  }

  #followEnd() {
    for (const part of [this.transcript, this.ledger]) {
      part.isFollowing = true;
      part.scroller.scrollTop = part.scroller.scrollHeight;
    }
  }

  /** While the session is live, an observer's connection adds what facts never hold: partial words. */
  attach() {
    if (!this.isLive || this.line || this.stop.signal.aborted) return;
    const origin = location.origin.replace(/^http/, "ws");
    this.line = new Line({ origin, sessionId: this.sessionId, role: "observer", key: key() });
    this.line.onframe = (frame) => PARTIALS.has(frame.type) && this.talk.apply(frame, Date.now());
    this.line.onstate = (state) => {
      if (state === "closed") this.line = null;
      this.showState();
    };
    this.line.open();
  }

  #fact(fact) {
    this.startMs ??= fact.at;
    this.facts.push(fact);
    if (this.facts.length > MOST_FACTS) this.facts.shift();
    this.talk.apply({ ...fact.data, type: fact.type }, fact.at ?? this.startMs ?? 0, fact.seq);
    const notice = this.notices.of(fact);
    if (notice) this.talk.notice(notice.tone, notice.text, fact.at ?? 0, notice.detail);
    this.ledger.add(fact);
    this.isDirty = true;
    this.pending ??= requestAnimationFrame(() => this.redraw());
    if (/session\.|connection\.|link\.|^response\.(created|done)/.test(fact.type)) this.refreshSoon ??= setTimeout(() => this.#refreshed(), 300);
  }

  async #refreshed() {
    this.refreshSoon = null;
    await this.refresh();
    this.attach();
  }

  #feed(state, error) {
    this.feedState = state;
    if (error && error.status !== 404) setText(this.statusNode, error.message);
  }

  redraw() {
    this.pending = null;
    this.story = storyOf(this.facts, this.startMs);
    const end = this.isLive ? Math.max(this.story.endMs, Date.now() - this.startMs) : this.story.endMs;
    this.timeline.show({ ...this.story, begin: 0, end }, this.view(end));
    this.showState();
  }

  view(end) {
    return { from: 0, to: Math.max(5000, end * 1.01) };
  }

  #tick() {
    if (this.isLive && this.startMs !== null) this.redraw();
    else this.showState();
  }

  pickFact(fact) {
    this.timeline.selected = fact.seq;
    this.timeline.playhead = fact.at === null ? null : fact.at - this.startMs;
    this.timeline.draw();
  }

  pickTime(ms) {
    const at = this.startMs + Math.max(0, ms);
    this.timeline.playhead = Math.max(0, ms);
    this.timeline.draw();
    this.ledger.follow(at);
    const entry = this.talk.entries.findLast((candidate) => candidate.kind !== "notice" && candidate.at <= at + 1);
    if (entry) this.transcript.highlight(entry.id);
  }

  showState() {
    const { row, story } = this;
    if (!row && !story) return;
    const status = row?.status ?? story?.state.status ?? "unknown";
    setText(this.statusNode, statusSentence(status, row, this.line));
    setWire({ live: "open", detached: "cut", parked: "ended", ended: "ended" }[status] ?? "idle");
    this.root.dataset.status = status;
    if (!story) return;
    const { state, counts, connections } = story;
    const rows = [
      ["Turns", counts.turns], ["Replies", counts.replies], ["Interruptions", counts.interruptions], ["Tool calls", counts.tools],
      ["Cuts", counts.cuts], ["Facts", row?.last_seq ?? counts.facts], ["Epoch", row?.epoch ?? state.epoch ?? "–"],
      ["Connections", (row?.connections?.map((each) => each.role) ?? connections).join(", ") || "none"],
      ["Link", [row?.link?.phase ?? state.link, row?.model ?? state.model].filter(Boolean).join(", ") || "–"],
      ["Response", (row && "active_response" in row ? row.active_response : state.activeResponse) || "none"],
      ["Length", clock(story.endMs, 0)],
    ];
    const text = rows.map(([name, value]) => `${name}=${value}`).join(";");
    if (text === this.stateText) return;
    this.stateText = text;
    replace(this.stateNode, rows.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, String(value)))));
  }

  close() {
    this.stop.abort();
    this.unfollow?.();
    this.line?.leave();
    clearInterval(this.timer);
    clearTimeout(this.refreshSoon);
    cancelAnimationFrame(this.pending);
    this.timeline.close();
    setWire("idle");
  }
}

const PARTIALS = new Set([
  "input_audio_buffer.speech_started", "openline.turn.partial", "conversation.item.input_audio_transcription.delta",
  "response.output_audio_transcript.delta", "response.output_text.delta", "response.output_item.added",
  "response.function_call_arguments.delta", "response.mcp_call_arguments.delta", "response.mcp_call.in_progress",
]);

function statusSentence(status, row, line) {
  const when = row?.updated_ms ? `, last fact ${ago(row.updated_ms)}` : "";
  const partials = line?.state === "open" ? ", partial words shown" : "";
  const lasted = row ? `, ${plural(row.last_seq ?? 0, "fact")} over ${span(row.updated_ms - row.created_ms)}` : "";
  return { live: `Live${partials}${when}`, detached: `Detached, the line can resume${when}`, parked: `Parked${lasted}`, ended: `Ended${lasted}` }[status] ?? status;
}
