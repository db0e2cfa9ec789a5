// All sessions, newest first, kept up to date by the feed.

import { followFeed, getSession, listSessions } from "./api.js";
import { ago, h, plural, replace, setText, setWire, shortcuts, span } from "./dom.js";

const REDRAW_MS = 400;

export function sessionsView(main) {
  const view = new Sessions(main);
  return () => view.close();
}

const WORDS = {
  created: "new", live: "live", detached: "detached, can resume", parked: "parked, can resume", ended: "ended",
};

class Sessions {
  constructor(main) {
    this.rows = new Map();
    this.stale = new Set();
    this.timer = null;
    this.state = h("p", { class: "fine", role: "status" }, "Loading");
    this.filter = h("input", { type: "search", class: "filter", placeholder: "Filter by id or status", "aria-label": "Filter sessions", oninput: () => this.#applyFilter() });
    this.list = h("ul", { class: "sessions" });
    this.more = h("button", { type: "button", hidden: true, onclick: () => this.#load(this.last) }, "Show earlier sessions");
    this.empty = h("div", { class: "empty", hidden: true },
      h("p", {}, "No sessions yet."), h("p", { class: "fine" }, "Start one here, or with ", h("code", {}, "openline talk"), "."),
      h("a", { class: "button primary", href: "#/talk" }, "Talk to the agent"));
    replace(main, h("div", { class: "view list-view" },
      h("header", { class: "page-head" }, h("h1", {}, "Sessions"), this.state, this.filter), this.empty, this.list, this.more));
    shortcuts("view", [
      { keys: ["j", "ArrowDown"], label: "Next session", repeats: true, run: () => this.#move(1) },
      { keys: ["k", "ArrowUp"], label: "Previous session", repeats: true, run: () => this.#move(-1) },
      { keys: ["/", "f"], label: "Filter", run: () => this.filter.focus() },
    ]);
    setWire("idle");
    this.stop = new AbortController();
    this.unfollow = followFeed({ onfact: (fact) => this.#touched(fact), onstate: (state) => this.#feedState(state) });
    this.clock = setInterval(() => this.#tellTime(), 1000);
  }

  async #load(before = "") {
    try {
      const page = await listSessions({ before, signal: this.stop.signal });
      for (const row of page.data ?? []) this.#put(row);
      this.last = page.data?.at(-1)?.id ?? "";
      this.more.hidden = !page.has_more;
      this.#order();
    } catch (error) {
      if (!this.stop.signal.aborted) setText(this.state, error.message);
    }
  }

  #feedState(state) {
    this.feed = state;
    // Each time it opens: the list is read when the feed is followed already, so that no session is missed.
    if (state !== "waiting") this.#load();
    else this.#showCount();
  }

  #showCount() {
    const note = this.feed === "open" ? "following the feed" : "the feed is not connected";
    setText(this.state, `${plural(this.rows.size, "session")} · ${note}`);
    this.empty.hidden = this.rows.size > 0;
  }

  #touched(fact) {
    if (!fact.session) return;
    this.stale.add(fact.session);
    this.timer ??= setTimeout(() => this.#refresh(), REDRAW_MS);
  }

  async #refresh() {
    this.timer = null;
    const ids = [...this.stale];
    this.stale.clear();
    const rows = await Promise.all(ids.map((id) => getSession(id, { signal: this.stop.signal }).catch(() => null)));
    for (const row of rows) if (row?.id) this.#put(row);
    this.#order();
  }

  #put(row) {
    const known = this.rows.get(row.id);
    const node = sessionRow(row);
    if (known) {
      const hadFocus = known.node.contains(document.activeElement);
      known.node.replaceWith(node);
      if (hadFocus) node.querySelector("a").focus();
    }
    this.rows.set(row.id, { row, node });
  }

  #order() {
    const rows = [...this.rows.values()].sort((a, b) => (b.row.created_ms ?? 0) - (a.row.created_ms ?? 0));
    const isInOrder = rows.every(({ node }, index) => this.list.children[index] === node);
    if (!isInOrder || this.list.children.length !== rows.length) replace(this.list, rows.map(({ node }) => node));
    this.#applyFilter();
    this.#showCount();
  }

  #applyFilter() {
    const query = this.filter.value.trim().toLowerCase();
    for (const { row, node } of this.rows.values()) node.hidden = !`${row.id} ${row.status}`.toLowerCase().includes(query);
  }

  #tellTime() {
    for (const { row, node } of this.rows.values()) setText(node.querySelector(".when"), ago(row.updated_ms));
  }

  #move(step) {
    const links = [...this.list.querySelectorAll("li:not([hidden]) > a")];
    const index = links.indexOf(document.activeElement?.closest?.("li")?.querySelector(":scope > a"));
    links[Math.max(0, Math.min(links.length - 1, index + step))]?.focus();
  }

  close() {
    this.stop.abort();
    this.unfollow();
    clearInterval(this.clock);
    clearTimeout(this.timer);
  }
}

function sessionRow(row) {
  const { id, status = "unknown" } = row;
  const lasted = Number.isFinite(row.updated_ms - row.created_ms) ? span(row.updated_ms - row.created_ms) : "";
  const began = row.created_ms ? new Date(row.created_ms) : null;
  const path = encodeURIComponent(id);
  return h("li", { class: "session", data: { status, id } },
    h("a", { class: "session-main", href: `#/sessions/${path}` },
      h("span", { class: "line-glyph", "aria-hidden": "true" }, h("i"), h("b"), h("i")),
      h("span", { class: "session-name" }, id),
      h("span", { class: "session-status" }, WORDS[status] ?? status)),
    h("span", { class: "session-facts" },
      h("span", { class: "when", title: began ? began.toLocaleString() : "" }, ago(row.updated_ms)),
      h("span", {}, lasted),
      h("span", {}, Number.isFinite(row.last_seq) ? plural(row.last_seq, "fact") : ""),
      Number.isFinite(row.turns) ? h("span", {}, plural(row.turns, "turn")) : null,
      row.epoch > 1 ? h("span", { title: "How often a process took this session over" }, `epoch ${row.epoch}`) : null),
    h("span", { class: "session-actions" },
      h("a", { class: "button small", href: `#/sessions/${path}/play` }, "Play"),
      status === "ended" ? null : h("a", { class: "button small", href: `#/talk/${path}` }, "Continue")));
}

