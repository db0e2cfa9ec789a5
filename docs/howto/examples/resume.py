"""A client that comes back: cut in the middle of an answer, it goes on where it was. Needs: pip install websockets

openline serve
python resume.py [http://127.0.0.1:8765]
"""

import asyncio
import base64
import json
import sys
from urllib.parse import urlencode

import websockets

BYTES_A_MS = 48  # PCM16, mono, 24,000 samples a second


class Caller:
    """One session over as many sockets as it takes."""

    def __init__(self, url: str) -> None:
        self.url = url.replace("http", "ws", 1) + "/v1/realtime"
        self.session = self.token = self.after = ""  # all that a client must remember
        self.texts: dict[str, str] = {}  # by item: the words so far
        self.played: dict[str, int] = {}  # by item: milliseconds that were played

    async def connect(self) -> None:
        query = {"openline": "1"}  # opts in: a token, partials, receipts
        if self.token:
            query |= {"session_id": self.session, "token": self.token, "after": self.after}
        self.socket = await websockets.connect(f"{self.url}?{urlencode(query)}", max_size=None)

    async def send(self, kind: str, **values: object) -> None:
        await self.socket.send(json.dumps({"type": kind, **values}))

    async def event(self) -> dict:
        event = json.loads(await self.socket.recv())
        self.after = event["event_id"]  # of every event, durable or not
        match event["type"]:
            case "session.created":
                opening = event["openline"]
                self.session, self.token = opening["session_id"], opening["token"]  # a new token each time
            case "openline.item.partial":  # what was missed of an item that is being spoken, as a whole
                self.texts[event["item_id"]] = event["text"]
                if "audio_start_ms" in event:  # its audio goes on from here
                    self.played[event["item_id"]] = event["audio_start_ms"]
            case "response.output_audio_transcript.delta":
                self.texts[event["item_id"]] = self.texts.get(event["item_id"], "") + event["delta"]
            case "response.output_audio.delta":
                await self.play(event["item_id"], base64.b64decode(event["delta"]))
        return event

    async def play(self, item: str, pcm: bytes) -> None:
        """Here a program would give ``pcm`` to its loudspeaker. It reports what was really heard."""
        await asyncio.sleep(len(pcm) / BYTES_A_MS / 1000)
        self.played[item] = self.played.get(item, 0) + len(pcm) // BYTES_A_MS
        await self.send("openline.playout", item_id=item, audio_end_ms=self.played[item])


async def main(url: str) -> None:
    caller = Caller(url)
    await caller.connect()
    content = [{"type": "input_text", "text": "Who are you?"}]
    await caller.send(
        "conversation.item.create", item={"type": "message", "role": "user", "content": content}
    )
    await caller.send("response.create")
    while sum(caller.played.values()) < 1500:
        await caller.event()
    print(f"cut after    {max(caller.played.values())} ms, at {caller.after}")
    caller.socket.transport.abort()  # no close frame, no goodbye

    await caller.connect()
    while (event := await caller.event())["type"] != "response.done":
        if event["type"] == "session.created":
            print(f"back after   {event['openline']['resumed_from']}")
    (item,) = event["response"]["output"]
    whole = item["content"][0]["transcript"]
    print(f"answer       {whole[:60]}…")
    print(f"nothing lost {caller.texts[item['id']] == whole}, {caller.played[item['id']]} ms played")
    await caller.socket.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8765"))
