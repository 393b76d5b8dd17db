// Delivers text messages through a gateway.
package main

import (
	"errors"

	"ace_plugin/ace"
	channel "ace_plugin/gen/exports/export_openedx_ace_channel"
	_ "ace_plugin/gen/exports/wit_exports"
	config "ace_plugin/gen/imports/openedx_ace_config"
)

type plugin struct{}

func init() { channel.Plugin = plugin{} }

func main() {}

func (plugin) Describe() channel.Info {
	files := []channel.TemplateFile{{Name: "body.txt", Required: true}}
	return channel.Info{ChannelType: "sms", TemplateFiles: files}
}

func (plugin) Enabled() error {
	if config.Get("url").IsNone() {
		return errors.New(`config key "url": it is not set`)
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
	headers := []ace.Header{{F0: "idempotency-key", F1: attempt.IdempotencyKey}}
	body := map[string]string{"to": phone, "text": rendered["body.txt"]}
	// The host adds the credential, so the token never enters the plugin.
	_, err := ace.PostJson(config.Get("url").Some(), body, headers, "gateway")
	return channel.Receipt{}, err
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
