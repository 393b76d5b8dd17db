// Small helpers over the generated bindings: texts that are borrowed, copied and joined, and JSON as far as a plugin without a
// JSON library needs it. Include it after the header of the world, with ACE_WORLD set to its prefix:
//
//   #include "policy_plugin.h"
//   #define ACE_WORLD policy_plugin
//   #include "ace.h"
#ifndef ACE_H
#define ACE_H

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define ACE_JOIN_(a, b) a##b
#define ACE_JOIN(a, b) ACE_JOIN_(a, b)

// UTF-8, not ended by a zero byte.
typedef ACE_JOIN(ACE_WORLD, _string_t) ace_text;

// A text that stays where it is: an argument for an import. Never to be freed.
static inline ace_text ace_borrowed(const char *text) { return (ace_text){(uint8_t *)text, strlen(text)}; }

// A copy of its own: for what is returned, whose memory the bindings free.
static inline ace_text ace_copied(const char *text, size_t length) {
  ace_text copy = {malloc(length ? length : 1), length};
  if (copy.ptr == NULL) abort();
  memcpy(copy.ptr, text, length);
  return copy;
}

static inline ace_text ace_copy(const char *text) { return ace_copied(text, strlen(text)); }

static inline bool ace_equals(ace_text text, const char *other) {
  return text.len == strlen(other) && memcmp(text.ptr, other, text.len) == 0;
}

// Adds to a text that was made by ace_copy, or is {NULL, 0}.
static inline void ace_append(ace_text *line, const void *text, size_t length) {
  line->ptr = realloc(line->ptr, line->len + length + 1);
  if (line->ptr == NULL) abort();
  memcpy(line->ptr + line->len, text, length);
  line->len += length;
}

static inline void ace_append_text(ace_text *line, const char *text) { ace_append(line, text, strlen(text)); }

// A decimal number.
static inline void ace_append_number(ace_text *line, int64_t number) {
  char digits[20];
  size_t at = sizeof digits;
  uint64_t left = number < 0 ? -(uint64_t)number : (uint64_t)number;
  do digits[--at] = (char)('0' + left % 10);
  while (left /= 10);
  if (number < 0) ace_append(line, "-", 1);
  ace_append(line, digits + at, sizeof digits - at);
}

// The text as a JSON string, with its quotes.
static inline void ace_append_json(ace_text *line, ace_text text) {
  ace_append(line, "\"", 1);
  for (size_t i = 0; i < text.len; i++) {
    uint8_t c = text.ptr[i];
    if (c == '"' || c == '\\') {
      ace_append(line, (char[]){'\\', (char)c}, 2);
    } else if (c < 0x20) {
      const char *hex = "0123456789abcdef";
      ace_append(line, (char[]){'\\', 'u', '0', '0', hex[c >> 4], hex[c & 15]}, 6);
    } else {
      ace_append(line, &c, 1);
    }
  }
  ace_append(line, "\"", 1);
}

// The next plain string of a JSON list such as ["push", "sms"], from `*at` on: false at the end, or where there is none. Strings
// with escapes end the list; no channel type has any.
static inline bool ace_next_string(ace_text json, size_t *at, ace_text *item) {
  while (*at < json.len && json.ptr[*at] != '"') ++*at;
  size_t start = ++*at;
  while (*at < json.len && json.ptr[*at] != '"' && json.ptr[*at] != '\\') ++*at;
  if (*at >= json.len || json.ptr[*at] == '\\') return false;
  *item = (ace_text){json.ptr + start, *at - start};
  ++*at;
  return true;
}

// The next whole number of a JSON list, as above.
static inline bool ace_next_number(ace_text json, size_t *at, int64_t *number) {
  while (*at < json.len && json.ptr[*at] != '-' && (json.ptr[*at] < '0' || json.ptr[*at] > '9')) {
    if (json.ptr[(*at)++] == ']') return false;
  }
  if (*at >= json.len) return false;
  bool is_negative = json.ptr[*at] == '-';
  if (is_negative) ++*at;
  for (*number = 0; *at < json.len && json.ptr[*at] >= '0' && json.ptr[*at] <= '9'; ++*at) {
    *number = *number * 10 + (json.ptr[*at] - '0');
  }
  if (is_negative) *number = -*number;
  return true;
}

#endif
