package measure

import (
	"bytes"
	"strings"
	"testing"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/protobuf/proto"
)

func TestNumberedChecksAreEnvoysWithAnotherToken(t *testing.T) {
	for _, k := range Kinds() {
		t.Run(k.Name, func(t *testing.T) {
			r, err := k.Numbered()
			if err != nil {
				t.Fatal(err)
			}
			numbers := []int{0, 7, 1234567, MostTokens - 1}
			tokens := make([]string, len(numbers))
			for i, n := range numbers {
				tokens[i] = r.Token(n)
			}
			checks, err := k.Checks(tokens)
			if err != nil {
				t.Fatal(err)
			}
			for i, n := range numbers {
				got := r.Append([]byte("before"), n)
				if !bytes.Equal(got, append([]byte("before"), checks[i]...)) {
					t.Errorf("request %d is not the captured one with token %s", n, tokens[i])
				}
				if len(checks[i]) != r.Bytes() {
					t.Errorf("request %d has %d bytes, want %d", n, len(checks[i]), r.Bytes())
				}
				var message authv3.CheckRequest
				if err := proto.Unmarshal(checks[i], &message); err != nil {
					t.Fatal(err)
				}
				http := message.GetAttributes().GetRequest().GetHttp()
				value := http.GetHeaders()["authorization"]
				for _, h := range http.GetHeaderMap().GetHeaders() {
					if h.GetKey() == "authorization" {
						value = string(h.GetRawValue())
					}
				}
				if value != "Bearer "+tokens[i] {
					t.Errorf("request %d has authorization %q", n, value)
				}
			}
			if len(r.Refused()) != len(r.Token(0)) || r.Refused() == r.Token(0) {
				t.Errorf("the token that nobody knows is %q", r.Refused())
			}
		})
	}
}

func TestAuthRequests(t *testing.T) {
	r, err := NumberedAuthRequests()
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{0, 42} {
		got, want := r.Append(nil, n), AuthRequests([]string{r.Token(n)})[0]
		if !bytes.Equal(got, want) {
			t.Errorf("request %d is\n%s\nwant\n%s", n, got, want)
		}
		if !strings.Contains(string(got), "\r\nAuthorization: Bearer "+r.Token(n)+"\r\n") {
			t.Errorf("request %d has another token", n)
		}
	}
}
