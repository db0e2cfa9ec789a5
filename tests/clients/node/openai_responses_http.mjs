// openai-node, `client.responses` over HTTP: create, create with `stream: true`, and the stream helper, in turn.

import OpenAI from "openai";

import { Failure, KEY, check, drive } from "./driver.mjs";
import { Refused, scenariosOf } from "./openai_responses.mjs";

class Line {
  /** Nothing is kept that is not stored: each request stands alone. */
  keeps = false;
  /** null after a request that did not stream. */
  deltas = null;
  refusal = null;

  constructor(client, model) {
    this._client = client;
    this._model = model;
    this._ways = [this._whole, this._streamed, this._helped];
  }

  async create(fields) {
    const way = this._ways.shift();
    this._ways.push(way);
    try {
      return await way.call(this, { model: this._model, ...fields });
    } catch (error) {
      if (typeof error.status !== "number") throw error;
      throw new Refused(error.message, error.code);
    }
  }

  async _whole(fields) {
    this.deltas = this.refusal = null;
    const response = await this._client.responses.create(fields);
    check(typeof response.output_text === "string", "no output_text");
    return response;
  }

  async _streamed(fields) {
    let last = null;
    this.deltas = this.refusal = "";
    for await (const event of await this._client.responses.create({ ...fields, stream: true })) {
      if (event.type === "response.output_text.delta") this.deltas += event.delta;
      if (event.type === "response.refusal.delta") this.refusal += event.delta;
      if (event.type === "error") throw new Failure(`an error event: ${event.code}`);
      last = event;
    }
    check(last?.type === "response.completed", `the stream ends with ${last?.type}`);
    return last.response;
  }

  /** The SDK's own accumulator: it throws for events out of order. */
  async _helped(fields) {
    this.deltas = this.refusal = "";
    const stream = this._client.responses.stream(fields);
    stream.on("response.output_text.delta", (event) => (this.deltas += event.delta));
    stream.on("response.refusal.delta", (event) => (this.refusal += event.delta));
    return stream.finalResponse();
  }

  /** Leaving the loop aborts the request. */
  async cut(fields, story) {
    const stream = await this._client.responses.create({ model: this._model, ...fields, stream: true });
    let seen;
    for await (const event of stream) {
      if (event.type !== "response.output_text.delta" || !story.hear(event.delta)) continue;
      seen = story.interrupted();
      break;
    }
    check(seen && stream.controller.signal.aborted, "the stream goes on");
    return seen;
  }

  async close() {
    return {};
  }
}

await drive({
  package: "openai",
  scenarios: scenariosOf((options) => {
    return new Line(new OpenAI({ apiKey: KEY, baseURL: options.base, maxRetries: 0 }), options.model);
  }),
});
