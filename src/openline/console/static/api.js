// The control API: JSON, and server-sent events over fetch (EventSource cannot carry a bearer key).

import { read, write } from "./dom.js";

const KEY = "openline.key";

/** The API key lives in this tab's sessionStorage and nowhere else. "" = none (loopback needs none). */
export const key = () => read(sessionStorage, KEY) ?? "";
export const setKey = (value) => write(sessionStorage, KEY, value || null);

export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

async function request(path, { signal, accept = "application/json" } = {}) {
  const headers = { Accept: accept };
  if (key()) headers.Authorization = `Bearer ${key()}`;
  const response = await fetch(path, { headers, signal, cache: "no-store" });
  if (response.ok) return response;
  let message = `${response.status} ${response.statusText}`.trim();
  try {
    const body = await response.json();
    message = body.error?.message ?? body.message ?? message;
  } catch {
    /* the status line says enough */
  }
  if (response.status === 401) message = "This gateway asks for an API key. Enter it under “Key”.";
  throw new ApiError(response.status, message);
}

const of = (id) => `/v1/sessions/${encodeURIComponent(id)}`;

export async function listSessions({ before = "", signal } = {}) {
  const query = before ? `?before=${encodeURIComponent(before)}` : "";
  return (await request(`/v1/sessions${query}`, { signal })).json();
}

export async function getSession(id, { signal } = {}) {
  return (await request(of(id), { signal })).json();
}

/** The recording's bytes; its first sample is the moment the session was created. */
export async function getRecording(id, { signal } = {}) {
  const response = await request(`${of(id)}/recording.wav`, { signal, accept: "audio/wav" });
  return response.arrayBuffer();
}

/**
 * Follow facts of one session. Calls onfact({id, seq, type, at, data}) in order; reconnects by itself
 * from the last seq it has seen. Returns a function that stops it.
 */
export function followFacts(id, { after = 0, onfact, onstate = () => {} }) {
  let last = after;
  return follow(
    () => `${of(id)}/facts?follow=1&after=${last}`,
    (event) => {
      const fact = normalise(event);
      if (fact.seq !== null && fact.seq <= last) return;
      if (fact.seq !== null) last = fact.seq;
      onfact(fact);
    },
    onstate,
  );
}

/** What changes a row of the session list. */
const LIST_TYPES = ["openline.session.*", "openline.connection.*", "openline.turn.committed", "response.done"].join(",");

/**
 * Follow the feed over all sessions: onfact as above, plus `session`. Only what happens from now on is told;
 * read what was before after onstate("open"), then nothing falls between.
 */
export function followFeed({ onfact, onstate = () => {} }) {
  let cursor = "now";
  return follow(
    () => `/v1/events?follow=1&types=${encodeURIComponent(LIST_TYPES)}&after=${encodeURIComponent(cursor)}`,
    (event, id) => {
      cursor = id || cursor;
      onfact(normalise(event));
    },
    onstate,
  );
}

/** One CloudEvent as the console uses it. Fields that are missing stay null; nothing is invented. */
export function normalise(event) {
  const data = event.data && typeof event.data === "object" ? event.data : {};
  const seq = Number(event.sequence ?? data.seq);
  const at = Date.parse(event.time ?? "");
  const wall = Number.isFinite(at) ? at : Number(data.at_ms ?? data.wall_ms ?? NaN);
  return {
    id: event.id ?? "",
    seq: Number.isFinite(seq) ? seq : null,
    type: String(event.type ?? "unknown"),
    at: Number.isFinite(wall) ? wall : null,
    session: event.correlationid ?? String(event.subject ?? "").replace(/^session\//, ""),
    epoch: event.epoch ?? null,
    data,
  };
}

const RETRY_MS = [300, 1000, 2000, 5000];

function follow(path, onevent, onstate) {
  const stop = new AbortController();
  (async () => {
    for (let failures = 0; !stop.signal.aborted; ) {
      try {
        const response = await request(path(), { signal: stop.signal, accept: "text/event-stream" });
        onstate("open");
        await readEvents(response.body, (text, id) => {
          failures = 0;
          onevent(JSON.parse(text), id);
        });
      } catch (error) {
        if (stop.signal.aborted) return;
        if (error instanceof ApiError && error.status < 500) {
          onstate("refused", error);
          return;
        }
      }
      if (stop.signal.aborted) return;
      onstate("waiting");
      await sleep(RETRY_MS[Math.min(failures++, RETRY_MS.length - 1)], stop.signal);
    }
  })();
  return () => stop.abort();
}

async function readEvents(body, ondata) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let id = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + value).split(/\r?\n/);
    rest = lines.pop();
    // Every event of this API is an `id:` line and one `data:` line; comments (keep-alives) are passed over.
    for (const line of lines) {
      if (line.startsWith("id:")) id = line.slice(3).trim();
      else if (line.startsWith("data:")) ondata(line.slice(5), id);
    }
  }
}

function sleep(ms, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener("abort", () => (clearTimeout(timer), resolve()), { once: true });
  });
}
