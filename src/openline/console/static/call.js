// One call of ours: the line, the microphone, the player and the conversation, tied together. No layout.

import { Microphone, Player, fromBase64, microphoneProblem, toBase64 } from "./audio.js";
import { Conversation } from "./conversation.js";
import { plural, span } from "./dom.js";
import { Line, parseEventId } from "./protocol.js";

const PLAYOUT_EVERY_MS = 250;
/** Microphone kept while the line is cut, in 20 ms frames: 5 s, the oldest dropped first and counted. */
const KEPT_FRAMES = 250;
const FRAME_MS = 20;
const LEVEL_EVERY_MS = 50;
/** Levels kept for the drawing: two minutes. */
const KEPT_LEVELS = 2400;

export class Call {
  /**
   * options: origin, sessionId, model, key, token, withMicrophone.
   * Handlers: onentry(entry, isNew), onstatus(), onplayed(itemId, fraction|null).
   */
  constructor(options) {
    this.options = options;
    this.onentry = this.onstatus = this.onplayed = this.onopen = () => {};
    this.talk = new Conversation((entry, isNew) => this.onentry(entry, isNew));
    this.line = new Line(options);
    this.line.onframe = (frame) => this.#frame(frame);
    this.line.onstate = (state, detail) => this.#lineState(state, detail);
    this.line.onresume = (resume) => this.#resumed(resume);
    this.player = new Player({
      onplayout: (item, ms, kind) => this.#playout(item, ms, kind),
      onlevel: (level) => (this.levels.agent = Math.max(this.levels.agent * 0.6, level)),
      onstarted: (item) => this.#firstSound(item),
    });
    this.mic = new Microphone((pcm, level) => this.#heardMic(pcm, level));
    this.state = "idle";
    this.detail = {};
    this.isHearing = this.isResponding = this.isSpeaking = this.isManual = this.isHolding = this.isMuted = false;
    this.hasMic = false;
    this.measures = { reply: null, interrupt: null, resume: null };
    this.levels = { caller: 0, agent: 0, lastAt: 0 };
    this.strip = { levels: [], marks: [], gaps: [], spans: [], begin: 0, end: 0 };
    this.reported = new Map();
    this.kept = [];
    this.droppedFrames = 0;
    this.outbox = [];
    this.startedAt = performance.now();
    this.startMs = Date.now();
    this.ordinal = 0;
  }

  get elapsed() {
    return performance.now() - this.startedAt;
  }

  /** Never fails for want of a microphone: it says so and goes on with text. */
  async start() {
    await this.player.start();
    if (this.options.withMicrophone) {
      try {
        await this.mic.start();
        this.hasMic = true;
      } catch (error) {
        this.talk.notice("warn", microphoneProblem(error), Date.now());
      }
    }
    this.startedAt = performance.now();
    this.startMs = Date.now();
    this.line.open();
  }

  async stop({ end }) {
    if (end) this.line.end();
    else this.line.leave();
    await Promise.allSettled([this.mic.stop(), this.player.stop()]);
  }

  // ------------------------------------------------------------------------------- what the caller does

  #send(event) {
    const full = { event_id: `console_${this.startMs.toString(36)}_${++this.ordinal}`, ...event };
    if (!this.line.send(full)) this.outbox.push(full);
  }

  say(text) {
    if (this.isResponding || this.isSpeaking) this.interrupt();
    this.#send({ type: "conversation.item.create", item: { type: "message", role: "user", content: [{ type: "input_text", text }] } });
    this.#send({ type: "response.create" });
  }

  interrupt() {
    if (this.isSpeaking) this.mark("interruption", "you interrupted the reply");
    if (this.isResponding) this.#send({ type: "response.cancel" });
    this.#stopPlaying();
  }

  setMuted(isMuted) {
    this.isMuted = this.mic.isMuted = isMuted;
    this.onstatus();
  }

  /** Push to talk: the gateway stops detecting turns; a turn is what was said while holding. */
  setManual(isManual) {
    this.isManual = isManual;
    this.isHolding = false;
    this.#sendTurnDetection();
    this.onstatus();
  }

  #sendTurnDetection() {
    const turn_detection = this.isManual ? null : { type: "server_vad" };
    this.#send({ type: "session.update", session: { type: "realtime", audio: { input: { turn_detection } } } });
  }

  hold(isHolding) {
    if (!this.isManual || isHolding === this.isHolding || !this.hasMic) return;
    this.isHolding = isHolding;
    if (isHolding) {
      if (this.isSpeaking || this.isResponding) this.interrupt();
    } else {
      this.#send({ type: "input_audio_buffer.commit" });
      this.#send({ type: "response.create" });
      this.stoppedAt = performance.now();
    }
    this.onstatus();
  }

  #heardMic(pcm, level) {
    this.levels.caller = Math.max(this.levels.caller * 0.8, level);
    // Frames come also while the tab is in the background, where nothing is drawn: the strip has no holes then.
    this.tick();
    if (this.isManual && !this.isHolding) return;
    if (this.line.send({ type: "input_audio_buffer.append", audio: toBase64(pcm) })) return;
    if (this.state !== "cut" && this.state !== "connecting") return;
    this.kept.push(pcm);
    if (this.kept.length > KEPT_FRAMES) {
      this.kept.shift();
      this.droppedFrames += 1;
    }
  }

  // --------------------------------------------------------------------------------- what the line says

  #lineState(state, detail) {
    this.state = state;
    this.detail = { ...detail, at: performance.now() };
    if (state === "cut" && !this.strip.gaps.some((gap) => gap.to === null)) this.#cut(detail);
    if (state === "open") this.#opened();
    if (state === "closed") this.#closed(detail);
    this.onstatus();
  }

  #cut(detail) {
    this.strip.gaps.push({ from: this.elapsed, to: null });
    this.player.lineCut();
    const why = detail.code === 4900 ? "on purpose" : `code ${detail.code}${detail.reason ? `, ${detail.reason}` : ""}`;
    this.talk.notice("cut", "The line was cut.", Date.now(), why);
  }

  #opened() {
    const gap = this.strip.gaps.at(-1);
    if (gap && gap.to === null) gap.to = this.elapsed;
    if (this.isManual) this.#sendTurnDetection();
    for (const event of this.outbox.splice(0)) this.line.send(event);
    this.#sendKept();
    this.onopen();
  }

  /**
   * What was said while the line was not open, as one append: it ends now, so the gateway puts it where it was
   * said. Frame by frame it would be put after the silence that it was said in, and all later speech with it.
   */
  #sendKept() {
    const frames = this.kept.splice(0);
    this.keptMs = frames.length * FRAME_MS;
    this.droppedMs = this.droppedFrames * FRAME_MS;
    this.droppedFrames = 0;
    if (!frames.length) return;
    const whole = new Int16Array(frames.reduce((sum, pcm) => sum + pcm.length, 0));
    let at = 0;
    for (const pcm of frames) {
      whole.set(pcm, at);
      at += pcm.length;
    }
    this.line.send({ type: "input_audio_buffer.append", audio: toBase64(whole) });
  }

  #resumed({ gapMs, tookMs, from, lost, replay }) {
    this.measures.resume = tookMs;
    const { keptMs, droppedMs } = this;
    const place = parseEventId(from);
    const words = [place ? `from fact ${place.seq} on` : from ? `from ${JSON.stringify(from)}` : "as a new attach"];
    if (keptMs) words.push(`${span(keptMs)} of microphone kept and sent`);
    if (droppedMs) words.push(`${span(droppedMs)} of microphone dropped`);
    words.push(lost.length ? `lost: ${lost.map(lossWords).join(", ")}` : "nothing lost");
    const notice = this.talk.notice(lost.length || droppedMs ? "warn" : "resumed", `The line is open again after ${span(gapMs)}.`, Date.now(), words.join(" · "));
    // Replayed frames follow the first one; a moment later their number is known.
    setTimeout(() => {
      if (!replay.frames) return;
      this.talk.change(notice, { detail: [...words, `${plural(replay.frames, "stored frame")} since`].join(" · ") });
    }, 400);
    // What was buffered played on while the line was cut: say so at once, or it would be sent again.
    const latest = [...this.reported].at(-1);
    if (latest) this.#sendPlayout(...latest);
  }

  #closed(detail) {
    this.isHearing = this.isResponding = this.isSpeaking = false;
    this.talk.notice(detail.byUs ? "plain" : "warn", detail.reason ?? "The line is closed.", Date.now(), detail.detail ?? "");
    this.strip.end = this.elapsed;
  }

  #frame(frame) {
    const at = Date.now();
    const place = parseEventId(frame.event_id);
    ON_FRAME[frame.type]?.(this, frame, at);
    this.talk.apply(frame, at, place && place.n < 32 ? place.seq : null);
  }

  mark(kind, label) {
    this.strip.marks.push({ at: this.elapsed, kind, label });
  }

  audio(frame) {
    const start = frame.audio_start_ms ?? frame.openline?.audio_start_ms ?? null;
    this.player.push(frame.item_id, fromBase64(frame.delta), start);
  }

  speechStarted() {
    this.isHearing = true;
    if (this.isSpeaking) this.mark("interruption", "you spoke over the reply");
    this.#stopPlaying();
    this.onstatus();
  }

  #stopPlaying() {
    // Also when nothing sounds yet: audio may be on its way to the loudspeaker.
    this.clearedAt = this.isSpeaking ? performance.now() : undefined;
    this.player.clear({ ignoreRest: !this.line.isOpenline });
  }

  responding(isResponding) {
    this.isResponding = isResponding;
    this.onstatus();
  }

  toolStarted({ call_id, name }) {
    this.strip.spans.push({ id: call_id, lane: "tool", from: this.elapsed, to: null, label: name ?? "tool" });
  }

  toolSettled({ call_id, outcome }) {
    const open = this.strip.spans.find((span) => span.id === call_id && span.to === null);
    if (open) Object.assign(open, { to: this.elapsed, isCut: outcome !== "succeeded" });
  }

  // ------------------------------------------------------------------------------------ what was played

  #firstSound(item) {
    this.isSpeaking = true;
    const entry = this.talk.get(item);
    if (this.stoppedAt !== undefined) {
      this.measures.reply = performance.now() - this.stoppedAt;
      if (entry) this.talk.change(entry, { firstSoundMs: this.measures.reply });
      this.stoppedAt = undefined;
    }
    this.onstatus();
  }

  #playout(item, ms, kind) {
    const isLast = kind !== "position";
    const last = this.reported.get(item) ?? 0;
    const now = performance.now();
    if (kind === "cleared" && this.clearedAt !== undefined) {
      this.measures.interrupt = now - this.clearedAt;
      this.clearedAt = undefined;
    }
    if (isLast || now - (this.reportedAt ?? 0) >= PLAYOUT_EVERY_MS) {
      if (ms !== last || isLast) this.#sendPlayout(item, ms);
      this.reportedAt = now;
    }
    const whole = this.player.receivedMs(item);
    if (kind === "position") this.onplayed(item, whole ? Math.min(1, ms / whole) : 0);
    else {
      this.isSpeaking = false;
      // After a cut the transcript shows what was heard; after an end it shows all of it.
      this.onplayed(item, null);
      this.onstatus();
    }
  }

  #sendPlayout(item, ms) {
    this.reported.delete(item);
    this.reported.set(item, ms);
    if (this.reported.size > 32) this.reported.delete(this.reported.keys().next().value);
    this.line.send({ type: "openline.playout", item_id: item, audio_end_ms: ms });
  }

  /** Called per animation frame and per microphone frame: one level sample each 50 ms. */
  tick() {
    const now = this.elapsed;
    const { strip, levels } = this;
    if (this.state !== "closed") strip.end = now;
    if (now - levels.lastAt < LEVEL_EVERY_MS || this.state === "closed") return;
    levels.lastAt = now;
    const isOpen = this.state === "open" && (!this.isManual || this.isHolding);
    strip.levels.push({ at: now, caller: isOpen ? levels.caller : 0, agent: this.isSpeaking ? levels.agent : 0 });
    if (strip.levels.length > KEPT_LEVELS) strip.levels.shift();
  }
}

function lossWords(loss) {
  if (typeof loss === "string") return loss;
  return loss.what ?? loss.kind ?? loss.reason ?? JSON.stringify(loss);
}

const ON_FRAME = {
  "input_audio_buffer.speech_started": (call) => call.speechStarted(),
  "input_audio_buffer.speech_stopped": (call) => {
    call.isHearing = false;
    call.stoppedAt = performance.now();
    call.onstatus();
  },
  "openline.turn.committed": (call) => call.mark("commit", "turn committed"),
  "response.created": (call) => call.responding(true),
  "response.done": (call) => call.responding(false),
  "response.output_audio.delta": (call, frame) => call.audio(frame),
  "openline.item.partial": (call, frame) => call.player.goesOnFrom(frame.item_id, frame.audio_start_ms),
  "openline.tool.requested": (call, frame) => call.toolStarted(frame),
  "openline.tool.settled": (call, frame) => call.toolSettled(frame),
  "openline.session.rewound": (call, frame, at) => {
    const seq = frame.seq ?? null;
    if (seq !== null) call.talk.rewind(seq);
    call.talk.notice("warn", "The gateway came back from its log.", at, seq === null ? "what it had not stored is void" : `what came after fact ${seq} is void`);
  },
  error: (call, frame, at) => call.talk.notice("warn", frame.error?.message ?? "The gateway reported an error.", at, frame.error?.code ?? ""),
};
