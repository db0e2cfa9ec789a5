/* Latency histogram: the same buckets as openline.testing.histogram, so that both can be compared.
 * 32 buckets an octave of microseconds; a percentile is at most 3 % too high. */
#ifndef OPENLINE_HISTOGRAM_H
#define OPENLINE_HISTOGRAM_H

#include <stdint.h>
#include <stdio.h>

enum { SUB_BITS = 5, BUCKETS = 900 };

typedef struct {
    uint64_t total;
    uint64_t max_us;
    uint32_t counts[BUCKETS];
} histogram;

static inline int bucket_of(uint64_t us) {
    if (us < (1u << SUB_BITS)) return (int)us;
    int shift = 63 - __builtin_clzll(us) - SUB_BITS;
    int64_t index = ((int64_t)shift << SUB_BITS) + (int64_t)(us >> shift);
    return index < BUCKETS ? (int)index : BUCKETS - 1;
}

static inline void histogram_add(histogram *h, int64_t ns) {
    uint64_t us = ns < 0 ? 0 : (uint64_t)ns / 1000;
    h->counts[bucket_of(us)]++;
    h->total++;
    if (us > h->max_us) h->max_us = us;
}

static inline double histogram_ms(const histogram *h, double percent) {
    uint64_t needed = (uint64_t)((double)h->total * percent / 100.0 + 0.999999), seen = 0;
    if (needed == 0) needed = 1;
    for (int i = 0; i < BUCKETS; i++) {
        seen += h->counts[i];
        if (seen < needed) continue;
        if (i < (2 << SUB_BITS)) return i / 1000.0;
        int shift = (i >> SUB_BITS) - 1;
        uint64_t top = (((uint64_t)(i & ((1 << SUB_BITS) - 1)) + (1 << SUB_BITS) + 1) << shift) - 1;
        return (double)top / 1000.0;
    }
    return 0.0;
}

/* "name": {"n":…, "p50_ms":…, "p99_ms":…, "p999_ms":…, "max_ms":…}; null where nothing was counted. */
static inline void histogram_print(FILE *out, const char *name, const histogram *h) {
    if (h->total == 0) {
        fprintf(out, "\"%s\": null", name);
        return;
    }
    fprintf(out, "\"%s\": {\"n\": %llu, \"p50_ms\": %.3f, \"p90_ms\": %.3f, \"p99_ms\": %.3f, \"p999_ms\": %.3f, \"max_ms\": %.3f}",
            name, (unsigned long long)h->total, histogram_ms(h, 50), histogram_ms(h, 90), histogram_ms(h, 99),
            histogram_ms(h, 99.9), (double)h->max_us / 1000.0);
}

#endif
