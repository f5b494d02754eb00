package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/bearergate/bearergate/crmnow"
)

func scenarios() []scenario {
	return []scenario{
		{
			name: "flood", title: "A flood of made-up tokens", run: flood,
			// A short life, so that tokens in use are renewed in the middle of it.
			options: stageOptions{validTTL: "20s", delay: 100 * time.Millisecond},
		},
		{
			name: "outage", title: "The endpoint is away for 20 s", run: outage,
			options: stageOptions{validTTL: "120s", delay: 20 * time.Millisecond},
		},
		{
			name: "cold", title: "A cold start", run: cold,
			options: stageOptions{validTTL: "300s", delay: 100 * time.Millisecond},
		},
	}
}

// phase is a part of a scenario.
type phase struct {
	name     string
	from, to time.Duration
}

// acts runs loads side by side until the last phase ends.
func acts(ctx context.Context, s *stage, p *progress, phases []phase, loads ...func(ctx context.Context, start time.Time)) []count {
	start := time.Now()
	end := phases[len(phases)-1].to
	ctx, cancel := context.WithTimeout(ctx, end)
	defer cancel()
	var group sync.WaitGroup
	for _, load := range loads {
		group.Go(func() { load(ctx, start) })
	}
	group.Go(func() {
		for _, ph := range phases {
			p.say("%s, %v of %v", ph.name, ph.from, end)
			wait(ctx, time.Until(start.Add(ph.to)))
		}
	})
	counts := s.watch(ctx, start)
	group.Wait()
	return counts
}

// wait waits, or until ctx ends.
func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// until runs a load in one phase alone.
func until(ctx context.Context, start time.Time, ph phase, load func(ctx context.Context)) {
	wait(ctx, time.Until(start.Add(ph.from)))
	ctx, cancel := context.WithDeadline(ctx, start.Add(ph.to))
	defer cancel()
	if ctx.Err() == nil {
		load(ctx)
	}
}

// flood has 256 clients pour in made-up tokens while partners go on.
func flood(ctx context.Context, s *stage, p *progress) (*result, error) {
	const partners, rate, clients = 200, 400, 256
	phases := []phase{{"before", 0, 15 * time.Second}, {"during", 15 * time.Second, 40 * time.Second}, {"after", 40 * time.Second, 55 * time.Second}}
	tokens, err := s.issue(partners)
	if err != nil {
		return nil, err
	}
	p.say("warming %d tokens", partners)
	if err := s.warm(ctx, tokens); err != nil {
		return nil, err
	}
	good, made := &recorder{}, &recorder{}
	counts := acts(ctx, s, p, phases,
		func(ctx context.Context, start time.Time) {
			s.steady(ctx, start, rate, func(n int) string { return tokens[n%len(tokens)] }, good)
		},
		func(ctx context.Context, start time.Time) {
			until(ctx, start, phases[1], func(ctx context.Context) { s.flood(ctx, start, clients, rand.Text, made) })
		})
	r := &result{
		intro: fmt.Sprintf("%d partners send %d requests per second, all with good tokens that were seen before; answers of the endpoint take 100 ms and "+
			"are used for 20 s, so that every token is renewed several times. For 25 s, %d clients send one made-up token after the other.", partners, rate, clients),
		phases: phases, counts: counts, lines: []line{{"good partners", good}, {"made-up tokens", made}},
	}
	r.tabulate()
	if bad := len(good.samples) - statuses(good.samples)[http.StatusOK]; bad > 0 {
		r.fault("%d requests with a good token were not allowed", bad)
	}
	if n := statuses(made.samples)[http.StatusOK]; n > 0 {
		r.fault("%d requests with a made-up token were allowed", n)
	}
	r.checkCalls(s)
	return r, nil
}

// outage takes the endpoint away while partners and newcomers go on.
func outage(ctx context.Context, s *stage, p *progress) (*result, error) {
	const partners, rate, newcomers = 2000, 2000, 20
	phases := []phase{{"before", 0, 15 * time.Second}, {"during", 15 * time.Second, 35 * time.Second}, {"after", 35 * time.Second, 50 * time.Second}}
	tokens, err := s.issue(partners)
	if err != nil {
		return nil, err
	}
	unseen, err := s.issue(newcomers * 60)
	if err != nil {
		return nil, err
	}
	p.say("warming %d tokens", partners)
	if err := s.warm(ctx, tokens); err != nil {
		return nil, err
	}
	good, fresh := &recorder{}, &recorder{}
	var trouble error
	counts := acts(ctx, s, p, phases,
		func(ctx context.Context, start time.Time) {
			s.steady(ctx, start, rate, func(n int) string { return tokens[n%len(tokens)] }, good)
		},
		func(ctx context.Context, start time.Time) {
			s.steady(ctx, start, newcomers, func(n int) string { return unseen[n] }, fresh)
		},
		func(ctx context.Context, start time.Time) {
			until(ctx, start, phases[1], func(ctx context.Context) {
				if trouble = s.endpoint.Down(); trouble == nil {
					<-ctx.Done()
					trouble = s.endpoint.Up()
				}
			})
		})
	if trouble != nil {
		return nil, trouble
	}
	r := &result{
		intro: fmt.Sprintf("%d partners send %d requests per second with good tokens that were seen before, and %d requests per second bring a good token that was never "+
			"seen. Answers are used for 120 s. For 20 s nobody listens at the endpoint.", partners, rate, newcomers),
		phases: phases, counts: counts, lines: []line{{"good partners", good}, {"new tokens", fresh}},
	}
	r.tabulate()
	if bad := len(good.samples) - statuses(good.samples)[http.StatusOK]; bad > 0 {
		r.fault("%d requests with a token whose verdict was in force were not allowed", bad)
	}
	if n := statuses(fresh.samples)[http.StatusUnauthorized]; n > 0 {
		r.fault("%d requests got 401 because of the outage", n)
	}
	for _, sm := range fresh.between(phases[2].from, phases[2].to) {
		if sm.status == http.StatusOK {
			r.notes = append(r.notes, fmt.Sprintf("The first new token was allowed %.1f s after the endpoint was back.", (sm.at-phases[2].from).Seconds()))
			break
		}
	}
	r.checkCalls(s)
	return r, nil
}

// cold sends all partners' requests to a gateway that knows none of them.
func cold(ctx context.Context, s *stage, p *progress) (*result, error) {
	const partners, rate = 10_000, 2000
	phases := []phase{{"0 s to 10 s", 0, 10 * time.Second}, {"10 s to 20 s", 10 * time.Second, 20 * time.Second}, {"20 s to 40 s", 20 * time.Second, 40 * time.Second}}
	tokens, err := s.issue(partners)
	if err != nil {
		return nil, err
	}
	good := &recorder{}
	var warm time.Duration
	counts := acts(ctx, s, p, phases,
		func(ctx context.Context, start time.Time) {
			s.steady(ctx, start, rate, func(n int) string { return tokens[n%len(tokens)] }, good)
		},
		func(ctx context.Context, start time.Time) {
			if s.endpoint.Await(ctx, func(st crmnow.Stats) bool { return st.Valid >= partners }) == nil {
				warm = time.Since(start)
			}
		})
	r := &result{
		intro:  fmt.Sprintf("The gateway has just started. %d requests per second arrive with the tokens of %d partners in turn; answers of the endpoint take 100 ms.", rate, partners),
		phases: phases, counts: counts, lines: []line{{"partners", good}},
	}
	r.tabulate()
	if warm == 0 {
		r.fault("not all tokens were known after %v", phases[len(phases)-1].to)
	} else {
		r.notes = append(r.notes, fmt.Sprintf("All %d tokens were known after %.1f s, each for one call.", partners, warm.Seconds()))
	}
	if calls := s.endpoint.Stats().Verify.Requests; calls > partners {
		r.fault("%d tokens cost %d calls", partners, calls)
	}
	r.checkCalls(s)
	return r, nil
}
