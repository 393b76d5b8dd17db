// Reads JSON without a library: the members of an object, the items of a list, texts and whole numbers. Values are borrowed parts of
// the JSON. Nothing is read of a text that is not valid JSON to its end.
#ifndef ACE_JSON_H
#define ACE_JSON_H

#include <float.h>

#include "ace.h"

// How many lists and objects may be in each other: the stack is small.
#define ACE_JSON_DEPTH_MAX 127

static inline bool ace_json_is_space(uint8_t c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

static inline size_t ace_json_skip_spaces(ace_text json, size_t at) {
  while (at < json.len && ace_json_is_space(json.ptr[at])) at++;
  return at;
}

// The number of four hexadecimal digits; -1: they are none.
static inline int32_t ace_json_hex(const uint8_t *digits) {
  int32_t number = 0;
  for (int i = 0; i < 4; i++) {
    uint8_t c = digits[i], lower = c | 0x20;
    if (c >= '0' && c <= '9') number = number * 16 + (c - '0');
    else if (lower >= 'a' && lower <= 'f') number = number * 16 + (lower - 'a' + 10);
    else return -1;
  }
  return number;
}

// Writes a character as UTF-8, at most 4 bytes, and returns their number.
static inline size_t ace_utf8(uint32_t c, uint8_t *bytes) {
  size_t length = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
  static const uint8_t first[] = {0, 0xc0, 0xe0, 0xf0};
  for (size_t i = length - 1; i > 0; i--, c >>= 6) bytes[i] = 0x80 | (c & 0x3f);
  bytes[0] = first[length - 1] | (uint8_t)c;
  return length;
}

// The length of the UTF-8 character at the start of some bytes; 0: it is none. The host accepts no other texts.
static inline size_t ace_utf8_length(const uint8_t *bytes, size_t length) {
  uint8_t c = bytes[0];
  size_t wanted = c < 0x80 ? 1 : c >= 0xc2 && c < 0xe0 ? 2 : c >= 0xe0 && c < 0xf0 ? 3 : c >= 0xf0 && c < 0xf5 ? 4 : 0;
  if (wanted > length) return 0;
  for (size_t i = 1; i < wanted; i++) {
    if ((bytes[i] & 0xc0) != 0x80) return 0;
  }
  bool is_too_long = (c == 0xe0 && bytes[1] < 0xa0) || (c == 0xf0 && bytes[1] < 0x90);
  bool is_no_character = (c == 0xed && bytes[1] >= 0xa0) || (c == 0xf4 && bytes[1] >= 0x90);
  return is_too_long || is_no_character ? 0 : wanted;
}

// Reads the character that an escape stands for, and returns the escape's length; 0: it is none.
static inline size_t ace_json_escape(const uint8_t *escape, size_t length, uint32_t *character) {
  static const char names[] = "\"\\/bfnrt", characters[] = "\"\\/\b\f\n\r\t";
  if (length < 2) return 0;
  const char *name = escape[1] == 0 ? NULL : strchr(names, escape[1]);
  if (name != NULL) {
    *character = (uint8_t)characters[name - names];
    return 2;
  }
  int32_t first = escape[1] == 'u' && length >= 6 ? ace_json_hex(escape + 2) : -1;
  if (first < 0 || (first >= 0xdc00 && first < 0xe000)) return 0;
  *character = (uint32_t)first;
  if (first < 0xd800 || first >= 0xe000) return 6;
  // Two escapes are one character beyond the first 65,536.
  int32_t second = length >= 12 && escape[6] == '\\' && escape[7] == 'u' ? ace_json_hex(escape + 8) : -1;
  if (second < 0xdc00 || second >= 0xe000) return 0;
  *character = 0x10000 + ((uint32_t)(first - 0xd800) << 10) + (uint32_t)(second - 0xdc00);
  return 12;
}

// The end of the string whose quote is here; 0: it is not valid.
static inline size_t ace_json_string_end(ace_text json, size_t at) {
  uint32_t character;
  for (at++; at < json.len && json.ptr[at] != '"';) {
    const uint8_t *here = json.ptr + at;
    size_t length = *here == '\\' ? ace_json_escape(here, json.len - at, &character) : ace_utf8_length(here, json.len - at);
    if (length == 0 || *here < 0x20) return 0;
    at += length;
  }
  return at < json.len ? at + 1 : 0;
}

static inline size_t ace_json_digits_end(ace_text json, size_t at) {
  while (at < json.len && json.ptr[at] >= '0' && json.ptr[at] <= '9') at++;
  return at;
}

// Whether a number is not beyond a double.
static inline bool ace_json_is_finite(const uint8_t *number, size_t length) {
  double value = 0;
  int64_t scale = 0, exponent = 0;
  bool is_fraction = false, is_negative = false;
  size_t at = 0;
  for (; at < length && (number[at] | 0x20) != 'e'; at++) {
    if (number[at] == '.') is_fraction = true;
    if (number[at] < '0' || number[at] > '9') continue;
    bool has_room = value < 1e300;
    if (has_room) value = value * 10 + (number[at] - '0');
    scale += has_room ? -is_fraction : !is_fraction;
  }
  for (at++; at < length; at++) {
    if (number[at] == '-') is_negative = true;
    if (number[at] >= '0' && number[at] <= '9' && exponent < 1000000000) exponent = exponent * 10 + (number[at] - '0');
  }
  for (scale += is_negative ? -exponent : exponent; scale > 0 && value > 0 && value <= DBL_MAX; scale--) value *= 10;
  return value <= DBL_MAX;
}

// The end of the number whose sign or first digit is here; 0: it is not valid.
static inline size_t ace_json_number_end(ace_text json, size_t start) {
  size_t first = start + (json.ptr[start] == '-'), end = ace_json_digits_end(json, first);
  if (end == first || (json.ptr[first] == '0' && end > first + 1)) return 0;
  if (end < json.len && json.ptr[end] == '.') {
    size_t fraction = end + 1;
    end = ace_json_digits_end(json, fraction);
    if (end == fraction) return 0;
  }
  if (end < json.len && (json.ptr[end] | 0x20) == 'e') {
    size_t exponent = end + 1;
    if (exponent < json.len && (json.ptr[exponent] == '+' || json.ptr[exponent] == '-')) exponent++;
    end = ace_json_digits_end(json, exponent);
    if (end == exponent) return 0;
  }
  return ace_json_is_finite(json.ptr + start, end - start) ? end : 0;
}

static inline size_t ace_json_end(ace_text json, size_t at, size_t depth);

// The end of the list or object whose bracket is here; 0: it is not valid. `depth`: how many may be in each other.
static inline size_t ace_json_list_end(ace_text json, size_t at, size_t depth) {
  bool is_object = json.ptr[at] == '{';
  uint8_t bracket = is_object ? '}' : ']';
  if (depth == 0) return 0;
  at = ace_json_skip_spaces(json, at + 1);
  if (at < json.len && json.ptr[at] == bracket) return at + 1;
  while (true) {
    if (is_object) {
      size_t key_end = at < json.len && json.ptr[at] == '"' ? ace_json_string_end(json, at) : 0;
      size_t colon = ace_json_skip_spaces(json, key_end);
      if (key_end == 0 || colon >= json.len || json.ptr[colon] != ':') return 0;
      at = ace_json_skip_spaces(json, colon + 1);
    }
    size_t end = ace_json_end(json, at, depth - 1);
    at = ace_json_skip_spaces(json, end);
    if (end == 0 || at >= json.len) return 0;
    if (json.ptr[at] == bracket) return at + 1;
    if (json.ptr[at] != ',') return 0;
    at = ace_json_skip_spaces(json, at + 1);
  }
}

// The end of the value that starts here; 0: it is not valid. `depth`: how many lists and objects may be in each other.
static inline size_t ace_json_end(ace_text json, size_t at, size_t depth) {
  static const char *const words[] = {"null", "true", "false"};
  if (at >= json.len) return 0;
  uint8_t c = json.ptr[at];
  if (c == '"') return ace_json_string_end(json, at);
  if (c == '{' || c == '[') return ace_json_list_end(json, at, depth);
  if (c == '-' || (c >= '0' && c <= '9')) return ace_json_number_end(json, at);
  for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
    size_t length = strlen(words[i]);
    if (json.len - at >= length && memcmp(json.ptr + at, words[i], length) == 0) return at + length;
  }
  return 0;
}

// Whether a text is JSON from its start to its end.
static inline bool ace_json_is_valid(ace_text json) {
  size_t end = ace_json_end(json, ace_json_skip_spaces(json, 0), ACE_JSON_DEPTH_MAX);
  return end > 0 && ace_json_skip_spaces(json, end) == json.len;
}

// The next item of a list, or the next key or value of an object. `*at` is 0 for the first. False: there is none.
static inline bool ace_json_next(ace_text json, size_t *at, ace_text *item) {
  if (*at == 0 && !ace_json_is_valid(json)) return false;
  size_t start = ace_json_skip_spaces(json, *at);
  if (*at == 0 && json.ptr[start] != '{' && json.ptr[start] != '[') return false;
  start = ace_json_skip_spaces(json, start + 1);
  size_t end = ace_json_end(json, start, ACE_JSON_DEPTH_MAX);
  if (end == 0) return false;
  *item = (ace_text){json.ptr + start, end - start};
  *at = end;
  return true;
}

// The text that a JSON string stands for. False: the value is no string. The text is the caller's to free.
static inline bool ace_json_text(ace_text value, ace_text *text) {
  if (value.len == 0 || value.ptr[0] != '"' || ace_json_string_end(value, 0) != value.len) return false;
  // It is never longer than its JSON. The bindings free no empty text.
  *text = (ace_text){value.len == 2 ? NULL : malloc(value.len), 0};
  if (value.len > 2 && text->ptr == NULL) abort();
  for (size_t at = 1; at < value.len - 1;) {
    uint32_t character;
    if (value.ptr[at] != '\\') {
      text->ptr[text->len++] = value.ptr[at++];
    } else {
      at += ace_json_escape(value.ptr + at, value.len - at, &character);
      text->len += ace_utf8(character, text->ptr + text->len);
    }
  }
  return true;
}

// The value of a key of an object, the last one if there are several. False: there is none.
static inline bool ace_json_member(ace_text json, const char *key, ace_text *value) {
  ace_text name, item, text;
  bool is_found = false;
  size_t start = ace_json_skip_spaces(json, 0);
  if (start == json.len || json.ptr[start] != '{') return false;
  for (size_t at = 0; ace_json_next(json, &at, &name) && ace_json_next(json, &at, &item);) {
    if (!ace_json_text(name, &text)) continue;
    if (ace_equals(text, key)) {
      *value = item;
      is_found = true;
    }
    ace_free(&text);
  }
  return is_found;
}

// The text of a key of an object. False: the key is not there, or its value is no string. The text is the caller's to free.
static inline bool ace_json_member_text(ace_text json, const char *key, ace_text *text) {
  ace_text value;
  return ace_json_member(json, key, &value) && ace_json_text(value, text);
}

// A whole number. False: the value is none, or does not fit.
static inline bool ace_json_integer(ace_text value, int64_t *number) {
  bool is_negative = value.len > 0 && value.ptr[0] == '-';
  uint64_t all = 0, limit = (uint64_t)INT64_MAX + is_negative;
  for (size_t at = is_negative; at < value.len; at++) {
    uint64_t digit = (uint64_t)value.ptr[at] - '0';
    if (digit > 9 || all > (limit - digit) / 10) return false;
    all = all * 10 + digit;
  }
  *number = (int64_t)(is_negative ? 0 - all : all);
  return value.len > is_negative;
}

#endif
