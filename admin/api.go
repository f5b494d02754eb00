package admin

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/bearergate/bearergate/bearer"
	"github.com/bearergate/bearergate/gate"
	adminv1 "github.com/bearergate/bearergate/proto/bearergate/admin/v1"
	"github.com/bearergate/bearergate/proto/bearergate/admin/v1/adminv1connect"
	"github.com/bearergate/bearergate/talkers"
	"github.com/bearergate/bearergate/verifier"
)

// Controls are what an operator can ask and do. Who runs the gateway fills them in;
// they may be called concurrently.
type Controls struct {
	Version string
	Started time.Time
	// Generation is the number of the configuration in force since the start.
	Generation func() uint64
	Listeners  func() []Listener
	// Verifiers are the stages in front of verifiers, by the verifiers' names.
	Verifiers func() map[string]Stages
	// Reload reads the configuration again. Without a result nothing was read.
	Reload func(context.Context) (Reload, error)
	// Parse reads a bare token.
	Parse func(string) (bearer.Token, error)
	// Forget has all verifiers forget a token.
	Forget  func(bearer.Token)
	Denials *verifier.Denials
	// LogLevel is nil if it cannot be changed.
	LogLevel   *slog.LevelVar
	LogAllowed func(oneIn uint32)
	// Events are where decisions can be watched.
	Events *gate.Events
	// Explain answers a question. The error is one of whoever asks.
	Explain func(context.Context, Question) (*Explanation, error)
	// Recent is what is remembered of decisions.
	Recent *Recent
	// Configuration shows the configuration in force.
	Configuration func() (Shown, error)
	// Policies names the policies of the configuration in force.
	Policies func() []string
	// Diagnostics say how the process and its machine are.
	Diagnostics func() *adminv1.DiagnosticsResponse
	// Talkers are those who were seen most.
	Talkers func() []talkers.Top
}

// Listener is what the operator is shown of one.
type Listener struct {
	Name, Kind, Address string
	TLS                 bool
}

// Shown is a configuration as it is shown, without secrets.
type Shown interface {
	YAML() ([]byte, error)
	JSON() ([]byte, error)
}

// Operate has the API work with these controls. Until then it answers that it is not
// ready.
func (s *Server) Operate(c *Controls) { s.shown.controls.Store(c) }

// apiPath is where the API is.
const apiPath = "/" + adminv1connect.AdminServiceName + "/"

// api returns the handler of the API.
func (s *Server) api(a Access) http.Handler {
	server := connect.NewServer()
	adminv1connect.RegisterAdminServiceHandler(server, &api{server: s})
	mux := http.NewServeMux()
	// Nothing is decompressed: what is sent is short.
	connecthttp.Mount(mux, server, connecthttp.WithReadMaxBytes(maxCallBytes), connecthttp.WithCompressors())
	return s.guarded(mux, a)
}

// api answers the calls.
type api struct {
	adminv1connect.UnimplementedAdminServiceHandler

	server *Server
}

func (a *api) controls() (*Controls, error) {
	if c := a.server.shown.controls.Load(); c != nil {
		return c, nil
	}
	return nil, connect.NewError(connect.CodeUnavailable, "the gateway is not running yet")
}

// Status implements [adminv1connect.AdminServiceHandler].
func (a *api) Status(context.Context, *adminv1.StatusRequest) (*adminv1.StatusResponse, error) {
	c, err := a.controls()
	if err != nil {
		return nil, err
	}
	state, _ := a.server.shown.now()
	shown := a.server.shown.configuration.Load()
	status := &adminv1.StatusResponse{
		Version: c.Version, Started: timestamppb.New(c.Started), Uptime: durationpb.New(time.Since(c.Started)),
		State: state,
		Configuration: &adminv1.Configuration{
			File: shown.File, InForceSince: timestamppb.New(shown.InForceSince), Generation: c.Generation(),
		},
		Denied: uint32(len(c.Denials.All())), //nolint:gosec // it is bounded
	}
	if shown.LastReload != nil {
		status.Configuration.LastReload = shown.LastReload.message()
	}
	if c.LogLevel != nil {
		status.LogLevel = strings.ToLower(c.LogLevel.Level().String())
	}
	for _, l := range c.Listeners() {
		status.Listeners = append(status.Listeners, &adminv1.Listener{Name: l.Name, Kind: l.Kind, Address: l.Address, Tls: l.TLS})
	}
	all := c.Verifiers()
	for _, name := range slices.Sorted(maps.Keys(all)) {
		status.Verifiers = append(status.Verifiers, all[name].message(name))
	}
	return status, nil
}

// Activity implements [adminv1connect.AdminServiceHandler].
func (a *api) Activity(context.Context, *adminv1.ActivityRequest) (*adminv1.ActivityResponse, error) {
	return a.server.shown.recent(), nil
}

func (r *Reload) message() *adminv1.Reload {
	return &adminv1.Reload{At: timestamppb.New(r.At), Result: r.Result, Error: r.Error, NeedRestart: r.NeedRestart}
}

func (s Stages) message(name string) *adminv1.Verifier {
	guard, cache := s.Guard(), s.Cache()
	//nolint:gosec // they are counts
	v := &adminv1.Verifier{
		Name: name, Breaker: guard.Breaker.String(),
		Calls: uint32(guard.Calls), CallsWaiting: uint32(guard.Waiting), CallsShed: uint64(guard.Shed),
		Good: partMessage(cache.Good), Refused: partMessage(cache.Refused),
		Misses: cache.Misses, Waiting: uint32(cache.Waiting), Refreshed: cache.Refreshed,
	}
	if !guard.Opened.IsZero() {
		v.BreakerOpened = timestamppb.New(guard.Opened)
	}
	return v
}

func partMessage(p verifier.PartStats) *adminv1.CachePart {
	return &adminv1.CachePart{
		Entries: uint64(p.Entries), Most: uint64(p.Most), //nolint:gosec // they are counts
		Evicted: p.Evicted, Rejected: p.Rejected,
	}
}

// Reload implements [adminv1connect.AdminServiceHandler].
func (a *api) Reload(ctx context.Context, _ *adminv1.ReloadRequest) (*adminv1.ReloadResponse, error) {
	c, err := a.controls()
	if err != nil {
		return nil, err
	}
	r, err := c.Reload(context.WithoutCancel(ctx)) // who asked may go away
	if r.Result == "" {
		a.done(ctx, "reload", attr("result", "failed"))
		return nil, connect.NewError(connect.CodeFailedPrecondition, err.Error())
	}
	a.done(ctx, "reload", attr("result", r.Result))
	return &adminv1.ReloadResponse{Reload: r.message()}, nil
}

// Forget implements [adminv1connect.AdminServiceHandler].
func (a *api) Forget(ctx context.Context, r *adminv1.ForgetRequest) (*adminv1.ForgetResponse, error) {
	c, err := a.controls()
	if err != nil {
		return nil, err
	}
	t, err := parse(c, r.GetToken())
	if err != nil {
		return nil, err
	}
	c.Forget(t)
	a.done(ctx, "forget", attr("token", t.Fingerprint()))
	return &adminv1.ForgetResponse{Fingerprint: t.Fingerprint()}, nil
}

// parse reads a token that somebody names. The error holds no part of it.
func parse(c *Controls, token string) (bearer.Token, error) {
	t, err := c.Parse(token)
	if err != nil {
		return t, connect.NewError(connect.CodeInvalidArgument, "this cannot be a token: "+err.Error())
	}
	return t, nil
}

// maxReasonBytes bounds what is said of a denial.
const maxReasonBytes = 200

// Deny implements [adminv1connect.AdminServiceHandler].
func (a *api) Deny(ctx context.Context, r *adminv1.DenyRequest) (*adminv1.DenyResponse, error) {
	c, err := a.controls()
	if err != nil {
		return nil, err
	}
	reason, last := r.GetReason(), r.GetDuration().AsDuration()
	switch {
	case reason == "" || len(reason) > maxReasonBytes || !utf8.ValidString(reason) || strings.ContainsFunc(reason, isControl):
		return nil, connect.NewError(connect.CodeInvalidArgument, "reason: say why, in 1 to 200 bytes of one line")
	case r.GetDuration() != nil && (r.GetDuration().CheckValid() != nil || last <= 0 || last > verifier.MaxDenial):
		return nil, connect.NewError(connect.CodeInvalidArgument, "duration: is more than 0, and at most 30 days")
	}
	var d verifier.Denial
	switch which := r.GetWhich().(type) {
	case *adminv1.DenyRequest_Token:
		t, err := parse(c, which.Token)
		if err != nil {
			return nil, err
		}
		if strings.Contains(reason, which.Token) {
			return nil, connect.NewError(connect.CodeInvalidArgument, "reason: holds the token; it would stand in the log")
		}
		if d, err = c.Denials.Deny(t, last, reason, callerOf(ctx)); err != nil {
			return nil, undenied(err)
		}
		c.Forget(t) // it needs no room any more
	case *adminv1.DenyRequest_Fingerprint:
		if d, err = c.Denials.DenyFingerprint(which.Fingerprint, last, reason, callerOf(ctx)); err != nil {
			return nil, undenied(err)
		}
	default:
		return nil, connect.NewError(connect.CodeInvalidArgument, "name the token, or its fingerprint")
	}
	a.done(ctx, "deny", attr("token", d.Fingerprint), attr("reason", reason), attr("until", d.Until.UTC().Format(time.RFC3339)))
	return &adminv1.DenyResponse{Denial: denialMessage(&d)}, nil
}

// undenied says why a denial was not made.
func undenied(err error) error {
	if errors.Is(err, verifier.ErrTooManyDenials) {
		return connect.NewError(connect.CodeResourceExhausted, err.Error())
	}
	return connect.NewError(connect.CodeInvalidArgument, err.Error())
}

func isControl(r rune) bool {
	return r < ' ' || r >= 0x7f && r < 0xa0 || r == '\u2028' || r == '\u2029'
}

func denialMessage(d *verifier.Denial) *adminv1.Denial {
	return &adminv1.Denial{
		Fingerprint: d.Fingerprint, Reason: d.Reason, Who: d.Who,
		Since: timestamppb.New(d.Since), Until: timestamppb.New(d.Until),
	}
}

// maxListed bounds the denials that are listed.
const maxListed = 1000

// ListDenials implements [adminv1connect.AdminServiceHandler].
func (a *api) ListDenials(context.Context, *adminv1.ListDenialsRequest) (*adminv1.ListDenialsResponse, error) {
	c, err := a.controls()
	if err != nil {
		return nil, err
	}
	all := sortedDenials(c.Denials)
	list := &adminv1.ListDenialsResponse{All: uint32(len(all))} //nolint:gosec // it is bounded
	for _, d := range all[:min(len(all), maxListed)] {
		list.Denials = append(list.Denials, denialMessage(&d))
	}
	return list, nil
}

// sortedDenials are all, those that end first first.
func sortedDenials(d *verifier.Denials) []verifier.Denial {
	all := d.All()
	slices.SortFunc(all, func(a, b verifier.Denial) int {
		return cmp.Or(a.Until.Compare(b.Until), strings.Compare(a.Fingerprint, b.Fingerprint))
	})
	return all
}

// SetLog implements [adminv1connect.AdminServiceHandler].
func (a *api) SetLog(ctx context.Context, r *adminv1.SetLogRequest) (*adminv1.SetLogResponse, error) {
	c, err := a.controls()
	if err != nil {
		return nil, err
	}
	levels := map[string]slog.Level{"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError}
	level, known := levels[r.GetLevel()]
	allowed, set := r.GetAllowed().(*adminv1.SetLogRequest_AllowedOneIn)
	switch {
	case r.GetLevel() == "" && !set:
		return nil, connect.NewError(connect.CodeInvalidArgument, "name a level, or allowed_one_in")
	case r.GetLevel() != "" && !known:
		return nil, connect.NewError(connect.CodeInvalidArgument, "level: write debug, info, warn or error")
	case set && allowed.AllowedOneIn > 1_000_000:
		return nil, connect.NewError(connect.CodeInvalidArgument, "allowed_one_in: write 0 to 1000000")
	case r.GetLevel() != "" && c.LogLevel == nil:
		return nil, connect.NewError(connect.CodeFailedPrecondition, "level: it cannot be changed here")
	}
	var what []slog.Attr
	if known {
		c.LogLevel.Set(level)
		what = append(what, attr("level", r.GetLevel()))
	}
	if set {
		c.LogAllowed(allowed.AllowedOneIn)
		what = append(what, slog.Uint64("allowed_one_in", uint64(allowed.AllowedOneIn)))
	}
	a.done(ctx, "set_log", what...)
	return &adminv1.SetLogResponse{}, nil
}

// ResetBreaker implements [adminv1connect.AdminServiceHandler].
func (a *api) ResetBreaker(ctx context.Context, r *adminv1.ResetBreakerRequest) (*adminv1.ResetBreakerResponse, error) {
	c, err := a.controls()
	if err != nil {
		return nil, err
	}
	stages, ok := c.Verifiers()[r.GetVerifier()]
	if !ok {
		return nil, connect.NewError(connect.CodeNotFound, "verifier: there is none with that name; status lists them")
	}
	stages.Reset()
	a.done(ctx, "reset_breaker", attr("verifier", r.GetVerifier()))
	return &adminv1.ResetBreakerResponse{}, nil
}

// Diagnostics implements [adminv1connect.AdminServiceHandler].
func (a *api) Diagnostics(context.Context, *adminv1.DiagnosticsRequest) (*adminv1.DiagnosticsResponse, error) {
	c, err := a.controls()
	if err != nil {
		return nil, err
	}
	return c.Diagnostics(), nil
}

// done writes that somebody has changed something.
func (a *api) done(ctx context.Context, call string, what ...slog.Attr) {
	a.server.audit(ctx, "the gateway was changed through the admin API", callerOf(ctx), append([]slog.Attr{attr("call", call)}, what...)...)
}

// audit writes a line that no level leaves out.
func (s *Server) audit(ctx context.Context, message, who string, what ...slog.Attr) {
	line := slog.NewRecord(time.Now(), slog.LevelWarn, message, 0)
	line.AddAttrs(attr("who", who))
	line.AddAttrs(what...)
	_ = s.logger.Handler().Handle(ctx, line) // nobody could be told of it
}

func attr(name, value string) slog.Attr { return slog.String(name, value) }

func callerOf(ctx context.Context) string {
	who, _ := ctx.Value(caller{}).(string)
	return who
}
