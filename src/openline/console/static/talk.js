// The talk page: one call, its line drawn live, the words, the facts, and a place to type.

import { followFacts, getSession, key } from "./api.js";
import { Call } from "./call.js";
import { clock, h, read, replace, setText, setWire, shortcuts, span, write } from "./dom.js";
import { example, legend } from "./example.js";
import { Ledger } from "./ledger.js";
import { newSessionId } from "./protocol.js";
import { Notices } from "./story.js";
import { Timeline } from "./timeline.js";
import { Transcript } from "./transcript.js";

const WINDOW_MS = 24_000;
/** What the built-in agent can show, and what each is good for. */
const TO_TRY = [
  ["Tell me about the open line.", "a long answer: speak over it, or cut the line"],
  ["What time is it?", "a tool runs"],
  ["Remember, my code word is tiger seven.", "ask for it later, even after a restart"],
];
const isStill = window.matchMedia("(prefers-reduced-motion: reduce)");
const gatewayOrigin = () => location.origin.replace(/^http/, "ws");
const tokenName = (id) => `openline.token.${id}`;

export function talkView(main, sessionId) {
  const view = new Talk(main, sessionId);
  return () => view.close();
}

class Talk {
  constructor(main, sessionId) {
    this.sessionId = sessionId ?? "";
    this.call = null;
    this.stops = [];
    this.notices = new Notices();
    this.startMs = Date.now();
    this.transcript = new Transcript({ startMs: () => this.startMs, oncorrect: (entry) => this.#correct(entry) });
    this.ledger = new Ledger({ startMs: () => this.startMs });
    this.#build(main);
    this.timeline = new Timeline(this.canvas);
    this.timeline.show(example(), { from: 0, to: WINDOW_MS });
    this.#keys();
    this.#showState();
    this.raf = requestAnimationFrame(this.#frame);
    setWire("idle");
    this.input.disabled = true;
  }

  #build(main) {
    const button = (label, keyName, run, options = {}) =>
      h("button", { type: "button", onclick: run, "aria-keyshortcuts": keyName, ...options }, label, h("kbd", {}, keyName));
    this.canvas = h("canvas", { class: "strip-canvas", role: "img", "aria-label": "The line: your voice above, the agent's below, live" });
    this.muteButton = button("Mute", "m", () => this.#mute(), { "aria-pressed": "false" });
    this.manualButton = button("Push to talk", "p", () => this.#manual(), { "aria-pressed": "false" });
    this.holdButton = h("button", { type: "button", class: "hold", hidden: true }, "Hold to talk", h("kbd", {}, "space"));
    this.cutButton = button("Cut the line", "x", () => this.call?.line.cut(), { class: "danger", title: "Drops the socket as a dead network would; it resumes by itself" });
    this.endButton = button("End call", "E", () => this.#end(), {});
    this.retryButton = h("button", { type: "button", hidden: true, onclick: () => this.call?.line.retry() }, "Try now");
    this.status = h("p", { class: "status", role: "status" });
    this.time = h("span", { class: "time" });
    this.session = h("a", { class: "session-id" });
    this.meters = { caller: meter("Microphone"), agent: meter("Agent") };
    this.measure = { reply: measure("Reply", "From the end of your speech being told to the first sample played here"),
      interrupt: measure("Interrupt", "From the gateway saying you spoke to the reply being silent here"),
      resume: measure("Resume", "From opening a new socket to the session being back") };
    this.input = h("input", { class: "composer-text", placeholder: "Type to the agent", "aria-label": "Type to the agent", autocomplete: "off", enterkeyhint: "send", maxlength: "4000" });
    this.sendButton = h("button", { type: "submit", class: "primary" }, "Send");
    this.composer = h("form", { class: "composer", onsubmit: (event) => this.#typed(event) }, this.input, this.sendButton);
    this.hero = this.#hero();
    this.legend = legend();
    this.deck = h("div", { class: "deck" },
      h("div", { class: "deck-state" }, this.status, h("p", { class: "deck-sub" }, this.time, this.session)),
      h("div", { class: "deck-meters" }, this.meters.caller.node, this.meters.agent.node),
      h("div", { class: "deck-measures" }, this.measure.reply.node, this.measure.interrupt.node, this.measure.resume.node),
      h("div", { class: "deck-buttons" }, this.holdButton, this.retryButton, this.muteButton, this.manualButton, this.cutButton, this.endButton));
    this.live = h("div", { class: "columns" },
      h("section", { class: "panel words", "aria-label": "Conversation" }, h("header", { class: "panel-head" }, h("h2", {}, "Conversation")), this.transcript.scroller, this.composer),
      this.ledger.node);
    this.root = h("div", { class: "view talk" },
      h("div", { class: "strip" }, h("span", { class: "lane caller" }, "you"), h("span", { class: "lane agent" }, "agent"), this.canvas),
      this.legend, this.deck, this.hero, this.live);
    replace(main, this.root);
    this.#listenHold();
  }

  #hero() {
    this.model = h("input", { value: read(sessionStorage, "openline.model") ?? "embedded", "aria-label": "Model", spellcheck: "false" });
    this.chosenId = h("input", { value: this.sessionId, placeholder: "chosen for you", "aria-label": "Session id", pattern: "[A-Za-z0-9_\\-]{8,64}", spellcheck: "false" });
    const isOld = Boolean(this.sessionId);
    this.startButton = h("button", { type: "button", class: "primary large", onclick: () => this.#start(true) }, isOld ? "Continue by voice" : "Start talking", h("kbd", {}, "c"));
    return h("div", { class: "hero" }, h("section", { class: "hero-main" },
      h("h1", {}, isOld ? "The line is kept for you." : "Talk to the agent."),
      h("p", { class: "lead" }, isOld
        ? "This session is in the log. Opening the line again brings the agent back to where it was."
        : "Every turn, interruption and cut is kept as a numbered fact. Break the line while the agent speaks and see what it does."),
      h("div", { class: "hero-buttons" }, this.startButton,
        h("button", { type: "button", class: "large", onclick: () => this.#start(false) }, "Type instead", h("kbd", {}, "t"))),
      h("details", {}, h("summary", {}, "Session and model"),
        h("label", {}, "Session id ", this.chosenId), h("label", {}, "Model ", this.model),
        h("p", { class: "fine" }, "A session id that exists is continued; a new one starts a new session.")),
      h("p", { class: "fine" }, "Echo cancellation is on. With the built-in recogniser, what was heard is shown with its confidence, and you can always type.")), this.#toTry());
  }

  #toTry() {
    const say = async (text) => {
      await this.#start(false);
      this.call?.say(text);
    };
    return h("section", { class: "to-try", "aria-label": "Things to say" }, h("h2", {}, "Things to say to the built-in agent"),
      h("ul", {}, TO_TRY.map(([text, why]) => h("li", {}, h("button", { type: "button", class: "quiet", title: "Start by typing this", onclick: () => say(text) }, `“${text}”`), h("span", {}, why)))));
  }

  #listenHold() {
    const hold = (isDown) => (event) => {
      event.preventDefault();
      this.call?.hold(isDown);
    };
    this.holdButton.addEventListener("pointerdown", hold(true));
    for (const name of ["pointerup", "pointerleave", "pointercancel"]) this.holdButton.addEventListener(name, hold(false));
  }

  #keys() {
    shortcuts("view", [
      { keys: ["c"], label: "Start talking", run: () => this.call || this.#start(true) },
      { keys: ["t"], label: "Start by typing", run: () => this.call || this.#start(false) },
      { keys: ["m"], label: "Mute or unmute", run: () => this.#mute() },
      { keys: ["p"], label: "Push to talk on or off", run: () => this.#manual() },
      { keys: [" "], label: "Hold to talk (push to talk)", run: () => this.call?.hold(true) },
      { keys: [" "], on: "keyup", run: () => this.call?.hold(false) },
      { keys: ["Escape"], label: "Interrupt the agent", run: () => this.call?.interrupt() },
      { keys: ["x"], label: "Cut the line", run: () => this.call?.line.cut() },
      { keys: ["E"], label: "End the call", run: () => this.#end() },
      { keys: ["/"], label: "Type", run: () => this.input.focus() },
      { keys: ["f"], label: "Filter facts", run: () => this.ledger.filter.focus() },
      { keys: ["j"], label: "Next fact", repeats: true, run: () => this.ledger.move(1) },
      { keys: ["k"], label: "Previous fact", repeats: true, run: () => this.ledger.move(-1) },
    ]);
  }

  async #start(withMicrophone) {
    if (this.call) return;
    if (!this.chosenId.checkValidity()) {
      this.chosenId.closest("details").open = true;
      this.chosenId.reportValidity();
      return;
    }
    this.sessionId = this.chosenId.value.trim() || newSessionId();
    write(sessionStorage, "openline.model", this.model.value);
    const token = read(sessionStorage, tokenName(this.sessionId)) ?? "";
    const call = new Call({ origin: gatewayOrigin(), sessionId: this.sessionId, model: this.model.value, key: key(), token, withMicrophone });
    this.call = call;
    call.onentry = (entry) => this.transcript.changed(entry);
    call.onstatus = () => this.#showState();
    call.onplayed = (id, fraction) => this.transcript.setPlayed(id, fraction);
    call.onopen = () => this.#opened();
    this.#showState();
    const isNamed = this.chosenId.value.trim() !== "";
    const past = isNamed ? await getSession(this.sessionId).catch(() => null) : null;
    this.pastSeq = past?.last_seq ?? 0;
    await call.start();
    this.startMs = past?.created_ms ?? call.startMs;
    (withMicrophone ? this.canvas : this.input).focus?.();
  }

  #opened() {
    if (this.call.line.token) write(sessionStorage, tokenName(this.sessionId), this.call.line.token);
    if (this.unfollow) return;
    const onfact = (fact) => {
      // What happened before this call is told by the log; from here on the line tells it.
      if (fact.seq !== null && fact.seq <= this.pastSeq) this.call.talk.apply({ ...fact.data, type: fact.type }, fact.at ?? this.startMs, fact.seq);
      else this.#lineFact(fact);
      this.ledger.add(fact);
    };
    this.unfollow = followFacts(this.sessionId, { onfact });
    this.stops.push(this.unfollow);
  }

  /** Our own line tells what happens to it; what happens behind it (links, takeovers) only the log knows. */
  #lineFact(fact) {
    const notice = this.notices.of(fact);
    if (notice && /link|owned|silence|parked|dropped/.test(fact.type)) this.call.talk.notice(notice.tone, notice.text, fact.at ?? Date.now(), notice.detail);
  }

  #typed(event) {
    event.preventDefault();
    const text = this.input.value.trim();
    if (!text || !this.call || this.call.state === "closed") return;
    this.call.say(text);
    this.input.value = "";
  }

  #correct(entry) {
    this.input.value = entry.text;
    this.input.focus();
    this.input.select();
  }

  #mute() {
    if (this.call?.hasMic) this.call.setMuted(!this.call.isMuted);
  }

  #manual() {
    if (this.call?.hasMic) this.call.setManual(!this.call.isManual);
  }

  #end() {
    if (!this.call) return;
    if (this.call.state === "closed") {
      location.hash = "#/talk";
      this.#restart();
      return;
    }
    write(sessionStorage, tokenName(this.sessionId), null);
    this.call.stop({ end: true });
  }

  #restart() {
    window.dispatchEvent(new Event("openline-reload"));
  }

  #showState() {
    const { call } = this;
    const state = call?.state ?? "idle";
    const isOver = state === "closed";
    this.root.dataset.state = state;
    this.root.dataset.activity = call ? activity(call) : "";
    const hasCall = call !== null;
    this.hero.hidden = this.legend.hidden = hasCall;
    this.live.hidden = this.deck.hidden = !hasCall;
    this.input.disabled = this.sendButton.disabled = !hasCall || isOver;
    setWire({ idle: "idle", connecting: call?.detail.attempt ? "cut" : "opening", open: "open", cut: "cut", closed: "ended" }[state]);
    if (!call) return;
    setText(this.status, statusWords(call));
    setText(this.session, this.sessionId);
    this.session.href = `#/sessions/${this.sessionId}`;
    for (const button of [this.muteButton, this.manualButton]) button.hidden = !call.hasMic || isOver;
    this.cutButton.hidden = isOver;
    this.cutButton.disabled = state !== "open";
    this.holdButton.hidden = !call.isManual || isOver;
    this.retryButton.hidden = !(state === "cut" || (isOver && call.detail.canRetry));
    this.muteButton.setAttribute("aria-pressed", String(call.isMuted));
    this.muteButton.firstChild.textContent = call.isMuted ? "Muted" : "Mute";
    this.manualButton.setAttribute("aria-pressed", String(call.isManual));
    this.endButton.firstChild.textContent = isOver ? "New call" : "End call";
    for (const [name, field] of Object.entries(this.measure)) {
      const value = call.measures[name];
      setText(field.value, value === null ? "–" : span(value));
    }
  }

  #frame = (now) => {
    this.raf = requestAnimationFrame(this.#frame);
    if (!this.call) return;
    this.call.tick();
    const every = isStill.matches ? 250 : 30;
    if (now - (this.drawnAt ?? 0) < every) return;
    this.drawnAt = now;
    const { strip, levels, state } = this.call;
    const end = state === "closed" ? strip.end : this.call.elapsed;
    const from = Math.max(0, end - WINDOW_MS);
    this.timeline.show({ ...strip, end }, { from, to: from + WINDOW_MS });
    setText(this.time, clock(end, 0));
    this.meters.caller.set(this.call.isMuted ? 0 : levels.caller);
    this.meters.agent.set(this.call.isSpeaking ? levels.agent : 0);
    if (state === "cut") setText(this.status, statusWords(this.call));
  };

  close() {
    cancelAnimationFrame(this.raf);
    for (const stop of this.stops) stop();
    this.timeline.close();
    if (this.call && this.call.state !== "closed") this.call.stop({ end: false });
    setWire("idle");
  }
}

function activity(call) {
  if (call.state !== "open") return "";
  if (call.isHearing || call.isHolding) return "hearing";
  if (call.isSpeaking) return "speaking";
  return call.isResponding ? "thinking" : "listening";
}

function statusWords(call) {
  const { state, detail } = call;
  if (state === "connecting") return detail.attempt ? "Reopening the line" : "Opening the line";
  if (state === "cut") {
    const left = Math.max(0, detail.waitMs - (performance.now() - detail.at));
    return `Line cut. Trying again in ${(left / 1000).toFixed(1)} s`;
  }
  if (state === "closed") return detail.byUs ? "Call ended" : "Line closed";
  const words = { hearing: "Hearing you", speaking: "Speaking", thinking: "Thinking", listening: call.hasMic ? "Listening" : "Waiting for your words" };
  if (call.isMuted && activity(call) === "listening") return "Muted";
  if (call.isManual && activity(call) === "listening") return "Hold to talk";
  return words[activity(call)];
}

function meter(label) {
  const bar = h("i");
  const node = h("div", { class: "meter", role: "meter", "aria-label": `${label} level`, "aria-valuemin": "0", "aria-valuemax": "100", "aria-valuenow": "0" }, h("span", {}, label), h("b", {}, bar));
  let shown = -1;
  return {
    node,
    set(level) {
      const value = Math.round(Math.min(1, (level * 1.8) ** 0.6) * 100);
      if (value === shown) return;
      shown = value;
      bar.style.transform = `scaleX(${value / 100})`;
      node.setAttribute("aria-valuenow", String(value));
    },
  };
}

function measure(label, title) {
  const value = h("b", {}, "–");
  return { value, node: h("div", { class: "measure", title }, h("span", {}, label), value) };
}
