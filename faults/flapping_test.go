package faults_test

import (
	"testing"

	"github.com/bearergate/bearergate/crmnow"
)

// TestFlapping has the endpoint fail and come back again and again, each time in
// another way.
func TestFlapping(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	g := s.gateway(t, settings{"timeout": "1s", "open_for": "20ms"})
	rested := s.rest(t)
	known := s.issueMany(t, 3)
	g.learn(t, known)

	body := func(text string) *string { return &text }
	faults := []func() func(){
		func() func() { return s.trouble(t, crmnow.Fault{Status: 500}) },
		func() func() { return s.trouble(t, crmnow.Fault{Reset: true}) },
		func() func() { s.crossing.Stop(); return func() { s.crossing.open(t) } },
		func() func() { return s.trouble(t, crmnow.Fault{Hang: true}) },
		func() func() { return s.trouble(t, crmnow.Fault{HTML: true}) },
		func() func() { s.crossing.silence.fall(); return s.crossing.silence.rise },
		func() func() { return s.trouble(t, crmnow.Fault{Body: body(`{"result": "true"}`)}) },
		func() func() { return s.trouble(t, crmnow.Fault{Close: true}) },
		func() func() { return s.crossing.poison(t, cutAfter(60)) },
		func() func() { return s.trouble(t, crmnow.Fault{Location: "https://elsewhere.invalid/"}) },
		func() func() { s.crossing.silence.forget(); return func() {} },
		func() func() { return s.trouble(t, crmnow.Fault{Status: 401, Times: 1}) },
	}
	p := &partners{name: "flapping", site: s, gateway: g, known: known, source: "cache"}
	got := map[string]int{}
	ask := func() {
		p.askKnown(t)
		good, bad := s.issueMany(t, 3), s.inventMany(2)
		p.unseen, p.madeUp = append(p.unseen, good...), append(p.madeUp, bad...)
		for i, a := range g.askAll(t, append(good, bad...)) {
			got[a.reason]++
			switch isGood := i < len(good); {
			case isGood && a.allowed(), !isGood && a.refused(), a.unavailable(), a.overloaded():
			default:
				t.Errorf("a token (good: %t) got %v", isGood, a)
			}
		}
		for i, token := range append(good, bad...) {
			if n := s.calls(token); n > 2 {
				t.Errorf("the endpoint was asked %d times about token %d", n, i)
			}
		}
	}
	for range 2 {
		for _, begin := range faults {
			end := begin()
			ask()
			end()
			ask()
		}
	}
	t.Logf("new tokens got %v", got)
	if _, err := p.recover(t); err != nil {
		t.Errorf("after the last time: %v", err)
	}
	s.mustRest(t, rested)
}
