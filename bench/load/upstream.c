/* The other end: a Realtime server of few words. It finds turns by the mark, answers in real time with stamped
 * audio, calls a tool each Nth turn. With --port equal to its own port the callers talk to it directly: the
 * floor, with no gateway between. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "load.h"
#include "wire.h"

enum { TICK_NS = 5000000, SLOTS_MAX = 64, START_FRAMES = 3, MARK_EVERY = 5, STAMP_CHARS = 16 };

typedef struct model model;
struct model {
    conn c;
    int is_streaming, left, spoken, loud_run, quiet_run, is_speech, asked, items, responses, wants_answer, detects;
    char transcript[4096];
    size_t transcript_size;
    model *next_in_slot;
};

static int listener = -1, slots;
static model *slot_heads[SLOTS_MAX];
static int64_t tick, tick_due;
static char body[16384]; /* base64 of the chunk behind its stamp */

static void send_item(model *m, const char *kind, const char *id, const char *content) {
    conn_send_text(&m->c, "{\"type\":\"conversation.item.%s\",\"event_id\":\"event_%d\",\"previous_item_id\":null,"
                          "\"item\":{\"id\":\"%s\",\"object\":\"realtime.item\",%s}}", kind, m->items, id, content);
}

static void begin_reply(model *m, int64_t now);

static void call_tool(model *m) {
    int n = m->responses;
    char item[256];
    snprintf(item, sizeof item, "\"type\":\"function_call\",\"status\":\"completed\",\"name\":\"lookup\",\"call_id\":\"call_%d\","
             "\"arguments\":\"{\\\"part\\\":\\\"M8x40\\\"}\"", n);
    conn_send_text(&m->c, "{\"type\":\"response.output_item.added\",\"event_id\":\"e\",\"response_id\":\"resp_%d\",\"output_index\":0,"
                   "\"item\":{\"id\":\"fc_%d\",%s}}", n, n, item);
    char id[32];
    snprintf(id, sizeof id, "fc_%d", n);
    send_item(m, "added", id, item);
    conn_send_text(&m->c, "{\"type\":\"response.function_call_arguments.done\",\"event_id\":\"e\",\"response_id\":\"resp_%d\","
                   "\"item_id\":\"fc_%d\",\"output_index\":0,\"call_id\":\"call_%d\",\"name\":\"lookup\",\"arguments\":\"{\\\"part\\\":"
                   "\\\"M8x40\\\"}\"}", n, n, n);
    send_item(m, "done", id, item);
    conn_send_text(&m->c, "{\"type\":\"response.done\",\"event_id\":\"e\",\"response\":{\"id\":\"resp_%d\",\"object\":\"realtime.response\","
                   "\"status\":\"completed\",\"output\":[{\"id\":\"fc_%d\",%s}]}}", n, n, item);
    m->is_streaming = 0;
}

static void send_chunk(model *m, int64_t due) {
    uint8_t head[12] = {0};
    char chars[STAMP_CHARS + 1] = {0};
    int n = m->responses;
    memcpy(head, &due, STAMP_BYTES);
    base64_put(chars, head, sizeof head);
    int is_marked = ++m->spoken % MARK_EVERY == 0 || m->left == 1;
    char words[16] = "so ";
    if (is_marked) snprintf(words, sizeof words, "~%011llx", (unsigned long long)(due / 1000 & (((int64_t)1 << 44) - 1)));
    if (m->transcript_size + sizeof words < sizeof m->transcript)
        m->transcript_size += (size_t)snprintf(m->transcript + m->transcript_size, sizeof words, "%s", words);
    conn_send_text(&m->c, "{\"type\":\"response.output_audio_transcript.delta\",\"event_id\":\"event_t\",\"response_id\":\"resp_%d\","
                   "\"item_id\":\"msg_%d\",\"output_index\":0,\"content_index\":0,\"delta\":\"%s\"}", n, n, words);
    conn_send_text(&m->c, "{\"type\":\"response.output_audio.delta\",\"event_id\":\"event_a\",\"response_id\":\"resp_%d\","
                   "\"item_id\":\"msg_%d\",\"output_index\":0,\"content_index\":0,\"delta\":\"%s%s\"}", n, n, chars, body);
}

static void finish_reply(model *m, const char *status) {
    int n = m->responses;
    char id[32], item[4608];
    snprintf(id, sizeof id, "msg_%d", n);
    snprintf(item, sizeof item, "\"type\":\"message\",\"role\":\"assistant\",\"status\":\"%s\",\"content\":[{\"type\":\"output_audio\","
             "\"transcript\":\"%s\"}]", status[0] == 'c' && status[1] == 'o' ? "completed" : "incomplete", m->transcript);
    conn_send_text(&m->c, "{\"type\":\"response.output_audio.done\",\"event_id\":\"e\",\"response_id\":\"resp_%d\",\"item_id\":\"%s\","
                   "\"output_index\":0,\"content_index\":0}", n, id);
    conn_send_text(&m->c, "{\"type\":\"response.output_audio_transcript.done\",\"event_id\":\"e\",\"response_id\":\"resp_%d\","
                   "\"item_id\":\"%s\",\"output_index\":0,\"content_index\":0,\"transcript\":\"%s\"}", n, id, m->transcript);
    conn_send_text(&m->c, "{\"type\":\"response.content_part.done\",\"event_id\":\"e\",\"response_id\":\"resp_%d\",\"item_id\":\"%s\","
                   "\"output_index\":0,\"content_index\":0,\"part\":{\"type\":\"audio\",\"transcript\":\"%s\"}}", n, id, m->transcript);
    send_item(m, "done", id, item);
    conn_send_text(&m->c, "{\"type\":\"response.output_item.done\",\"event_id\":\"e\",\"response_id\":\"resp_%d\",\"output_index\":0,"
                   "\"item\":{\"id\":\"%s\",%s}}", n, id, item);
    conn_send_text(&m->c, "{\"type\":\"response.done\",\"event_id\":\"e\",\"response\":{\"id\":\"resp_%d\",\"object\":\"realtime.response\","
                   "\"status\":\"%s\",\"output\":[{\"id\":\"%s\",%s}],\"usage\":{\"total_tokens\":9,\"input_tokens\":4,"
                   "\"output_tokens\":5}}}", n, status, id, item);
    m->is_streaming = 0;
}

static void begin_reply(model *m, int64_t now) {
    int n = ++m->responses;
    if (m->is_streaming) return;
    m->is_streaming = 1;
    m->left = opt.reply_ms / opt.delta_ms;
    m->spoken = 0;
    m->transcript_size = 0;
    m->transcript[0] = 0;
    conn_send_text(&m->c, "{\"type\":\"response.created\",\"event_id\":\"e\",\"response\":{\"id\":\"resp_%d\",\"object\":"
                   "\"realtime.response\",\"status\":\"in_progress\",\"output\":[]}}", n);
    if (!m->wants_answer && opt.tools && opt.tool_every && ++m->asked % opt.tool_every == 0) {
        call_tool(m);
        return;
    }
    m->wants_answer = 0;
    char id[32];
    const char *item = "\"type\":\"message\",\"role\":\"assistant\",\"status\":\"in_progress\",\"content\":[]";
    snprintf(id, sizeof id, "msg_%d", n);
    conn_send_text(&m->c, "{\"type\":\"response.output_item.added\",\"event_id\":\"e\",\"response_id\":\"resp_%d\",\"output_index\":0,"
                   "\"item\":{\"id\":\"%s\",%s}}", n, id, item);
    send_item(m, "added", id, item);
    conn_send_text(&m->c, "{\"type\":\"response.content_part.added\",\"event_id\":\"e\",\"response_id\":\"resp_%d\",\"item_id\":\"%s\","
                   "\"output_index\":0,\"content_index\":0,\"part\":{\"type\":\"audio\",\"transcript\":\"\"}}", n, id);
    send_chunk(m, now);
    m->left--;
    m->next_in_slot = slot_heads[tick % slots];
    slot_heads[tick % slots] = m;
}

static void end_turn(model *m, int64_t now) {
    char id[32];
    const char *item = "\"type\":\"message\",\"role\":\"user\",\"status\":\"completed\",\"content\":[{\"type\":\"input_audio\","
                       "\"transcript\":null}]";
    snprintf(id, sizeof id, "user_%d", ++m->items);
    conn_send_text(&m->c, "{\"type\":\"input_audio_buffer.speech_stopped\",\"event_id\":\"e\",\"audio_end_ms\":0,\"item_id\":\"%s\"}", id);
    conn_send_text(&m->c, "{\"type\":\"input_audio_buffer.committed\",\"event_id\":\"e\",\"previous_item_id\":null,\"item_id\":\"%s\"}", id);
    send_item(m, "added", id, item);
    send_item(m, "done", id, item);
    begin_reply(m, now);
}

static void on_append(model *m, char *text, size_t size, int64_t now) {
    uint8_t head[12];
    int64_t stamp;
    char *audio = json_value(text, size, "audio");
    if (!audio || audio + STAMP_CHARS > text + size || !base64_get12(head, audio)) return;
    memcpy(&stamp, head, STAMP_BYTES);
    if (now - stamp > -1000000000 && now - stamp < 60000000000) histogram_add(&res.upstream_up, now - stamp);
    int is_loud = head[8] == (LOUD & 255) && head[9] == LOUD >> 8;
    m->loud_run = is_loud ? m->loud_run + 1 : 0;
    m->quiet_run = is_loud ? 0 : m->quiet_run + 1;
    if (!m->detects) return;
    if (!m->is_speech && m->loud_run == START_FRAMES) {
        m->is_speech = 1;
        conn_send_text(&m->c, "{\"type\":\"input_audio_buffer.speech_started\",\"event_id\":\"e\",\"audio_start_ms\":0,\"item_id\":"
                       "\"user_%d\"}", m->items + 1);
        if (m->is_streaming) finish_reply(m, "cancelled");
    } else if (m->is_speech && m->quiet_run == opt.silence_ms / opt.frame_ms) {
        m->is_speech = 0;
        end_turn(m, now);
    }
}

static void on_text(conn *c, char *text, size_t size) {
    model *m = c->owner;
    int64_t now = now_ns();
    char *type = json_value(text, size < 400 ? size : 400, "type");
    if (!type) return;
    size_t rest = (size_t)(text + size - type);
    if (json_is_type(type, rest, "input_audio_buffer.append")) {
        on_append(m, text, size, now);
    } else if (json_is_type(type, rest, "session.update")) {
        m->detects = memmem(text, size, "\"turn_detection\":null", 21) == NULL;
        conn_send_text(&m->c, "{\"type\":\"session.updated\",\"event_id\":\"e\",\"session\":{\"type\":\"realtime\",\"object\":"
                       "\"realtime.session\",\"id\":\"sess_u\"}}");
    } else if (json_is_type(type, rest, "response.create")) {
        begin_reply(m, now);
    } else if (json_is_type(type, rest, "response.cancel") && m->is_streaming) {
        finish_reply(m, "cancelled");
    } else if (json_is_type(type, rest, "input_audio_buffer.commit")) {
        conn_send_text(&m->c, "{\"type\":\"input_audio_buffer.committed\",\"event_id\":\"e\",\"previous_item_id\":null,\"item_id\":"
                       "\"user_%d\"}", ++m->items);
    } else if (json_is_type(type, rest, "conversation.item.create")) {
        if (memmem(text, size, "function_call_output", 20)) m->wants_answer = 1;
        char *item = memmem(text, size, "\"item\":{", 8);
        if (item && size < 4096) {
            conn_send_text(c, "{\"type\":\"conversation.item.added\",\"event_id\":\"e\",%.*s", (int)(text + size - item), item);
            conn_send_text(c, "{\"type\":\"conversation.item.done\",\"event_id\":\"e\",%.*s", (int)(text + size - item), item);
        }
    }
}

static void on_upgraded(conn *c) {
    char head[160];
    int size = snprintf(head, sizeof head, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                        "Sec-WebSocket-Accept: %s\r\n\r\n", c->accept);
    conn_send_raw(c, (const uint8_t *)head, (size_t)size);
    conn_send_text(c, "{\"type\":\"session.created\",\"event_id\":\"e\",\"session\":{\"type\":\"realtime\",\"object\":\"realtime.session\","
                   "\"id\":\"sess_u\"}}");
}

/* A model is never freed: a slot may still point to it, and a run makes a few thousand at most. */
static void on_lost(conn *c) { ((model *)c->owner)->is_streaming = 0; }

void upstream_init(void) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)opt.upstream_port)};
    int one = 1;
    inet_pton(AF_INET, "127.0.0.1", &address.sin_addr);
    listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 4096)) {
        fprintf(stderr, "loadgen: upstream cannot listen on 127.0.0.1:%d\n", opt.upstream_port);
        exit(1);
    }
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = &listener};
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listener, &event);
    slots = opt.delta_ms * 1000000 / TICK_NS;
    size_t pcm = (size_t)opt.delta_ms * 48 - 12;
    uint8_t raw[16384];
    for (size_t i = 0; i < pcm; i++) raw[i] = (uint8_t)(i % 2 ? 0 : rand());
    base64_put(body, raw, pcm / 3 * 3);
    tick_due = now_ns();
}

int upstream_owns(void *pointer) { return pointer == &listener; }

void upstream_accept(void) {
    int fd, one = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        model *m = calloc(1, sizeof *m);
        m->c = (conn){.fd = fd, .owner = m, .on_upgraded = on_upgraded, .on_text = on_text, .on_lost = on_lost};
        m->detects = 1;
        conn_watch(&m->c);
    }
}

/* One tick of the wheel: each streaming session once per delta_ms. */
static void run_slot(int64_t due) {
    model *m = slot_heads[tick % slots], *next;
    slot_heads[tick % slots] = NULL;
    model *kept = NULL;
    for (tick++; m; m = next) {
        next = m->next_in_slot;
        if (!m->is_streaming) continue;
        send_chunk(m, due);
        if (--m->left <= 0) {
            finish_reply(m, "completed");
        } else if (m->is_streaming) {
            m->next_in_slot = kept;
            kept = m;
        }
    }
    /* Only this slot's own list was taken off, so what others have put there meanwhile goes behind. */
    model **tail = &slot_heads[(tick - 1) % slots];
    while (*tail) tail = &(*tail)->next_in_slot;
    *tail = kept;
}

int64_t upstream_run(int64_t now) {
    if (listener < 0) return INT64_MAX;
    while (tick_due <= now) {
        run_slot(tick_due);
        tick_due += TICK_NS;
    }
    return tick_due;
}
