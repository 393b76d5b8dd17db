// Quiet hours: what can wait is delayed until the recipient's night is over.
//
// Without stdio: printf asks for files, and so for WASI's preview 1, which no component imports.

#include <stdlib.h>
#include <string.h>

#include "policy_plugin.h"

#define MINUTE ((int64_t)60000)
#define DAY (24 * 60 * MINUTE)
#define TYPE_LETTERS "abcdefghijklmnopqrstuvwxyz0123456789_-"

typedef policy_plugin_string_t string;
typedef exports_openedx_ace_policy_policy_result_t verdict;

// What the config says; the times are milliseconds since midnight.
static struct {
  bool is_read;
  int64_t start, end;
  string zone;
  string *channel_types;
  size_t channel_type_count;
} settings;

// Text that stays where it is.
static string borrowed(const char *text) {
  string string;
  policy_plugin_string_set(&string, text);
  return string;
}

static void *allocate(size_t count, size_t size) {
  void *memory = calloc(count, size);
  if (memory == NULL) abort();
  return memory;
}

static bool equals(const string *text, const char *other) {
  return text->len == strlen(other) && memcmp(text->ptr, other, text->len) == 0;
}

static void append(string *line, const void *text, size_t length) {
  line->ptr = realloc(line->ptr, line->len + length);
  if (line->ptr == NULL) abort();
  memcpy(line->ptr + line->len, text, length);
  line->len += length;
}

static void append_text(string *line, const char *text) { append(line, text, strlen(text)); }

static void append_number(string *line, int64_t two_digits) {
  const char digits[] = {(char)('0' + two_digits / 10), (char)('0' + two_digits % 10)};
  append(line, digits, sizeof digits);
}

// Fails with the line that the operator reads.
static bool refuse(string *err, const char *key, string why) {
  *err = (string){NULL, 0};
  append_text(err, "config key \"");
  append_text(err, key);
  append_text(err, "\": ");
  append(err, why.ptr, why.len);
  return false;
}

static bool setting(const char *key, string *value) {
  string name = borrowed(key);
  return openedx_ace_config_get(&name, value);
}

// Two digits below a limit; -1 for anything else.
static int64_t number(const uint8_t *digits, int64_t limit) {
  for (int i = 0; i < 2; i++)
    if (digits[i] < '0' || digits[i] > '9') return -1;
  int64_t value = (digits[0] - '0') * 10 + (digits[1] - '0');
  return value < limit ? value : -1;
}

static bool read_time(const char *key, int64_t *time, string *err) {
  const string why = borrowed("it must be a time of day such as \"22:00\"");
  string text;
  if (!setting(key, &text)) return refuse(err, key, why);
  bool has_form = text.len == 5 && text.ptr[2] == ':';
  int64_t hour = has_form ? number(text.ptr, 24) : -1;
  int64_t minute = has_form ? number(text.ptr + 3, 60) : -1;
  policy_plugin_string_free(&text);
  if (hour < 0 || minute < 0) return refuse(err, key, why);
  *time = (hour * 60 + minute) * MINUTE;
  return true;
}

// Takes one channel type and what follows it, "," or "]", from the text of a JSON list. The list is compact, and no channel
// type needs an escape.
static const char *take_type(const char *at, string *type) {
  if (*at++ != '"') return NULL;
  size_t length = *at == '*' ? 1 : strspn(at, TYPE_LETTERS);
  if (length == 0 || at[length] != '"') return NULL;
  policy_plugin_string_dup_n(type, at, length);
  at += length + 1;
  return *at == ',' || *at == ']' ? at : NULL;
}

static bool read_types(const char *key, string *err) {
  const string why = borrowed("it must be a list of channel types such as [\"push\", \"sms\"]");
  string text;
  if (!setting(key, &text)) return refuse(err, key, why);
  char *list = allocate(text.len + 1, 1);
  memcpy(list, text.ptr, text.len);
  // A type takes three characters and a comma.
  settings.channel_types = allocate(text.len / 4 + 1, sizeof(string));
  settings.channel_type_count = 0;
  const char *at = list;
  while (at != NULL && *at == (settings.channel_type_count == 0 ? '[' : ','))
    at = take_type(at + 1, &settings.channel_types[settings.channel_type_count++]);
  bool is_list = at != NULL && strcmp(at, "]") == 0;
  free(list);
  policy_plugin_string_free(&text);
  return is_list || refuse(err, key, why);
}

// Read once: they stay the same for as long as the instance lives.
static bool read_settings(string *err) {
  if (settings.is_read) return true;
  if (!read_time("start", &settings.start, err) || !read_time("end", &settings.end, err)) return false;
  if (!setting("time-zone", &settings.zone)) policy_plugin_string_dup(&settings.zone, "");
  if (!read_types("channel-types", err)) return false;
  if (settings.start == settings.end)
    return refuse(err, "end", borrowed("it is the same as \"start\": no hour would be quiet"));
  int32_t offset;
  string why;
  if (!openedx_ace_time_zones_offset_ms(&settings.zone, 0, &offset, &why)) {
    refuse(err, "time-zone", why);
    policy_plugin_string_free(&why);
    return false;
  }
  settings.is_read = true;
  return true;
}

// Truth as edx-ace has it: nothing that is empty is true. The host's JSON is compact.
static bool is_true(const string *json) {
  static const char *const empty[] = {"null", "false", "\"\"", "[]", "{}"};
  for (size_t i = 0; i < sizeof empty / sizeof *empty; i++)
    if (equals(json, empty[i])) return false;
  bool is_number = json->ptr[0] == '-' || (json->ptr[0] >= '0' && json->ptr[0] <= '9');
  for (size_t i = 0; is_number && i < json->len && (json->ptr[i] | 0x20) != 'e'; i++)
    if (json->ptr[i] >= '1' && json->ptr[i] <= '9') return true;
  return !is_number;
}

static bool is_transactional(openedx_ace_messages_borrow_message_t message) {
  string pointer = borrowed("/transactional"), json;
  if (!openedx_ace_messages_method_message_options(message, &pointer, &json)) return false;
  bool is = is_true(&json);
  policy_plugin_string_free(&json);
  return is;
}

static bool offset_at(const string *zone, int64_t at, int32_t *offset) {
  string err;
  if (openedx_ace_time_zones_offset_ms((string *)zone, (uint64_t)at, offset, &err)) return true;
  policy_plugin_string_free(&err);
  return false;
}

// The recipient's own zone where the message names one that exists. Names of zones need no escape in JSON.
static void zone_of(openedx_ace_messages_borrow_message_t message, int64_t now, string *zone) {
  string pointer = borrowed("/time_zone"), json;
  if (!openedx_ace_messages_method_message_context(message, &pointer, &json)) {
    policy_plugin_string_dup_n(zone, (const char *)settings.zone.ptr, settings.zone.len);
    return;
  }
  int32_t offset;
  string own = json.ptr[0] == '"' ? (string){json.ptr + 1, json.len - 2} : (string){json.ptr, 0};
  const string *best = offset_at(&own, now, &offset) ? &own : &settings.zone;
  policy_plugin_string_dup_n(zone, (const char *)best->ptr, best->len);
  policy_plugin_string_free(&json);
}

static bool is_quiet(int64_t time) {
  bool is_after_start = settings.start <= time, is_before_end = time < settings.end;
  return settings.start < settings.end ? is_after_start && is_before_end : is_after_start || is_before_end;
}

// When the zone's clocks show a time. One that they skip comes as much later as they skip. The zone is known to exist.
static int64_t moment(int64_t local, const string *zone, int32_t offset) {
  int32_t then = offset, check = offset;
  int64_t guess = local - offset;
  offset_at(zone, guess, &then);
  int64_t better = local - then;
  offset_at(zone, better, &check);
  return check == then ? better : guess;
}

static void delay_all(verdict *verdict, int64_t not_before, const string *zone) {
  string reason = {NULL, 0};
  append_text(&reason, "quiet hours until ");
  append_number(&reason, settings.end / MINUTE / 60);
  append_text(&reason, ":");
  append_number(&reason, settings.end / MINUTE % 60);
  append_text(&reason, " in ");
  append(&reason, zone->ptr, zone->len);
  verdict->delay.len = settings.channel_type_count;
  verdict->delay.ptr = allocate(verdict->delay.len, sizeof *verdict->delay.ptr);
  for (size_t i = 0; i < verdict->delay.len; i++) {
    exports_openedx_ace_policy_delay_t *delay = &verdict->delay.ptr[i];
    const string *type = &settings.channel_types[i];
    policy_plugin_string_dup_n(&delay->channel_type, (const char *)type->ptr, type->len);
    delay->not_before = (uint64_t)not_before;
    delay->reason.is_some = true;
    policy_plugin_string_dup_n(&delay->reason.val, (const char *)reason.ptr, reason.len);
  }
  policy_plugin_string_free(&reason);
}

bool exports_openedx_ace_policy_enabled(string *err) { return read_settings(err); }

bool exports_openedx_ace_policy_check(exports_openedx_ace_policy_own_message_t message, verdict *verdict, string *err) {
  memset(verdict, 0, sizeof *verdict);
  if (!read_settings(err)) {
    openedx_ace_messages_message_drop_own(message);
    return false;
  }
  wasi_clocks_wall_clock_datetime_t clock;
  wasi_clocks_wall_clock_now(&clock);
  int64_t now = (int64_t)clock.seconds * 1000 + clock.nanoseconds / 1000000;

  openedx_ace_messages_borrow_message_t borrow = openedx_ace_messages_borrow_message(message);
  bool passes = is_transactional(borrow);
  string zone;
  zone_of(borrow, now, &zone);
  // An owned handle is dropped exactly once.
  openedx_ace_messages_message_drop_own(message);

  int32_t offset = 0;
  offset_at(&zone, now, &offset);
  int64_t local = now + offset, time = local % DAY;
  if (!passes && is_quiet(time)) {
    int64_t end = local + (settings.end - time + DAY) % DAY;
    delay_all(verdict, moment(end, &zone, offset), &zone);
  }
  policy_plugin_string_free(&zone);
  return true;
}
