// Draws a Conversation as a thread: time in the gutter, every word hanging on one vertical line.

import { announce, clock, h, keepAtEnd, replace, setText, span } from "./dom.js";
import { heardEnd } from "./conversation.js";

const SOURCES = {
  reported: "reported by the player",
  paced: "by the release clock",
  assumed: "assumed",
  client: "by the client",
};

export class Transcript {
  /** `startMs()` gives the Unix ms that the gutter counts from; `oncorrect(entry)` offers text; `onpick(entry)` jumps. */
  constructor({ startMs, oncorrect = null, onpick = null, isFollowing = true }) {
    this.startMs = startMs;
    this.oncorrect = oncorrect;
    this.onpick = onpick;
    this.isFollowing = isFollowing;
    this.rows = new Map();
    this.playing = new Map();
    this.announced = new Set();
    this.node = h("ol", { class: "thread", "aria-label": "Transcript" });
    this.scroller = h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Transcript" }, this.node);
    this.follows = keepAtEnd(this.scroller, () => this.isFollowing);
  }

  /** Show how far into an agent entry the loudspeaker is, 0..1; null when it is not playing. */
  setPlayed(id, fraction) {
    if (fraction === null) this.playing.delete(id);
    else this.playing.set(id, fraction);
    const row = this.rows.get(id);
    if (row) this.#fillText(row);
  }

  changed(entry) {
    let row = this.rows.get(entry.id);
    if (!row) {
      row = this.#row(entry);
      this.rows.set(entry.id, row);
      this.node.append(row.node);
    }
    this.#fill(row);
    this.follows();
  }

  highlight(id) {
    for (const [key, row] of this.rows) row.node.classList.toggle("is-now", key === id);
    const row = this.rows.get(id);
    if (!row) return;
    const top = row.node.offsetTop - this.scroller.clientHeight / 3;
    if (Math.abs(this.scroller.scrollTop - top) > this.scroller.clientHeight / 3) this.scroller.scrollTop = top;
  }

  #row(entry) {
    const text = h("p", { class: "said" });
    const meta = h("p", { class: "meta" });
    const extra = h("div", { class: "extra" });
    const time = this.onpick
      ? h("button", { type: "button", class: "at quiet", onclick: () => this.onpick(entry) })
      : h("span", { class: "at" });
    time.textContent = clock(entry.at - this.startMs());
    const node = h("li", { class: `entry ${entry.kind}`, data: { id: entry.id } }, time, h("i", { class: "node", "aria-hidden": "true" }),
      h("div", { class: "body" }, h("span", { class: "who" }), text, extra, meta));
    return { entry, node, text, meta, extra, who: node.querySelector(".who") };
  }

  #fill(row) {
    const { entry, node } = row;
    node.classList.toggle("is-partial", Boolean(entry.isPartial));
    node.classList.toggle("is-cut", Boolean(entry.isCut));
    node.classList.toggle("is-unsure", Boolean(entry.isUnsure));
    node.classList.toggle("is-void", Boolean(entry.isVoid));
    if (entry.tone) node.dataset.tone = entry.tone;
    if (entry.kind === "tool") return this.#fillTool(row);
    setText(row.who, { user: "Caller", agent: "Agent" }[entry.kind] ?? "");
    this.#fillText(row);
    setText(row.meta, entry.kind === "notice" ? entry.detail ?? "" : metaOf(entry));
    if (entry.kind === "user") this.#offerText(row);
    this.#announce(entry);
  }

  #fillText(row) {
    const { entry, text } = row;
    if (entry.kind === "tool") return;
    if (entry.kind === "user" && !entry.text) {
      const words = entry.isAbandoned ? "(turn abandoned)" : entry.isPartial ? "…" : "(no words were recognised)";
      setText(text, words);
      return;
    }
    if (entry.kind !== "agent") {
      setText(text, entry.text);
      return;
    }
    const played = this.playing.get(entry.id);
    const end = heardEnd(entry) ?? (played !== undefined && !entry.isCut ? wordStart(entry.text, played) : null);
    if (end === null || end >= entry.text.length) {
      // Words that were grey or struck have the same text: then the parts must go too.
      if (text.childElementCount) replace(text, entry.text);
      else setText(text, entry.text);
      return;
    }
    const rest = entry.isCut ? h("s", { class: "unheard", title: "Not heard: the reply was cut here" }) : h("span", { class: "coming" });
    rest.textContent = entry.text.slice(end);
    replace(text, entry.text.slice(0, end), rest);
  }

  #fillTool(row) {
    const { entry } = row;
    setText(row.who, "Tool");
    const state = entry.state ?? "requested";
    row.node.dataset.state = state;
    const took = entry.startedAt && entry.settledAt ? ` in ${span(entry.settledAt - entry.startedAt)}` : "";
    replace(row.text, h("span", { class: "tool-name" }, entry.name ?? "tool"), " ", h("span", { class: "tool-state" }, `${state}${took}`));
    const lines = [
      entry.arguments && h("code", { class: "io" }, entry.arguments),
      entry.output && h("code", { class: "io out" }, String(entry.output)),
      entry.error && h("code", { class: "io bad" }, entry.error),
    ];
    replace(row.extra, ...lines);
    if (entry.server) setText(row.meta, `run by ${entry.server}`);
  }

  #offerText(row) {
    const { entry } = row;
    if (!this.oncorrect || !entry.isUnsure) {
      if (row.extra.childNodes.length) replace(row.extra);
      return;
    }
    if (row.extra.childNodes.length) return;
    const label = entry.text ? "Not what you said? Type it" : "Type it instead";
    replace(row.extra, h("button", { type: "button", class: "small", onclick: () => this.oncorrect(entry) }, label));
  }

  #announce(entry) {
    if (!this.isFollowing || entry.isPartial || !entry.text || this.announced.has(entry.id)) return;
    this.announced.add(entry.id);
    const who = { user: "Heard", agent: "Agent" }[entry.kind];
    announce(who ? `${who}: ${entry.text}` : entry.text);
  }
}

/** Words are not split: the one being spoken counts as said. */
function wordStart(text, fraction) {
  const at = text.indexOf(" ", Math.round(text.length * fraction));
  return at < 0 ? text.length : at;
}

/** What is known about an entry, in words; never more than is known. */
function metaOf(entry) {
  const words = [];
  if (entry.isVoid) words.push("void: it never became durable");
  if (entry.kind === "user") {
    if (entry.isAbandoned) words.push(`abandoned${entry.reason ? `, ${entry.reason}` : ""}`);
    else if (entry.isPartial) words.push("listening");
    else if (!entry.isSpoken) words.push("typed");
    else if (Number.isFinite(entry.confidence)) words.push(`${entry.isUnsure ? "unsure, " : ""}confidence ${Math.round(entry.confidence * 100)} %`);
  } else if (entry.isCut) {
    const source = SOURCES[entry.source] ?? entry.source;
    const end = Number.isFinite(entry.heardMs) ? `heard ${(entry.heardMs / 1000).toFixed(1)} s` : "cut";
    const totalMs = entry.totalMs ?? entry.audioMs;
    const whole = totalMs ? ` of ${(totalMs / 1000).toFixed(1)} s` : "";
    words.push(`${end}${whole}${source ? `, ${source}` : ""}`);
    if (entry.isEstimated || (!Number.isInteger(entry.textEnd) && heardEnd(entry) !== null)) words.push("place in the text estimated");
  } else if (entry.isHeardKnown && entry.isSpoken) words.push(`heard in full${SOURCES[entry.source] ? `, ${SOURCES[entry.source]}` : ""}`);
  if (Number.isFinite(entry.firstSoundMs)) words.push(`first sound ${span(entry.firstSoundMs)} after the turn's end`);
  return words.join(" · ");
}
