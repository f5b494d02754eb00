package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"syscall"
	"testing"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"google.golang.org/protobuf/types/known/durationpb"

	adminv1 "github.com/bearergate/bearergate/proto/bearergate/admin/v1"
	"github.com/bearergate/bearergate/proto/bearergate/admin/v1/adminv1connect"
)

// TestDecisionsAreWatched by a command, until Ctrl-C.
func TestDecisionsAreWatched(t *testing.T) {
	t.Parallel()
	e := endpoint(t)
	g := serve(t, nil, onLoopback(e.URL()))
	faces := g.address["auth_request"]
	good := token(t, e)
	tail := func(args ...string) *program {
		p := start(t, nil, append([]string{"tail", "--admin", g.address["admin"]}, args...)...)
		// It watches once the gateway shows a request that it is sent until then.
		eventually(t, "line of tail", func() error {
			mustGet(t, faces, "/auth", good, http.StatusOK)
			mustGet(t, faces, "/auth", "", http.StatusUnauthorized)
			if p.out.String() == "" {
				return errors.New("there is none")
			}
			return nil
		})
		return p
	}
	text, refused, asJSON := tail(), tail("--refused", "--policy", "default"), tail("--reason", "valid", "-o", "json")
	// Each has been there for the same one after this.
	mustGet(t, faces, "/auth", "not-good", http.StatusUnauthorized)
	mustGet(t, faces, "/auth", good, http.StatusOK)
	for _, p := range []*program{text, refused} {
		p.await(t, "the last decision", p.out, func(text string) bool { return strings.Contains(text, " invalid_token ") })
		p.signal(t, syscall.SIGINT)
		if code := p.code(t); code != exitGood || p.err.String() != "" {
			t.Errorf("it ended with %d: %s", code, p.err)
		}
		expectHidden(t, p.out.String(), good, "not-good")
	}
	if out := text.out.String(); !strings.Contains(out, " allow        valid ") || strings.Contains(out, "\x1b") {
		t.Errorf("tail says\n%s", out)
	}
	for line := range strings.Lines(refused.out.String()) {
		if !strings.Contains(line, " unauthorized ") || !strings.HasSuffix(line, "\n") || !strings.Contains(line, " auth_request default") {
			t.Errorf("tail --refused says %q", line)
		}
	}

	g.signal(t, syscall.SIGTERM) // who watches is told
	if code := asJSON.code(t); code != exitUnknown || !strings.Contains(asJSON.err.String(), "the gateway stops") || strings.Count(asJSON.err.String(), "\n") != 1 {
		t.Errorf("it ended with %d: %s", code, asJSON.err)
	}
	if code := g.code(t); code != exitGood {
		t.Errorf("the gateway ended with %d: %s", code, g.err)
	}
	expectHidden(t, asJSON.out.String(), good)
	for line := range strings.Lines(asJSON.out.String()) {
		var d struct {
			Reason, Outcome, Fingerprint, Listener, At string
			RequestID                                  *string `json:"request_id"`
		}
		if err := json.Unmarshal([]byte(line), &d); err != nil || d.Reason != "valid" || d.Outcome != "allow" || len(d.Fingerprint) != 12 || d.Listener != "auth_request" || d.RequestID == nil {
			t.Errorf("tail says %s: %v", line, err)
		}
	}
}

// TestTailEndsWhenItsCredentialIsAnother: what it began with is good no more.
func TestTailEndsWhenItsCredentialIsAnother(t *testing.T) {
	t.Parallel()
	const before, after = "0123456789abcdef-before", "0123456789abcdef-after"
	theirs, ours := file(t, "theirs", before), file(t, "ours", before)
	g := serve(t, nil, strings.Replace(onLoopback("https://api.example.com/"), `admin: {address: "127.0.0.1:0"}`,
		fmt.Sprintf(`admin: {address: "127.0.0.1:0", api: {credential: {file: %q}}}`, theirs), 1))
	p := start(t, nil, "tail", "--admin", g.address["admin"], "--credential-file", ours)
	eventually(t, "line of tail", func() error {
		mustGet(t, g.address["auth_request"], "/auth", "", http.StatusUnauthorized)
		if p.out.String() == "" {
			return errors.New("there is none")
		}
		return nil
	})
	if err := os.Rename(file(t, "next", after), theirs); err != nil {
		t.Fatal(err)
	}
	if code := p.code(t); code != exitUnknown || p.err.String() != "bearergate: it was ended: the credential of the admin API is missing or wrong\n" {
		t.Errorf("it ended with %d: %s", code, p.err)
	}
	g.awaitLog(t, "a call of the admin API was refused")
	expectHidden(t, g.err.String(), before, after)
}

// telling is a gateway that tells these, and then ends it, or is silent.
type telling struct {
	adminv1connect.UnimplementedAdminServiceHandler

	all    []*adminv1.TailResponse
	silent bool
}

func (g *telling) Tail(ctx context.Context, _ *adminv1.TailRequest, stream adminv1connect.AdminServiceTailServerStream) error {
	for _, response := range g.all {
		if err := stream.Send(response); err != nil {
			return err
		}
	}
	if g.silent {
		<-ctx.Done()
	}
	return connect.NewError(connect.CodeUnavailable, "the gateway stops")
}

// answered has somebody answer for a gateway, and returns the address.
func answered(t *testing.T, g adminv1connect.AdminServiceHandler) string {
	t.Helper()
	server, mux := connect.NewServer(), http.NewServeMux()
	adminv1connect.RegisterAdminServiceHandler(server, g)
	connecthttp.Mount(mux, server)
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

func TestTailSaysWhatWasLeftOut(t *testing.T) {
	t.Parallel()
	g := &telling{all: []*adminv1.TailResponse{
		{},
		{Decisions: []*adminv1.Decision{{Outcome: "allow", Reason: "valid", Shadow: true, Host: "a\x1b[2Jb", Took: durationpb.New(1_234_567)}}, Missed: 7},
		{Missed: 7},
		{Decisions: []*adminv1.Decision{{Outcome: "unauthorized", Reason: "malformed_token", Detail: "something follows the token"}}, Missed: 9},
	}}
	address := answered(t, g)
	const left = "bearergate: 7 decisions were left out here, because they came too fast; 7 in all\n" +
		"bearergate: 2 decisions were left out here, because they came too fast; 9 in all\n"
	for _, as := range []string{"text", "json"} {
		got := call(t, invocation{args: []string{"tail", "--admin", address, "--output", as}})
		if got.code != exitUnknown || !strings.HasPrefix(got.stderr, left) || strings.Count(got.stderr, "\n") != 3 {
			t.Errorf("%s: ended with %d: %s", as, got.code, got.stderr)
		}
		if strings.Contains(got.stdout, "\x1b") || strings.Count(got.stdout, "\n") != 2 {
			t.Errorf("%s: says %q", as, got.stdout)
		}
		if as == "text" && (!strings.Contains(got.stdout, "  shadow       valid ") || !strings.Contains(got.stdout, `"a\x1b[2Jb" took=1.23ms`) || !strings.HasSuffix(got.stdout, ": something follows the token\n")) {
			t.Errorf("text: says %q", got.stdout)
		}
	}
}

func TestTailDoesNotWaitForASilentGateway(t *testing.T) {
	t.Parallel()
	address := answered(t, &telling{silent: true})
	got := call(t, invocation{args: []string{"tail", "--admin", address, "--timeout", "100ms"}})
	if want := "bearergate: no answer from the gateway: it says nothing any more\n"; got.code != exitUnknown || got.stderr != want {
		t.Errorf("%+v", got)
	}
}
