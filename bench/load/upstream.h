/* What the files of the upstream server share: one model is one provider session on one connection. */
#ifndef OPENLINE_UPSTREAM_H
#define OPENLINE_UPSTREAM_H

#include "load.h"

#define TOOL "lookup" /* the one that is called, of all that a session declares */
enum { ID_SIZE = 48, METADATA_SIZE = 2048, TRANSCRIPT_SIZE = 4096 };

typedef struct model model;
struct model {
    conn c;
    int number, events; /* of the session, and of what it has said */

    /* As session.update set them. */
    int detects, is_semantic, creates, interrupts, transcribes, silence_ms, has_tool;

    /* What it hears. */
    int64_t heard_ms, buffered_ms;
    int loud_ms, quiet_ms, is_speech;

    /* The conversation. */
    int items, asked, owes_answer;
    char last_item[ID_SIZE];

    /* The response that is being made, if any. */
    int is_active, is_queued, responses, left, spoken;
    char reply_previous[ID_SIZE];
    char metadata[METADATA_SIZE];
    char transcript[TRANSCRIPT_SIZE];
    size_t transcript_size;
    model *next_in_slot;
};

/* upstream.c: an event with its type and id; `format` begins behind them with a comma, or is "". */
void emit(model *m, const char *kind, const char *format, ...) __attribute__((format(printf, 3, 4)));
void emit_item(model *m, const char *kind, const char *previous, const char *item);
void emit_error(model *m, const char *code, const char *message, const char *text, size_t size);

/* replies.c */
void replies_init(void);
int64_t replies_run(int64_t now);
void reply_begin(model *m, const char *text, size_t size); /* text: the response.create, or NULL */
void reply_cancel(model *m, const char *reason);
#endif
