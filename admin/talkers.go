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

// shownTalkers is how many of each kind the page shows.
const shownTalkers = 5

// talkersView are those who were seen most among what was allowed, or refused.
type talkersView struct {
	ID, Title string
	Rows      []talkerRow
}

type talkerRow struct{ Kind, Name, Requests, Reason string }

// addTalkers shows who was seen most in the shorter time.
func (v *view) addTalkers(r *adminv1.ActivityResponse) {
	if len(r.GetTop()) == 0 {
		return
	}
	w, top := v.Words, r.GetTop()[0]
	rows := func(tokens, clients, policies []*adminv1.Talker) (all []talkerRow) {
		for _, kind := range []struct {
			name string
			all  []*adminv1.Talker
		}{{w.Token, tokens}, {w.Client, clients}, {w.Policy, policies}} {
			for _, t := range kind.all[:min(len(kind.all), shownTalkers)] {
				requests := w.count(t.GetAtLeast())
				if t.GetRequests() > t.GetAtLeast() {
					requests = w.fill(w.FromTo, requests, w.count(t.GetRequests()))
				}
				all = append(all, talkerRow{kind.name, t.GetName(), requests, t.GetReason()})
			}
		}
		return all
	}
	v.Talkers = []talkersView{
		{"talkers-refused", w.RefusedMost, rows(top.GetRefusedTokens(), top.GetRefusedClients(), top.GetRefusedPolicies())},
		{"talkers-allowed", w.AllowedMost, rows(top.GetAllowedTokens(), top.GetAllowedClients(), top.GetAllowedPolicies())},
	}
}
