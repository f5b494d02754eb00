package admin

import (
	"context"
	"encoding/hex"
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/bearergate/bearergate/gate"
	adminv1 "github.com/bearergate/bearergate/proto/bearergate/admin/v1"
	"github.com/bearergate/bearergate/proto/bearergate/admin/v1/adminv1connect"
)

// The bounds of who looks at decisions.
const (
	// tailPause lies between two messages, so that to look at many decisions costs no
	// message for each.
	tailPause = 100 * time.Millisecond
	// tailPulse is after how long there is a message though nothing was decided.
	tailPulse = 5 * time.Second
	// tailPatience is how long a message may take to be sent.
	tailPatience = 10 * time.Second
	// maxWanted is how many entries a list of a filter has.
	maxWanted = 32
)

// Tail implements [adminv1connect.AdminServiceHandler].
func (a *api) Tail(ctx context.Context, r *adminv1.TailRequest, stream adminv1connect.AdminServiceTailServerStream) error {
	c, err := a.controls()
	if err != nil {
		return err
	}
	f, err := wanted(c, r)
	if err != nil {
		return err
	}
	w, err := c.Events.Watch(f)
	if err != nil {
		return connect.NewError(connect.CodeResourceExhausted, err.Error())
	}
	defer w.Close()
	var first *gate.Event // that was waited for
	for {
		if err := sendTail(ctx, stream, first, w); err != nil {
			return err
		}
		// What is decided meanwhile comes together.
		if first, err = a.next(ctx, nil, tailPause); err == nil {
			first, err = a.next(ctx, w.Events(), tailPulse)
		}
		if err != nil {
			_ = sendTail(ctx, stream, nil, w) // what waits still; nobody is there if it fails
			return err
		}
	}
}

// sendTail sends what waits, as long as whoever asked for it may have it.
func sendTail(ctx context.Context, stream adminv1connect.AdminServiceTailServerStream, first *gate.Event, w *gate.Watcher) error {
	if err := prolong(ctx); err != nil {
		return err
	}
	response := &adminv1.TailResponse{}
	if first != nil {
		response.Decisions = append(response.Decisions, decisionMessage(first))
	}
	for range len(w.Events()) {
		response.Decisions = append(response.Decisions, decisionMessage(<-w.Events()))
	}
	response.Missed = w.Missed()
	return stream.Send(response)
}

var errTailEnds = connect.NewError(connect.CodeUnavailable, "the gateway stops, or makes this listener anew")

// next waits for a decision; at most so long, and then there is none. The error says
// why there will be no more.
func (a *api) next(ctx context.Context, events <-chan *gate.Event, most time.Duration) (*gate.Event, error) {
	timer := time.NewTimer(most)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-a.server.stopping:
		return nil, errTailEnds
	case e := <-events:
		return e, nil
	case <-timer.C:
		return nil, nil
	}
}

// lasting is the key of a [lastingCall], in the context of one.
type lasting struct{}

// lastingCall is a call that sends several messages, for as long as somebody reads them.
type lastingCall struct {
	connection *http.ResponseController
	// admit says why the call would not be let in now.
	admit func() *connect.Error
}

// prolong has a call that lasts live through the next message, if it would be let in
// now: the limits of the server are for calls that are answered at once, and so is the
// look at the credential when it came.
func prolong(ctx context.Context) error {
	c, ok := ctx.Value(lasting{}).(*lastingCall)
	if !ok {
		return nil
	}
	if err := c.admit(); err != nil {
		return err
	}
	_ = c.connection.SetWriteDeadline(time.Now().Add(tailPatience))
	return nil
}

// wanted reads a filter.
func wanted(c *Controls, r *adminv1.TailRequest) (f gate.Filter, err error) {
	words := map[string]gate.Outcome{}
	for _, o := range []gate.Outcome{gate.Allow, gate.Unauthorized, gate.Forbidden, gate.Refused, gate.Unavailable} {
		words[o.String()] = o
	}
	if f.Outcomes, err = each("outcomes", r.GetOutcomes(), known(words)); err != nil {
		return f, err
	}
	if f.Reasons, err = each("reasons", r.GetReasons(), known(reasonsByWord)); err != nil {
		return f, err
	}
	if f.Policies, err = each("policies", r.GetPolicies(), among(c.Policies())); err != nil {
		return f, err
	}
	var listeners []string
	for _, l := range c.Listeners() {
		listeners = append(listeners, l.Name)
	}
	if f.Listeners, err = each("listeners", r.GetListeners(), among(listeners)); err != nil {
		return f, err
	}
	if f.Fingerprints, err = each("fingerprints", r.GetFingerprints(), fingerprint); err != nil {
		return f, err
	}
	f.Clients, err = each("clients", r.GetClients(), network)
	return f, err
}

// each reads the entries of a list. What is wrong is not repeated: it may be anything.
func each[T any](field string, entries []string, read func(string) (T, string)) ([]T, error) {
	if len(entries) > maxWanted {
		return nil, connect.Errorf(connect.CodeInvalidArgument, "%s: has more than %d entries", field, maxWanted)
	}
	var all []T
	for i, entry := range entries {
		value, wrong := read(entry)
		if wrong != "" {
			return nil, connect.Errorf(connect.CodeInvalidArgument, "%s[%d]: %s", field, i, wrong)
		}
		all = append(all, value)
	}
	return all, nil
}

func known[T any](words map[string]T) func(string) (T, string) {
	return func(text string) (T, string) {
		value, ok := words[text]
		if !ok {
			return value, "write one of " + strings.Join(slices.Sorted(maps.Keys(words)), ", ")
		}
		return value, ""
	}
}

func among(names []string) func(string) (string, string) {
	return func(text string) (string, string) {
		if !slices.Contains(names, text) {
			return "", "is not there; there are " + strings.Join(names, ", ")
		}
		return text, ""
	}
}

// fingerprint reads the fingerprint of a token, or none.
func fingerprint(text string) (string, string) {
	bytes, err := hex.DecodeString(text)
	if text != noToken && (err != nil || len(bytes) != 6) {
		return "", "is no fingerprint, which has 12 hexadecimal digits, as the log has them; write none for requests without a token"
	}
	return strings.ToLower(text), ""
}

// network reads an address, or several.
func network(text string) (netip.Prefix, string) {
	if p, err := netip.ParsePrefix(text); err == nil {
		return p.Masked(), ""
	}
	a, err := netip.ParseAddr(text)
	if err != nil || a.Zone() != "" {
		return netip.Prefix{}, "is no address; write for example 192.0.2.1, 192.0.2.0/24 or 2001:db8::/32"
	}
	a = a.Unmap()
	return netip.PrefixFrom(a, a.BitLen()), ""
}

func decisionMessage(e *gate.Event) *adminv1.Decision {
	d := &adminv1.Decision{
		At: timestamppb.New(e.At), Listener: e.Listener, Policy: e.Policy,
		Reason: e.Reason.String(), Outcome: e.Outcome().String(), Shadow: e.Shadow,
		Fingerprint: e.Fingerprint, Detail: e.Detail, Method: e.Method, Host: e.Host, RequestId: e.RequestID,
	}
	if e.Reason.HasVerdict() {
		d.Source = e.Source.String()
	}
	if e.Took > 0 {
		d.Took = durationpb.New(e.Took)
	}
	if e.Client.IsValid() {
		d.Client = e.Client.String()
	}
	return d
}
