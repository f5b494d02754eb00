package admin_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/bearergate/bearergate/admin"
	"github.com/bearergate/bearergate/gate"
	adminv1 "github.com/bearergate/bearergate/proto/bearergate/admin/v1"
	"github.com/bearergate/bearergate/talkers"
)

// TestWhoIsSeenMostIsShown by the API and on the page, in both languages.
func TestWhoIsSeenMostIsShown(t *testing.T) {
	o := operate(t, admin.Access{})
	var many []talkers.Talker
	for i := range 10 {
		many = append(many, talkers.Talker{Name: fmt.Sprintf("token%d", i), Requests: 20_000, AtLeast: 10_000, Reason: gate.InvalidToken})
	}
	o.Operate(&admin.Controls{
		Talkers: func() []talkers.Top {
			return []talkers.Top{
				{
					Window: 5 * time.Minute,
					Refused: talkers.Kinds{
						Tokens: many, Clients: []talkers.Talker{{Name: "192.0.2.0/24", Requests: 7, AtLeast: 7, Reason: gate.MissingToken}},
						Policies: []talkers.Talker{{Name: "default", Requests: 9, AtLeast: 9, Reason: gate.InvalidToken}},
					},
				},
				{Window: 15 * time.Minute, Allowed: talkers.Kinds{Tokens: many[:1]}},
			}
		}, Listeners: func() []admin.Listener { return nil }, Generation: func() uint64 { return 1 }, Denials: o.denials,
		Verifiers: func() map[string]admin.Stages { return nil },
	})
	got, err := o.calls().Activity(t.Context(), &adminv1.ActivityRequest{})
	if err != nil || len(got.GetTop()) != 2 {
		t.Fatalf("%v, %v", got, err)
	}
	five, fifteen := got.GetTop()[0], got.GetTop()[1]
	if five.GetWindow().AsDuration() != 5*time.Minute || len(five.GetRefusedTokens()) != 10 || five.GetRefusedClients()[0].GetReason() != "missing_token" ||
		five.GetRefusedTokens()[0].GetRequests() != 20_000 || five.GetRefusedTokens()[0].GetAtLeast() != 10_000 || five.GetRefusedPolicies()[0].GetName() != "default" ||
		len(fifteen.GetAllowedTokens()) != 1 || len(five.GetAllowedTokens()) != 0 {
		t.Errorf("got %v", got)
	}
	for language, says := range map[string][]string{
		"en": {"Who asks most", "Refused most", "10,000 to 20,000", "<code>192.0.2.0/24</code>", "token4", "counted by one in 64: nobody."},
		"de": {"Wer am meisten fragt", "Am häufigsten abgelehnt", "10.000 bis 20.000", "<code>192.0.2.0/24</code>", "token4", "64. Anfrage: niemand."},
	} {
		page := o.ask(t, http.MethodGet, "/?lang="+language).body
		for _, want := range says {
			if !strings.Contains(page, want) {
				t.Errorf("in %s, the page does not say %q", language, want)
			}
		}
		if strings.Contains(page, "token5") {
			t.Errorf("in %s, the page shows more than five of a kind", language)
		}
	}
}
