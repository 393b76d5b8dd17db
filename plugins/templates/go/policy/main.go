// Holds back what is not transactional.
package main

import (
	"encoding/json"
	"errors"
	"slices"

	"ace_plugin/ace"
	policy "ace_plugin/gen/exports/export_openedx_ace_policy"
	_ "ace_plugin/gen/exports/wit_exports"
	config "ace_plugin/gen/imports/openedx_ace_config"
	"go.bytecodealliance.org/pkg/wit/types"
)

type plugin struct{}

func init() { policy.Plugin = plugin{} }

func main() {}

func channelTypes() ([]*string, error) {
	// A null in a list of strings would be read as an empty one.
	var named []*string
	err := json.Unmarshal([]byte(config.Get("channel-types").SomeOr("")), &named)
	if err != nil || named == nil || slices.Contains(named, nil) {
		return nil, errors.New(`config key "channel-types": a list such as ["push"] is expected`)
	}
	return named, nil
}

func (plugin) Enabled() error {
	_, err := channelTypes()
	return err
}

func (plugin) Check(message *policy.Message) (policy.Result, error) {
	if ace.IsTrue(message.Options("/transactional").SomeOr("null")) {
		return policy.Result{}, nil
	}
	named, err := channelTypes()
	var result policy.Result
	for _, channelType := range named {
		reason := wit_types.Some("it is not transactional")
		result.Deny = append(result.Deny, policy.Denial{ChannelType: *channelType, Reason: reason})
	}
	return result, err
}
