package admin

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/bearergate/bearergate/gate"
	adminv1 "github.com/bearergate/bearergate/proto/bearergate/admin/v1"
	"github.com/bearergate/bearergate/verifier"
)

// How bad something is. The words are classes of the style sheet.
const (
	good = "good"
	info = "info"
	warn = "warn"
	bad  = "bad"
)

// view is what the page shows, in words.
type view struct {
	Words                   *words
	Home, Other, Refreshing string
	Stream, ExplainAt       string
	Refresh                 int
	Nav                     []navigation
	Version, State, Uptime  string
	At                      *instant
	Headline                headline
	Problems                []problem
	Parts                   []partRow
	Plots                   []plot
	Reasons                 []reasonRow
	Latency                 []latencyRow
	Verifiers               []verifierRow
	Caches                  []cacheRow
	Refused, Decisions      []eventRow
	Talkers                 []talkersView
	Answer                  *answerView
	Watched                 bool // decisions are shown as they come
	NotShown                string
	Denials                 []denialRow
	MoreDenials             string
	Configuration           configurationView
	Shadows                 []shadowRow
	Listeners               []listenerRow
}

type navigation struct{ ID, Title string }

// headline is the worst of all, and in one word how it is.
type headline struct {
	problem

	Short string
}

// problem is something that is not as it should be, or that should not be forgotten.
// Part is where the page says more.
type problem struct{ Level, Text, Detail, Hint, Part string }

type partRow struct{ Name, Level, Word string }

type latencyRow struct{ Source, Says, Share, P50, P99 string }

type verifierRow struct {
	Name, Level, Breaker, Since string
	Calls, Waiting, Shed        string
	Times                       []callRow
}

type callRow struct{ Outcome, Count, P50, P99 string }

type cacheRow struct {
	Name                       string
	Parts                      []cachePart
	Misses, Waiting, Refreshed string
}

type cachePart struct {
	Title, Says, Lost, Level string
	Percent                  int
}

type eventRow struct {
	At                                                           *instant
	Class, Reason, Note, Detail, Token, Policy, Listener, Client string
	Status                                                       int
}

type denialRow struct {
	Fingerprint, Reason, Who string
	Until                    *instant
}

type configurationView struct {
	File, Generation string
	Whole            string // where all of it is shown, if it can be
	Since            *instant
	Reload           *reloadView
	Error            string
	NeedRestart      []string
}

type reloadView struct {
	At   *instant
	Says string
}

type shadowRow struct {
	Policy string
	Until  *instant
}

type listenerRow struct{ Name, Kind, Address, TLS string }

// shownDenials is how many denials are listed.
const shownDenials = 20

// view looks at the gateway.
func (s *Server) view(ctx context.Context, w *words) *view {
	now := time.Now()
	state, parts := s.shown.now()
	v := &view{Words: w, State: w.states[state], At: at(now)}
	v.Nav = []navigation{
		{"rates", w.Rates},
		{"latency", w.Latency},
		{"verifiers", w.Verifiers},
		{"cache", w.Cache},
		{"explain", w.ExplainShort},
		{"refused", w.RefusedLately},
		{"decisions", w.Decisions},
		{"talkers", w.Talkers},
		{"configuration", w.Configuration},
		{"denials", w.Denials},
	}
	for _, p := range parts {
		row := partRow{Name: p.Name, Level: good, Word: w.Ready}
		switch {
		case !p.Ready:
			row.Level, row.Word = bad, w.NotReady
		case p.Name == "configuration" && p.Reason != "":
			row.Level, row.Word = warn, w.reloads[Refused]
		case strings.HasPrefix(p.Name, "verifier ") && p.Reason != "":
			row.Level, row.Word = warn, w.breakers[verifier.Open]
		}
		v.Parts = append(v.Parts, row)
	}
	switch state {
	case starting:
		v.problem(problem{Level: warn, Text: w.ProblemStarting})
	case stopping:
		v.problem(problem{Level: warn, Text: w.ProblemStopping})
	case notReady:
		v.problem(problem{Level: bad, Text: w.ProblemNotReady})
	}
	activity := s.shown.recent()
	if status, err := (&api{server: s}).Status(ctx, &adminv1.StatusRequest{}); err == nil {
		v.Version, v.Uptime = status.GetVersion(), w.span(status.GetUptime().AsDuration())
		v.addVerifiers(status, activity, now)
		v.addListeners(status, s.shown.activity.metrics, now)
		v.Configuration.Generation = w.count(status.GetConfiguration().GetGeneration())
	}
	v.addActivity(activity) // after what may be its cause
	v.addTalkers(activity)
	v.addConfiguration(s.shown.configuration.Load())
	v.addShadows(s.shown.shadows.now())
	if c := s.shown.controls.Load(); c != nil {
		v.addDenials(c.Denials)
		v.addRefused(c.Recent)
	}
	if valueOf(s.shown.activity.metrics.panics) > 0 {
		v.problem(problem{Level: bad, Text: w.ProblemPanic, Part: "rates"})
	}
	v.conclude()
	return v
}

// PageTitle names the page by how the gateway is, so that a tab tells it, too.
func (v *view) PageTitle() string { return v.Headline.Short + " · bearergate" }

func (v *view) problem(p problem) {
	p.Part = cmp.Or(p.Part, "state")
	v.Problems = append(v.Problems, p)
}

// conclude says in a few words how bad it is.
func (v *view) conclude() {
	rank := []string{bad, warn, info}
	slices.SortStableFunc(v.Problems, func(a, b problem) int {
		return cmp.Compare(slices.Index(rank, a.Level), slices.Index(rank, b.Level))
	})
	w := v.Words
	v.Headline = headline{problem{Level: good, Text: w.AllWell}, w.AllWellShort}
	if len(v.Problems) == 0 || v.Problems[0].Level == info {
		return
	}
	v.Headline = headline{v.Problems[0], w.LookShort}
	if v.Headline.Level == bad {
		v.Headline.Short = w.WrongShort
	}
	v.Problems = v.Problems[1:]
}

// When the share of refused requests is worth a look: with fewer requests it says
// nothing.
const (
	refusedMuch = .5
	refusedOf   = 30
)

func (v *view) addActivity(r *adminv1.ActivityResponse) {
	w, d := v.Words, decidedOf(r)
	v.Plots = []plot{
		d.plot(w, "plot-allowed", w.Allowed, gate.Allow),
		d.plot(w, "plot-refused", w.Refused, refusals...),
	}
	v.Reasons = d.rows(w)
	var all, refused, unavailable uint64
	var first, why gate.Reason // the most frequent of what was refused, and of what got 503
	firstN, whyN := uint64(0), uint64(0)
	for reason := range gate.Reason(gate.Reasons) {
		all += d.minute[reason]
		n := d.minute[reason] - d.through[reason] // of which a caller has noticed something
		switch {
		case n == 0 || reason.Outcome() == gate.Allow:
		case reason.Outcome() == gate.Unavailable:
			unavailable += n
			if n > whyN {
				why, whyN = reason, n
			}
		default:
			refused += n
			if n > firstN {
				first, firstN = reason, n
			}
		}
	}
	if unavailable > 0 {
		v.problem(problem{Level: bad, Text: w.fill(w.ProblemUnavailable, w.count(unavailable), w.reasons[why]), Hint: w.ProblemUnavailableHint, Part: "rates"})
	}
	if all >= refusedOf && float64(refused) >= refusedMuch*float64(all) {
		v.problem(problem{Level: warn, Text: w.fill(w.ProblemRefused, w.percent(refused, all), first), Hint: w.ProblemRefusedHint, Part: "refused"})
	}
	v.addLatency(r)
}

func (v *view) addLatency(r *adminv1.ActivityResponse) {
	w := v.Words
	minute, all := map[string]uint64{}, uint64(0)
	for _, s := range r.GetSources() {
		minute[s.GetSource()] = sum(newest(s.GetCounts()))
		all += minute[s.GetSource()]
	}
	times := map[string]*adminv1.Times{}
	for _, t := range r.GetDecisionTimes() {
		times[t.GetSource()] = t.GetTimes()
	}
	row := func(source, says, share string) {
		t := times[source]
		v.Latency = append(v.Latency, latencyRow{Source: source, Says: says, Share: share, P50: w.timed(t.GetP50()), P99: w.timed(t.GetP99())})
	}
	for source := range verifier.Source(verifier.Sources) {
		if n := minute[source.String()]; n > 0 {
			row(source.String(), w.sources[source], w.percent(n, all))
		}
	}
	if times[noSource] != nil {
		row(noSource, w.noSource, "–")
	}
}

func (w *words) timed(d *durationpb.Duration) string {
	if d == nil {
		return "–"
	}
	return w.took(d.AsDuration())
}

// A cache is full when more than this of it is.
const fullPercent = 98

func (v *view) addVerifiers(status *adminv1.StatusResponse, r *adminv1.ActivityResponse, now time.Time) {
	w := v.Words
	for _, one := range status.GetVerifiers() {
		state := breakersByWord[one.GetBreaker()]
		row := verifierRow{
			Name: one.GetName(), Level: good, Breaker: w.breakers[state],
			Calls: w.count(uint64(one.GetCalls())), Waiting: w.count(uint64(one.GetCallsWaiting())), Shed: w.count(one.GetCallsShed()),
		}
		if state != verifier.Closed {
			row.Level = bad
			if opened := one.GetBreakerOpened(); opened != nil {
				row.Since = w.fill(w.BreakerSince, at(opened.AsTime()).Clock, w.span(now.Sub(opened.AsTime())))
			}
			v.problem(problem{Level: bad, Text: w.fill(w.ProblemBreaker, row.Name), Hint: strings.TrimSpace(row.Since + " " + w.ProblemBreakerHint), Part: "verifiers"})
		}
		for _, t := range r.GetCallTimes() {
			if t.GetVerifier() == row.Name {
				row.Times = append(row.Times, callRow{t.GetOutcome(), w.count(t.GetTimes().GetMeasured()), w.timed(t.GetTimes().GetP50()), w.timed(t.GetTimes().GetP99())})
			}
		}
		v.Verifiers = append(v.Verifiers, row)
		v.Caches = append(v.Caches, cacheRow{
			Name: row.Name, Misses: w.count(one.GetMisses()), Waiting: w.count(uint64(one.GetWaiting())), Refreshed: w.count(one.GetRefreshed()),
			Parts: []cachePart{w.cachePart(w.CacheGood, one.GetGood()), w.cachePart(w.CacheRefused, one.GetRefused())},
		})
		if part := one.GetGood(); part.GetMost() > 0 && part.GetEntries()*100 >= part.GetMost()*fullPercent {
			v.problem(problem{Level: warn, Text: w.fill(w.ProblemCache, row.Name), Hint: w.ProblemCacheHint, Part: "cache"})
		}
	}
}

func (w *words) cachePart(title string, p *adminv1.CachePart) cachePart {
	c := cachePart{Title: title, Level: good, Says: w.fill(w.CacheOf, w.count(p.GetEntries()), w.count(p.GetMost()))}
	if p.GetMost() > 0 {
		c.Percent = int(math.Ceil(float64(p.GetEntries()) / float64(p.GetMost()) * 100))
	}
	if c.Percent >= fullPercent {
		c.Level = warn
	}
	if p.GetEvicted()+p.GetRejected() > 0 {
		c.Lost = w.fill(w.CacheLost, w.count(p.GetEvicted()), w.count(p.GetRejected()))
	}
	return c
}

// A certificate is told of when it ends within this time.
const certificateSoon = 14 * 24 * time.Hour

func (v *view) addListeners(status *adminv1.StatusResponse, m *Metrics, now time.Time) {
	w := v.Words
	ends, usable := byListener(m.notAfter), byListener(m.reloaded)
	for _, l := range status.GetListeners() {
		row := listenerRow{l.GetName(), l.GetKind(), l.GetAddress(), w.No}
		if l.GetTls() {
			row.TLS = w.Yes
		}
		if unix, ok := ends[l.GetName()]; ok {
			end := time.Unix(int64(unix), 0)
			row.TLS = w.fill(w.CertificateUntil, end.UTC().Format(time.DateOnly))
			switch left := end.Sub(now); {
			case left <= 0:
				v.problem(problem{Level: bad, Text: w.fill(w.ProblemCertificateEnded, l.GetName()), Part: "configuration"})
			case left < certificateSoon:
				v.problem(problem{Level: warn, Text: w.fill(w.ProblemCertificateEnds, l.GetName(), w.span(left)), Part: "configuration"})
			}
		}
		if is, ok := usable[l.GetName()]; ok && is == 0 {
			v.problem(problem{Level: warn, Text: w.fill(w.ProblemCertificateFiles, l.GetName()), Part: "configuration"})
		}
		v.Listeners = append(v.Listeners, row)
	}
}

// byListener returns the values of a gauge by its label listener.
func byListener(vec *prometheus.GaugeVec) map[string]float64 {
	values := map[string]float64{}
	for _, d := range collected(vec) {
		for _, l := range d.GetLabel() {
			if l.GetName() == "listener" {
				values[l.GetValue()] = d.GetGauge().GetValue()
			}
		}
	}
	return values
}

func (v *view) addConfiguration(c *Configuration) {
	w := v.Words
	v.Configuration.File, v.Configuration.Since = cmp.Or(c.File, w.NoFile), at(c.InForceSince)
	if c.File != "" {
		v.Configuration.Whole = "configuration"
	}
	r := c.LastReload
	if r == nil {
		return
	}
	v.Configuration.Reload = &reloadView{at(r.At), w.reloads[r.Result]}
	v.Configuration.Error, v.Configuration.NeedRestart = r.Error, r.NeedRestart
	if r.Result == Refused {
		v.problem(problem{Level: warn, Text: w.ProblemConfiguration, Detail: r.Error, Hint: w.ProblemConfigurationHint, Part: "configuration"})
	}
	if len(r.NeedRestart) > 0 {
		v.problem(problem{Level: info, Text: w.ProblemRestart, Part: "configuration"})
	}
}

func (v *view) addShadows(until map[string]time.Time) {
	for policy, end := range until {
		v.Shadows = append(v.Shadows, shadowRow{policy, at(end)})
	}
	slices.SortFunc(v.Shadows, func(a, b shadowRow) int { return cmp.Compare(a.Policy, b.Policy) })
	for _, s := range v.Shadows {
		v.problem(problem{Level: warn, Text: v.Words.fill(v.Words.ProblemShadow, s.Policy), Part: "configuration"})
	}
}

func (v *view) addRefused(r *Recent) {
	if r == nil {
		return
	}
	for _, e := range r.Refused() {
		v.Refused = append(v.Refused, v.Words.event(e))
	}
}

func (v *view) addDenials(d *verifier.Denials) {
	if d == nil {
		return
	}
	w, all := v.Words, sortedDenials(d)
	for _, d := range all[:min(len(all), shownDenials)] {
		v.Denials = append(v.Denials, denialRow{d.Fingerprint, d.Reason, d.Who, at(d.Until)})
	}
	if more := len(all) - len(v.Denials); more > 0 {
		v.MoreDenials = w.fill(w.MoreDenials, w.count(uint64(more)))
	}
	if len(all) > 0 {
		v.problem(problem{Level: info, Text: w.fill(w.ProblemDenied, w.count(uint64(len(all)))), Part: "denials"})
	}
}

// What the API names by words.
var (
	reasonsByWord  = byWord[gate.Reason](gate.Reasons)
	sourcesByWord  = byWord[verifier.Source](verifier.Sources)
	breakersByWord = byWord[verifier.Breaker](verifier.Breakers)
)

// byWord returns the first n values by their words.
func byWord[T interface {
	~uint8
	fmt.Stringer
}](n uint8) map[string]T {
	all := map[string]T{}
	for value := range T(n) {
		all[value.String()] = value
	}
	return all
}

func (w *words) event(e *gate.Event) eventRow { return w.decision(decisionMessage(e)) }

// decision says what was decided.
func (w *words) decision(d *adminv1.Decision) eventRow {
	reason := reasonsByWord[d.GetReason()]
	row := eventRow{
		At: at(d.GetAt().AsTime()), Class: reason.Outcome().String(), Status: reason.Outcome().Status(), Reason: reason.String(),
		Detail: d.GetDetail(), Token: d.GetFingerprint(), Policy: d.GetPolicy(), Listener: d.GetListener(), Client: d.GetClient(),
	}
	switch {
	case d.GetShadow():
		row.Note = w.InShadow
	case reason == gate.Valid:
		row.Note = w.sources[sourcesByWord[d.GetSource()]]
	case row.Detail == "":
		row.Note = w.reasons[reason]
	}
	return row
}
