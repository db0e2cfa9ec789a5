/* The responses of the upstream server: audio in real time with its words, or a tool call; all events in the
 * order of openai-protocols.md B.6, with the fields that the strictest stock client wants (C.7). */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "upstream.h"
#include "wire.h"

enum { TICK_NS = 5000000, SLOTS_MAX = 64, MARK_EVERY = 5, STAMP_CHARS = 16, ITEM_SIZE = TRANSCRIPT_SIZE + 512 };

static int slots;
static model *slot_heads[SLOTS_MAX];
static int64_t tick, tick_due;
static char body[16384]; /* base64 of the chunk behind its stamp */

static const char ARGUMENTS[] = "{\\\"part\\\":\\\"M8x40\\\",\\\"count\\\":12}";
static const char *const ARGUMENT_PIECES[] = {"{\\\"part\\\":", "\\\"M8x40\\\",", "\\\"count\\\":12}"};

static void response_event(model *m, const char *kind, const char *status, const char *details, const char *output) {
    int is_over = strcmp(status, "in_progress") != 0;
    emit(m, kind,
         ",\"response\":{\"id\":\"resp_%d_%d\",\"object\":\"realtime.response\",\"status\":\"%s\",\"status_details\":%s,"
         "\"output\":[%s],\"conversation_id\":\"conv_%d\",\"output_modalities\":[\"audio\"],\"max_output_tokens\":\"inf\","
         "\"metadata\":%s,\"usage\":%s}",
         m->number, m->responses, status, details, output, m->number, m->metadata,
         is_over ? "{\"total_tokens\":150,\"input_tokens\":100,\"output_tokens\":50,"
                   "\"input_token_details\":{\"text_tokens\":20,\"audio_tokens\":80,\"image_tokens\":0,\"cached_tokens\":60,"
                   "\"cached_tokens_details\":{\"text_tokens\":20,\"audio_tokens\":40,\"image_tokens\":0}},"
                   "\"output_token_details\":{\"text_tokens\":10,\"audio_tokens\":40}}"
                 : "null");
}

static void output_event(model *m, const char *kind, const char *item) {
    emit(m, kind, ",\"response_id\":\"resp_%d_%d\",\"output_index\":0,\"item\":%s", m->number, m->responses, item);
}

static void call_tool(model *m) {
    char item[512], id[ID_SIZE], call[ID_SIZE], previous[ID_SIZE];
    snprintf(id, sizeof id, "fc_%d_%d", m->number, m->responses);
    snprintf(call, sizeof call, "call_%d_%d", m->number, m->responses);
    const char *format = "{\"id\":\"%s\",\"object\":\"realtime.item\",\"type\":\"function_call\",\"status\":\"%s\",\"name\":\"%s\","
                         "\"call_id\":\"%s\",\"arguments\":\"%s\"}";
    snprintf(item, sizeof item, format, id, "in_progress", TOOL, call, "");
    snprintf(previous, sizeof previous, "%s", m->last_item);
    output_event(m, "response.output_item.added", item);
    emit_item(m, "added", previous, item);
    for (size_t i = 0; i < sizeof ARGUMENT_PIECES / sizeof *ARGUMENT_PIECES; i++)
        emit(m, "response.function_call_arguments.delta",
             ",\"response_id\":\"resp_%d_%d\",\"item_id\":\"%s\",\"output_index\":0,\"call_id\":\"%s\",\"delta\":\"%s\"", m->number,
             m->responses, id, call, ARGUMENT_PIECES[i]);
    emit(m, "response.function_call_arguments.done",
         ",\"response_id\":\"resp_%d_%d\",\"item_id\":\"%s\",\"output_index\":0,\"call_id\":\"%s\",\"name\":\"%s\","
         "\"arguments\":\"%s\"", m->number, m->responses, id, call, TOOL, ARGUMENTS);
    snprintf(item, sizeof item, format, id, "completed", TOOL, call, ARGUMENTS);
    emit_item(m, "done", previous, item);
    output_event(m, "response.output_item.done", item);
    m->is_active = 0;
    m->owes_answer = 1;
    res.upstream_calls++;
    response_event(m, "response.done", "completed", "{\"type\":\"completed\"}", item);
}

static void message_item(const model *m, char *out, const char *status, int is_whole) {
    char content[ITEM_SIZE - 256] = "";
    if (is_whole) snprintf(content, sizeof content, "{\"type\":\"output_audio\",\"transcript\":\"%s\"}", m->transcript);
    snprintf(out, ITEM_SIZE, "{\"id\":\"msg_%d_%d\",\"object\":\"realtime.item\",\"type\":\"message\",\"role\":\"assistant\","
             "\"status\":\"%s\",\"content\":[%s]}", m->number, m->responses, status, content);
}

/* The words of a chunk and the chunk, in one write: as a provider's frames of one moment come. */
static void send_chunk(model *m) {
    uint8_t head[12] = {0};
    char chars[STAMP_CHARS + 1] = {0}, words[16] = "so ", where[ID_SIZE * 3];
    int64_t now = now_ns();
    int is_marked = ++m->spoken % MARK_EVERY == 0 || m->left == 1;
    memcpy(head, &now, STAMP_BYTES);
    base64_put(chars, head, sizeof head);
    if (is_marked) snprintf(words, sizeof words, "~%011llx", (unsigned long long)(now / 1000 & (((int64_t)1 << 44) - 1)));
    if (m->transcript_size + sizeof words < sizeof m->transcript)
        m->transcript_size += (size_t)snprintf(m->transcript + m->transcript_size, sizeof words, "%s", words);
    snprintf(where, sizeof where, ",\"response_id\":\"resp_%d_%d\",\"item_id\":\"msg_%d_%d\",\"output_index\":0,\"content_index\":0",
             m->number, m->responses, m->number, m->responses);
    conn_cork(&m->c);
    emit(m, "response.output_audio_transcript.delta", "%s,\"delta\":\"%s\"", where, words);
    emit(m, "response.output_audio.delta", "%s,\"delta\":\"%s%s\"", where, chars, body);
    conn_uncork(&m->c);
    res.upstream_media++;
}

static void begin_message(model *m) {
    char item[ITEM_SIZE];
    message_item(m, item, "in_progress", 0);
    output_event(m, "response.output_item.added", item);
    snprintf(m->reply_previous, sizeof m->reply_previous, "%s", m->last_item);
    emit_item(m, "added", m->reply_previous, item);
    emit(m, "response.content_part.added",
         ",\"response_id\":\"resp_%d_%d\",\"item_id\":\"msg_%d_%d\",\"output_index\":0,\"content_index\":0,"
         "\"part\":{\"type\":\"audio\",\"transcript\":\"\"}", m->number, m->responses, m->number, m->responses);
    send_chunk(m);
    m->left--;
    if (m->is_queued) return; /* An earlier reply was cut and its place on the wheel is still there. */
    m->is_queued = 1;
    m->next_in_slot = slot_heads[tick % slots];
    slot_heads[tick % slots] = m;
}

static void finish_message(model *m, const char *status, const char *details) {
    char item[ITEM_SIZE], where[ID_SIZE * 3];
    const char *item_status = strcmp(status, "completed") == 0 ? "completed" : "incomplete";
    snprintf(where, sizeof where, ",\"response_id\":\"resp_%d_%d\",\"item_id\":\"msg_%d_%d\",\"output_index\":0,\"content_index\":0",
             m->number, m->responses, m->number, m->responses);
    message_item(m, item, item_status, 1);
    conn_cork(&m->c);
    emit(m, "response.output_audio.done", "%s", where);
    emit(m, "response.output_audio_transcript.done", "%s,\"transcript\":\"%s\"", where, m->transcript);
    emit(m, "response.content_part.done", "%s,\"part\":{\"type\":\"audio\",\"transcript\":\"%s\"}", where, m->transcript);
    emit_item(m, "done", m->reply_previous, item);
    output_event(m, "response.output_item.done", item);
    m->is_active = 0;
    response_event(m, "response.done", status, details, item);
    conn_uncork(&m->c);
}

static void take_metadata(model *m, const char *text, size_t size) {
    const char *found = text ? memmem(text, size, "\"metadata\":{", 12) : NULL;
    size_t length = found ? json_object_size(found + 11, (size_t)(text + size - found - 11)) : 0;
    if (length && length < sizeof m->metadata) snprintf(m->metadata, sizeof m->metadata, "%.*s", (int)length, found + 11);
    else strcpy(m->metadata, "null");
}

void reply_begin(model *m, const char *text, size_t size) {
    if (m->is_active) {
        emit_error(m, "conversation_already_has_active_response",
                   "Conversation already has an active response in progress.", text, size);
        return;
    }
    m->responses++;
    m->is_active = 1;
    m->left = opt.reply_ms / opt.delta_ms;
    m->spoken = 0;
    m->transcript_size = 0;
    m->transcript[0] = 0;
    take_metadata(m, text, size);
    response_event(m, "response.created", "in_progress", "null", "");
    int is_answer = m->owes_answer;
    m->owes_answer = 0;
    if (!is_answer && m->has_tool && opt.tool_every && ++m->asked % opt.tool_every == 0) call_tool(m);
    else begin_message(m);
}

void reply_cancel(model *m, const char *reason) {
    char details[96];
    snprintf(details, sizeof details, "{\"type\":\"cancelled\",\"reason\":\"%s\"}", reason);
    if (m->is_active) finish_message(m, "cancelled", details);
}

void replies_init(void) {
    uint8_t raw[16384];
    slots = opt.delta_ms * 1000000 / TICK_NS;
    size_t pcm = (size_t)opt.delta_ms * 48 - 12;
    for (size_t i = 0; i < pcm; i++) raw[i] = (uint8_t)(i % 2 ? 0 : rand());
    base64_put(body, raw, pcm / 3 * 3);
    tick_due = now_ns();
}

/* One tick of the wheel: each reply that is streaming once per delta_ms. */
static void run_slot(void) {
    model *m = slot_heads[tick % slots], *next, *kept = NULL;
    slot_heads[tick % slots] = NULL;
    for (tick++; m; m = next) {
        next = m->next_in_slot;
        m->is_queued = 0;
        if (!m->is_active || m->c.is_dead) continue;
        send_chunk(m);
        if (--m->left <= 0) {
            finish_message(m, "completed", "{\"type\":\"completed\"}");
            continue;
        }
        m->is_queued = 1;
        m->next_in_slot = kept;
        kept = m;
    }
    /* Only this slot's own list was taken off, so what others have put there meanwhile goes behind. */
    model **tail = &slot_heads[(tick - 1) % slots];
    while (*tail) tail = &(*tail)->next_in_slot;
    *tail = kept;
}

int64_t replies_run(int64_t now) {
    while (tick_due <= now) {
        histogram_add(&res.upstream_lag, now - tick_due);
        run_slot();
        tick_due += TICK_NS;
    }
    return tick_due;
}
