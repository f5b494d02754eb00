package admin_test

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/bearergate/bearergate/admin"
	"github.com/bearergate/bearergate/gate"
)

func TestWhatWasDecidedLatelyIsRemembered(t *testing.T) {
	r := admin.NewRecent()
	tell := func(mark string, reason gate.Reason, listener string) {
		r.Tell(&gate.Event{Fingerprint: mark, Reason: reason, Listener: listener, Client: netip.MustParseAddr("192.0.2.1")})
	}
	tell("none", gate.MissingToken, "a")
	tell("one", gate.Valid, "a")
	tell("one", gate.InvalidToken, "a")
	tell("one", gate.InvalidToken, "a")
	tell("one", gate.InvalidToken, "b")
	if past, refused := r.Of("none"); past != nil || refused != 0 {
		t.Errorf("without a token: %v", past)
	}
	past, refused := r.Of("one")
	got := ""
	for _, e := range past {
		if e.Client.IsValid() {
			t.Errorf("it keeps the address %v", e.Client)
		}
		got += fmt.Sprint(e.Reason, " ", e.Listener, "; ")
	}
	if want := "invalid_token b; invalid_token a; valid a; "; got != want || refused != 3 {
		t.Errorf("it says %q and %d, want %q and 3", got, refused, want)
	}
	for _, listener := range []string{"c", "d", "e", "f"} {
		tell("one", gate.InvalidToken, listener)
	}
	if past, refused := r.Of("one"); len(past) != 4 || past[0].Listener != "f" || refused != 7 {
		t.Errorf("it says %d and %d", len(past), refused)
	}
}

// TestAFloodOfTokensPushesOutNoneThatCameAgain, and there is an end to both.
func TestAFloodOfTokensPushesOutNoneThatCameAgain(t *testing.T) {
	r := admin.NewRecent()
	tell := func(mark string) { r.Tell(&gate.Event{Fingerprint: mark, Reason: gate.InvalidToken}) }
	known := func(mark string) bool {
		past, _ := r.Of(mark)
		return past != nil
	}
	for i := range 3072 {
		for range 2 {
			tell(fmt.Sprint("often ", i))
		}
	}
	tell("once")
	for i := range 1024 {
		r.Why(fmt.Sprint("made up ", i), "sso", "its signature is not good") // which comes first
		tell(fmt.Sprint("made up ", i))
	}
	if known("once") || !known("made up 0") || !known("made up 1023") {
		t.Error("of those that came once, others are remembered than the last 1024")
	}
	for i := range 3072 {
		if !known(fmt.Sprint("often ", i)) {
			t.Fatalf("the flood pushed out %d", i)
		}
	}
	tell("often 0")
	tell("made up 1023")
	if !known("often 0") || known("often 1") || !known("often 2") || !known("made up 1023") {
		t.Error("one that came again took the place of another one than the oldest")
	}
}

func TestWhyVerifiersFoundATokenNotGoodIsRemembered(t *testing.T) {
	r := admin.NewRecent()
	r.Why("one", "sso", "its signature is not good")
	r.Why("one", "idp", "it has expired (exp)")
	r.Why("one", "sso", "its iss is not the configured issuer")
	for verifier, want := range map[string]string{"sso": "its iss is not the configured issuer", "idp": "it has expired (exp)", "crm": ""} {
		if got := r.WhyBy("one", verifier); got != want {
			t.Errorf("of %s it is %q, want %q", verifier, got, want)
		}
	}
	if got := r.WhyBy("two", "sso"); got != "" {
		t.Errorf("of another token it is %q", got)
	}
	if past, refused := r.Of("one"); len(past) != 0 || refused != 0 {
		t.Errorf("without a decision: %v", past)
	}
}
