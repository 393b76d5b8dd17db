// Resolves a list of user ids.
//
// Without stdio: printf asks for files, and so for WASI's preview 1, which no component imports.

#include "gen/resolver_plugin.h"
#define ACE_WORLD resolver_plugin
#include "ace_json.h"

typedef exports_openedx_ace_recipient_resolver_resolved_t resolved;

bool exports_openedx_ace_recipient_resolver_enabled(ace_text *err) {
  (void)err;
  return true;
}

// The list of whole numbers in the arguments.
static bool find_ids(ace_text arguments, ace_text *ids) {
  ace_text item;
  int64_t id;
  if (!ace_json_member(arguments, "user_ids", ids) || ids->ptr[0] != '[') return false;
  for (size_t at = 0; ace_json_next(*ids, &at, &item);) {
    if (!ace_json_integer(item, &id)) return false;
  }
  return true;
}

static resolved one(int64_t id) {
  resolved item;
  memset(&item, 0, sizeof item);
  item.recipient.user_id.is_some = true;
  item.recipient.user_id.val = (ace_text){NULL, 0};
  ace_append_number(&item.recipient.user_id.val, id);
  item.recipient.lms_user_id.is_some = true;
  item.recipient.lms_user_id.val = id;
  return item;
}

bool exports_openedx_ace_recipient_resolver_resolve(
    exports_openedx_ace_recipient_resolver_json_t *message_type,
    exports_openedx_ace_recipient_resolver_json_t *arguments,
    ace_text *maybe_cursor,
    uint32_t limit,
    exports_openedx_ace_recipient_resolver_page_t *page,
    exports_openedx_ace_recipient_resolver_resolve_error_t *err) {
  (void)message_type;
  ace_text ids;
  if (!find_ids(*arguments, &ids)) {
    err->tag = EXPORTS_OPENEDX_ACE_RECIPIENT_RESOLVER_RESOLVE_ERROR_FATAL;
    err->val.fatal = ace_copy("the argument \"user_ids\" is missing: a list of numbers is expected");
    return false;
  }
  int64_t start = 0, id;
  if (maybe_cursor != NULL) ace_json_integer(*maybe_cursor, &start);

  memset(page, 0, sizeof *page);
  page->items.ptr = calloc(limit ? limit : 1, sizeof *page->items.ptr);
  if (page->items.ptr == NULL) abort();
  ace_text item;
  size_t at = 0;
  for (int64_t index = 0; ace_json_next(ids, &at, &item) && ace_json_integer(item, &id); index++) {
    if (index < start) continue;
    if (page->items.len == limit) {
      page->next.is_some = true;
      page->next.val = (ace_text){NULL, 0};
      ace_append_number(&page->next.val, index);
      break;
    }
    page->items.ptr[page->items.len++] = one(id);
  }
  return true;
}
