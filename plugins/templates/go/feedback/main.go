// Reads the events of a mail provider, which posts them to `/v1/feedback/__NAME__/SECRET`.
package main

import (
	"crypto/subtle"
	"errors"
	"strings"

	"ace_plugin/ace"
	feedback "ace_plugin/gen/exports/export_openedx_ace_feedback"
	_ "ace_plugin/gen/exports/wit_exports"
	config "ace_plugin/gen/imports/openedx_ace_config"
	"go.bytecodealliance.org/pkg/wit/types"
)

var kinds = map[string]string{"bounce": "bounced", "complaint": "complained"}

type plugin struct{}

func init() { feedback.Plugin = plugin{} }

func main() {}

func (plugin) Enabled() error {
	if config.Get("path-secret").IsNone() {
		return errors.New(`config key "path-secret": it is not set`)
	}
	return nil
}

func (plugin) Receive(request *feedback.Request) (feedback.Received, error) {
	secret := config.Get("path-secret").SomeOr("")
	if secret == "" || subtle.ConstantTimeCompare([]byte(request.Path()), []byte("/"+secret)) != 1 {
		return feedback.Received{}, feedback.Refused("the path does not end with the secret")
	}
	event, err := event(request.Body())
	return feedback.Received{Events: []feedback.Event{event}}, err
}

// event reads one event. It is not vouched for, so it is shown but suppresses nobody: set IsVouched once a signature was verified.
func event(body []byte) (feedback.Event, error) {
	// One event is short; a long body would only use up the time of the call.
	if len(body) > 16_384 {
		return feedback.Event{}, feedback.Malformed("the body: it is longer than 16,384 bytes")
	}
	value, err := ace.FromJson(body)
	if err != nil {
		return feedback.Event{}, feedback.Malformed("the body: it is not JSON")
	}
	fields, _ := value.(map[string]any)
	id, code, email := accepted(fields["id"]), accepted(fields["code"]), accepted(fields["email"])
	if id.IsNone() {
		return feedback.Event{}, feedback.Malformed(`the body: it has no text "id" of 1 to 1,024 bytes`)
	}
	event := feedback.Event{
		Id:          id.Some(),
		Kind:        "unknown",
		MessageId:   accepted(fields["message"]),
		IsPermanent: strings.HasPrefix(code.SomeOr(""), "5"),
		Reason:      code,
	}
	if kind, ok := kinds[accepted(fields["type"]).SomeOr("")]; ok {
		event.Kind = kind
	}
	if email.IsSome() {
		event.Address = wit_types.Some(wit_types.Tuple2[string, string]{F0: "email", F1: email.Some()})
	}
	return event, nil
}

// accepted returns a text of the length that the host accepts for ids and addresses. Anything else is treated as missing.
func accepted(value any) wit_types.Option[string] {
	if text, ok := value.(string); ok && text != "" && len(text) <= 1024 {
		return wit_types.Some(text)
	}
	return wit_types.None[string]()
}
