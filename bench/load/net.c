/* Non-blocking WebSocket connections: read, split into frames, answer pings, write with a bounded remainder. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "load.h"
#include "wire.h"

enum { READ_SIZE = 256 * 1024, MAX_UNSENT = 256 * 1024, MAX_TEXT = 64 * 1024 };

static uint8_t scratch[READ_SIZE];
static conn *corked; /* its frames wait in `bundle` for one send */
static uint8_t bundle[MAX_TEXT * 4];
static size_t bundle_size;

static void grow(uint8_t **buffer, size_t *room, size_t needed) {
    if (needed <= *room) return;
    size_t size = *room ? *room : 4096;
    while (size < needed) size *= 2;
    *buffer = realloc(*buffer, size);
    *room = size;
    if (!*buffer) {
        fprintf(stderr, "loadgen: out of memory\n");
        exit(1);
    }
}

static void watch(conn *c, int op) {
    struct epoll_event event = {.events = EPOLLIN | (c->wants_write ? EPOLLOUT : 0), .data.ptr = c};
    epoll_ctl(epoll_fd, op, c->fd, &event);
}

void conn_watch(conn *c) { watch(c, EPOLL_CTL_ADD); }

void conn_kill(conn *c) {
    if (c->is_dead) return;
    c->is_dead = 1;
    if (c->tls) tls_free(c);
    close(c->fd);
    free(c->in);
    free(c->out);
    c->in = c->out = NULL;
    c->in_size = c->in_room = c->out_size = c->out_room = 0;
    if (c->on_lost) c->on_lost(c);
}

static void want_write(conn *c, int wanted) {
    if (c->wants_write == wanted) return;
    c->wants_write = wanted;
    watch(c, EPOLL_CTL_MOD);
}

/* Between cork and uncork a connection's frames go out together. One at a time; inner pairs do nothing. */
static int cork_depth;

void conn_cork(conn *c) {
    if (cork_depth++ == 0) corked = c;
}

static void flush_bundle(conn *c) {
    size_t size = bundle_size;
    bundle_size = 0;
    corked = NULL;
    if (size) conn_send_raw(c, bundle, size);
}

void conn_uncork(conn *c) {
    if (--cork_depth == 0) flush_bundle(c);
}

static ssize_t put(conn *c, const uint8_t *data, size_t size) {
    return c->tls ? tls_send(c, data, size) : send(c->fd, data, size, MSG_NOSIGNAL);
}

void conn_send_raw(conn *c, const uint8_t *data, size_t size) {
    if (c->is_dead) return;
    if (c == corked) {
        if (bundle_size + size > sizeof bundle) {
            flush_bundle(c);
            corked = c;
        }
        memcpy(bundle + bundle_size, data, size);
        bundle_size += size;
        return;
    }
    if (c->out_size == 0) {
        ssize_t sent = put(c, data, size);
        if (sent == (ssize_t)size) return;
        if (sent < 0 && errno != EAGAIN && errno != ENOTCONN) {
            conn_kill(c);
            return;
        }
        if (sent > 0) {
            data += sent;
            size -= (size_t)sent;
        }
    } else if (c->out_size > MAX_UNSENT) {
        /* The gateway does not read: a client would drop audio, and so do we, in whole frames. */
        res.dropped_up++;
        return;
    }
    grow(&c->out, &c->out_room, c->out_size + size);
    memcpy(c->out + c->out_size, data, size);
    c->out_size += size;
    want_write(c, 1);
}

void conn_send_text(conn *c, const char *format, ...) {
    static uint8_t frame[MAX_HEADER + MAX_TEXT];
    va_list arguments;
    va_start(arguments, format);
    int size = vsnprintf((char *)frame + MAX_HEADER, MAX_TEXT, format, arguments);
    va_end(arguments);
    if (size < 0 || size >= MAX_TEXT) {
        fprintf(stderr, "loadgen: a frame of %d bytes does not fit\n", size);
        exit(1);
    }
    uint8_t head[MAX_HEADER];
    size_t head_size = put_header(head, OP_TEXT, (size_t)size, c->is_client);
    if (c->is_client) mask_range(frame + MAX_HEADER, 0, (size_t)size);
    uint8_t *begin = frame + MAX_HEADER - head_size;
    memcpy(begin, head, head_size);
    conn_send_raw(c, begin, head_size + (size_t)size);
}

static void on_frame(conn *c, const frame_head *head, uint8_t *payload) {
    if (head->is_masked)
        for (size_t i = 0; i < head->length; i++) payload[i] ^= head->key[i & 3];
    if (head->opcode == OP_TEXT && head->is_final) {
        c->on_text(c, (char *)payload, head->length);
    } else if (head->opcode == OP_PING && head->length < 126) {
        uint8_t pong[MAX_HEADER + 126];
        size_t n = put_header(pong, OP_PONG, head->length, c->is_client);
        memcpy(pong + n, payload, head->length);
        if (c->is_client) mask_range(pong + n, 0, head->length);
        conn_send_raw(c, pong, n + head->length);
    } else if (head->opcode == OP_CLOSE) {
        conn_kill(c);
    } else if (head->opcode != OP_PONG) {
        snprintf(res.first_error, sizeof res.first_error, "unexpected frame: opcode %d final %d", head->opcode, head->is_final);
        res.errors++;
    }
}

/* The HTTP head of either side; returns its size, 0 if more is needed. A refusal kills the connection. */
static size_t take_http(conn *c, uint8_t *data, size_t size) {
    uint8_t *end = memmem(data, size, "\r\n\r\n", 4);
    if (!end) return 0;
    if (c->is_client && (size < 12 || memcmp(data + 9, "101", 3) != 0)) {
        snprintf(res.first_error, sizeof res.first_error, "upgrade refused: %.40s", (char *)data);
        res.errors++;
        conn_kill(c);
        return 0;
    }
    uint8_t *key = c->is_client ? NULL : memmem(data, size, "Sec-WebSocket-Key: ", 19);
    if (key) accept_key(c->accept, (char *)key + 19);
    c->is_upgraded = 1;
    c->on_upgraded(c);
    return (size_t)(end + 4 - data);
}

static void take(conn *c, uint8_t *data, size_t size) {
    size_t at = 0;
    frame_head head;
    if (!c->is_upgraded) at = take_http(c, data, size);
    while (!c->is_dead && c->is_upgraded && get_frame(data + at, size - at, &head)) {
        uint8_t *payload = data + at + head.header;
        at += head.header + head.length;
        if (c->is_client) res.bytes_down += head.header + head.length;
        on_frame(c, &head, payload);
    }
    if (c->is_dead) return;
    size_t rest = size - at;
    if (rest && (data != c->in || at)) {
        grow(&c->in, &c->in_room, rest);
        memmove(c->in, data == c->in ? c->in + at : data + at, rest);
    }
    c->in_size = rest;
}

static void read_once(conn *c) {
    ssize_t got = c->tls ? tls_recv(c, scratch, sizeof scratch) : recv(c->fd, scratch, sizeof scratch, 0);
    if (got == 0 || (got < 0 && errno != EAGAIN)) {
        conn_kill(c);
        return;
    }
    if (got < 0) return;
    if (c->in_size == 0) {
        /* The usual case: whole frames, never copied. */
        take(c, scratch, (size_t)got);
        return;
    }
    grow(&c->in, &c->in_room, c->in_size + (size_t)got);
    memcpy(c->in + c->in_size, scratch, (size_t)got);
    take(c, c->in, c->in_size + (size_t)got);
}

static void on_readable(conn *c) {
    /* A record that TLS has read ahead makes no event of its own. */
    do read_once(c);
    while (!c->is_dead && c->tls && tls_has_more(c));
}

static void on_writable(conn *c) {
    ssize_t sent = put(c, c->out, c->out_size);
    if (sent < 0 && errno != EAGAIN) {
        conn_kill(c);
        return;
    }
    if (sent > 0) {
        c->out_size -= (size_t)sent;
        memmove(c->out, c->out + sent, c->out_size);
    }
    if (c->out_size == 0) want_write(c, 0);
}

void conn_on_epoll(conn *c, uint32_t events) {
    if (!c->is_dead && (events & EPOLLOUT)) {
        if (c->out_size) on_writable(c);
        else want_write(c, 0);
    }
    if (!c->is_dead && (events & (EPOLLIN | EPOLLHUP | EPOLLERR))) on_readable(c);
}
