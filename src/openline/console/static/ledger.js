// The list of facts: number, offset, kind, type, one line of content; each opens to its JSON.

import { clock, h, keepAtEnd, replace, setText } from "./dom.js";
import { KINDS, kindOf, summary } from "./story.js";

/** Rows kept in the page; older ones leave it (the log keeps them, and the export link gives all). */
const MOST_ROWS = 3000;
const GLYPH = Object.fromEntries(KINDS.map(({ kind, glyph }) => [kind, glyph]));

export class Ledger {
  /** `startMs()`: Unix ms of offset zero. `onpick(fact)` when a row is chosen. */
  constructor({ startMs, onpick = () => {}, isFollowing = true }) {
    this.startMs = startMs;
    this.onpick = onpick;
    this.isFollowing = isFollowing;
    this.rows = [];
    this.hidden = new Set();
    this.query = "";
    this.current = -1;
    this.shown = 0;
    this.filter = h("input", {
      type: "search", class: "filter", placeholder: "Filter facts", "aria-label": "Filter facts by words in their type or content",
      autocomplete: "off", spellcheck: "false", oninput: () => this.#applyFilter(),
    });
    this.count = h("span", { class: "count" });
    this.chips = h("div", { class: "chips", role: "group", "aria-label": "Kinds shown" }, KINDS.map((entry) => this.#chip(entry)));
    this.list = h("ol", { class: "facts", "aria-label": "Facts" });
    this.scroller = h("div", { class: "scroll" }, this.list);
    this.follows = keepAtEnd(this.scroller, () => this.isFollowing && this.current < 0);
    this.node = h("section", { class: "ledger panel", "aria-label": "Facts" },
      h("header", { class: "panel-head" }, h("h2", {}, "Facts"), this.count, this.filter), this.chips, this.scroller);
  }

  #chip({ kind, glyph, label }) {
    const toggle = () => {
      if (!this.hidden.delete(kind)) this.hidden.add(kind);
      chip.setAttribute("aria-pressed", String(!this.hidden.has(kind)));
      this.#applyFilter();
    };
    const chip = h("button", { type: "button", class: `chip ${kind}`, "aria-pressed": "true", onclick: toggle },
      h("i", { "aria-hidden": "true" }, glyph), label);
    return chip;
  }

  add(fact) {
    const row = this.#row(fact);
    this.rows.push(row);
    row.node.hidden = !this.#matches(row);
    if (!row.node.hidden) this.shown += 1;
    this.list.append(row.node);
    if (this.rows.length > MOST_ROWS) this.#forgetFirst();
    this.#showCount();
    this.follows();
  }

  #forgetFirst() {
    const { node } = this.rows.shift();
    if (!node.hidden) this.shown -= 1;
    if (this.current >= 0) this.current -= 1;
    node.remove();
  }

  #row(fact) {
    const kind = kindOf(fact);
    const short = fact.type.replace(/^openline\./, "");
    const offset = fact.at === null ? "" : clock(fact.at - this.startMs(), 3);
    const row = { fact, kind, body: null, words: "" };
    const head = h("button", { type: "button", class: "fact-head", "aria-expanded": "false", onclick: () => this.#toggle(row) },
      h("span", { class: "seq" }, fact.seq ?? ""),
      h("span", { class: "offset" }, offset),
      h("i", { class: "glyph", "aria-hidden": "true" }, GLYPH[kind]),
      h("span", { class: "type", title: fact.type }, short),
      h("span", { class: "summary" }, summary(fact)));
    row.head = head;
    row.node = h("li", { class: `fact ${kind}`, data: { seq: fact.seq ?? "" } }, head);
    return row;
  }

  #toggle(row) {
    this.select(this.rows.indexOf(row), { scroll: false });
    const isOpen = row.body === null;
    row.head.setAttribute("aria-expanded", String(isOpen));
    if (isOpen) {
      row.body = h("pre", { class: "json" }, JSON.stringify({ type: row.fact.type, seq: row.fact.seq, id: row.fact.id, ...row.fact.data }, null, 2));
      row.node.append(row.body);
    } else {
      row.body.remove();
      row.body = null;
    }
    this.onpick(row.fact);
  }

  toggleCurrent() {
    if (this.rows[this.current]) this.#toggle(this.rows[this.current]);
  }

  /** Move by `step` visible rows; returns the fact now selected. */
  move(step) {
    let index = this.current < 0 ? (step > 0 ? -1 : this.rows.length) : this.current;
    do index += step;
    while (this.rows[index]?.node.hidden);
    if (!this.rows[index]) return null;
    this.select(index);
    this.onpick(this.rows[index].fact);
    return this.rows[index].fact;
  }

  select(index, { scroll = true } = {}) {
    this.rows[this.current]?.node.classList.remove("is-now");
    this.current = index;
    const row = this.rows[index];
    if (!row) return;
    row.node.classList.add("is-now");
    if (!scroll) return;
    const top = row.node.offsetTop;
    const { scrollTop, clientHeight } = this.scroller;
    if (top < scrollTop + 40 || top > scrollTop + clientHeight - 80) this.scroller.scrollTop = top - clientHeight / 2;
  }

  /** Select the last fact at or before Unix ms `at`. */
  follow(at) {
    let low = 0;
    let high = this.rows.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((this.rows[middle].fact.at ?? -Infinity) <= at) low = middle + 1;
      else high = middle;
    }
    if (low - 1 !== this.current) this.select(low - 1);
  }

  #matches(row) {
    if (this.hidden.has(row.kind)) return false;
    if (!this.query) return true;
    row.words ||= `${row.fact.type} ${JSON.stringify(row.fact.data)} ${row.fact.seq ?? ""}`.toLowerCase();
    return this.query.split(/\s+/).every((word) => row.words.includes(word));
  }

  #applyFilter() {
    this.query = this.filter.value.trim().toLowerCase();
    this.shown = 0;
    for (const row of this.rows) {
      row.node.hidden = !this.#matches(row);
      if (!row.node.hidden) this.shown += 1;
    }
    this.#showCount();
  }

  #showCount() {
    const { shown, rows } = this;
    setText(this.count, shown === rows.length ? String(shown) : `${shown} of ${rows.length}`);
  }

  clear() {
    this.rows = [];
    this.current = -1;
    this.shown = 0;
    replace(this.list);
    this.#showCount();
  }
}
