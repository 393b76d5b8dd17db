// Holds back what is not transactional.
//
// Without stdio: printf asks for files, and so for WASI's preview 1, which no component imports.

#include "gen/policy_plugin.h"
#define ACE_WORLD policy_plugin
#include "ace_json.h"

static bool is_list_of_texts(ace_text json) {
  ace_text item;
  if (!ace_json_is_valid(json) || json.ptr[0] != '[') return false;
  for (size_t at = 0; ace_json_next(json, &at, &item);) {
    if (item.ptr[0] != '"') return false;
  }
  return true;
}

// The list in the config; its memory is the caller's.
static bool channel_types(ace_text *json, ace_text *err) {
  if (ace_setting("channel-types", json)) {
    if (is_list_of_texts(*json)) return true;
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

  ace_text json, item, type;
  if (!channel_types(&json, err)) return false;
  for (size_t at = 0; ace_json_next(json, &at, &item) && ace_json_text(item, &type);) {
    size_t count = verdict->deny.len++;
    verdict->deny.ptr = realloc(verdict->deny.ptr, verdict->deny.len * sizeof *verdict->deny.ptr);
    if (verdict->deny.ptr == NULL) abort();
    exports_openedx_ace_policy_denial_t *denial = &verdict->deny.ptr[count];
    denial->channel_type = type;
    denial->reason.is_some = true;
    denial->reason.val = ace_copy("it is not transactional");
  }
  ace_free(&json);
  return true;
}
