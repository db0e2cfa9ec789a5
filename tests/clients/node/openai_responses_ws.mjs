// openai-node, `ResponsesWS`: Responses in WebSocket mode, over the package ws.

import { Events, KEY, drive, stock, within } from "./driver.mjs";
import { NOT_APPLICABLE, Refused, scenariosOf } from "./openai_responses.mjs";

const TERMINAL = ["response.completed", "response.failed", "response.incomplete"];

class Line {
  /** The connection keeps what is not stored. */
  keeps = true;
  deltas = "";

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
    this._ws.send({ type: "response.create", model: this._model, ...fields });
    this._seen = this._events.all.length;
    const last = await this._last();
    if (last.type === "refused") throw new Refused(last.error.message, last.error.error.error.code);
    const own = this._events.all.slice(this._seen);
    this.deltas = own.filter((event) => event.type === "response.output_text.delta").map((event) => event.delta).join("");
    const numbers = own.map((event) => event.sequence_number);
    if (numbers.some((number, index) => number !== index)) throw new Error(`sequence numbers ${numbers}`);
    return last.response;
  }

  async _last() {
    for (let looked = this._seen; ; looked += 1) {
      while (looked >= this._events.all.length) await this._events.more(20);
      const event = this._events.all[looked];
      if (event.type === "refused" || TERMINAL.includes(event.type)) return event;
    }
  }

  /** Close while a response streams. */
  async abandon(fields) {
    this._ws.send({ type: "response.create", model: this._model, ...fields });
    await this._events.wait("response.output_text.delta");
    return { abandoned: true };
  }

  async close() {
    this._ws.close();
    return within(5, "close", this._closed);
  }
}

await drive({
  package: "openai",
  notApplicable: NOT_APPLICABLE,
  scenarios: scenariosOf(async (options) => {
    const [{ default: OpenAI }, { ResponsesWS }] = [await stock("openai"), await stock("openai/resources/responses/ws")];
    const client = new OpenAI({ apiKey: KEY, baseURL: options.base, maxRetries: 0 });
    return new Line(new ResponsesWS(client), options.model);
  }),
});
