package faults_test

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bearergate/bearergate/crmnow"
)

// fault is a kind of trouble between the gateway and the endpoint.
type fault struct {
	name string
	// site is where it happens; nil means an endpoint in clear.
	site func(t *testing.T) *site
	// begin makes the trouble, and returns what ends it.
	begin func(t *testing.T, s *site) (end func())
	// settings differ from those of [quick].
	settings settings
	// answers says that the endpoint answers all the same.
	answers bool
	// calls are how often the endpoint hears the question about one token, at least
	// and at most, when it is asked about the first few.
	calls [2]int
	// detail is what the log tells the operator.
	detail string
}

// What the log tells the operator.
const (
	tooLate   = "the endpoint did not answer in time"
	brokeOff  = "the endpoint's reply broke off"
	inReply   = "the connection to the endpoint failed within a reply"
	failed    = "the connection to the endpoint failed"
	untrusted = "the endpoint's certificate is not trusted"
	noName    = "the endpoint's host name could not be resolved"
	nobody    = "nobody listens at the endpoint"
)

// The calls that the endpoint hears about one token.
var (
	none       = [2]int{0, 0}
	once       = [2]int{1, 1}
	onceOrNone = [2]int{0, 1} // it was left alone, or a busy machine was too slow
	twice      = [2]int{2, 2} // the first connection broke before there was an answer
)

func h1(t *testing.T) *site { return newSecureSite(t, "http/1.1") }
func h2(t *testing.T) *site { return newSecureSite(t, "h2", "http/1.1") }

// poison is a fault that is a toxic.
func poison(toxic string) func(*testing.T, *site) func() {
	return func(t *testing.T, s *site) func() { return s.crossing.poison(t, toxic) }
}

// broken is a fault of the endpoint itself.
func broken(f crmnow.Fault) func(*testing.T, *site) func() {
	return func(t *testing.T, s *site) func() { return s.trouble(t, f) }
}

// cutInBody ends each connection in the middle of an answer's body.
func cutInBody(t *testing.T, s *site) func() {
	t.Helper()
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", s.crossing.Listen)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	body := "verifytoken=" + s.invent()
	fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: %d\r\n\r\n%s", crmnow.Path, s.host, len(body), body)
	header := 0
	for reply := bufio.NewReader(conn); ; {
		line, err := reply.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		header += len(line)
		if line == "\r\n" {
			return s.crossing.poison(t, cutAfter(header+10))
		}
	}
}

// silent has all connections die without a sign. Afterwards new ones can be made,
// and the old ones are still there.
func silent(_ *testing.T, s *site) func() {
	s.crossing.silence.fall()
	return s.crossing.silence.rise
}

// silentFromTheStart is the same after all connections have ended.
func silentFromTheStart(t *testing.T, s *site) func() {
	s.disconnect(t)
	return silent(t, s)
}

// shows has the endpoint show another certificate on new connections.
func shows(certificate func(*testing.T, *site) *tls.Certificate) func(*testing.T, *site) func() {
	return func(t *testing.T, s *site) func() {
		before := s.shown.Load()
		s.shown.Store(certificate(t, s))
		s.disconnect(t)
		return func() { s.shown.Store(before) }
	}
}

// unnamed has the endpoint's name looked up in vain.
func unnamed(trouble nameTrouble) func(*testing.T, *site) func() {
	return func(t *testing.T, s *site) func() {
		namesInTrouble.Store(s.host, trouble)
		s.disconnect(t)
		return func() { namesInTrouble.Delete(s.host) }
	}
}

// impatient settings make short what takes its time to fail.
//
// It is still long enough for a call to succeed on a machine that is busy.
var impatient = settings{"timeout": "1500ms"}

func faults() []fault {
	refused := func(t *testing.T, s *site) func() {
		s.crossing.Stop()
		return func() { s.crossing.open(t) }
	}
	return []fault{
		{name: "50 ms late", begin: poison(latency(50 * time.Millisecond)), answers: true, calls: once},
		{name: "500 ms late, and there is time", begin: poison(latency(500 * time.Millisecond)), answers: true, calls: once},
		{name: "2 s late", begin: poison(latency(2 * time.Second)), settings: impatient, calls: onceOrNone, detail: tooLate},
		{name: "5 s late", begin: poison(latency(5 * time.Second)), settings: impatient, calls: onceOrNone, detail: tooLate},
		{name: "TLS: 5 s late", site: h1, begin: poison(latency(5 * time.Second)), settings: impatient, calls: onceOrNone, detail: tooLate},
		{name: "1 byte/ms", begin: poison(trickling(time.Millisecond)), answers: true, calls: once},
		{name: "1 byte/s", begin: poison(trickling(time.Second)), settings: impatient, calls: onceOrNone, detail: tooLate},

		{name: "reset before the question arrives", begin: poison(reset("upstream")), calls: none, detail: failed},
		{name: "reset before the answer arrives", begin: poison(reset("downstream")), calls: twice, detail: failed},
		{name: "cut off after 0 bytes", begin: poison(cutAfter(0)), calls: twice, detail: failed},
		{name: "cut off after 1 byte", begin: poison(cutAfter(1)), calls: once, detail: inReply},
		{name: "cut off in the header", begin: poison(cutAfter(40)), calls: once, detail: inReply},
		{name: "cut off in the body", begin: cutInBody, calls: once, detail: brokeOff},
		{name: "cut off in the body by the endpoint", begin: broken(crmnow.Fault{CutAfter: new(20)}), calls: once, detail: brokeOff},

		{name: "takes questions and gives no answer", begin: poison(swallow), settings: impatient, calls: onceOrNone, detail: tooLate},
		{name: "accepts connections, and then nothing", begin: silentFromTheStart, settings: impatient, calls: none, detail: tooLate},
		{name: "TLS: accepts connections, and then nothing", site: h1, begin: silentFromTheStart, settings: impatient, calls: none, detail: tooLate},
		{name: "connections die without a sign", begin: silent, settings: impatient, calls: none, detail: tooLate},
		{name: "TLS: connections die without a sign", site: h1, begin: silent, settings: impatient, calls: none, detail: tooLate},
		{name: "TLS, and the endpoint offers HTTP/2: connections die without a sign", site: h2, begin: silent, settings: impatient, calls: none, detail: tooLate},

		{name: "refused", begin: refused, calls: none, detail: nobody},
		{name: "TLS: refused", site: h1, begin: refused, calls: none, detail: nobody},

		{name: "DNS: no such name", begin: unnamed(unknownName), calls: none, detail: noName},
		{name: "DNS: the name server fails", begin: unnamed(serverFailure), calls: none, detail: noName},
		{name: "DNS: the name server is silent", begin: unnamed(noReply), settings: impatient, calls: none, detail: tooLate},

		{name: "TLS: a wrong name", site: h2, begin: shows(func(t *testing.T, s *site) *tls.Certificate {
			return s.authority.sign(t, "other."+s.host, time.Now().Add(time.Hour))
		}), calls: none, detail: untrusted},
		{name: "TLS: an ended certificate", site: h1, begin: shows(func(t *testing.T, s *site) *tls.Certificate {
			return s.authority.sign(t, s.host, time.Now().Add(-time.Minute))
		}), calls: none, detail: untrusted},
		{name: "TLS: an unknown authority", site: h1, begin: shows(func(t *testing.T, s *site) *tls.Certificate {
			return newAuthority(t).sign(t, s.host, time.Now().Add(time.Hour))
		}), calls: none, detail: untrusted},

		{name: "500", begin: broken(crmnow.Fault{Status: 500}), calls: once, detail: "the endpoint answered with status 500"},
		{name: "429 with Retry-After", begin: broken(crmnow.Fault{Status: 429, RetryAfter: "1"}), calls: onceOrNone, detail: "the endpoint answered with status 429"},
		{name: "503 with Retry-After", begin: broken(crmnow.Fault{Status: 503, RetryAfter: "1"}), calls: onceOrNone, detail: "the endpoint answered with status 503"},
	}
}

// TestFaults goes through each trouble with three gateways: one whose good answers
// are in force all the time, one whose good answers have ended and may be used
// longer while nobody can tell, and one whose good answers have ended.
func TestFaults(t *testing.T) {
	for _, f := range faults() {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			f.test(t)
		})
	}
}

func (f *fault) test(t *testing.T) {
	newHere := f.site
	if newHere == nil {
		newHere = newSite
	}
	s := newHere(t)
	with := func(more settings) settings {
		all := settings{}
		maps.Copy(all, f.settings)
		maps.Copy(all, more)
		return all
	}
	// The shortest life ends before anything else can happen.
	inForce := &partners{name: "in force", site: s, source: "cache", gateway: s.gateway(t, with(nil))}
	stale := &partners{name: "stale", site: s, source: "stale", gateway: s.gateway(t, with(settings{"valid_ttl": "1ms", "stale_if_error": "300s"}))}
	ended := &partners{name: "ended", site: s, source: "", gateway: s.gateway(t, with(settings{"valid_ttl": "1ms"}))}
	if f.answers {
		stale.source, ended.source = "endpoint", "endpoint"
	}
	all := []*partners{inForce, stale, ended}
	together := func(do func(*partners)) {
		var doing sync.WaitGroup
		for _, p := range all {
			doing.Go(func() { do(p) })
		}
		doing.Wait()
	}
	rested := s.rest(t)
	for _, p := range all {
		p.known = s.issueMany(t, 4)
		p.gateway.learn(t, p.known) // which leaves connections in the pool
	}
	learnt := map[string]int{}
	for _, token := range inForce.known {
		learnt[token] = s.calls(token)
	}

	asked, begin := s.Stats().Verify.Requests, time.Now()
	end := f.begin(t, s)
	together(func(p *partners) { p.first(t, f) })
	together(func(p *partners) { p.more(t, f, 3) })
	lasted := time.Since(begin)
	if log := inForce.gateway.log.String(); !strings.Contains(log, f.detail) {
		t.Errorf("the log does not say %q:\n%s", f.detail, log)
	}
	during := s.Stats().Verify.Requests - asked
	questions := inForce.questions + stale.questions + ended.questions
	if during > int64(f.calls[1]*questions) {
		t.Errorf("the endpoint was called %d times, for %d questions", during, questions)
	}
	t.Logf("for %v: %d questions, %d calls at the endpoint", lasted.Round(time.Millisecond), questions, during)

	end()
	over := time.Now()
	together(func(p *partners) {
		first, err := p.recover(t)
		if err != nil {
			t.Errorf("%s: %v after the end of the trouble: %v", p.name, time.Since(over).Round(time.Millisecond), err)
			return
		}
		t.Logf("%s: the first is allowed %v after the end, all is well %v after it", p.name,
			first.Sub(over).Round(time.Millisecond), time.Since(over).Round(time.Millisecond))
	})
	for token, before := range learnt {
		if n := s.calls(token); n != before {
			t.Errorf("a token that was good all the time was asked about %d times during the trouble", n-before)
		}
	}
	s.mustRest(t, rested)
}

// partners are those who ask one gateway.
type partners struct {
	name    string
	site    *site
	gateway *gateway
	// known are tokens that were good before. Their requests are allowed for this
	// source, or nobody can tell if there is none.
	known  []string
	source string
	// unseen are good tokens that were first seen in the trouble, and madeUp ones
	// that are not good.
	unseen, madeUp []string
	questions      int
}

// first asks as few questions as let the breaker be.
func (p *partners) first(t *testing.T, f *fault) {
	p.askNew(t, f, 2)
	for _, token := range append(slices.Clone(p.unseen), p.madeUp...) {
		if n := p.site.calls(token); n < f.calls[0] || n > f.calls[1] {
			t.Errorf("%s: the endpoint was asked %d times about one token, want %d to %d", p.name, n, f.calls[0], f.calls[1])
		}
	}
}

// more goes on until the breaker is open, if it ever opens.
func (p *partners) more(t *testing.T, f *fault, rounds int) {
	for range rounds {
		p.askKnown(t)
		p.askNew(t, f, 2)
	}
}

func (p *partners) askKnown(t *testing.T) {
	p.questions += len(p.known)
	for _, a := range p.gateway.askAll(t, p.known) {
		if right := p.source != "" && a.allowedFrom(p.source) || p.source == "" && a.unavailable(); !right {
			t.Errorf("%s: a token that was good before got %v", p.name, a)
		}
	}
}

func (p *partners) askNew(t *testing.T, f *fault, n int) {
	unseen, madeUp := p.site.issueMany(t, n), p.site.inventMany(n)
	p.unseen, p.madeUp = append(p.unseen, unseen...), append(p.madeUp, madeUp...)
	p.questions += 2 * n
	for i, a := range p.gateway.askAll(t, append(unseen, madeUp...)) {
		switch good := i < n; {
		case !f.answers && a.unavailable():
		case f.answers && good && a.allowedFrom("endpoint"):
		case f.answers && !good && a.refused():
		default:
			t.Errorf("%s: a token that was not seen before (good: %t) got %v", p.name, good, a)
		}
	}
}

// recover asks about one token until it is allowed, and then about all until each got
// what is its due, and meanwhile nothing worse than that nobody can tell. It returns
// when the first was well again; the error says what is not as it should be.
func (p *partners) recover(t *testing.T) (first time.Time, err error) {
	good := map[string]bool{}
	for _, token := range append(p.known, p.unseen...) {
		good[token] = true
	}
	all := append(slices.Collect(maps.Keys(good)), p.madeUp...)
	left := p.unseen[:1]
	for deadline := time.Now().Add(patience); ; pauseFor(20 * time.Millisecond) {
		var again []string
		for i, a := range p.gateway.askAll(t, left) {
			switch isGood := good[left[i]]; {
			case isGood && a.allowed(), !isGood && a.refused():
			case a.unavailable(), a.overloaded():
				again = append(again, left[i])
				err = fmt.Errorf("a token (good: %t) got %v", isGood, a)
			default:
				return first, fmt.Errorf("a token (good: %t) got %v", isGood, a)
			}
		}
		switch left = again; {
		case len(left) == 0 && first.IsZero():
			first, left = time.Now(), all
		case len(left) == 0:
			return first, nil
		case time.Now().After(deadline):
			return first, err
		}
	}
}
