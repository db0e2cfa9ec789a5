// Ears and mouth of the console: microphone frames out, agent audio in, and an honest account of what was
// played. The gateway's rate is 24,000 samples/s PCM16 mono throughout.

const WIRE_RATE = 24_000;
const SAMPLES_PER_MS = WIRE_RATE / 1000;
const WORKLETS = "/console/worklets.js";

export function toBase64(pcm) {
  const bytes = new Uint8Array(pcm.buffer, pcm.byteOffset, pcm.byteLength);
  let text = "";
  for (let at = 0; at < bytes.length; at += 8192) text += String.fromCharCode(...bytes.subarray(at, at + 8192));
  return btoa(text);
}

export function fromBase64(text) {
  const raw = atob(text);
  const bytes = new Uint8Array(raw.length & ~1);
  for (let index = 0; index < bytes.length; index += 1) bytes[index] = raw.charCodeAt(index);
  return new Int16Array(bytes.buffer);
}

/** Why a microphone could not be had, in words a caller can act on. */
export function microphoneProblem(error) {
  if (!navigator.mediaDevices) return "The browser gives the microphone only to https or localhost pages. You can type.";
  if (error?.name === "NotAllowedError") return "The microphone was refused. Allow it in the browser, or type.";
  if (error?.name === "NotFoundError") return "There is no microphone here. You can type.";
  if (error?.name === "NotReadableError") return "The microphone is in use by another program. You can type.";
  return `The microphone could not be opened (${error?.name ?? "unknown reason"}). You can type.`;
}

export class Microphone {
  /** onframe(pcm: Int16Array(480), level 0..1) every 20 ms. */
  constructor(onframe) {
    this.onframe = onframe;
    this.isMuted = false;
  }

  /** Raises the browser's own error if the microphone cannot be had. */
  async start() {
    if (!navigator.mediaDevices) throw new Error("no media devices");
    this.stream = await navigator.mediaDevices.getUserMedia({
      audio: { echoCancellation: true, noiseSuppression: true, autoGainControl: true, channelCount: 1 },
    });
    this.context = new AudioContext({ latencyHint: "interactive" });
    await this.context.audioWorklet.addModule(WORKLETS);
    this.node = new AudioWorkletNode(this.context, "openline-microphone", { numberOfOutputs: 0 });
    this.node.port.onmessage = ({ data }) => {
      // Muted means silence on the line, not a stopped clock: media time is counted in samples.
      if (this.isMuted) data.pcm.fill(0);
      this.onframe(data.pcm, this.isMuted ? 0 : data.level);
    };
    this.context.createMediaStreamSource(this.stream).connect(this.node);
    await this.context.resume();
  }

  async stop() {
    for (const track of this.stream?.getTracks() ?? []) track.stop();
    this.node?.port.close();
    if (this.context && this.context.state !== "closed") await this.context.close();
    this.stream = this.context = this.node = null;
  }
}

export class Player {
  /**
   * onplayout(itemId, playedMs, kind) with kind position|drained|ended|cleared; onlevel(level 0..1).
   * playedMs is what has left the loudspeaker: the device's own latency is taken off.
   */
  constructor({ onplayout, onlevel, onstarted }) {
    this.onplayout = onplayout;
    this.onlevel = onlevel;
    this.onstarted = onstarted;
    this.received = new Map();
    this.expected = new Map();
    this.muted = new Set();
    this.current = null;
    this.queuedMs = 0;
    this.playedMs = 0;
    this.playedSamples = 0;
  }

  async start() {
    this.context = new AudioContext({ sampleRate: WIRE_RATE, latencyHint: "interactive" });
    await this.context.audioWorklet.addModule(WORKLETS);
    this.node = new AudioWorkletNode(this.context, "openline-speaker", { numberOfInputs: 0, outputChannelCount: [1] });
    this.node.port.onmessage = ({ data }) => this.#told(data);
    this.node.connect(this.context.destination);
    await this.context.resume();
  }

  /**
   * Queue audio of an item. `startMs` is where it begins in the item when the gateway says so: what was
   * received before is then skipped, so a resume neither repeats nor loses a sample.
   */
  push(item, pcm, startMs = null) {
    if (!this.node || this.muted.has(item)) return;
    const have = this.received.get(item) ?? 0;
    const start = startMs === null ? this.expected.get(item) ?? have : Math.round(startMs * SAMPLES_PER_MS);
    this.expected.set(item, start + pcm.length);
    const skip = Math.max(0, have - start);
    if (skip >= pcm.length) return;
    const rest = skip ? pcm.slice(skip) : pcm;
    if (start > have) this.node.port.postMessage({ do: "seek", item, samples: start });
    this.received.set(item, Math.max(have, start + pcm.length));
    this.node.port.postMessage({ do: "push", item, pcm: rest }, [rest.buffer]);
  }

  /** The line was cut: unless the gateway says another place, it is taken to go on from what was played by now. */
  lineCut() {
    if (this.current) this.expected.set(this.current, this.playedSamples);
  }

  /** The gateway says where the audio that it sends next begins (ms into the item). */
  goesOnFrom(item, startMs) {
    if (Number.isFinite(startMs)) this.expected.set(item, Math.round(startMs * SAMPLES_PER_MS));
  }

  /**
   * Stop at once (5 ms fade). With `ignoreRest` later audio of the item is dropped: a stock server sends
   * what it had generated; Openline sends only what is meant to be heard, from where playing stopped.
   */
  clear({ ignoreRest = false } = {}) {
    this.ignoresRest = ignoreRest;
    this.node?.port.postMessage({ do: "clear" });
  }

  receivedMs(item) {
    return (this.received.get(item) ?? 0) / SAMPLES_PER_MS;
  }

  #told(data) {
    if (data.kind === "started") {
      this.current = data.item;
      this.onstarted(data.item);
      return;
    }
    if (data.kind === "cleared") {
      this.#cleared(data.items);
      return;
    }
    const latencyMs = data.kind === "drained" || data.kind === "ended" ? 0 : (this.context?.outputLatency ?? 0) * 1000;
    this.playedMs = Math.max(0, Math.round(data.samples / SAMPLES_PER_MS - latencyMs));
    this.playedSamples = data.samples;
    this.queuedMs = data.queued / SAMPLES_PER_MS;
    this.onlevel(data.level);
    if (data.item !== null) this.onplayout(data.item, this.playedMs, data.kind);
    if (data.kind === "drained") this.current = null;
  }

  #cleared(items) {
    this.current = null;
    this.queuedMs = 0;
    this.onlevel(0);
    const latencyMs = (this.context?.outputLatency ?? 0) * 1000;
    for (const [item, samples] of items) {
      this.received.set(item, samples);
      this.expected.set(item, samples);
      if (this.ignoresRest) this.muted.add(item);
      this.onplayout(item, Math.max(0, Math.round(samples / SAMPLES_PER_MS - latencyMs)), "cleared");
    }
  }

  async stop() {
    this.node?.port.close();
    if (this.context && this.context.state !== "closed") await this.context.close();
    this.context = this.node = null;
  }
}
