// One open line: a /v1/realtime connection that resumes. No DOM, no audio; sockets and timers are given.
//
// States: idle -> connecting -> open -> (cut -> connecting -> open)* -> closed.
// `cut` waits out a backoff; `closed` is final until open() is called again.

/** Close codes that end the line for good, with the sentence a person is shown. */
export const FINAL_CLOSES = new Map([
  [1000, "The gateway closed the line."],
  [4000, "The gateway refused this session."],
  [4401, "The gateway asks for an API key, or refused this one."],
  [4409, "The line was taken over by another speaker of this session."],
  [4410, "The session has ended."],
]);

const BACKOFF_MS = { first: 200, factor: 1.8, most: 5000 };
/** The gateway keeps a session detached for 30 s by default (DESIGN §5), then parks it; it can be resumed after that too. */
const GIVE_UP_MS = 120_000;
/** Unsent bytes in the socket that mean the far side has stopped reading: 5 s of base64 PCM. */
const STUCK_BYTES = 5 * 64_000;

/** "evt_3_120_2" -> {epoch:3, seq:120, n:2}; null for ids of another form (a stock server's). */
export function parseEventId(id) {
  const match = /^evt_(\d+)_(\d+)_(\d+)$/.exec(id ?? "");
  return match ? { epoch: Number(match[1]), seq: Number(match[2]), n: Number(match[3]) } : null;
}

/** A session id of our own choosing: what lets any later connection find this session by URL alone. */
export function newSessionId(random = crypto.getRandomValues(new Uint8Array(9))) {
  const alphabet = "abcdefghijkmnpqrstuvwxyz23456789";
  return `call_${[...random].map((byte) => alphabet[byte % alphabet.length]).join("")}`;
}

export class Line {
  /**
   * @param {object} options origin ("ws://host"), sessionId, role, model, key, token, after (event id to
   *   resume after, "" for none), Socket (WebSocket class), timers {set, clear, now}, random (0..1)
   * Handlers: onframe(frame), onstate(state, detail), onresume({gapMs, from, lost, replayed}).
   */
  constructor(options) {
    this.options = {
      role: "speaker", model: "embedded", key: "", Socket: globalThis.WebSocket, random: Math.random,
      timers: { set: setTimeout.bind(globalThis), clear: clearTimeout.bind(globalThis), now: () => performance.now() },
      ...options,
    };
    this.state = "idle";
    this.token = options.token ?? "";
    this.lastEvent = parseEventId(options.after) ? options.after : "";
    this.about = null;
    this.onframe = this.onstate = this.onresume = () => {};
    this.attempt = 0;
    this.cutAt = null;
    this.socket = null;
    this.timer = null;
    this.replay = null;
  }

  get isOpenline() {
    return this.about !== null;
  }

  /** The URL of the next attempt. The key is never in it: it travels as a subprotocol. */
  url() {
    const query = new URLSearchParams({ model: this.options.model, openline: "1" });
    query.set("session_id", this.options.sessionId);
    query.set("role", this.options.role);
    if (this.token) query.set("token", this.token);
    if (this.lastEvent) query.set("after", this.lastEvent);
    return `${this.options.origin}/v1/realtime?${query}`;
  }

  open() {
    if (this.state === "connecting" || this.state === "open") return;
    this.attempt = 0;
    this.#connect();
  }

  #connect() {
    const { Socket, key } = this.options;
    this.timer = null;
    this.#setState("connecting", { attempt: this.attempt });
    const protocols = key ? ["realtime", `openai-insecure-api-key.${key}`] : ["realtime"];
    const socket = new Socket(this.url(), protocols);
    this.socket = socket;
    // Handlers are bound to this socket: what an abandoned one still delivers is not ours any more.
    socket.onmessage = (event) => socket === this.socket && this.#received(event.data);
    socket.onclose = (event) => socket === this.socket && this.#closed(event.code, event.reason);
    socket.onerror = () => {};
  }

  #received(text) {
    let frame;
    try {
      frame = JSON.parse(text);
    } catch {
      return;
    }
    if (frame.type === "session.created") this.#opened(frame);
    else if (this.state !== "open") return;
    // Backoff is reset by a received event, never by a handshake alone.
    else this.attempt = 0;
    const place = parseEventId(frame.event_id);
    if (place) {
      this.lastEvent = frame.event_id;
      if (this.replay && place.n < 32) this.replay.frames += 1;
    }
    this.onframe(frame);
  }

  #opened(frame) {
    const resumedAfterCut = this.cutAt !== null;
    const now = this.options.timers.now();
    this.about = frame.session?.openline ?? frame.openline ?? null;
    if (this.about?.token) this.token = this.about.token;
    this.replay = resumedAfterCut ? { frames: 0 } : null;
    const gap = { gapMs: resumedAfterCut ? now - this.cutAt : 0, tookMs: now - (this.attemptedAt ?? now) };
    this.cutAt = null;
    this.#setState("open", { about: this.about, resumed: resumedAfterCut });
    if (resumedAfterCut) {
      this.onresume({ ...gap, from: this.about?.resumed_from ?? null, lost: this.about?.lost ?? [], replay: this.replay });
    }
  }

  #closed(code, reason) {
    this.socket = null;
    const final = FINAL_CLOSES.get(code);
    if (this.state === "closed") return;
    if (final) {
      this.#setState("closed", { code, reason: final, detail: reason });
      return;
    }
    this.#lost({ code, reason });
  }

  #lost({ code, reason, holdMs = 0 }) {
    const now = this.options.timers.now();
    this.cutAt ??= now;
    if (now - this.cutAt > GIVE_UP_MS) {
      this.#setState("closed", { code, reason: "The line could not be reopened for two minutes.", canRetry: true });
      return;
    }
    const { first, factor, most } = BACKOFF_MS;
    const ceiling = Math.min(most, first * factor ** this.attempt);
    const waitMs = Math.max(holdMs, ceiling / 2 + (this.options.random() * ceiling) / 2);
    this.attempt += 1;
    this.#setState("cut", { code, reason, waitMs, attempt: this.attempt });
    this.timer = this.options.timers.set(() => this.#connect(), waitMs);
  }

  /** Try again now instead of at the end of the backoff. */
  retry() {
    if (this.state === "cut") {
      this.options.timers.clear(this.timer);
      this.#connect();
    } else if (this.state === "closed") this.open();
  }

  /**
   * Drop the socket as a dead network would: nothing is said to the far side's session, whatever was
   * in flight is lost. After holdMs the line resumes. A browser cannot skip the close frame; the code says why.
   */
  cut(holdMs = 2000) {
    if (this.state !== "open" && this.state !== "connecting") return;
    const socket = this.socket;
    this.socket = null;
    socket?.close(4900, "cut on purpose");
    this.#lost({ code: 4900, reason: "cut on purpose", holdMs });
  }

  /** Hang up for good: the session ends on the gateway too. */
  end() {
    this.send({ type: "openline.session.end" });
    this.#leave("You ended the call.");
  }

  /** Leave without ending the session: it detaches, then parks, and can be resumed later. */
  leave() {
    this.#leave("You left the line; the session goes on.");
  }

  #leave(reason) {
    if (this.timer !== null) this.options.timers.clear(this.timer);
    this.timer = null;
    const socket = this.socket;
    this.socket = null;
    this.#setState("closed", { code: 1000, reason, byUs: true });
    socket?.close(1000);
  }

  /** Send one event. False when the line is not open: the caller decides what that means. */
  send(event) {
    if (this.state !== "open" || !this.socket || this.socket.readyState !== 1) return false;
    if (this.socket.bufferedAmount > STUCK_BYTES) {
      this.cut(0);
      return false;
    }
    this.socket.send(JSON.stringify(event));
    return true;
  }

  #setState(state, detail = {}) {
    this.state = state;
    if (state === "connecting") this.attemptedAt = this.options.timers.now();
    this.onstate(state, detail);
  }
}
