package admin_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/bearergate/bearergate/admin"
	"github.com/bearergate/bearergate/bearer"
	"github.com/bearergate/bearergate/gate"
	"github.com/bearergate/bearergate/listen/listentest"
	adminv1 "github.com/bearergate/bearergate/proto/bearergate/admin/v1"
	"github.com/bearergate/bearergate/proto/bearergate/admin/v1/adminv1connect"
	"github.com/bearergate/bearergate/verifier"
)

const (
	apiPath    = "/" + adminv1connect.AdminServiceName + "/"
	someToken  = "a-token-that-nobody-may-see"
	credential = "0123456789abcdef0123"
)

// operated is a server with an API behind which nothing is.
type operated struct {
	*face

	parser    *bearer.Parser
	denials   *verifier.Denials
	events    gate.Events
	forgotten []string
	allowed   uint32
	reset     int
	reload    admin.Reload
	reloadErr error
	hidden    error  // why the configuration cannot be shown
	stop      func() // shuts the server down, if it is one of its own
}

// shown is a configuration as it is shown.
type shown struct{}

func (shown) YAML() ([]byte, error) { return []byte("cache: {} # <b>\n"), nil }
func (shown) JSON() ([]byte, error) { return []byte("{}\n"), nil }

func operate(t *testing.T, access admin.Access) *operated {
	t.Helper()
	f := start(t)
	f.level.Set(slog.LevelInfo)
	o := &operated{face: f, denials: verifier.NewDenials()}
	var err error
	if o.parser, err = bearer.NewParser(0); err != nil {
		t.Fatal(err)
	}
	stages := admin.Stages{
		Guard: func() verifier.GuardStats {
			return verifier.GuardStats{Breaker: verifier.Open, Opened: time.Unix(1, 0)}
		},
		Cache: func() verifier.CacheStats {
			return verifier.CacheStats{Misses: 7, Good: verifier.PartStats{Entries: 3, Most: 9}}
		},
		Reset: func() { o.reset++ },
	}
	f.Operate(&admin.Controls{
		Version: "v1.2.3", Started: time.Now().Add(-time.Hour),
		Generation: func() uint64 { return 4 },
		Listeners: func() []admin.Listener {
			return []admin.Listener{{Name: "a", Kind: "admin", Address: "unix:/a", TLS: true}}
		},
		Verifiers: func() map[string]admin.Stages { return map[string]admin.Stages{"crm": stages} },
		Reload: func(ctx context.Context) (admin.Reload, error) {
			if ctx.Done() != nil {
				t.Error("a reload ends with the call that asked for it")
			}
			return o.reload, o.reloadErr
		},
		Parse:   o.parser.ParseToken,
		Forget:  func(token bearer.Token) { o.forgotten = append(o.forgotten, token.Fingerprint()) },
		Denials: o.denials, LogLevel: &o.level, LogAllowed: func(n uint32) { o.allowed = n },
		Configuration: func() (admin.Shown, error) { return shown{}, o.hidden },
		Events:        &o.events, Policies: func() []string { return []string{"default", "orders"} },
	})
	if access.Off || access.Profiles || access.Credential != nil {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		other := f.Another(access)
		served := make(chan error, 1)
		go func() { served <- other.Serve(l) }()
		o.stop = sync.OnceFunc(func() {
			f.client.CloseIdleConnections()
			if err := errors.Join(other.Shutdown(context.Background()), <-served); err != nil {
				t.Error(err)
			}
		})
		t.Cleanup(o.stop)
		f.url = "http://" + l.Addr().String()
	}
	return o
}

func (o *operated) calls(options ...connecthttp.Option) adminv1connect.AdminServiceClient {
	return adminv1connect.NewAdminServiceClient(connect.NewClient(connecthttp.NewTransport(o.client, o.url, options...)))
}

// grpc calls by gRPC without TLS.
func (o *operated) grpc(t *testing.T) adminv1connect.AdminServiceClient {
	t.Helper()
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: &protocols}
	t.Cleanup(transport.CloseIdleConnections)
	return adminv1connect.NewAdminServiceClient(connect.NewClient(connecthttp.NewTransport(&http.Client{Transport: transport}, o.url, connecthttp.WithGRPC())))
}

func TestWhatTheAPIDoes(t *testing.T) {
	o := operate(t, admin.Access{})
	ctx, c := t.Context(), o.calls()
	token, err := o.parser.ParseToken(someToken)
	if err != nil {
		t.Fatal(err)
	}
	o.Ready()
	o.Configured(&admin.Configuration{File: "b.yaml", LastReload: &admin.Reload{Result: admin.Refused, Error: "b.yaml:1:1: no"}})

	s, err := c.Status(ctx, &adminv1.StatusRequest{})
	if err != nil || s.GetVersion() != "v1.2.3" || s.GetState() != "ready" || s.GetUptime().AsDuration() < time.Hour ||
		s.GetConfiguration().GetGeneration() != 4 || s.GetConfiguration().GetLastReload().GetError() != "b.yaml:1:1: no" ||
		len(s.GetListeners()) != 1 || !s.GetListeners()[0].GetTls() || s.GetLogLevel() != "info" ||
		len(s.GetVerifiers()) != 1 || s.GetVerifiers()[0].GetBreaker() != "open" || s.GetVerifiers()[0].GetMisses() != 7 || s.GetVerifiers()[0].GetGood().GetMost() != 9 {
		t.Errorf("Status: %v, %v", s, err)
	}

	if f, err := c.Forget(ctx, &adminv1.ForgetRequest{Token: someToken}); err != nil || f.GetFingerprint() != token.Fingerprint() || len(o.forgotten) != 1 {
		t.Errorf("Forget: %v, %v; forgotten is %v", f, err, o.forgotten)
	}
	d, err := c.Deny(ctx, &adminv1.DenyRequest{Which: &adminv1.DenyRequest_Token{Token: someToken}, Reason: "leaked", Duration: durationpb.New(time.Hour)})
	if err != nil || d.GetDenial().GetFingerprint() != token.Fingerprint() || d.GetDenial().GetUntil().AsTime().Sub(d.GetDenial().GetSince().AsTime()) != time.Hour || len(o.forgotten) != 2 {
		t.Errorf("Deny: %v, %v; forgotten is %v", d, err, o.forgotten)
	}
	if _, err := c.Deny(ctx, &adminv1.DenyRequest{Which: &adminv1.DenyRequest_Fingerprint{Fingerprint: "0123456789ab"}, Reason: "runs wild"}); err != nil {
		t.Errorf("Deny by fingerprint: %v", err)
	}
	list, err := c.ListDenials(ctx, &adminv1.ListDenialsRequest{})
	if err != nil || list.GetAll() != 2 || len(list.GetDenials()) != 2 || list.GetDenials()[0].GetReason() != "runs wild" || !strings.HasPrefix(list.GetDenials()[1].GetWho(), "127.0.0.1:") {
		t.Errorf("ListDenials: %v, %v", list, err)
	}
	if _, err := c.SetLog(ctx, &adminv1.SetLogRequest{Level: "error", Allowed: &adminv1.SetLogRequest_AllowedOneIn{AllowedOneIn: 5}}); err != nil || o.level.Level() != slog.LevelError || o.allowed != 5 {
		t.Errorf("SetLog: %v; %v and %d", err, o.level.Level(), o.allowed)
	}
	if _, err := c.ResetBreaker(ctx, &adminv1.ResetBreakerRequest{Verifier: "crm"}); err != nil || o.reset != 1 {
		t.Errorf("ResetBreaker: %v, %d", err, o.reset)
	}
	o.reload, o.reloadErr = admin.Reload{Result: admin.Refused, Error: "no"}, errors.New("no")
	if r, err := c.Reload(ctx, &adminv1.ReloadRequest{}); err != nil || r.GetReload().GetResult() != "refused" || r.GetReload().GetError() != "no" {
		t.Errorf("Reload: %v, %v", r, err)
	}
	o.reload, o.reloadErr = admin.Reload{}, errors.New("no file")
	if r, err := c.Reload(ctx, &adminv1.ReloadRequest{}); connect.CodeOf(err) != connect.CodeFailedPrecondition {
		t.Errorf("Reload without a file: %v, %v", r, err)
	}
	text := o.logs.text() // also of what was done while only errors were to be logged
	for _, call := range []string{"forget", "deny", "set_log", "reset_breaker", "reload"} {
		if !strings.Contains(text, `"who":"127.0.0.1:`) || !strings.Contains(text, `"call":"`+call+`"`) {
			t.Errorf("no line says who called %s:\n%s", call, text)
		}
	}
	if strings.Contains(text, someToken) || !strings.Contains(text, `"token":"`+token.Fingerprint()+`","reason":"leaked"`) {
		t.Errorf("the log says\n%s", text)
	}
}

func TestListDenialsIsBounded(t *testing.T) {
	o := operate(t, admin.Access{})
	for n := range 1001 {
		if _, err := o.denials.DenyFingerprint(fmt.Sprintf("%012x", n), time.Hour, "x", "y"); err != nil {
			t.Fatal(err)
		}
	}
	list, err := o.calls().ListDenials(t.Context(), &adminv1.ListDenialsRequest{})
	if err != nil || list.GetAll() != 1001 || len(list.GetDenials()) != 1000 {
		t.Errorf("ListDenials: %d of %d, %v", len(list.GetDenials()), list.GetAll(), err)
	}
}

func TestWrongCallsChangeNothing(t *testing.T) {
	o := operate(t, admin.Access{})
	c := o.calls()
	byToken, byFingerprint := &adminv1.DenyRequest_Token{Token: someToken}, &adminv1.DenyRequest_Fingerprint{Fingerprint: "0123456789ab"}
	for name, call := range map[string]func() error{
		"forget no token": func() error { _, err := c.Forget(t.Context(), &adminv1.ForgetRequest{}); return err },
		"forget what is no token": func() error {
			_, err := c.Forget(t.Context(), &adminv1.ForgetRequest{Token: "what is this"})
			return err
		},
		"deny nothing":          func() error { return deny(t, c, &adminv1.DenyRequest{Reason: "x"}) },
		"deny without a reason": func() error { return deny(t, c, &adminv1.DenyRequest{Which: byToken}) },
		"deny with too long a reason": func() error {
			return deny(t, c, &adminv1.DenyRequest{Which: byToken, Reason: strings.Repeat("x", 201)})
		},
		"deny with a reason of two lines": func() error { return deny(t, c, &adminv1.DenyRequest{Which: byToken, Reason: "a\nb"}) },
		"deny with the token as reason":   func() error { return deny(t, c, &adminv1.DenyRequest{Which: byToken, Reason: "see " + someToken}) },
		"deny for no time": func() error {
			return deny(t, c, &adminv1.DenyRequest{Which: byToken, Reason: "x", Duration: durationpb.New(0)})
		},
		"deny for less than no time": func() error {
			return deny(t, c, &adminv1.DenyRequest{Which: byToken, Reason: "x", Duration: durationpb.New(-1)})
		},
		"deny for too long": func() error {
			return deny(t, c, &adminv1.DenyRequest{Which: byFingerprint, Reason: "x", Duration: durationpb.New(31 * 24 * time.Hour)})
		},
		"deny what is no fingerprint": func() error {
			return deny(t, c, &adminv1.DenyRequest{Which: &adminv1.DenyRequest_Fingerprint{Fingerprint: "0123456789aX"}, Reason: "x"})
		},
		"deny a fingerprint that is too long": func() error {
			return deny(t, c, &adminv1.DenyRequest{Which: &adminv1.DenyRequest_Fingerprint{Fingerprint: "0123456789abcd"}, Reason: "x"})
		},
		"set nothing of the log": func() error { _, err := c.SetLog(t.Context(), &adminv1.SetLogRequest{}); return err },
		"an unknown level":       func() error { _, err := c.SetLog(t.Context(), &adminv1.SetLogRequest{Level: "loud"}); return err },
		"too rare lines": func() error {
			_, err := c.SetLog(t.Context(), &adminv1.SetLogRequest{Level: "error", Allowed: &adminv1.SetLogRequest_AllowedOneIn{AllowedOneIn: 1_000_001}})
			return err
		},
		"an unknown verifier": func() error {
			_, err := c.ResetBreaker(t.Context(), &adminv1.ResetBreakerRequest{Verifier: "other"})
			return err
		},
	} {
		err := call()
		if code := connect.CodeOf(err); err == nil || code != connect.CodeInvalidArgument && code != connect.CodeNotFound {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil && strings.Contains(err.Error(), someToken) {
			t.Errorf("%s: the error holds the token: %v", name, err)
		}
	}
	if len(o.forgotten)+o.reset > 0 || len(o.denials.All()) > 0 || o.level.Level() != slog.LevelInfo || o.logs.text() != "" {
		t.Errorf("something was done: %+v\n%s", o, o.logs.text())
	}
}

func deny(t *testing.T, c adminv1connect.AdminServiceClient, r *adminv1.DenyRequest) error {
	t.Helper()
	_, err := c.Deny(t.Context(), r)
	return err
}

func TestTheAPISpeaksThreeProtocols(t *testing.T) {
	o := operate(t, admin.Access{})
	for name, options := range map[string][]connecthttp.Option{
		"Connect": nil, "JSON": {connecthttp.WithProtoJSON()}, "gRPC-Web": {connecthttp.WithGRPCWeb()},
	} {
		if s, err := o.calls(options...).Status(t.Context(), &adminv1.StatusRequest{}); err != nil || s.GetVersion() != "v1.2.3" {
			t.Errorf("%s: %v, %v", name, s, err)
		}
	}
	c := o.grpc(t)
	if s, err := c.Status(t.Context(), &adminv1.StatusRequest{}); err != nil || s.GetVersion() != "v1.2.3" {
		t.Errorf("gRPC: %v, %v", s, err)
	}
}

// TestWhoMayNotCall is about pages in an operator's browser, and about strangers.
func TestWhoMayNotCall(t *testing.T) {
	open := operate(t, admin.Access{})
	guarded := operate(t, admin.Access{Credential: func() ([]byte, error) { return []byte(credential), nil }})
	broken := operate(t, admin.Access{Credential: func() ([]byte, error) { return nil, errors.New("it is not there") }})
	off := operate(t, admin.Access{Off: true})
	begin := time.Now()
	named := func(name string) func(*http.Request) { return func(r *http.Request) { r.Host = name } }
	with := func(headers ...string) func(*http.Request) {
		return func(r *http.Request) {
			for i := 0; i < len(headers); i += 2 {
				r.Header.Add(headers[i], headers[i+1])
			}
		}
	}
	of := func(contentType string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set("Content-Type", contentType) }
	}
	for name, test := range map[string]struct {
		at     *operated
		change func(*http.Request)
		want   int
	}{
		"a call":                               {open, with(), http.StatusOK},
		"by localhost":                         {open, named("localhost:9190"), http.StatusOK},
		"by an address of IPv6":                {open, named("[::1]:9190"), http.StatusOK},
		"by a name that points here":           {open, named("rebound.example:9190"), http.StatusForbidden},
		"by a name that looks like localhost":  {open, named("localhost.example"), http.StatusForbidden},
		"by a name that looks like an address": {open, named("127.0.0.1.example"), http.StatusForbidden},
		"from a page of another site":          {open, with("Origin", "https://evil.example"), http.StatusForbidden},
		"from a page of nowhere":               {open, with("Origin", "null"), http.StatusForbidden},
		"from another port of this machine":    {open, with("Origin", "http://127.0.0.1:1"), http.StatusForbidden},
		"across sites, as the browser says":    {open, with("Sec-Fetch-Site", "cross-site"), http.StatusForbidden},
		"of the same site but another origin":  {open, with("Sec-Fetch-Site", "same-site"), http.StatusForbidden},
		"from a page of this origin":           {open, with("Sec-Fetch-Site", "same-origin"), http.StatusOK},
		"as a form sends text":                 {open, of("text/plain"), http.StatusUnsupportedMediaType},
		"as a form sends fields":               {open, of("application/x-www-form-urlencoded"), http.StatusUnsupportedMediaType},
		"as a form sends files":                {open, of("multipart/form-data; boundary=x"), http.StatusUnsupportedMediaType},
		"without a content type":               {open, func(r *http.Request) { r.Header.Del("Content-Type") }, http.StatusUnsupportedMediaType},
		"by GET":                               {open, func(r *http.Request) { r.Method = http.MethodGet }, http.StatusMethodNotAllowed},
		"by OPTIONS":                           {open, func(r *http.Request) { r.Method = http.MethodOptions }, http.StatusMethodNotAllowed},
		"compressed":                           {open, with("Content-Encoding", "gzip"), http.StatusNotImplemented},
		"too large": {open, func(r *http.Request) {
			r.Body, r.ContentLength = io.NopCloser(strings.NewReader(`{"x":"`+strings.Repeat("x", 256<<10)+`"}`)), -1
		}, http.StatusTooManyRequests},
		"where there is none":                    {off, with(), http.StatusNotFound},
		"without the credential":                 {guarded, with(), http.StatusUnauthorized},
		"with the credential":                    {guarded, with("Authorization", "Bearer "+credential), http.StatusOK},
		"with it, by any name":                   {guarded, func(r *http.Request) { r.Host = "gate.example"; r.Header.Set("Authorization", "bearer "+credential) }, http.StatusOK},
		"with a part of it":                      {guarded, with("Authorization", "Bearer "+credential[1:]), http.StatusUnauthorized},
		"with it in another scheme":              {guarded, with("Authorization", "Basic "+credential), http.StatusUnauthorized},
		"with two":                               {guarded, with("Authorization", "Bearer "+credential, "Authorization", "Bearer "+credential), http.StatusUnauthorized},
		"with it from a page of another site":    {guarded, with("Authorization", "Bearer "+credential, "Origin", "https://evil.example"), http.StatusForbidden},
		"with a credential that nobody can read": {broken, with("Authorization", "Bearer "), http.StatusServiceUnavailable},
	} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, test.at.url+apiPath+"Status", strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/json")
		test.change(r)
		resp, err := test.at.client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != test.want {
			t.Errorf("%s: %d %s, want %d", name, resp.StatusCode, body, test.want)
		}
		if stored := resp.Header.Get("Cache-Control"); test.at != off && stored != "no-store" {
			t.Errorf("%s: may be stored: %q", name, stored)
		}
		if challenged := resp.Header.Get("WWW-Authenticate") == `Bearer realm="bearergate admin"`; challenged != (test.want == http.StatusUnauthorized) {
			t.Errorf("%s: is told that a credential is wanted: %v", name, challenged)
		}
		if allowed := resp.Header.Get("Access-Control-Allow-Origin"); allowed != "" {
			t.Errorf("%s: lets pages read: %s", name, allowed)
		}
	}
	// A line a second is enough: who is not let in fills no disk.
	if lines, most := strings.Count(open.logs.text(), "was refused"), 2+int(time.Since(begin).Seconds()); lines < 1 || lines > most {
		t.Errorf("%d lines about refused calls, want at most %d", lines, most)
	}
	if text := guarded.logs.text(); !strings.Contains(text, "a call of the admin API was refused") || strings.Contains(text, credential) {
		t.Errorf("the log says\n%s", text)
	}
}

// TestTheLogNamesWhoCallsByTheirCertificate, if the listener has verified it.
func TestTheLogNamesWhoCallsByTheirCertificate(t *testing.T) {
	o := operate(t, admin.Access{})
	authority := listentest.NewAuthority(t)
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		Certificates: []tls.Certificate{authority.Issue(t, listentest.Leaf{}).TLS(t)},
		ClientAuth:   tls.RequireAndVerifyClientCert, ClientCAs: authority.Pool(), MinVersion: tls.VersionTLS13,
	})
	if err != nil {
		t.Fatal(err)
	}
	other := o.Another(admin.Access{})
	served := make(chan error, 1)
	go func() { served <- other.Serve(l) }()
	transport := &http.Transport{TLSClientConfig: &tls.Config{
		Certificates: []tls.Certificate{authority.Issue(t, listentest.Leaf{DNS: []string{"operator.example"}}).TLS(t)},
		RootCAs:      authority.Pool(), MinVersion: tls.VersionTLS13,
	}}
	c := adminv1connect.NewAdminServiceClient(connect.NewClient(connecthttp.NewTransport(&http.Client{Transport: transport}, "https://"+l.Addr().String())))
	d, err := c.Deny(t.Context(), &adminv1.DenyRequest{Which: &adminv1.DenyRequest_Fingerprint{Fingerprint: "0123456789ab"}, Reason: "runs wild"})
	if err != nil || !strings.HasPrefix(d.GetDenial().GetWho(), "operator.example at 127.0.0.1:") {
		t.Errorf("Deny: %v, %v", d, err)
	}
	if text := o.logs.text(); !strings.Contains(text, `"who":"operator.example at 127.0.0.1:`) {
		t.Errorf("the log says\n%s", text)
	}
	transport.CloseIdleConnections()
	if err := errors.Join(other.Shutdown(context.Background()), <-served); err != nil {
		t.Error(err)
	}
}

func TestTheAPIIsNotReadyBeforeItsControls(t *testing.T) {
	f := start(t)
	c := adminv1connect.NewAdminServiceClient(connect.NewClient(connecthttp.NewTransport(f.client, f.url)))
	if _, err := c.Status(t.Context(), &adminv1.StatusRequest{}); connect.CodeOf(err) != connect.CodeUnavailable {
		t.Errorf("Status: %v", err)
	}
}

// TestWhenTooManyAreDeniedItIsSaidAlike, by token and by fingerprint.
func TestWhenTooManyAreDeniedItIsSaidAlike(t *testing.T) {
	o := operate(t, admin.Access{})
	for i := range 100_000 {
		if _, err := o.denials.DenyFingerprint(fmt.Sprintf("%012x", i), time.Hour, "x", "y"); err != nil {
			t.Fatal(err)
		}
	}
	for name, r := range map[string]*adminv1.DenyRequest{
		"the token":       {Which: &adminv1.DenyRequest_Token{Token: someToken}, Reason: "leaked"},
		"the fingerprint": {Which: &adminv1.DenyRequest_Fingerprint{Fingerprint: "ffffffffffff"}, Reason: "leaked"},
	} {
		if _, err := o.calls().Deny(t.Context(), r); connect.CodeOf(err) != connect.CodeResourceExhausted {
			t.Errorf("by %s: %v", name, err)
		}
	}
}
