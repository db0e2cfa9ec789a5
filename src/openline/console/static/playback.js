// A session with its recording: two voices drawn, and the facts and words move with the sound.

import { getRecording } from "./api.js";
import { clock, h, replace, setText, shortcuts } from "./dom.js";
import { Watch } from "./watch.js";
import { parseWav, peaks } from "./wav.js";

const BUCKET_MS = 10;
const most = (a, b) => (a > b ? a : b);

export function playbackView(main, sessionId) {
  const view = new Playback(main, sessionId);
  view.begin();
  return () => view.close();
}

class Playback extends Watch {
  links() {
    return [h("a", { class: "button", href: `#/sessions/${encodeURIComponent(this.sessionId)}` }, "Watch"),
      (this.download = h("a", { class: "button", hidden: true, download: `${this.sessionId}.wav` }, "Save WAV"))];
  }

  async begin() {
    this.zoom = 1;
    this.#transport();
    await super.begin();
    try {
      const recording = await getRecording(this.sessionId, { signal: this.stop.signal });
      if (!this.stop.signal.aborted) this.#loaded(recording);
    } catch (error) {
      if (this.stop.signal.aborted) return;
      const words = error.status === 404 ? "This session has no recording." : `The recording could not be read: ${error.message}`;
      replace(this.under, h("p", { class: "no-recording", role: "status" }, words));
    }
  }

  attach() {}

  #transport() {
    const button = (label, run, options = {}) => h("button", { type: "button", onclick: run, ...options }, label);
    this.audio = h("audio", { preload: "auto" });
    this.playButton = button("Play", () => this.#toggle(), { class: "primary play", disabled: true });
    this.time = h("output", { class: "time", "aria-label": "Position" }, "0:00.0");
    this.seek = h("input", { type: "range", class: "seek", min: "0", max: "1000", step: "10", value: "0", "aria-label": "Position in the recording", oninput: () => this.pickTime(Number(this.seek.value)) });
    this.solo = ["caller", "agent"].map((name) => button(name === "caller" ? "Caller" : "Agent", () => this.#mute(name), { class: `chip ${name}`, "aria-pressed": "true" }));
    this.rate = h("select", { "aria-label": "Speed", onchange: () => (this.audio.playbackRate = Number(this.rate.value)) },
      [0.5, 1, 1.5, 2].map((rate) => h("option", { value: String(rate), selected: rate === 1 }, `${rate}×`)));
    const zoom = [button("−", () => this.#zoom(0.5), { "aria-label": "Zoom out" }), button("+", () => this.#zoom(2), { "aria-label": "Zoom in" })];
    replace(this.under, h("div", { class: "transport" }, this.playButton, this.time, this.seek, h("div", { class: "group" }, this.solo), this.rate, h("div", { class: "group" }, zoom)));
    for (const name of ["play", "pause", "ended"]) this.audio.addEventListener(name, () => this.#playing());
    this.audio.addEventListener("seeked", () => this.#moved());
  }

  keys() {
    super.keys();
    shortcuts("view", [
      { keys: [" "], label: "Play or pause", run: () => this.#toggle() },
      { keys: ["ArrowRight"], label: "Forward 5 s", repeats: true, run: () => this.#by(5000) },
      { keys: ["ArrowLeft"], label: "Back 5 s", repeats: true, run: () => this.#by(-5000) },
      { keys: ["l"], label: "Forward 1 s", repeats: true, run: () => this.#by(1000) },
      { keys: ["h"], label: "Back 1 s", repeats: true, run: () => this.#by(-1000) },
      { keys: ["Home"], label: "To the start", run: () => this.pickTime(0) },
      { keys: ["End"], label: "To the end", run: () => this.pickTime(this.length) },
      { keys: ["j"], label: "Next fact", repeats: true, run: () => this.ledger.move(1) },
      { keys: ["k"], label: "Previous fact", repeats: true, run: () => this.ledger.move(-1) },
      { keys: ["Enter"], label: "Open or close the fact", run: () => this.ledger.toggleCurrent() },
      { keys: ["+", "="], label: "Zoom in", run: () => this.#zoom(2) },
      { keys: ["-"], label: "Zoom out", run: () => this.#zoom(0.5) },
      { keys: ["/", "f"], label: "Filter facts", run: () => this.ledger.filter.focus() },
    ]);
  }

  #loaded(bytes) {
    const wav = parseWav(bytes);
    const caller = peaks(wav, 0, BUCKET_MS);
    const agent = peaks(wav, Math.min(1, wav.channels - 1), BUCKET_MS);
    // One scale for both, so that who is louder can be seen; a silent recording stays flat.
    const loudest = Math.max(0.05, caller.reduce(most, 0), agent.reduce(most, 0));
    this.peaks = { bucketMs: BUCKET_MS, caller, agent, scale: 1 / loudest };
    this.url = URL.createObjectURL(new Blob([bytes], { type: "audio/wav" }));
    this.audio.src = this.url;
    this.download.href = this.url;
    this.download.hidden = false;
    this.playButton.disabled = false;
    this.length = Math.max(wav.durationMs, 1);
    this.seek.max = String(this.length);
    this.redraw();
    this.pickTime(0);
  }

  /** Listening to one side only: a gain each, both heard in the middle, so headphones are not torn apart. */
  #graph() {
    if (this.gains) return;
    this.context = new AudioContext();
    const split = this.context.createChannelSplitter(2);
    this.context.createMediaElementSource(this.audio).connect(split);
    this.gains = ["caller", "agent"].map((name, channel) => {
      const gain = this.context.createGain();
      split.connect(gain, channel);
      gain.connect(this.context.destination);
      return gain;
    });
    this.#applyMute();
  }

  #mute(name) {
    const button = this.solo[name === "caller" ? 0 : 1];
    button.setAttribute("aria-pressed", String(button.getAttribute("aria-pressed") !== "true"));
    this.#applyMute();
  }

  #applyMute() {
    this.gains?.forEach((gain, index) => (gain.gain.value = this.solo[index].getAttribute("aria-pressed") === "true" ? 1 : 0));
  }

  async #toggle() {
    if (!this.url) return;
    this.#graph();
    await this.context.resume();
    if (this.audio.paused) await this.audio.play();
    else this.audio.pause();
  }

  #playing() {
    setText(this.playButton, this.audio.paused ? "Play" : "Pause");
    cancelAnimationFrame(this.raf);
    const step = () => {
      this.#moved();
      if (!this.audio.paused) this.raf = requestAnimationFrame(step);
    };
    step();
  }

  #by(ms) {
    this.pickTime(this.position + ms);
  }

  get position() {
    return this.audio.currentTime * 1000;
  }

  pickTime(ms) {
    if (!this.url) return super.pickTime(ms);
    const place = Math.max(0, Math.min(this.length, ms));
    this.audio.currentTime = place / 1000;
    this.#moved(place);
  }

  pickFact(fact) {
    if (!this.url || fact.at === null) return super.pickFact(fact);
    this.timeline.selected = fact.seq;
    const place = fact.at - this.startMs;
    this.audio.currentTime = Math.max(0, Math.min(this.length, place)) / 1000;
    this.#moved(place, { isFromFact: true });
  }

  #moved(place = this.position, { isFromFact = false } = {}) {
    setText(this.time, `${clock(place)} / ${clock(this.length ?? 0)}`);
    this.seek.value = String(Math.round(place));
    this.seek.setAttribute("aria-valuetext", clock(place));
    this.timeline.playhead = place;
    this.timeline.view = this.view(this.length);
    this.timeline.draw();
    if (this.startMs === null) return;
    const at = this.startMs + place;
    if (!isFromFact) this.ledger.follow(at);
    const entry = this.talk.entries.findLast((candidate) => candidate.kind !== "notice" && candidate.at <= at + 1);
    this.transcript.highlight(entry?.id ?? "");
  }

  #zoom(factor) {
    this.zoom = Math.max(1, Math.min(64, this.zoom * factor));
    this.timeline.view = this.view(this.length);
    this.timeline.draw();
  }

  view(end) {
    const whole = Math.max(1000, this.length ?? end);
    const width = whole / (this.zoom ?? 1);
    const from = Math.max(0, Math.min(whole - width, (this.timeline?.playhead ?? 0) - width / 2));
    return { from, to: from + width };
  }

  redraw() {
    super.redraw();
    if (!this.peaks) return;
    const end = Math.max(this.length, this.story?.endMs ?? 0);
    this.timeline.show({ waves: this.peaks, end }, this.view(end));
  }

  close() {
    super.close();
    cancelAnimationFrame(this.raf);
    this.audio.pause();
    this.context?.close();
    if (this.url) URL.revokeObjectURL(this.url);
  }
}
