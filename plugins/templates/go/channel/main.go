// Delivers text messages through a gateway.
package main

import (
	"encoding/json"
	"fmt"

	channel "ace_plugin/gen/exports/export_openedx_ace_channel"
	_ "ace_plugin/gen/exports/wit_exports"
	config "ace_plugin/gen/imports/openedx_ace_config"
	http "ace_plugin/gen/imports/openedx_ace_http"
	"go.bytecodealliance.org/pkg/wit/types"
)

type plugin struct{}

func init() { channel.Plugin = plugin{} }

func main() {}

func (plugin) Describe() channel.Info {
	files := []channel.TemplateFile{{Name: "body.txt", Required: true}}
	return channel.Info{ChannelType: "sms", TemplateFiles: files}
}

func (plugin) Enabled() error {
	for _, key := range []string{"url", "token"} {
		if config.Get(key).IsNone() {
			return fmt.Errorf("config key %q is not set", key)
		}
	}
	return nil
}

func (plugin) Deliver(
	message *channel.Message, rendered map[string]string, attempt channel.Attempt,
) (channel.Receipt, error) {
	phone := phone(message)
	if phone == "" {
		return channel.Receipt{}, channel.Skipped("the recipient has no telephone number")
	}
	body, err := json.Marshal(map[string]string{"to": phone, "text": rendered["body.txt"]})
	if err != nil {
		return channel.Receipt{}, err
	}
	return channel.Receipt{}, post(body, attempt)
}

func phone(message *channel.Message) string {
	recipient := message.Recipient()
	if recipient.IsNone() {
		return ""
	}
	for _, contact := range recipient.Some().Contacts {
		if contact.F0 == "phone" {
			return contact.F1
		}
	}
	return ""
}

func post(body []byte, attempt channel.Attempt) error {
	answer := http.Fetch(http.Request{
		Method: "POST",
		Url:    config.Get("url").Some(),
		Headers: []wit_types.Tuple2[string, string]{
			{F0: "authorization", F1: "Bearer " + config.Get("token").Some()},
			{F0: "content-type", F1: "application/json"},
			{F0: "idempotency-key", F1: attempt.IdempotencyKey},
		},
		Body: wit_types.Some(body),
	})
	if answer.IsErr() {
		return unanswered(answer.Err())
	}
	switch status := answer.Ok().Status; {
	case status >= 200 && status < 300:
		return nil
	case status == 429 || status >= 500:
		return channel.Recoverable(fmt.Sprintf("the gateway: HTTP %d", status))
	default:
		return channel.Fatal(fmt.Sprintf("the gateway: HTTP %d", status))
	}
}

func unanswered(why http.HttpError) error {
	switch why.Tag() {
	case http.HttpError_Denied:
		return channel.Fatal("the gateway: " + why.Denied())
	case http.HttpError_Invalid:
		return channel.Fatal("the gateway: " + why.Invalid())
	case http.HttpError_Connection:
		return channel.Recoverable("the gateway: " + why.Connection())
	default:
		return channel.Recoverable("the gateway: no answer in time")
	}
}
