/* WebSocket frames (RFC 6455) and base64, as far as the generator needs them. No extensions, no fragments out. */
#ifndef OPENLINE_WIRE_H
#define OPENLINE_WIRE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { OP_CONTINUATION = 0, OP_TEXT = 1, OP_CLOSE = 8, OP_PING = 9, OP_PONG = 10, MAX_HEADER = 14 };

/* One fixed mask key: RFC 6455 wants it unpredictable against hostile proxies, of which loopback has none, and
 * a fixed one lets the constant part of an audio frame be masked once. It is not zero: unmasking must cost. */
static const uint8_t MASK_KEY[4] = {0x37, 0xfa, 0x21, 0x3d};

static inline void mask_range(uint8_t *payload, size_t from, size_t to) {
    for (size_t i = from; i < to; i++) payload[i] ^= MASK_KEY[i & 3];
}

/* Writes a header (masked if is_client) for `length` bytes; returns its size. */
static inline size_t put_header(uint8_t *out, int opcode, size_t length, int is_client) {
    size_t n = 0;
    uint8_t mask_bit = is_client ? 0x80 : 0;
    out[n++] = (uint8_t)(0x80 | opcode);
    if (length < 126) {
        out[n++] = (uint8_t)(mask_bit | length);
    } else if (length < 65536) {
        out[n++] = (uint8_t)(mask_bit | 126);
        out[n++] = (uint8_t)(length >> 8);
        out[n++] = (uint8_t)length;
    } else {
        out[n++] = (uint8_t)(mask_bit | 127);
        for (int shift = 56; shift >= 0; shift -= 8) out[n++] = (uint8_t)((uint64_t)length >> shift);
    }
    if (is_client) {
        memcpy(out + n, MASK_KEY, 4);
        n += 4;
    }
    return n;
}

typedef struct {
    int opcode;
    int is_final;
    int is_masked;
    uint8_t key[4];
    size_t header, length;
} frame_head;

/* 1: a whole frame lies at data; 0: more bytes are needed. */
static inline int get_frame(const uint8_t *data, size_t size, frame_head *head) {
    if (size < 2) return 0;
    head->opcode = data[0] & 15;
    head->is_final = data[0] >> 7;
    head->is_masked = data[1] >> 7;
    head->length = data[1] & 127;
    head->header = 2;
    if (head->length == 126) {
        if (size < 4) return 0;
        head->length = (size_t)data[2] << 8 | data[3];
        head->header = 4;
    } else if (head->length == 127) {
        if (size < 10) return 0;
        head->length = 0;
        for (int i = 2; i < 10; i++) head->length = head->length << 8 | data[i];
        head->header = 10;
    }
    if (head->is_masked) {
        if (size < head->header + 4) return 0;
        memcpy(head->key, data + head->header, 4);
        head->header += 4;
    }
    return size >= head->header + head->length;
}

static const char BASE64[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/* `size` must be a multiple of 3. */
static inline void base64_put(char *out, const uint8_t *in, size_t size) {
    for (size_t i = 0; i < size; i += 3, out += 4) {
        uint32_t v = (uint32_t)in[i] << 16 | (uint32_t)in[i + 1] << 8 | in[i + 2];
        out[0] = BASE64[v >> 18];
        out[1] = BASE64[v >> 12 & 63];
        out[2] = BASE64[v >> 6 & 63];
        out[3] = BASE64[v & 63];
    }
}

static inline int base64_value(char c) {
    if (c >= 'A' && c <= 'Z') return c - 'A';
    if (c >= 'a' && c <= 'z') return c - 'a' + 26;
    if (c >= '0' && c <= '9') return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

/* The first 12 bytes out of 16 characters; 0 if they are not base64. */
static inline int base64_get12(uint8_t out[12], const char *in) {
    for (int i = 0; i < 4; i++, in += 4) {
        uint32_t v = 0;
        for (int k = 0; k < 4; k++) {
            int value = base64_value(in[k]);
            if (value < 0) return 0;
            v = v << 6 | (uint32_t)value;
        }
        out[i * 3] = (uint8_t)(v >> 16);
        out[i * 3 + 1] = (uint8_t)(v >> 8);
        out[i * 3 + 2] = (uint8_t)v;
    }
    return 1;
}

static inline uint32_t rotate(uint32_t value, int by) { return value << by | value >> (32 - by); }

/* SHA-1 (RFC 3174) of at most 119 bytes: the handshake needs no more. */
static inline void sha1(uint8_t out[20], const uint8_t *data, size_t size) {
    uint32_t h[5] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0}, w[80];
    uint8_t block[128] = {0};
    size_t total = size < 56 ? 64 : 128;
    memcpy(block, data, size);
    block[size] = 0x80;
    block[total - 2] = (uint8_t)(size * 8 >> 8);
    block[total - 1] = (uint8_t)(size * 8);
    for (size_t at = 0; at < total; at += 64) {
        for (int i = 0; i < 16; i++)
            w[i] = (uint32_t)block[at + i * 4] << 24 | (uint32_t)block[at + i * 4 + 1] << 16 |
                   (uint32_t)block[at + i * 4 + 2] << 8 | block[at + i * 4 + 3];
        for (int i = 16; i < 80; i++) w[i] = rotate(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
        uint32_t a = h[0], b = h[1], c = h[2], d = h[3], e = h[4];
        for (int i = 0; i < 80; i++) {
            uint32_t f = i < 20 ? (b & c) | (~b & d) : i < 40 || i >= 60 ? b ^ c ^ d : (b & c) | (b & d) | (c & d);
            uint32_t k = i < 20 ? 0x5a827999 : i < 40 ? 0x6ed9eba1 : i < 60 ? 0x8f1bbcdc : 0xca62c1d6;
            uint32_t t = rotate(a, 5) + f + e + k + w[i];
            e = d, d = c, c = rotate(b, 30), b = a, a = t;
        }
        h[0] += a, h[1] += b, h[2] += c, h[3] += d, h[4] += e;
    }
    for (int i = 0; i < 20; i++) out[i] = (uint8_t)(h[i / 4] >> (24 - i % 4 * 8));
}

/* Sec-WebSocket-Accept (RFC 6455 §4.2.2) for the 24 characters of a key. */
static inline void accept_key(char out[32], const char *key) {
    uint8_t digest[21] = {0};
    char joined[60];
    memcpy(joined, key, 24);
    memcpy(joined + 24, "258EAFA5-E914-47DA-95CA-C5AB0DC85B11", 36);
    sha1(digest, (const uint8_t *)joined, sizeof joined);
    base64_put(out, digest, 21);
    out[27] = '=';
    out[28] = 0;
}

#endif
