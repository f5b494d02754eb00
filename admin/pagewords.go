package admin

import (
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/bearergate/bearergate/gate"
	"github.com/bearergate/bearergate/verifier"
)

// words are all texts of the page in one language. What has a %s or %d in it is filled
// in by [words.fill]. What the gateway says elsewhere, too, is not in it: reasons,
// sources and errors are the same words as in the log.
type words struct {
	Lang, OtherLang, OtherName string
	thousands, decimal         string

	Title, SkipLink, Contents, Footer                         string
	Live, Paused, Lost, Full, Pause, Resume                   string
	Reload, ReloadOften                                       string
	StateIs, Up, Parts, Ready, NotReady                       string
	Now, FiveMinutesAgo, LastMinute, LastFive, InFive, Course string

	Rates, Allowed, Refused, ByReason, Reason, Reply, NothingDecided      string
	PlotSays, PerSecond                                                   string
	Latency, LatencyCaption, AnswerFrom, Share, Half, Slowest             string
	NothingMeasured                                                       string
	Verifiers, CallsNow, CallsWaiting, CallsShed, CallsCaption            string
	CallEnded, CallCount, NoCalls, NoVerifiers, BreakerSince              string
	Cache, CacheGood, CacheRefused, CacheOf, CacheLost                    string
	CacheMisses, CacheWaiting, CacheRefreshed                             string
	RefusedLately, RefusedCaption, NothingRefused, InShadow               string
	Decisions, DecisionsCaption, NothingYet, NeedsJavaScript, NotShown    string
	Time, Token, Policy, Listener, Client                                 string
	Talkers, RefusedMost, AllowedMost, TalkerWhat, TalkerWho, Requests    string
	LastReason, FromTo, Nobody                                            string
	Denials, DenialsCaption, Why, Who, Until, NoDenials, MoreDenials      string
	Configuration, File, NoFile, InForceSince, Generation, LastReload     string
	WholeConfiguration                                                    string
	LastError, NeedRestart, Shadows, NoShadows, Listeners, Kind           string
	Address, CertificateUntil, Yes, No                                    string
	Explain, ExplainShort, ExplainLabel, ExplainHelp, ExplainButton       string
	ExplainFingerprint, ExplainFor, ExplainURL, ExplainMethod, ExplainAsk string
	AnswerTitle, AnswerUnknown, AnswerUnknownHint, Advice, Fault          string
	Fingerprint, Form, Expires, Denied, Remembered, Because, Requires     string
	ReplyTitle, Recent, Unknown, WrongQuestion                            string
	WrongForm                                                             string
	More, Problems                                                        string
	AllWell, AllWellShort, LookShort, WrongShort                          string
	ProblemNotReady, ProblemStarting, ProblemStopping                     string
	ProblemBreaker, ProblemBreakerHint                                    string
	ProblemUnavailable, ProblemUnavailableHint                            string
	ProblemRefused, ProblemRefusedHint, ProblemConfiguration              string
	ProblemConfigurationHint, ProblemRestart, ProblemCache                string
	ProblemCacheHint, ProblemCertificateEnds, ProblemCertificateEnded     string
	ProblemCertificateFiles, ProblemShadow, ProblemDenied, ProblemPanic   string

	states            map[string]string
	outcomes          map[gate.Outcome]string
	reasons           [gate.Reasons]string
	sources           [verifier.Sources]string
	noSource          string
	forms, remembered map[string]string // of an explanation
	breakers          [verifier.Breakers]string
	reloads           map[string]string
}

// allWords are the languages that there are, the one for who wants none of them first.
// Nobody changes them.
var allWords = sync.OnceValue(func() []*words { return []*words{english(), german()} })

// fill fills in what a text leaves open.
func (*words) fill(text string, values ...any) string { return fmt.Sprintf(text, values...) }

// number writes a number with so many digits behind the point.
func (w *words) number(value float64, digits int) string {
	text := strconv.FormatFloat(value, 'f', digits, 64)
	whole, rest, point := strings.Cut(text, ".")
	for i := len(whole) - 3; i > 0; i -= 3 {
		whole = whole[:i] + w.thousands + whole[i:]
	}
	if point {
		return whole + w.decimal + rest
	}
	return whole
}

func (w *words) count(n uint64) string { return w.number(float64(n), 0) }

// rate writes how often something is in a second: to what can be read at a glance.
func (w *words) rate(perSecond float64) string {
	digits := 0
	if perSecond > 0 && perSecond < 10 {
		digits = 1
	}
	return w.fill(w.PerSecond, w.number(perSecond, digits))
}

// percent writes a share; what is there is never nothing, and what lacks never all.
func (w *words) percent(part, whole uint64) string {
	if whole == 0 {
		return "–"
	}
	share := float64(part) / float64(whole) * 100
	switch {
	case part > 0 && share < 1:
		return "< 1 %"
	case part < whole && share > 99:
		return "> 99 %"
	default:
		return w.number(share, 0) + " %"
	}
}

// took writes how long something took, to two digits.
func (w *words) took(d time.Duration) string {
	value, unit := float64(d), "ns"
	for _, larger := range []string{"µs", "ms", "s"} {
		if value < 999.5 {
			break
		}
		value, unit = value/1000, larger
	}
	digits := 0
	if value < 9.95 && unit != "ns" {
		digits = 1
	}
	return w.number(value, digits) + " " + unit
}

// span writes how long something has been so, by its two largest units.
func (*words) span(d time.Duration) string {
	d = d.Truncate(time.Second)
	switch {
	case d >= 24*time.Hour:
		return fmt.Sprintf("%d d %d h", d/(24*time.Hour), d%(24*time.Hour)/time.Hour)
	case d >= time.Hour:
		return fmt.Sprintf("%d h %d min", d/time.Hour, d%time.Hour/time.Minute)
	case d >= time.Minute:
		return fmt.Sprintf("%d min", d/time.Minute)
	default:
		return fmt.Sprintf("%d s", max(0, d/time.Second))
	}
}

// instant is a time, for programs and for people, as the log writes it: in UTC.
type instant struct{ ISO, Short, Clock, Full string }

func at(t time.Time) *instant {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	clock := t.Format(time.TimeOnly)
	return &instant{t.Format(time.RFC3339), clock, clock + " UTC", t.Format(time.DateTime) + " UTC"}
}

// choose returns the language of a request: what its query asks for, else the first
// that its browser names and there is (RFC 9110 §12.5.4; no weights but 0 are looked at,
// since browsers send the best one first).
func choose(r *http.Request) (w *words, asked bool) {
	all := allWords()
	named := func(tag string) *words {
		primary, _, _ := strings.Cut(strings.ToLower(strings.TrimSpace(tag)), "-")
		for _, w := range all {
			if w.Lang == primary {
				return w
			}
		}
		return nil
	}
	if w := named(r.URL.Query().Get("lang")); w != nil {
		return w, true
	}
	for tag := range strings.SplitSeq(r.Header.Get("Accept-Language"), ",") {
		tag, weight, _ := strings.Cut(tag, ";")
		if q, err := strconv.ParseFloat(strings.TrimPrefix(strings.TrimSpace(weight), "q="), 64); err == nil && (q <= 0 || math.IsNaN(q)) {
			continue
		}
		if w := named(tag); w != nil {
			return w, false
		}
	}
	return all[0], false
}
