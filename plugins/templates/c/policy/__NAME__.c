// Holds back what is not transactional.
//
// Without stdio: printf asks for files, and so for WASI's preview 1, which no component imports.

#include "gen/policy_plugin.h"
#define ACE_WORLD policy_plugin
#include "ace.h"

#define TYPES_MAX 16

// The list in the config; its memory is the caller's.
static bool channel_types(ace_text *json, ace_text *err) {
  if (ace_setting("channel-types", json)) {
    if (json->len > 0 && json->ptr[0] == '[') return true;
    ace_free(json);
  }
  *err = ace_copy("config key \"channel-types\": a list such as [\"push\"] is expected");
  return false;
}

bool exports_openedx_ace_policy_enabled(ace_text *err) {
  ace_text json;
  if (!channel_types(&json, err)) return false;
  ace_free(&json);
  return true;
}

bool exports_openedx_ace_policy_check(
    exports_openedx_ace_policy_own_message_t message, exports_openedx_ace_policy_policy_result_t *verdict, ace_text *err) {
  memset(verdict, 0, sizeof *verdict);
  bool passes = ace_option_is_true(openedx_ace_messages_borrow_message(message), "/transactional");
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
  ace_free(&json);
  verdict->deny.ptr = deny;
  verdict->deny.len = count;
  return true;
}
