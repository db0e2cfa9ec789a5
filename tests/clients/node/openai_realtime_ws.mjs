// openai-node, `OpenAIRealtimeWS`: the class over the package ws. It forces wss.

import { OpenAIRealtimeWS } from "openai/realtime/ws";

import { drive } from "./driver.mjs";
import { scenariosOf } from "./openai_realtime.mjs";

await drive({
  package: "openai",
  scenarios: scenariosOf((client, model) => new OpenAIRealtimeWS({ model }, client)),
});
