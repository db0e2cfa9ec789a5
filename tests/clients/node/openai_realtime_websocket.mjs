// openai-node, `OpenAIRealtimeWebSocket`: the class for browsers, over the native WebSocket. It forces wss, and its
// key travels in a subprotocol only. Before Node 22 the driver starts Node with --experimental-websocket.

import { OpenAIRealtimeWebSocket } from "openai/realtime/websocket";

import { drive } from "./driver.mjs";
import { scenariosOf } from "./openai_realtime.mjs";

await drive({
  package: "openai",
  nativeWebSocket: true,
  scenarios: scenariosOf((client, model) => new OpenAIRealtimeWebSocket({ model }, client)),
});
