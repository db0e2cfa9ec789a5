/* The other end: a Realtime server for load, of the GA protocol (openai-protocols.md B). It obeys the session's
 * settings (turn detection, create_response, interrupt_response, tools), keeps client item ids, gives metadata
 * back, answers in real time with stamped audio, calls the tool "lookup" each Nth turn if it was declared (replies.c).
 *
 * It hears by marks, not by sound, and remembers no content: a session is shown without instructions and tools, an
 * item that is retrieved with invented words. Out-of-band responses are made like others. With --port equal to its
 * own port the callers talk to it directly: the floor, with no gateway between. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "upstream.h"
#include "wire.h"

enum { START_MS = 60, PADDING_MS = 300, COMMIT_LEAST_MS = 100, STAMP_CHARS = 16, REST_SIZE = 48 * 1024 };

static const char WORDS[] = "what the caller said";
static int listener = -1, model_count;

/* ---------------------------------------------------------------------------------------------- what it says */

void emit(model *m, const char *kind, const char *format, ...) {
    static char rest[REST_SIZE];
    va_list arguments;
    va_start(arguments, format);
    int size = vsnprintf(rest, sizeof rest, format, arguments);
    va_end(arguments);
    if (size < 0 || size >= REST_SIZE) {
        fprintf(stderr, "loadgen: an event of %d bytes does not fit\n", size);
        exit(1);
    }
    conn_send_text(&m->c, "{\"type\":\"%s\",\"event_id\":\"event_%d_%d\"%s}", kind, m->number, ++m->events, rest);
}

static const char *quoted(char out[ID_SIZE + 2], const char *id) {
    if (!id || !id[0]) return "null";
    snprintf(out, ID_SIZE + 2, "\"%s\"", id);
    return out;
}

/* "added" makes the item the last one. */
void emit_item(model *m, const char *kind, const char *previous, const char *item) {
    char type[32], shown[ID_SIZE + 2];
    snprintf(type, sizeof type, "conversation.item.%s", kind);
    emit(m, type, ",\"previous_item_id\":%s,\"item\":%s", quoted(shown, previous), item);
    if (strcmp(kind, "added") == 0) json_string(item, strlen(item), "id", m->last_item, sizeof m->last_item);
}

/* `text`: the event that was wrong; its event_id is given back. */
void emit_error(model *m, const char *code, const char *message, const char *text, size_t size) {
    char id[80] = "", shown[100];
    if (text) json_string(text, size, "event_id", id, sizeof id);
    snprintf(shown, sizeof shown, id[0] ? "\"%s\"" : "null", id);
    if (!res.refused) snprintf(res.first_refused, sizeof res.first_refused, "%s", code);
    res.refused++;
    emit(m, "error", ",\"error\":{\"type\":\"invalid_request_error\",\"code\":\"%s\",\"message\":\"%s\",\"param\":null,\"event_id\":%s}",
         code, message, shown);
}

static void show_session(model *m, const char *kind) {
    char detection[320] = "null";
    const char *creates = m->creates ? "true" : "false", *interrupts = m->interrupts ? "true" : "false";
    if (m->detects && m->is_semantic)
        snprintf(detection, sizeof detection, "{\"type\":\"semantic_vad\",\"eagerness\":\"auto\",\"create_response\":%s,"
                 "\"interrupt_response\":%s}", creates, interrupts);
    else if (m->detects)
        snprintf(detection, sizeof detection, "{\"type\":\"server_vad\",\"threshold\":0.5,\"prefix_padding_ms\":%d,"
                 "\"silence_duration_ms\":%d,\"idle_timeout_ms\":null,\"create_response\":%s,\"interrupt_response\":%s}",
                 PADDING_MS, m->silence_ms, creates, interrupts);
    emit(m, kind,
         ",\"session\":{\"type\":\"realtime\",\"object\":\"realtime.session\",\"id\":\"sess_%d\",\"model\":\"load\","
         "\"output_modalities\":[\"audio\"],\"instructions\":\"\",\"tools\":[],\"tool_choice\":\"auto\",\"max_output_tokens\":\"inf\","
         "\"tracing\":null,\"truncation\":\"auto\",\"audio\":{\"input\":{\"format\":{\"type\":\"audio/pcm\",\"rate\":24000},"
         "\"transcription\":%s,\"noise_reduction\":null,\"turn_detection\":%s},\"output\":{\"format\":{\"type\":\"audio/pcm\","
         "\"rate\":24000},\"voice\":\"marin\",\"speed\":1.0}}}",
         m->number, m->transcribes ? "{\"model\":\"gpt-4o-mini-transcribe\"}" : "null", detection);
}

/* ---------------------------------------------------------------------------------------------------- turns */

static void user_item(model *m, char *out, size_t room) {
    snprintf(out, room, "{\"id\":\"user_%d_%d\",\"object\":\"realtime.item\",\"type\":\"message\",\"role\":\"user\","
             "\"status\":\"completed\",\"content\":[{\"type\":\"input_audio\",\"transcript\":null}]}", m->number, m->items);
}

static void commit(model *m) {
    char item[256], previous[ID_SIZE], shown[ID_SIZE + 2];
    snprintf(previous, sizeof previous, "%s", m->last_item);
    user_item(m, item, sizeof item);
    m->buffered_ms = 0;
    emit(m, "input_audio_buffer.committed", ",\"previous_item_id\":%s,\"item_id\":\"user_%d_%d\"", quoted(shown, previous),
         m->number, m->items);
    emit_item(m, "added", previous, item);
    emit_item(m, "done", previous, item);
}

static void transcribe(model *m) {
    if (!m->transcribes) return;
    emit(m, "conversation.item.input_audio_transcription.delta", ",\"item_id\":\"user_%d_%d\",\"content_index\":0,\"delta\":\"%s\"",
         m->number, m->items, WORDS);
    emit(m, "conversation.item.input_audio_transcription.completed",
         ",\"item_id\":\"user_%d_%d\",\"content_index\":0,\"transcript\":\"%s\",\"usage\":{\"type\":\"duration\",\"seconds\":1}",
         m->number, m->items, WORDS);
}

static void start_turn(model *m) {
    int64_t start = m->heard_ms - m->loud_ms - PADDING_MS;
    m->is_speech = 1;
    m->items++;
    emit(m, "input_audio_buffer.speech_started", ",\"audio_start_ms\":%lld,\"item_id\":\"user_%d_%d\"",
         (long long)(start > 0 ? start : 0), m->number, m->items);
    if (m->interrupts) reply_cancel(m, "turn_detected");
}

static void end_turn(model *m) {
    m->is_speech = 0;
    emit(m, "input_audio_buffer.speech_stopped", ",\"audio_end_ms\":%lld,\"item_id\":\"user_%d_%d\"", (long long)m->heard_ms,
         m->number, m->items);
    commit(m);
    /* The words come from another model: after response.created, as at OpenAI. */
    if (m->creates && !m->is_active) reply_begin(m, NULL, 0);
    transcribe(m);
}

static void hear(model *m, int is_loud, int ms) {
    m->heard_ms += ms;
    m->buffered_ms += ms;
    m->loud_ms = is_loud ? m->loud_ms + ms : 0;
    m->quiet_ms = is_loud ? 0 : m->quiet_ms + ms;
    if (!m->detects) return;
    if (!m->is_speech && m->loud_ms >= START_MS) start_turn(m);
    else if (m->is_speech && m->quiet_ms >= m->silence_ms) end_turn(m);
}

/* A caller's frames, each with its stamp and mark, whether they come one by one or joined. */
static void on_append(model *m, char *text, size_t size, int64_t now) {
    char *audio = json_value(text, size, "audio");
    char *end = audio ? memchr(audio, '"', (size_t)(text + size - audio)) : NULL;
    if (!end) return;
    ptrdiff_t frame_chars = (ptrdiff_t)opt.frame_ms * 64; /* 48 bytes a ms, 4 characters for 3 bytes */
    int64_t newest = -1;
    for (; end - audio >= STAMP_CHARS; audio += frame_chars) {
        uint8_t head[12];
        int64_t stamp;
        if (!base64_get12(head, audio)) return;
        memcpy(&stamp, head, STAMP_BYTES);
        if (now - stamp > -1000000000 && now - stamp < 60000000000) {
            newest = now - stamp;
            histogram_add(&res.upstream_all, newest);
        }
        ptrdiff_t chars = end - audio < frame_chars ? end - audio : frame_chars;
        hear(m, head[8] == (LOUD & 255) && head[9] == LOUD >> 8, (int)(chars / 64));
    }
    if (newest >= 0) histogram_add(&res.upstream_up, newest);
}

/* ----------------------------------------------------------------------------------------------- what it is told */

static void update(model *m, const char *text, size_t size) {
    const char *end = text + size;
    const char *found = memmem(text, size, "\"turn_detection\":", 17);
    if (found) {
        size_t length = json_object_size(found + 17, (size_t)(end - found - 17));
        m->detects = length > 0;
        m->is_semantic = memmem(found, length + 17, "\"semantic_vad\"", 14) != NULL;
        m->creates = memmem(found, length + 17, "\"create_response\":false", 23) == NULL;
        m->interrupts = memmem(found, length + 17, "\"interrupt_response\":false", 26) == NULL;
        const char *silence = memmem(found, length + 17, "\"silence_duration_ms\":", 22);
        m->silence_ms = silence && atoi(silence + 22) > 0 ? atoi(silence + 22) : opt.silence_ms;
    }
    found = memmem(text, size, "\"transcription\":", 16);
    if (found) m->transcribes = found[16] == '{';
    found = memmem(text, size, "\"tools\":[", 9);
    if (found) m->has_tool = memmem(found, (size_t)(end - found), "\"name\":\"" TOOL "\"", 9 + sizeof TOOL - 1) != NULL;
    show_session(m, "session.updated");
}

static void create_item(model *m, const char *text, size_t size) {
    static char shown[32 * 1024];
    char previous[ID_SIZE] = "", asked[ID_SIZE] = "";
    const char *item = memmem(text, size, "\"item\":{", 8);
    size_t length = item ? json_object_size(item + 7, (size_t)(text + size - item - 7)) : 0;
    if (!length || length + ID_SIZE >= sizeof shown) {
        emit_error(m, "missing_required_parameter", "Missing required parameter: 'item'.", text, size);
        return;
    }
    item += 7;
    json_string(text, size, "previous_item_id", asked, sizeof asked);
    if (strcmp(asked, "root") != 0) snprintf(previous, sizeof previous, "%s", asked[0] ? asked : m->last_item);
    if (memmem(item, length, "\"id\":\"", 6)) snprintf(shown, sizeof shown, "%.*s", (int)length, item);
    else snprintf(shown, sizeof shown, "{\"id\":\"item_%d_%d\",%.*s", m->number, ++m->items, (int)length - 1, item + 1);
    emit_item(m, "added", previous, shown);
    emit_item(m, "done", previous, shown);
}

static void retrieve(model *m, const char *id) {
    int is_reply = memcmp(id, "msg_", 4) == 0;
    emit(m, "conversation.item.retrieved",
         ",\"item\":{\"id\":\"%s\",\"object\":\"realtime.item\",\"type\":\"message\",\"role\":\"%s\",\"status\":\"completed\","
         "\"content\":[{\"type\":\"%s\",\"transcript\":\"%s\"}]}", id, is_reply ? "assistant" : "user",
         is_reply ? "output_audio" : "input_audio", WORDS);
}

static void obey(model *m, char *type, char *text, size_t size) {
    size_t rest = (size_t)(text + size - type);
    char id[ID_SIZE] = "";
    json_string(text, size, "item_id", id, sizeof id);
    if (json_is_type(type, rest, "session.update")) {
        update(m, text, size);
    } else if (json_is_type(type, rest, "response.create")) {
        reply_begin(m, text, size);
    } else if (json_is_type(type, rest, "response.cancel")) {
        if (m->is_active) reply_cancel(m, "client_cancelled");
        else emit_error(m, "response_cancel_not_active", "Cancellation failed: no active response found", text, size);
    } else if (json_is_type(type, rest, "conversation.item.create")) {
        create_item(m, text, size);
    } else if (json_is_type(type, rest, "conversation.item.truncate")) {
        char *end_ms = json_value(text, size, "audio_end_ms");
        emit(m, "conversation.item.truncated", ",\"item_id\":\"%s\",\"content_index\":0,\"audio_end_ms\":%d", id,
             end_ms ? atoi(end_ms) : 0);
    } else if (json_is_type(type, rest, "conversation.item.delete")) {
        emit(m, "conversation.item.deleted", ",\"item_id\":\"%s\"", id);
    } else if (json_is_type(type, rest, "conversation.item.retrieve")) {
        retrieve(m, id);
    } else if (json_is_type(type, rest, "input_audio_buffer.clear")) {
        m->buffered_ms = 0;
        m->is_speech = 0;
        emit(m, "input_audio_buffer.cleared", "%s", "");
    } else if (!json_is_type(type, rest, "input_audio_buffer.commit")) {
        emit_error(m, "invalid_value", "Invalid value: 'type'.", text, size);
    } else if (m->buffered_ms < COMMIT_LEAST_MS) {
        emit_error(m, "input_audio_buffer_commit_empty", "Error committing input audio buffer: buffer too small.", text, size);
    } else {
        if (!m->is_speech) m->items++;
        m->is_speech = 0;
        commit(m);
        transcribe(m);
    }
}

static void on_text(conn *c, char *text, size_t size) {
    model *m = c->owner;
    char *type = json_value(text, size, "type");
    if (!type) return;
    conn_cork(c);
    if (json_is_type(type, (size_t)(text + size - type), "input_audio_buffer.append")) {
        on_append(m, text, size, now_ns());
    } else {
        /* Some clients write blanks, and the session or the item, with types of their own, first. */
        size = json_compact(text, size);
        type = json_top_type(text, size);
        if (type) obey(m, type, text, size);
    }
    conn_uncork(c);
}

/* ------------------------------------------------------------------------------------------------- connections */

static void on_upgraded(conn *c) {
    char head[160];
    int size = snprintf(head, sizeof head, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                        "Sec-WebSocket-Accept: %s\r\n\r\n", c->accept);
    conn_cork(c);
    conn_send_raw(c, (const uint8_t *)head, (size_t)size);
    show_session(c->owner, "session.created");
    conn_uncork(c);
}

/* A model is never freed: the wheel may still point to it, and a run makes a few thousand at most. */
static void on_lost(conn *c) { ((model *)c->owner)->is_active = 0; }

void upstream_init(void) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)opt.upstream_port)};
    int one = 1;
    if (opt.upstream_cert) tls_init(opt.upstream_cert);
    inet_pton(AF_INET, "127.0.0.1", &address.sin_addr);
    listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 4096)) {
        fprintf(stderr, "loadgen: upstream cannot listen on 127.0.0.1:%d\n", opt.upstream_port);
        exit(1);
    }
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = &listener};
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listener, &event);
    replies_init();
}

int upstream_owns(void *pointer) { return pointer == &listener; }

void upstream_accept(void) {
    int fd, one = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        model *m = calloc(1, sizeof *m);
        m->c = (conn){.fd = fd, .owner = m, .on_upgraded = on_upgraded, .on_text = on_text, .on_lost = on_lost};
        m->number = ++model_count;
        m->detects = m->creates = m->interrupts = 1;
        m->silence_ms = opt.silence_ms;
        if (opt.upstream_cert) tls_accept(&m->c);
        conn_watch(&m->c);
    }
}

int64_t upstream_run(int64_t now) { return listener < 0 ? INT64_MAX : replies_run(now); }
