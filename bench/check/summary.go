package main

import (
	"fmt"

	"github.com/bearergate/bearergate/bench/measure"
	"github.com/bearergate/bearergate/bench/page"
)

// summary is the few figures that most look for.
func summary(r *record) string {
	var rows [][]string
	add := func(what, figure string) { rows = append(rows, []string{what, figure}) }
	if r.Costs != nil {
		for i := range r.Costs.Comparisons {
			c := &r.Costs.Comparisons[i]
			switch c.Name {
			case extAuthz("typical"):
				add("processor time of a cached check over gRPC, a server that allows everything being 1", c.times(measure.CPU))
				add("checks per second on one core", c.times(measure.Rate))
				add("the 99th percentile of their time", c.times(measure.P99))
			case authRequest:
				add("processor time of a cached check for nginx, a `net/http` server that allows everything being 1", c.times(measure.CPU))
			}
		}
	}
	if r.Edges != nil {
		for i := range r.Edges.Edges {
			e := &r.Edges.Edges[i]
			for j := range e.Ways {
				switch w := &e.Ways[j]; w.Name {
				case withUs:
					add(fmt.Sprintf("whole requests per second of %s with the gateway, %s being 1", e.Name, e.Ways[1].Name), e.ratioTo(e.Ways[1].Name, w, measure.Rate))
				case keeping:
					add(fmt.Sprintf("the same where %s keeps the gateway's answers, %s alone being 1", e.Name, e.Name), e.ratioTo(alone, w, measure.Rate))
				case inLua:
					add(fmt.Sprintf("the same where %s keeps them in Lua", e.Name), e.ratioTo(alone, w, measure.Rate))
				}
			}
		}
	}
	if r.Tokens != nil && len(r.Tokens.Memory) > 0 {
		m := r.Tokens.Memory[len(r.Tokens.Memory)-1]
		add(fmt.Sprintf("memory of a token in the cache, %s of them; a bare Go map being 1", count(m.Tokens)), times(float64(m.Cache)/float64(m.Map)))
	}
	if len(rows) == 0 {
		return "Not measured yet.\n"
	}
	return page.Table([]string{"", "median of the rounds"}, rows)
}
