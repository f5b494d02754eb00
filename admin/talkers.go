package admin

import (
	"google.golang.org/protobuf/types/known/durationpb"

	adminv1 "github.com/bearergate/bearergate/proto/bearergate/admin/v1"
	"github.com/bearergate/bearergate/talkers"
)

// recent returns what is remembered of the last minutes, and who was seen most.
func (s *shownState) recent() *adminv1.ActivityResponse {
	r := s.activity.recent()
	c := s.controls.Load()
	if c == nil || c.Talkers == nil {
		return r
	}
	for _, top := range c.Talkers() {
		r.Top = append(r.Top, &adminv1.TopTalkers{
			Window:          durationpb.New(top.Window),
			AllowedTokens:   talkerMessages(top.Allowed.Tokens),
			AllowedClients:  talkerMessages(top.Allowed.Clients),
			AllowedPolicies: talkerMessages(top.Allowed.Policies),
			RefusedTokens:   talkerMessages(top.Refused.Tokens),
			RefusedClients:  talkerMessages(top.Refused.Clients),
			RefusedPolicies: talkerMessages(top.Refused.Policies),
		})
	}
	return r
}

func talkerMessages(all []talkers.Talker) []*adminv1.Talker {
	var messages []*adminv1.Talker
	for _, t := range all {
		messages = append(messages, &adminv1.Talker{Name: t.Name, Requests: t.Requests, AtLeast: t.AtLeast, Reason: t.Reason.String()})
	}
	return messages
}
