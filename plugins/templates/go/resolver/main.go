// Resolves a list of user ids.
package main

import (
	"encoding/json"
	"slices"
	"strconv"

	resolver "ace_plugin/gen/exports/export_openedx_ace_recipient_resolver"
	_ "ace_plugin/gen/exports/wit_exports"
	"go.bytecodealliance.org/pkg/wit/types"
)

type plugin struct{}

func init() { resolver.Plugin = plugin{} }

func main() {}

func (plugin) Enabled() error { return nil }

func (plugin) Resolve(messageType, arguments, cursor string, limit int) (resolver.Page, error) {
	// A null in a list of numbers would be read as 0.
	var asked struct {
		UserIds []*int64 `json:"user_ids"`
	}
	if err := json.Unmarshal([]byte(arguments), &asked); err != nil || asked.UserIds == nil || slices.Contains(asked.UserIds, nil) {
		return resolver.Page{}, resolver.Fatal(`the argument "user_ids" is missing: a list of numbers is expected`)
	}
	start, _ := strconv.Atoi(cursor)
	start = min(start, len(asked.UserIds))
	end := min(start+limit, len(asked.UserIds))
	var page resolver.Page
	for _, id := range asked.UserIds[start:end] {
		recipient := resolver.Recipient{
			UserId:    wit_types.Some(strconv.FormatInt(*id, 10)),
			LmsUserId: wit_types.Some(*id),
		}
		page.Items = append(page.Items, resolver.Resolved{Recipient: recipient})
	}
	if end < len(asked.UserIds) {
		page.Next = wit_types.Some(strconv.Itoa(end))
	}
	return page, nil
}
