/* JSON as far as the generator reads it: it looks for names, and trusts that a peer writes valid JSON. */
#define _GNU_SOURCE
#include <stdio.h>
#include <string.h>

#include "load.h"

/* Behind a colon there may be a blank (Python's json) or none. */
char *json_value(char *text, size_t size, const char *name) {
    char quoted[48];
    int length = snprintf(quoted, sizeof quoted, "\"%s\":", name);
    char *found = memmem(text, size, quoted, (size_t)length);
    if (!found) return NULL;
    found += length;
    while (found < text + size && *found == ' ') found++;
    if (found < text + size && *found == '"') found++;
    return found < text + size ? found : NULL;
}

int json_is_type(const char *text, size_t size, const char *type) {
    size_t length = strlen(type);
    return size > length && memcmp(text, type, length) == 0 && text[length] == '"';
}

/* Copies the string of `name`; leaves `out` as it is where there is none, or it does not fit. */
void json_string(const char *text, size_t size, const char *name, char *out, size_t room) {
    const char *value = json_value((char *)text, size, name);
    if (!value || value[-1] != '"') return;
    const char *end = memchr(value, '"', (size_t)(text + size - value));
    if (end && (size_t)(end - value) < room) snprintf(out, room, "%.*s", (int)(end - value), value);
}

/* Bytes of the object that begins at `text`; 0 if none does. */
size_t json_object_size(const char *text, size_t size) {
    int depth = 0, is_string = 0;
    if (!size || text[0] != '{') return 0;
    for (size_t i = 0; i < size; i++) {
        char c = text[i];
        if (is_string) {
            if (c == '\\') i++;
            else if (c == '"') is_string = 0;
        } else if (c == '"') {
            is_string = 1;
        } else if (c == '{') {
            depth++;
        } else if (c == '}' && --depth == 0) {
            return i + 1;
        }
    }
    return 0;
}

/* Takes the blanks between tokens out, in place; returns the new size. */
size_t json_compact(char *text, size_t size) {
    size_t kept = 0;
    int is_string = 0;
    for (size_t i = 0; i < size; i++) {
        char c = text[i];
        if (!is_string && (c == ' ' || c == '\n' || c == '\t' || c == '\r')) continue;
        text[kept++] = c;
        if (is_string && c == '\\' && i + 1 < size) text[kept++] = text[++i];
        else if (c == '"') is_string = !is_string;
    }
    return kept;
}

/* The value of the outermost "type": for clients that do not put it first. */
char *json_top_type(char *text, size_t size) {
    int depth = 0, is_string = 0;
    for (size_t i = 0; i < size; i++) {
        char c = text[i];
        if (is_string) {
            if (c == '\\') i++;
            else if (c == '"') is_string = 0;
        } else if (c == '"') {
            if (depth == 1 && size - i > 7 && memcmp(text + i, "\"type\":", 7) == 0)
                return json_value(text + i, size - i, "type");
            is_string = 1;
        } else if (c == '{' || c == '[') {
            depth++;
        } else if (c == '}' || c == ']') {
            depth--;
        }
    }
    return NULL;
}

int64_t mark_delay_ns(const char *text, size_t size, int64_t now) {
    const char *mark = memrchr(text, '~', size);
    if (!mark || mark + 12 > text + size) return -1;
    int64_t us = 0;
    for (int i = 1; i <= 11; i++) {
        char c = mark[i];
        int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
        if (digit < 0) return -1;
        us = us << 4 | digit;
    }
    int64_t mask = ((int64_t)1 << 44) - 1;
    int64_t delay = ((now / 1000 & mask) - us) & mask;
    return delay < 60000000 ? delay * 1000 : 0; /* a mark from the future is one of this very microsecond */
}
