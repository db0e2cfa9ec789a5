/* N callers. Each sends a frame every frame_ms, speaks, waits for the reply, answers tool calls, speaks again.
 *
 * A caller's audio carries its send time in the first 8 bytes and the mark for speech behind it, as the load
 * link (openline.testing.link_load) expects. In items mode it creates and deletes items instead of speaking. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "load.h"
#include "wire.h"

enum { UNBORN, CONNECTING, CONFIGURING, PAUSE, SPEAK, WAIT, GONE };
enum { STEADY_MS = 500, MAX_CALLS = 8, CALL_ID = 80, REPLY_TIMEOUT_MS = 20000, STAMP_CHARS = 16 };

typedef struct {
    conn c;
    int number, phase, frames_left, quiet_frames, call_count, is_awaiting_audio, chunks;
    int64_t until, waiting_since, endpoint;
    uint64_t items;
    char calls[MAX_CALLS][CALL_ID];
} caller;

static caller *callers;
static int ready_count, born_count;
static int64_t started_at, tick_number, period_ns;

/* The audio frame: header, mask key and all but 16 characters of the payload are the same for ever. */
static uint8_t audio_frame[8192];
static size_t audio_head, audio_payload, stamp_at;

static void build_audio_frame(void) {
    static const char open[] = "{\"type\":\"input_audio_buffer.append\",\"audio\":\"";
    size_t pcm = (size_t)opt.frame_ms * 48;
    uint8_t body[4096] = {0};
    for (size_t i = 12; i < pcm; i += 2) {
        int sample = rand() % 600 - 300;
        body[i] = (uint8_t)sample;
        body[i + 1] = (uint8_t)(sample >> 8);
    }
    stamp_at = sizeof open - 1;
    audio_payload = stamp_at + pcm / 3 * 4 + 2;
    audio_head = put_header(audio_frame, OP_TEXT, audio_payload, 1);
    uint8_t *payload = audio_frame + audio_head;
    memcpy(payload, open, stamp_at);
    base64_put((char *)payload + stamp_at, body, pcm);
    memcpy(payload + audio_payload - 2, "\"}", 2);
    mask_range(payload, 0, audio_payload);
}

static void send_audio(caller *k, int is_loud, int64_t now) {
    uint8_t head[12] = {0};
    char chars[STAMP_CHARS];
    memcpy(head, &now, STAMP_BYTES);
    if (is_loud) {
        head[8] = LOUD & 255;
        head[9] = LOUD >> 8;
    }
    base64_put(chars, head, sizeof head);
    uint8_t *payload = audio_frame + audio_head;
    memcpy(payload + stamp_at, chars, STAMP_CHARS);
    mask_range(payload, stamp_at, stamp_at + STAMP_CHARS);
    conn_send_raw(&k->c, audio_frame, audio_head + audio_payload);
    res.frames_up++;
}

static void configure(caller *k) {
    static const char tools[] =
        "{\"type\":\"function\",\"name\":\"lookup\",\"description\":\"Stock of a part\",\"parameters\":{\"type\":\"object\","
        "\"properties\":{\"part\":{\"type\":\"string\"},\"count\":{\"type\":\"integer\"}}}}";
    char detection[160];
    if (opt.mode == MODE_VAD)
        snprintf(detection, sizeof detection,
                 "{\"type\":\"server_vad\",\"threshold\":0.5,\"prefix_padding_ms\":300,\"silence_duration_ms\":%d}", opt.silence_ms);
    else
        snprintf(detection, sizeof detection, "null");
    conn_send_text(&k->c,
                   "{\"type\":\"session.update\",\"session\":{\"type\":\"realtime\",\"output_modalities\":[\"audio\"],"
                   "\"audio\":{\"input\":{\"turn_detection\":%s}},\"tools\":[%s]}}",
                   detection, opt.tools ? tools : "");
    k->phase = CONFIGURING;
}

static void on_upgraded(conn *c) { configure(c->owner); }

static void on_lost(conn *c) {
    caller *k = c->owner;
    if (k->phase >= PAUSE && k->phase < GONE) ready_count--;
    k->phase = GONE;
    res.lost++;
}

static void become_ready(caller *k) {
    if (k->phase != CONFIGURING) return;
    ready_count++;
    k->phase = PAUSE;
    /* Turns out of phase: synchronous ones would be a different, burstier load. Counted from the common start and
     * spread by the golden ratio, which is even for any number of callers and any order in which they got ready. */
    double turn = k->number * 0.6180339887498949;
    int64_t first = started_at + (int64_t)opt.ramp_ms * 1000000 + (int64_t)((turn - (int64_t)turn) * opt.stagger_ms * 1e6);
    int64_t round_ns = (int64_t)opt.stagger_ms * 1000000, now = now_ns();
    if (round_ns && first < now) first += (now - first + round_ns - 1) / round_ns * round_ns;
    k->until = first;
}

static void answer_calls(caller *k) {
    for (int i = 0; i < k->call_count; i++)
        conn_send_text(&k->c,
                       "{\"type\":\"conversation.item.create\",\"item\":{\"type\":\"function_call_output\",\"call_id\":\"%s\","
                       "\"output\":\"{\\\"stock\\\":12}\"}}",
                       k->calls[i]);
    k->call_count = 0;
    conn_send_text(&k->c, "{\"type\":\"response.create\"}");
}

static void on_call(caller *k, char *text, size_t size) {
    char *id = json_value(text, size, "call_id");
    char *end = id ? memchr(id, '"', (size_t)(text + size - id)) : NULL;
    if (!end || end - id >= CALL_ID || k->call_count == MAX_CALLS) return;
    memcpy(k->calls[k->call_count], id, (size_t)(end - id));
    k->calls[k->call_count++][end - id] = 0;
    k->is_awaiting_audio = 0;
    res.tool_calls++;
}

static void on_audio(caller *k, char *text, size_t size, int64_t now) {
    uint8_t head[12];
    int64_t stamp;
    char *delta = json_value(text, size, "delta");
    res.media_down++;
    if (!delta || delta + STAMP_CHARS > text + size || !base64_get12(head, delta)) return;
    memcpy(&stamp, head, STAMP_BYTES);
    if (now - stamp > -1000000000 && now - stamp < 60000000000) {
        histogram_add(&res.audio, now - stamp);
        if (++k->chunks * opt.delta_ms > STEADY_MS) histogram_add(&res.steady, now - stamp);
    }
    if (k->is_awaiting_audio && k->endpoint) {
        histogram_add(&res.reply, now - k->endpoint);
        k->is_awaiting_audio = 0;
    }
}

static void on_response_done(caller *k, int64_t now) {
    k->chunks = 0;
    if (k->call_count) {
        answer_calls(k);
    } else if (k->phase == WAIT) {
        res.turns++;
        k->phase = PAUSE;
        k->until = now + (int64_t)opt.gap_ms * 1000000;
    }
}

static void on_error(char *text, size_t size) {
    char *code = json_value(text, size, "code");
    char *end = code ? memchr(code, '"', (size_t)(text + size - code)) : NULL;
    if (!res.errors && end) snprintf(res.first_error, sizeof res.first_error, "%.*s", (int)(end - code), code);
    res.errors++;
}

/* Frames of the commit class: those that the gateway may only send once they are durable. */
static void on_commit(caller *k, char *type, char *text, size_t size, int64_t now) {
    size_t rest = (size_t)(text + size - type);
    res.commit_down++;
    int is_end = json_is_type(type, rest, "response.done") || json_is_type(type, rest, "conversation.item.done");
    int64_t delay = is_end ? mark_delay_ns(text, size, now) : -1;
    /* A reply's item is shown again in later frames of other turns; only a fresh mark says something. */
    if (delay >= 0 && delay < 5000000000) histogram_add(&res.held, delay);
    if (json_is_type(type, rest, "response.done")) on_response_done(k, now);
    else if (json_is_type(type, rest, "response.function_call_arguments.done")) on_call(k, text, size);
    else if (json_is_type(type, rest, "input_audio_buffer.committed") && k->endpoint)
        histogram_add(&res.committed, now - k->endpoint);
}

static void on_text(conn *c, char *text, size_t size) {
    caller *k = c->owner;
    int64_t now = now_ns();
    char *type = json_value(text, size < 400 ? size : 400, "type");
    if (!type) return;
    size_t rest = (size_t)(text + size - type);
    if (json_is_type(type, rest, "response.output_audio.delta")) {
        on_audio(k, text, size, now);
    } else if (json_is_type(type, rest, "response.output_audio_transcript.delta") ||
               json_is_type(type, rest, "response.output_text.delta") ||
               json_is_type(type, rest, "response.function_call_arguments.delta") ||
               json_is_type(type, rest, "conversation.item.input_audio_transcription.delta")) {
        int64_t delay = mark_delay_ns(text, size, now);
        res.partial_down++;
        if (delay >= 0) histogram_add(&res.text, delay);
    } else if (json_is_type(type, rest, "error")) {
        on_error(text, size);
    } else if (json_is_type(type, rest, "session.updated")) {
        become_ready(k);
    } else if (rest > 9 && (!memcmp(type, "response.", 9) || !memcmp(type, "conversat", 9) || !memcmp(type, "input_aud", 9))) {
        on_commit(k, type, text, size, now);
    } else {
        res.other_down++;
    }
}

static void connect_caller(caller *k) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)opt.port)};
    int one = 1;
    inet_pton(AF_INET, opt.host, &address.sin_addr);
    k->c = (conn){.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), .is_client = 1, .owner = k,
                  .on_upgraded = on_upgraded, .on_text = on_text, .on_lost = on_lost};
    k->phase = CONNECTING;
    /* Blocking connect: on loopback it ends at once, or the accept queue is full and waiting is right. */
    if (k->c.fd < 0 || connect(k->c.fd, (struct sockaddr *)&address, sizeof address) != 0) {
        fprintf(stderr, "loadgen: caller %d cannot connect to %s:%d: %s\n", k->number, opt.host, opt.port, strerror(errno));
        exit(1);
    }
    setsockopt(k->c.fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    set_nonblocking(k->c.fd);
    conn_watch(&k->c);
    char head[1024];
    int size = snprintf(head, sizeof head,
                        "GET %s HTTP/1.1\r\nHost: %s:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                        "Sec-WebSocket-Key: b3BlbmxpbmUgYmVuY2hlcw==\r\nSec-WebSocket-Version: 13\r\n"
                        "Authorization: Bearer %s\r\n\r\n",
                        opt.path, opt.host, opt.port, opt.key);
    conn_send_raw(&k->c, (uint8_t *)head, (size_t)size);
}

static void item_tick(caller *k, int64_t now) {
    uint64_t id = k->items++;
    if (id % 2 == 0)
        conn_send_text(&k->c,
                       "{\"type\":\"conversation.item.create\",\"item\":{\"id\":\"item_%d_%llu\",\"type\":\"message\",\"role\":\"user\","
                       "\"content\":[{\"type\":\"input_text\",\"text\":\"~%011llx\"}]}}",
                       k->number, (unsigned long long)(id / 2), (unsigned long long)(now / 1000 & (((int64_t)1 << 44) - 1)));
    else
        conn_send_text(&k->c, "{\"type\":\"conversation.item.delete\",\"item_id\":\"item_%d_%llu\"}", k->number,
                       (unsigned long long)(id / 2));
    res.frames_up++;
}

static void end_of_speech(caller *k, int64_t now) {
    k->phase = WAIT;
    k->waiting_since = now;
    k->quiet_frames = 0;
    k->is_awaiting_audio = 1;
    k->endpoint = 0;
    if (opt.mode == MODE_MANUAL) {
        conn_send_text(&k->c, "{\"type\":\"input_audio_buffer.commit\"}");
        conn_send_text(&k->c, "{\"type\":\"response.create\"}");
        k->endpoint = now;
    }
}

static void talk_tick(caller *k, int64_t now) {
    if (k->phase == PAUSE && now >= k->until && opt.mode != MODE_IDLE) {
        k->phase = SPEAK;
        k->frames_left = opt.speech_ms / opt.frame_ms;
    } else if (k->phase == WAIT && now - k->waiting_since > (int64_t)REPLY_TIMEOUT_MS * 1000000) {
        res.stalls++;
        k->call_count = 0;
        k->phase = PAUSE;
        k->until = now;
    }
    int is_loud = k->phase == SPEAK;
    send_audio(k, is_loud, now);
    if (is_loud && --k->frames_left == 0) {
        end_of_speech(k, now);
    } else if (k->phase == WAIT && ++k->quiet_frames == opt.silence_ms / opt.frame_ms && opt.mode == MODE_VAD) {
        k->endpoint = now; /* the frame with which the endpointing window is full */
    }
}

void clients_init(void) {
    callers = calloc((size_t)opt.sessions, sizeof *callers);
    for (int i = 0; i < opt.sessions; i++) callers[i].number = i;
    build_audio_frame();
    period_ns = opt.mode == MODE_ITEMS ? 1000000000 / opt.item_rate : (int64_t)opt.frame_ms * 1000000;
    started_at = now_ns();
}

int clients_ready(void) { return ready_count; }

int64_t clients_run(int64_t now) {
    int64_t ramp_ns = (int64_t)opt.ramp_ms * 1000000;
    if (!opt.sessions) return INT64_MAX;
    while (born_count < opt.sessions && now - started_at >= ramp_ns * born_count / opt.sessions) {
        connect_caller(&callers[born_count++]);
        now = now_ns();
    }
    int64_t due;
    while ((due = started_at + tick_number * period_ns / opt.sessions) <= now) {
        caller *k = &callers[tick_number++ % opt.sessions];
        if (k->phase < PAUSE || k->phase == GONE) continue;
        int64_t at = now_ns();
        histogram_add(&res.send_lag, at - due);
        if (opt.mode == MODE_ITEMS) item_tick(k, at);
        else talk_tick(k, at);
    }
    return due;
}
