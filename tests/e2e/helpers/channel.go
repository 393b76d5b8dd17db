// Posts with a credential, if the provider's signature in the context is valid, and notes outcomes.
package main

import (
	"encoding/hex"
	"encoding/json"
	"strconv"

	"ace_plugin/ace"
	channel "ace_plugin/gen/exports/export_openedx_ace_channel"
	_ "ace_plugin/gen/exports/wit_exports"
	"go.bytecodealliance.org/pkg/wit/types"
)

type plugin struct{}

func init() { channel.Plugin = plugin{} }

func main() {}

func (plugin) Describe() channel.Info { return channel.Info{ChannelType: "sms"} }

func (plugin) Enabled() error { return nil }

func (plugin) Deliver(message *channel.Message, rendered map[string]string, attempt channel.Attempt) (channel.Receipt, error) {
	var context struct {
		Data, Signature string
		Until           *uint64
	}
	if err := json.Unmarshal([]byte(message.Context("").Some()), &context); err != nil {
		return channel.Receipt{}, err
	}
	signature, err := hex.DecodeString(context.Signature)
	if err != nil {
		return channel.Receipt{}, err
	}
	if is, err := ace.Verify("api", "hmac-sha256", []byte(context.Data), signature); err != nil || !is {
		return channel.Receipt{}, channel.Fatal("forged")
	}
	notes, err := ace.NotedOutcomes()
	if err != nil {
		return channel.Receipt{}, err
	}
	for _, note := range notes {
		if note.ProviderId == "" {
			note.ProviderId = "-"
		}
		code := string(note.Outcome) + " " + note.ProviderId
		address := "again " + note.Address
		ace.NoteOutcome(ace.Note{Kind: note.Kind, Address: address, Outcome: ace.Failed, ProviderId: note.Code, Code: code})
	}
	if context.Until != nil {
		ace.HoldChannel("the quota is used up", *context.Until)
	}
	body := map[string]string{"data": context.Data}
	response, err := ace.PostJson("https://sms.example.com/v1/send", body, nil, "api")
	if err != nil {
		return channel.Receipt{}, err
	}
	ace.NoteOutcome(ace.Note{Kind: "phone", Address: "+1 \"ü\" \\ 😀", Outcome: ace.Sent, ProviderId: "p-1"})
	return channel.Receipt{ProviderId: wit_types.Some(strconv.Itoa(int(response.Status)))}, nil
}
