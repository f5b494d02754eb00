package gate_test

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/bearergate/bearergate/bearer"
	"github.com/bearergate/bearergate/gate"
	"github.com/bearergate/bearergate/verifier"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// canary is the token of all tests. It must never be shown.
const canary = "canary-9f3b.token~of+the/tests=="

// verify is a Verifier made of a function.
type verify func(context.Context, bearer.Token) (verifier.Verdict, error)

func (v verify) Verify(ctx context.Context, t bearer.Token) (verifier.Verdict, error) {
	return v(ctx, t)
}

// says is a Verifier that always gives one answer.
func says(v verifier.Verdict, err error) verify {
	return func(context.Context, bearer.Token) (verifier.Verdict, error) { return v, err }
}

var (
	good    = says(verifier.Verdict{Valid: true}, nil)
	notGood = says(verifier.Verdict{}, nil)
	// unasked is for requests about which the verifier is not to be asked.
	unasked = verify(func(context.Context, bearer.Token) (verifier.Verdict, error) {
		panic("the verifier was asked")
	})
)

// decided is what a gate said of one decision.
type decided struct {
	reason gate.Reason
	source verifier.Source
	policy int
	shadow bool
}

// bench is a gate with all that it tells.
type bench struct {
	*gate.Gate

	logs journal

	mu      sync.Mutex
	decided []decided
	panics  []*verifier.Panic
}

func newGate(t testing.TB, v verifier.Verifier, change ...func(*gate.Options)) *bench {
	t.Helper()
	b := &bench{}
	parser, err := bearer.NewParser(0)
	if err != nil {
		t.Fatal(err)
	}
	o := gate.Options{
		Listener: "test", Parser: parser, Policy: gate.Policy{Verifier: v, Realm: "api"},
		Decided: func(c gate.Tally) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.decided = append(b.decided, decided{c.Reason, c.Source, c.Policy, c.Shadow})
		},
		Panicked: func(p *verifier.Panic) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.panics = append(b.panics, p)
		},
		Logger: slog.New(slog.NewJSONHandler(&b.logs, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	for _, set := range change {
		set(&o)
	}
	b.Gate, err = gate.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// with is a request with these values of the Authorization header.
func with(values ...string) gate.Request { return gate.Request{Authorization: values} }

// withToken is a request as it should be.
func withToken() gate.Request { return with("Bearer " + canary) }

// journal keeps the lines of a log.
type journal struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.buf.Write(p)
}

func (j *journal) text() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.buf.String()
}

// lines returns each line as what its JSON says.
func (j *journal) lines(t *testing.T) []map[string]any {
	t.Helper()
	var lines []map[string]any
	for line := range strings.Lines(j.text()) {
		var fields map[string]any
		if err := json.Unmarshal([]byte(line), &fields); err != nil {
			t.Fatalf("log line %q: %v", line, err)
		}
		lines = append(lines, fields)
	}
	return lines
}

// last returns the newest line.
func (j *journal) last(t *testing.T) map[string]any {
	t.Helper()
	lines := j.lines(t)
	if len(lines) == 0 {
		t.Fatal("nothing is in the log")
	}
	return lines[len(lines)-1]
}
