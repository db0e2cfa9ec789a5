// Reading a recording: PCM16 WAV, one voice a channel. Tolerates the open-ended sizes of a file still growing.

/** {rate, channels, samples: Int16Array (interleaved), durationMs}. Throws an Error that says what was found. */
export function parseWav(buffer) {
  const view = new DataView(buffer);
  const tag = (at) => String.fromCharCode(...new Uint8Array(buffer, at, 4));
  if (buffer.byteLength < 44 || tag(0) !== "RIFF" || tag(8) !== "WAVE") throw new Error("expected a WAV file");
  let format = null;
  for (let at = 12; at + 8 <= buffer.byteLength; ) {
    const size = view.getUint32(at + 4, true);
    if (tag(at) === "fmt ") format = { channels: view.getUint16(at + 10, true), rate: view.getUint32(at + 12, true), bits: view.getUint16(at + 22, true) };
    if (tag(at) === "data") {
      if (!format || format.bits !== 16) throw new Error(`expected 16-bit samples, got ${format?.bits ?? "none"}`);
      const bytes = Math.min(size, buffer.byteLength - at - 8);
      const count = Math.floor(bytes / 2 / format.channels) * format.channels;
      // A chunk can start at an odd place; then its bytes are copied to an even one.
      const start = at + 8;
      const samples = start % 2 ? new Int16Array(buffer.slice(start, start + count * 2)) : new Int16Array(buffer, start, count);
      return { ...format, samples, durationMs: (count / format.channels / format.rate) * 1000 };
    }
    at += 8 + size + (size % 2);
  }
  throw new Error("the WAV file has no data");
}

/** Loudest sample (0..1) of each `bucketMs` of one channel. */
export function peaks({ samples, channels, rate }, channel, bucketMs) {
  const width = Math.max(1, Math.round((rate * bucketMs) / 1000));
  const frames = samples.length / channels;
  const result = new Float32Array(Math.ceil(frames / width));
  for (let bucket = 0; bucket < result.length; bucket += 1) {
    let most = 0;
    const end = Math.min(frames, (bucket + 1) * width);
    for (let frame = bucket * width; frame < end; frame += 1) {
      const value = Math.abs(samples[frame * channels + channel]);
      if (value > most) most = value;
    }
    result[bucket] = most / 32768;
  }
  return result;
}
