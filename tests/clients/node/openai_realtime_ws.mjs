// openai-node, `OpenAIRealtimeWS`: the class over the package ws. It forces wss.

import { drive, stock } from "./driver.mjs";
import { scenariosOf } from "./openai_realtime.mjs";

await drive({
  package: "openai",
  scenarios: scenariosOf(async (client, model) => {
    const { OpenAIRealtimeWS } = await stock("openai/realtime/ws");
    return new OpenAIRealtimeWS({ model }, client);
  }),
});
