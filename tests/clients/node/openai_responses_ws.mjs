// openai-node, `ResponsesWS`: Responses in WebSocket mode, over the package ws.

import OpenAI from "openai";
import { ResponsesWS } from "openai/resources/responses/ws";

import { Events, KEY, check, drive, within } from "./driver.mjs";
import { Refused, scenariosOf } from "./openai_responses.mjs";

const TERMINAL = ["response.completed", "response.failed", "response.incomplete"];

class Line {
  /** The connection keeps what is not stored. */
  keeps = true;
  deltas = "";
  refusal = "";

  constructor(ws, model) {
    this._ws = ws;
    this._model = model;
    this._events = new Events();
    this._closed = new Promise((resolve) => ws.on("close", (code, reason) => resolve({ code, reason })));
    ws.on("event", (event) => {
      if (event.type !== "error") this._events.push(event);
    });
    ws.on("error", (error) => {
      // The server's own errors come with their event; all others are the transport's.
      if (error.error) this._events.push({ type: "refused", error });
      else this._events.fail(error);
    });
  }

  async create(fields) {
    const last = await this._last(fields);
    if (last.type === "refused") throw new Refused(last.error.message, last.error.error.error.code);
    const own = this._events.all.slice(this._seen);
    const joined = (type) => own.filter((event) => event.type === type).map((event) => event.delta).join("");
    this.deltas = joined("response.output_text.delta");
    this.refusal = joined("response.refusal.delta");
    const numbers = own.map((event) => event.sequence_number);
    check(numbers.every((number, index) => number === index), `sequence numbers ${numbers}`);
    return last.response;
  }

  async _last(fields) {
    this._seen = this._events.all.length;
    this._ws.send({ type: "response.create", model: this._model, ...fields });
    return within(20, "end of the response", this._terminal());
  }

  async _terminal() {
    for (let looked = this._seen; ; looked += 1) {
      while (looked >= this._events.all.length) await this._events.more();
      const event = this._events.all[looked];
      if (event.type === "refused" || TERMINAL.includes(event.type)) return event;
    }
  }

  /** The SDK's types have no `response.cancel`; its `send` takes it, and servers know it. */
  async cut(fields, story) {
    const ended = this._last(fields);
    const isOwn = () => this._events.all.length > this._seen;
    let delta;
    do delta = await this._events.wait("response.output_text.delta", isOwn); while (!story.hear(delta.delta));
    const seen = story.interrupted();
    const { response } = this._events.of("response.created").at(-1);
    this._ws.send({ type: "response.cancel", response_id: response.id });
    const last = await ended;
    check(last.response?.status === "cancelled", `the cut response is ${last.response?.status ?? last.type}`);
    return seen;
  }

  async close() {
    this._ws.close();
    return within(5, "close", this._closed);
  }
}

await drive({
  package: "openai",
  scenarios: scenariosOf((options) => {
    const client = new OpenAI({ apiKey: KEY, baseURL: options.base, maxRetries: 0 });
    return new Line(new ResponsesWS(client), options.model);
  }),
});
