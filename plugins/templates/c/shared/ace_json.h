// Reads JSON without a library: the members of an object, the items of a list, and texts. Values are borrowed parts of the JSON.
#ifndef ACE_JSON_H
#define ACE_JSON_H

#include "ace.h"

static inline bool ace_json_is_space(uint8_t c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

static inline size_t ace_json_skip_spaces(ace_text json, size_t at) {
  while (at < json.len && ace_json_is_space(json.ptr[at])) at++;
  return at;
}

// The end of the value that starts here; here, if none does.
static inline size_t ace_json_end(ace_text json, size_t at) {
  size_t depth = 0;
  bool is_text = false;
  for (; at < json.len; at++) {
    uint8_t c = json.ptr[at];
    if (is_text) {
      if (c == '\\') at++;
      if (c == '"') is_text = false;
      if (c == '"' && depth == 0) return at + 1;
    } else if (c == '"') {
      is_text = true;
    } else if (c == '{' || c == '[') {
      depth++;
    } else if (c == '}' || c == ']') {
      if (depth <= 1) return at + depth;
      depth--;
    } else if (depth == 0 && (c == ',' || c == ':' || ace_json_is_space(c))) {
      return at;
    }
  }
  return json.len;
}

// The next item of a list, or the next key or value of an object. `*at` is 0 for the first. False: there is none.
static inline bool ace_json_next(ace_text json, size_t *at, ace_text *item) {
  size_t start = ace_json_skip_spaces(json, *at);
  if (start >= json.len) return false;
  uint8_t c = json.ptr[start];
  if (*at == 0 ? c != '{' && c != '[' : c != ',' && c != ':') return false;
  start = ace_json_skip_spaces(json, start + 1);
  size_t end = ace_json_end(json, start);
  if (end == start) return false;
  *item = (ace_text){json.ptr + start, end - start};
  *at = end;
  return true;
}

// The value of a key of an object. False: there is none. Keys with escapes are not found.
static inline bool ace_json_member(ace_text json, const char *key, ace_text *value) {
  ace_text found;
  size_t start = ace_json_skip_spaces(json, 0);
  if (start == json.len || json.ptr[start] != '{') return false;
  for (size_t at = 0; ace_json_next(json, &at, &found) && ace_json_next(json, &at, value);) {
    if (found.ptr[0] == '"' && found.len == strlen(key) + 2 && memcmp(found.ptr + 1, key, found.len - 2) == 0) return true;
  }
  return false;
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

// Adds a character, as UTF-8.
static inline void ace_append_character(ace_text *line, uint32_t c) {
  if (c < 0x80) {
    ace_append(line, (uint8_t[]){(uint8_t)c}, 1);
  } else if (c < 0x800) {
    ace_append(line, (uint8_t[]){(uint8_t)(0xc0 | c >> 6), (uint8_t)(0x80 | (c & 63))}, 2);
  } else if (c < 0x10000) {
    ace_append(line, (uint8_t[]){(uint8_t)(0xe0 | c >> 12), (uint8_t)(0x80 | (c >> 6 & 63)), (uint8_t)(0x80 | (c & 63))}, 3);
  } else {
    uint8_t bytes[] = {
        (uint8_t)(0xf0 | c >> 18), (uint8_t)(0x80 | (c >> 12 & 63)), (uint8_t)(0x80 | (c >> 6 & 63)), (uint8_t)(0x80 | (c & 63))};
    ace_append(line, bytes, sizeof bytes);
  }
}

// Adds the character that an escape stands for, and returns the escape's length; 0: it is none.
static inline size_t ace_json_escape(const uint8_t *escape, size_t length, ace_text *line) {
  static const char names[] = "\"\\/bfnrt", characters[] = "\"\\/\b\f\n\r\t";
  if (length < 2) return 0;
  const char *name = escape[1] == 0 ? NULL : strchr(names, escape[1]);
  if (name != NULL) {
    ace_append(line, &characters[name - names], 1);
    return 2;
  }
  int32_t first = escape[1] == 'u' && length >= 6 ? ace_json_hex(escape + 2) : -1;
  if (first < 0 || (first >= 0xdc00 && first < 0xe000)) return 0;
  if (first < 0xd800 || first >= 0xe000) {
    ace_append_character(line, (uint32_t)first);
    return 6;
  }
  // Two escapes are one character beyond the first 65,536.
  int32_t second = length >= 12 && escape[6] == '\\' && escape[7] == 'u' ? ace_json_hex(escape + 8) : -1;
  if (second < 0xdc00 || second >= 0xe000) return 0;
  ace_append_character(line, 0x10000 + ((uint32_t)(first - 0xd800) << 10) + (uint32_t)(second - 0xdc00));
  return 12;
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

// The text that a JSON string stands for. False: the value is no string. The text is the caller's to free.
static inline bool ace_json_text(ace_text value, ace_text *text) {
  if (value.len < 2 || value.ptr[0] != '"' || value.ptr[value.len - 1] != '"') return false;
  *text = ace_copied("", 0);
  for (size_t at = 1; at < value.len - 1;) {
    size_t left = value.len - 1 - at;
    bool is_escape = value.ptr[at] == '\\';
    size_t length = is_escape ? ace_json_escape(value.ptr + at, left, text) : ace_utf8_length(value.ptr + at, left);
    if (length == 0) {
      free(text->ptr);
      *text = (ace_text){NULL, 0};
      return false;
    }
    if (!is_escape) ace_append(text, value.ptr + at, length);
    at += length;
  }
  return true;
}

// The text of a key of an object. False: the key is not there, or its value is no string. The text is the caller's to free.
static inline bool ace_json_member_text(ace_text json, const char *key, ace_text *text) {
  ace_text value;
  return ace_json_member(json, key, &value) && ace_json_text(value, text);
}

#endif
