// Holds back what is not transactional.
//
// Without stdio: printf asks for files, and so for WASI's preview 1, which no component imports.

#include "gen/policy_plugin.h"
#define ACE_WORLD policy_plugin
#include "ace.h"

#define TYPES_MAX 16

// The list in the config; its memory is the caller's.
static bool channel_types(ace_text *json, ace_text *err) {
  ace_text key = ace_borrowed("channel-types");
  if (openedx_ace_config_get(&key, json) && json->len > 0 && json->ptr[0] == '[') return true;
  *err = ace_copy("config key \"channel-types\": a list such as [\"push\"] is expected");
  return false;
}

bool exports_openedx_ace_policy_enabled(ace_text *err) {
  ace_text json;
  if (!channel_types(&json, err)) return false;
  policy_plugin_string_free(&json);
  return true;
}

static bool is_transactional(exports_openedx_ace_policy_own_message_t message) {
  ace_text pointer = ace_borrowed("/transactional"), json;
  bool is_set = openedx_ace_messages_method_message_options(openedx_ace_messages_borrow_message(message), &pointer, &json);
  bool is = is_set && ace_equals(json, "true");
  if (is_set) policy_plugin_string_free(&json);
  return is;
}

bool exports_openedx_ace_policy_check(
    exports_openedx_ace_policy_own_message_t message, exports_openedx_ace_policy_policy_result_t *verdict, ace_text *err) {
  memset(verdict, 0, sizeof *verdict);
  bool passes = is_transactional(message);
  // An owned handle is dropped exactly once, on every way out.
  openedx_ace_messages_message_drop_own(message);
  if (passes) return true;

  ace_text json, type;
  if (!channel_types(&json, err)) return false;
  exports_openedx_ace_policy_denial_t *deny = calloc(TYPES_MAX, sizeof *deny);
  if (deny == NULL) abort();
  size_t count = 0, at = 0;
  while (count < TYPES_MAX && ace_next_string(json, &at, &type)) {
    deny[count].channel_type = ace_copied((const char *)type.ptr, type.len);
    deny[count].reason.is_some = true;
    deny[count].reason.val = ace_copy("it is not transactional");
    count++;
  }
  policy_plugin_string_free(&json);
  verdict->deny.ptr = deny;
  verdict->deny.len = count;
  return true;
}
