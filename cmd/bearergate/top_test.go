package main

import (
	"encoding/json"
	"errors"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	adminv1 "github.com/bearergate/bearergate/proto/bearergate/admin/v1"
)

// busy is a gateway that has much to show.
func busy() *sight {
	counts := func(n uint32) []uint32 {
		all := make([]uint32, 300)
		for i := range all {
			all[i] = n * uint32(i) / 100
		}
		return all
	}
	times := func(p50, p99 time.Duration) *adminv1.Times {
		return &adminv1.Times{Measured: 1234, P50: durationpb.New(p50), P99: durationpb.New(p99)}
	}
	return &sight{
		status: &adminv1.StatusResponse{
			Version: "v1.2.3", State: "not_ready", Uptime: durationpb.New(3 * time.Hour), Denied: 2,
			Configuration: &adminv1.Configuration{LastReload: &adminv1.Reload{Result: "refused", At: timestamppb.New(time.Unix(0, 0))}},
			Verifiers: []*adminv1.Verifier{
				{Name: "crm", Breaker: "open", Calls: 3, CallsShed: 12, Good: &adminv1.CachePart{Entries: 1234, Most: 100_000}, Refused: &adminv1.CachePart{Entries: 7, Most: 25_000}},
				{Name: "a-verifier-with-a-very-long-name", Breaker: "closed"},
			},
		},
		activity: &adminv1.ActivityResponse{
			Until: timestamppb.New(time.Unix(1_000_000, 0)), Points: 300,
			Reasons: []*adminv1.ReasonActivity{
				{Reason: "valid", Outcome: "allow", Counts: counts(1000)},
				{Reason: "missing_token", Outcome: "unauthorized", Counts: counts(1)},
				{Reason: "invalid_token", Outcome: "unauthorized", Counts: counts(10)},
				{Reason: "verifier_unavailable", Outcome: "unavailable", Counts: counts(3)},
			},
			Sources:       []*adminv1.SourceActivity{{Source: "cache", Counts: counts(990)}},
			DecisionTimes: []*adminv1.DecisionTimes{{Source: "cache", Times: times(612*time.Nanosecond, 2345*time.Nanosecond)}, {Source: "none", Times: times(time.Millisecond, 3*time.Second)}},
			CallTimes:     []*adminv1.CallTimes{{Verifier: "crm", Outcome: "valid", Times: times(12_345*time.Microsecond, 98_765*time.Microsecond)}},
			Top: []*adminv1.TopTalkers{
				{Window: durationpb.New(5 * time.Minute), RefusedTokens: []*adminv1.Talker{{Name: "9f2c41d0a7be", Requests: 12_345, Reason: "invalid_token"}}, AllowedClients: []*adminv1.Talker{{Name: "2001:db8:1:2::/64", Requests: 9_876_543}}},
				{Window: durationpb.New(15 * time.Minute), RefusedPolicies: []*adminv1.Talker{{Name: "\x1b[2J", Requests: 1, Reason: "bad_path"}}},
			},
		},
	}
}

func TestThePictureSaysHowAGatewayDoes(t *testing.T) {
	text := (&picture{sight: busy(), width: 100}).text()
	for _, want := range []string{
		"bearergate v1.2.3  not_ready  running for 3h0m0s",
		"the configuration cannot be used since 1970-01-01T00:00:00Z",
		"all                          3,009     2,731     1,514  ▁",
		"allow                        2,970     2,695     1,495  ",
		"unauthorized ",
		"  invalid_token                 29 ",
		"from cache ", "from cache (decision) ",
		"no answer (decision)                     1ms        3s     1,234",
		"crm valid (call)                     12.35ms   98.77ms     1,234",
		"from cache (decision)                  612ns    2.3",
		"crm              open           3       0     12  1,234 of 100,000   7 of 25,000",
		"a-verifier-with… closed ",
		"2 tokens are denied",
		"who asks most, in 5 min",
		"refused token  9f2c41d0a7be                 12,345  last invalid_token",
		"allowed client 2001:db8:1:2::/64         9,876,543",
		"▁",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("it does not say %q:\n%s", want, text)
		}
	}
	slowest := []int{strings.Index(text, "no answer (decision)"), strings.Index(text, "crm valid (call)"), strings.Index(text, "from cache (decision)")}
	most := []int{strings.Index(text, "  invalid_token"), strings.Index(text, "  missing_token"), strings.Index(text, "unavailable ")}
	for _, order := range [][]int{slowest, most} {
		if order[0] > order[1] || order[1] > order[2] {
			t.Errorf("the order is wrong:\n%s", text)
		}
	}
	if other := (&picture{sight: busy(), width: 100, window: 3}).text(); !strings.Contains(other, "in 15 min") || !strings.Contains(other, `"\x1b[2J"`) || strings.Contains(other, "\x1b") {
		t.Errorf("the other window:\n%q", other)
	}
	if narrow := (&picture{sight: busy(), width: 30}).text(); !strings.Contains(narrow, "  invalid_t…        29       …\n") {
		t.Errorf("in a narrow terminal:\n%s", narrow)
	}
	one := busy()
	one.status.Verifiers = one.status.GetVerifiers()[:1]
	if text := (&picture{sight: one, width: 80}).text(); !strings.Contains(text, "crm      open           3       0     12  1,234 of 100,000   7 of 25,000\n") {
		t.Errorf("in a terminal of 80 columns:\n%s", text)
	}
	half := regexp.MustCompile(`(?m)\d[^ \n]*…$`) // is it 1, or 1,000?
	for width := range 100 {
		if found := half.FindString((&picture{sight: busy(), width: width}).text()); found != "" {
			t.Errorf("with %d columns a line ends with %s", width, found)
		}
	}
	failed := &picture{sight: busy(), width: 100, err: errors.New("nobody \x1b is there")}
	if text := failed.text(); !strings.Contains(text, `"no answer from the gateway: nobody \x1b is there"`) || !strings.Contains(text, "who asks most") {
		t.Errorf("without an answer:\n%q", text)
	}
}

// TestThePictureFits, whatever the terminal, and whatever there is to show.
func TestThePictureFits(t *testing.T) {
	empty := &sight{&adminv1.StatusResponse{}, &adminv1.ActivityResponse{}}
	short := busy()
	short.activity.Points = 3
	for _, r := range short.activity.GetReasons() {
		r.Counts = r.GetCounts()[:3]
	}
	for name, s := range map[string]*sight{"busy": busy(), "empty": empty, "just begun": short} {
		for _, width := range []int{1, 20, 40, 60, 80, 200} {
			for _, height := range []int{1, 2, 5, 24, 80} {
				for _, colour := range []bool{true, false} {
					text := (&picture{sight: s, width: width, height: height, colour: colour}).text()
					lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
					if len(lines) > height {
						t.Errorf("%s: %d lines in a terminal of %d", name, len(lines), height)
					}
					for _, line := range lines {
						if w := ansi.StringWidth(line); w > width {
							t.Errorf("%s: %d columns in a terminal of %d: %q", name, w, width, line)
						}
						if strings.Contains(line, "\x1b") && !strings.Contains(line, plain) || !colour && strings.Contains(line, "\x1b") {
							t.Errorf("%s: the colour does not end: %q", name, line)
						}
					}
				}
			}
		}
	}
}

// TestTopWithoutATerminal is one picture, or JSON.
func TestTopWithoutATerminal(t *testing.T) {
	t.Parallel()
	e := endpoint(t)
	g := serve(t, nil, onLoopback(e.URL()))
	good := token(t, e)
	mustGet(t, g.address["auth_request"], "/auth", good, http.StatusOK)
	for _, args := range [][]string{{}, {"--once"}} {
		got := call(t, invocation{args: append([]string{"top", "--admin", g.address["admin"]}, args...), secrets: []string{good}})
		if got.code != exitGood || got.stderr != "" || !strings.HasPrefix(got.stdout, "bearergate ") || !strings.Contains(got.stdout, "crm      closed") || strings.Contains(got.stdout, "\x1b") || strings.Contains(got.stdout, "q end") {
			t.Errorf("%q: %+v", args, got)
		}
	}
	eventually(t, "second that is over", func() error {
		got := call(t, invocation{args: []string{"top", "--admin", g.address["admin"], "-o", "json"}, secrets: []string{good}})
		expectHidden(t, got.stdout, good)
		var both struct {
			Status   struct{ State string }
			Activity struct {
				Reasons []struct{ Reason string }
			}
		}
		if err := json.Unmarshal([]byte(got.stdout), &both); err != nil || got.code != exitGood || both.Status.State != "ready" {
			t.Fatalf("%+v, %v", got, err)
		}
		if len(both.Activity.Reasons) != 1 || both.Activity.Reasons[0].Reason != "valid" {
			return errors.New("there is none")
		}
		return nil
	})
}

// TestTheModelObeysItsKeys, and goes on when there was no answer once.
func TestTheModelObeysItsKeys(t *testing.T) {
	answer, asked := error(nil), 0
	m := &topModel{picture: picture{sight: busy(), width: 80, height: 40}, interval: time.Millisecond, ask: func() (*sight, error) {
		asked++
		return busy(), answer
	}}
	step := func(message tea.Msg) tea.Msg {
		t.Helper()
		_, cmd := m.Update(message)
		if cmd == nil {
			return nil
		}
		return cmd()
	}
	press := func(key rune) tea.Msg { return step(tea.KeyPressMsg{Code: key, Text: string(key)}) }
	if _, is := m.Init()().(due); !is {
		t.Fatal("it does not begin with a look")
	}
	if _, is := step(due{}).(seen); !is || asked != 1 {
		t.Errorf("it asked %d times", asked)
	}
	answer = errors.New("nobody is there")
	if _, is := step(step(due{})).(due); !is || m.err == nil || m.sight == nil || !strings.Contains(m.View().Content, "nobody is there") {
		t.Errorf("after no answer: %v", m.err)
	}
	answer = nil
	step(step(due{}))
	if m.err != nil {
		t.Errorf("after an answer: %v", m.err)
	}
	was := asked
	press('p')
	if _, is := step(due{}).(due); !is || asked != was || !strings.Contains(m.View().Content, "stopped") {
		t.Error("p does not stop it")
	}
	press('p')
	step(due{})
	if asked != was+1 {
		t.Error("p does not let it go on")
	}
	press('w')
	if !strings.Contains(m.View().Content, "in 15 min") {
		t.Error("w does not show the other time")
	}
	step(tea.WindowSizeMsg{Width: 33, Height: 7})
	if got := m.View(); m.width != 33 || strings.Count(got.Content, "\n") != 6 || !got.AltScreen {
		t.Errorf("in another size it draws\n%s", got.Content)
	}
	if _, is := press('q').(tea.QuitMsg); !is {
		t.Error("q does not end it")
	}
	if _, is := step(tea.KeyPressMsg{Code: 'c', Mod: tea.ModCtrl}).(tea.QuitMsg); !is {
		t.Error("Ctrl-C does not end it")
	}
}
