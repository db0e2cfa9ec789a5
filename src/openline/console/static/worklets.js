// Runs on the audio thread: the microphone side (resample to 24 kHz PCM16) and the speaker side (a queue
// that knows what was played). Both only talk to their node's port.

const WIRE_RATE = 24_000;
const FRAME_SAMPLES = 480; // 20 ms
const FADE_SAMPLES = 120; // 5 ms: short enough to be immediate, long enough not to click
const MOST_QUEUED = 300 * WIRE_RATE; // the gateway's own spool holds 5 min (DESIGN §4)
const REPORT_SAMPLES = 1200; // 50 ms

/** Streaming windowed-sinc resampler; low-pass at the lower of the two Nyquist limits, so nothing folds back. */
class Resampler {
  constructor(from, to) {
    this.step = from / to;
    this.cutoff = Math.min(1, to / from) * 0.94;
    this.half = Math.ceil(12 / this.cutoff);
    this.history = new Float32Array(0);
    this.position = this.half;
  }

  push(input, emit) {
    const samples = new Float32Array(this.history.length + input.length);
    samples.set(this.history);
    samples.set(input, this.history.length);
    const { half, cutoff } = this;
    while (this.position + half < samples.length) {
      const centre = Math.floor(this.position);
      const fraction = this.position - centre;
      let sum = 0;
      for (let tap = 1 - half; tap <= half; tap += 1) {
        const x = tap - fraction;
        const phase = Math.PI * x * cutoff;
        const sinc = Math.abs(x) < 1e-9 ? 1 : Math.sin(phase) / phase;
        const window = 0.5 + 0.5 * Math.cos((Math.PI * x) / half);
        sum += samples[centre + tap] * sinc * window;
      }
      emit(sum * cutoff);
      this.position += this.step;
    }
    const keepFrom = Math.max(0, Math.floor(this.position) - half);
    this.history = samples.slice(keepFrom);
    this.position -= keepFrom;
  }
}

class Microphone extends AudioWorkletProcessor {
  constructor() {
    super();
    this.frame = new Int16Array(FRAME_SAMPLES);
    this.filled = 0;
    this.energy = 0;
    this.resampler = sampleRate === WIRE_RATE ? null : new Resampler(sampleRate, WIRE_RATE);
  }

  process([input]) {
    const channel = input?.[0];
    if (!channel) return true;
    const emit = (sample) => this.#take(sample);
    if (this.resampler) this.resampler.push(channel, emit);
    else for (const sample of channel) emit(sample);
    return true;
  }

  #take(sample) {
    const value = Math.max(-1, Math.min(1, sample));
    this.energy += value * value;
    this.frame[this.filled++] = Math.round(value * 32767);
    if (this.filled < FRAME_SAMPLES) return;
    const pcm = this.frame;
    this.port.postMessage({ pcm, level: Math.sqrt(this.energy / FRAME_SAMPLES) }, [pcm.buffer]);
    this.frame = new Int16Array(FRAME_SAMPLES);
    this.filled = 0;
    this.energy = 0;
  }
}

class Speaker extends AudioWorkletProcessor {
  constructor() {
    super();
    this.queue = [];
    this.queued = 0;
    this.dropped = 0;
    this.played = new Map();
    this.current = null;
    this.fading = null;
    this.sinceReport = 0;
    this.energy = 0;
    this.port.onmessage = ({ data }) => this[data.do](data);
  }

  push({ item, pcm }) {
    if (this.queued + pcm.length > MOST_QUEUED) {
      this.dropped += pcm.length;
      return;
    }
    this.queue.push({ item, pcm, at: 0 });
    this.queued += pcm.length;
  }

  /** Stop now: what is queued becomes a 5 ms fade, the rest is forgotten. */
  clear() {
    const tail = new Float32Array(FADE_SAMPLES);
    const length = this.#fill(tail, FADE_SAMPLES, false);
    for (let index = 0; index < length; index += 1) tail[index] *= 1 - index / length;
    this.fading = length ? { tail, at: 0 } : null;
    // Also items that had not begun: nothing of them was heard, and that must be said too.
    const items = new Set(this.queue.map((chunk) => chunk.item));
    if (this.current !== null) items.add(this.current);
    this.queue = [];
    this.queued = 0;
    this.port.postMessage({ kind: "cleared", items: [...items].map((item) => [item, this.played.get(item) ?? 0]) });
    this.current = null;
  }

  #fill(output, count, isCounted) {
    let written = 0;
    for (const chunk of this.queue) {
      let at = chunk.at;
      const end = Math.min(chunk.pcm.length, at + count - written);
      const from = at;
      while (at < end) output[written++] = chunk.pcm[at++] / 32768;
      if (isCounted) {
        chunk.at = at;
        this.queued -= at - from;
        if (this.current !== chunk.item) this.#begin(chunk.item);
        this.played.set(chunk.item, (this.played.get(chunk.item) ?? 0) + at - from);
      }
      if (written === count) break;
    }
    if (isCounted) while (this.queue.length && this.queue[0].at === this.queue[0].pcm.length) this.queue.shift();
    return written;
  }

  #begin(item) {
    if (this.current !== null) this.#report("ended");
    this.current = item;
    this.port.postMessage({ kind: "started", item });
  }

  process(inputs, [output]) {
    const channel = output[0];
    let at = 0;
    if (this.fading) {
      const { tail } = this.fading;
      while (at < channel.length && this.fading.at < tail.length) channel[at++] = tail[this.fading.at++];
      if (this.fading.at >= tail.length) this.fading = null;
    }
    const written = this.fading ? 0 : this.#fill(channel.subarray(at), channel.length - at, true);
    for (const sample of channel) this.energy += sample * sample;
    for (let other = 1; other < output.length; other += 1) output[other].set(channel);
    this.sinceReport += channel.length;
    if (this.current !== null && written < channel.length - at && this.queued === 0) this.#report("drained");
    else if (this.sinceReport >= REPORT_SAMPLES) this.#report("position");
    return true;
  }

  #report(kind) {
    const level = Math.sqrt(this.energy / Math.max(1, this.sinceReport));
    const item = this.current;
    const samples = this.played.get(item) ?? 0;
    this.port.postMessage({ kind, item, samples, queued: this.queued, dropped: this.dropped, level });
    this.sinceReport = 0;
    this.energy = 0;
    if (kind === "drained") this.current = null;
    if (this.played.size > 64) this.played.delete(this.played.keys().next().value);
  }

  /** Playback of an item goes on at `samples` (after a resume): positions count from the item's start. */
  seek({ item, samples }) {
    this.played.set(item, samples);
  }
}

registerProcessor("openline-microphone", Microphone);
registerProcessor("openline-speaker", Speaker);
