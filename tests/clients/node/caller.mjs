// The caller: recorded phrases, and a microphone that never stops, as a browser's does not.

import { readFileSync } from "node:fs";
import { join } from "node:path";

import { Failure } from "./driver.mjs";

const RATE = 24_000;
const FRAME_MS = 20;
const FRAME_BYTES = (RATE / 1000) * FRAME_MS * 2;

/** A recorded phrase: {text, pcm}, PCM16 mono at 24 kHz. */
export function phrase(folder, name) {
  const known = JSON.parse(readFileSync(join(folder, "phrases.json"), "utf8"));
  const found = known.find((row) => row.name === name);
  if (!found) throw new Failure(`phrases.json has no ${name}`);
  return { text: found.text, pcm: samples(join(folder, found.file)) };
}

function samples(path) {
  const file = readFileSync(path);
  for (let at = 12; at + 8 <= file.length; ) {
    const size = file.readUInt32LE(at + 4);
    const kind = file.toString("latin1", at, at + 4);
    if (kind === "fmt ") {
      const [channels, rate, bits] = [file.readUInt16LE(at + 10), file.readUInt32LE(at + 12), file.readUInt16LE(at + 22)];
      if (channels !== 1 || rate !== RATE || bits !== 16) {
        throw new Failure(`${path}: expected mono PCM16 at ${RATE}, got ${channels} channels of ${bits} bits at ${rate}`);
      }
    }
    if (kind === "data") return file.subarray(at + 8, at + 8 + size);
    at += 8 + size + (size % 2);
  }
  throw new Failure(`${path}: no samples`);
}

/** Sends 20 ms of PCM16 every 20 ms, silence while nobody speaks. `send` takes a Buffer. */
export class Microphone {
  constructor(send) {
    this._send = send;
    this._speech = [];
    this._due = performance.now();
    this._timer = setInterval(() => this._tick(), FRAME_MS / 2);
  }

  /** Speak; resolves when the last sample was sent. */
  say(pcm) {
    return new Promise((said) => this._speech.push({ pcm, at: 0, said }));
  }

  off() {
    clearInterval(this._timer);
  }

  _tick() {
    while (this._due <= performance.now()) {
      this._due += FRAME_MS;
      this._send(this._next());
    }
  }

  _next() {
    const frame = Buffer.alloc(FRAME_BYTES);
    const current = this._speech[0];
    if (!current) return frame;
    current.pcm.copy(frame, 0, current.at, current.at + FRAME_BYTES);
    current.at += FRAME_BYTES;
    if (current.at >= current.pcm.length) {
      this._speech.shift();
      current.said();
    }
    return frame;
  }
}

/** Milliseconds of PCM16 mono at 24 kHz. */
export const milliseconds = (bytes) => Math.floor(bytes / 2 / (RATE / 1000));

/** The share of the words of `said` that are in `heard`, 0 to 1. */
export function understood(said, heard) {
  const words = (text) => text.toLowerCase().replace(/[^a-z ]/g, " ").split(/ +/).filter(Boolean);
  const [wanted, got] = [words(said), new Set(words(heard))];
  return wanted.filter((word) => got.has(word)).length / wanted.length;
}

/** True when there is something to hear in PCM16: silence and a few clicks are not. */
export function isAudible(pcm) {
  let loud = 0;
  for (let at = 0; at + 1 < pcm.length; at += 2) if (Math.abs(pcm.readInt16LE(at)) > 500) loud += 1;
  return loud > pcm.length / 2 / 50;
}
