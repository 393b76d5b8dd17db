// Reads the events of a mail provider, which posts them to `/v1/feedback/__NAME__/SECRET`.
package main

import (
	"crypto/subtle"
	"encoding/json"
	"errors"
	"strings"

	feedback "ace_plugin/gen/exports/export_openedx_ace_feedback"
	_ "ace_plugin/gen/exports/wit_exports"
	config "ace_plugin/gen/imports/openedx_ace_config"
	"go.bytecodealliance.org/pkg/wit/types"
)

var kinds = map[string]string{"": "unknown", "bounce": "bounced", "complaint": "complained"}

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
	path := "/" + config.Get("path-secret").Some()
	if subtle.ConstantTimeCompare([]byte(request.Path()), []byte(path)) != 1 {
		return feedback.Received{}, feedback.Refused("the path does not end with the secret")
	}
	event, err := event(request.Body())
	return feedback.Received{Events: []feedback.Event{event}}, err
}

// event reads one event. It is not vouched for, so it is shown but suppresses nobody: set IsVouched once a signature was verified.
func event(body []byte) (feedback.Event, error) {
	var fields struct {
		Id, Type, Email, Message, Code any
	}
	if err := json.Unmarshal(body, &fields); err != nil {
		return feedback.Event{}, feedback.Malformed("the body: " + err.Error())
	}
	id, ok := fields.Id.(string)
	if !ok {
		return feedback.Event{}, feedback.Malformed(`the body: it has no text "id"`)
	}
	code := text(fields.Code)
	event := feedback.Event{
		Id:          id,
		Kind:        text(fields.Type).SomeOr(""),
		MessageId:   text(fields.Message),
		IsPermanent: strings.HasPrefix(code.SomeOr(""), "5"),
		Reason:      code,
	}
	if kind, ok := kinds[event.Kind]; ok {
		event.Kind = kind
	}
	if email := text(fields.Email); email.IsSome() {
		event.Address = wit_types.Some(wit_types.Tuple2[string, string]{F0: "email", F1: email.Some()})
	}
	return event, nil
}

func text(value any) wit_types.Option[string] {
	if text, ok := value.(string); ok {
		return wit_types.Some(text)
	}
	return wit_types.None[string]()
}
