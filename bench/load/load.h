/* What the files of the generator share: options, one connection type, the result, and the clock. */
#ifndef OPENLINE_LOAD_H
#define OPENLINE_LOAD_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#include "histogram.h"

enum { MODE_VAD, MODE_MANUAL, MODE_ITEMS, MODE_IDLE, MODE_SERVE, MODE_CERT };

typedef struct {
    const char *host, *path, *key, *upstream_cert; /* a path: the upstream speaks TLS, with the certificate there */
    int port, upstream_port;
    int sessions, mode, tools;
    int frame_ms, speech_ms, silence_ms, gap_ms, stagger_ms, ramp_ms;
    int item_rate;        /* items mode: commands a second and session */
    double warmup_s, seconds_s;
    int reply_ms, delta_ms, tool_every; /* upstream: what it answers with */
    int look_us;          /* between two looks at the sockets; 0: each write to them wakes the generator */
} options;

typedef struct conn conn;
struct conn {
    int fd, is_client, is_upgraded, is_dead, wants_write;
    uint8_t *in, *out;
    size_t in_size, in_room, out_size, out_room;
    void *owner;
    struct ssl_st *tls; /* NULL: plain */
    char accept[32]; /* server side: the Sec-WebSocket-Accept to answer with */
    void (*on_upgraded)(conn *c);
    void (*on_text)(conn *c, char *text, size_t size); /* text[size] is not 0 */
    void (*on_lost)(conn *c);
};

typedef struct {
    /* Everything here is zeroed when the measuring window opens. */
    uint64_t frames_up, media_down, partial_down, commit_down, other_down, bytes_down;
    uint64_t turns, tool_calls, stalls, errors, lost, dropped_up;
    /* audio: every chunk; steady: those after the first half second of a reply, for runtimes that begin late. */
    /* The upstream's side. all: each frame of a caller; up: the newest of each append, which need not have waited
     * for others to be joined with; lag: how late chunks leave, the generator's own fault. */
    uint64_t upstream_media, upstream_calls, refused;
    histogram audio, steady, text, held, committed, reply, send_lag, upstream_up, upstream_all, upstream_lag;
    char first_refused[80]; /* the code of the first error that the upstream had to send */
    char first_error[80]; /* the code of the first error frame; never its message */
} result;

extern options opt;
extern result res;
extern int epoll_fd;

static inline int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

void set_nonblocking(int fd); /* loadgen.c */

/* net.c: connections on the one epoll */
void conn_watch(conn *c);
void conn_on_epoll(conn *c, uint32_t events);
void conn_send_raw(conn *c, const uint8_t *data, size_t size); /* a finished frame or HTTP head */
void conn_cork(conn *c);
void conn_uncork(conn *c);
void conn_send_text(conn *c, const char *format, ...) __attribute__((format(printf, 2, 3)));
void conn_kill(conn *c);

/* tls.c: as send and recv do, errno EAGAIN where the socket would block */
void tls_make(const char *certificate_path); /* writes it, and its key to the same path with .key behind */
void tls_init(const char *certificate_path);
void tls_accept(conn *c);
ssize_t tls_send(conn *c, const void *data, size_t size);
ssize_t tls_recv(conn *c, void *data, size_t size);
int tls_has_more(conn *c);
void tls_free(conn *c);

/* json.c; json_value: a pointer behind `"name":` and an opening quote if there is one, or NULL */
char *json_value(char *text, size_t size, const char *name);
int json_is_type(const char *text, size_t size, const char *type);
void json_string(const char *text, size_t size, const char *name, char *out, size_t room);
size_t json_object_size(const char *text, size_t size);
size_t json_compact(char *text, size_t size);
char *json_top_type(char *text, size_t size);
int64_t mark_delay_ns(const char *text, size_t size, int64_t now); /* of the last ~ mark; -1: none */

/* client.c */
void clients_init(void);
int64_t clients_run(int64_t now); /* sends what is due; returns when the next is */
int clients_ready(void);

/* upstream.c */
void upstream_init(void);
int64_t upstream_run(int64_t now);
int upstream_owns(void *pointer);
void upstream_accept(void);

enum { LOUD = 20000, STAMP_BYTES = 8 };
#endif
