package captured_test

import (
	"bytes"
	"strings"
	"testing"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	"github.com/bearergate/bearergate/extauthz/captured"
)

func TestEachCheckIsThereForPeopleToo(t *testing.T) {
	all, err := captured.All()
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 20 {
		t.Fatalf("%d checks", len(all))
	}
	for _, c := range all {
		var bytesSay, textSays authv3.CheckRequest
		if err := proto.Unmarshal(c.Message, &bytesSay); err != nil {
			t.Fatalf("%s: %v", c.Name, err)
		}
		text, err := c.Text()
		if err != nil {
			t.Fatal(err)
		}
		if err := prototext.Unmarshal(text, &textSays); err != nil {
			t.Fatalf("%s: %v", c.Name, err)
		}
		if !proto.Equal(&bytesSay, &textSays) {
			t.Errorf("%s: the text is about another check", c.Name)
		}
	}
}

func TestAnotherTokenChangesNothingElse(t *testing.T) {
	for name, old := range map[string]string{"typical": captured.Token, "header-map-http2": captured.Token, "large": captured.LongToken} {
		c, err := captured.Named(name)
		if err != nil {
			t.Fatal(err)
		}
		other := strings.Repeat("x", len(old))
		got, err := c.WithToken(other)
		if err != nil {
			t.Fatal(err)
		}
		if want := strings.Replace(string(c.Message), old, other, 1); string(got) != want {
			t.Errorf("%s: got %q", name, got)
		}
		if !bytes.Contains(c.Message, []byte(old)) {
			t.Errorf("%s: the check itself was changed", name)
		}
	}
}

func TestATokenIsOnlyReplacedWhereItFits(t *testing.T) {
	for name, token := range map[string]string{
		"typical":          captured.Token + "x",
		"large":            captured.Token,
		"doubled":          captured.Token, // has it twice
		"no-authorization": captured.Token,
	} {
		c, err := captured.Named(name)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := c.WithToken(token); err == nil {
			t.Errorf("%s: got %q", name, got)
		}
	}
	if _, err := captured.Named("nothing"); err == nil {
		t.Error("there is a check that nobody captured")
	}
}
