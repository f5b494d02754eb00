package verifier_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bearergate/bearergate/bearer"
	"github.com/bearergate/bearergate/verifier"
)

func TestMeasured(t *testing.T) {
	for _, c := range []struct {
		name    string
		verdict verifier.Verdict
		err     error
		panics  bool
		want    verifier.Outcome
	}{
		{"good", verifier.Verdict{Valid: true}, nil, false, verifier.Valid},
		{"not good", verifier.Verdict{}, nil, false, verifier.Invalid},
		{"no answer", verifier.Verdict{}, errNobody, false, verifier.Unanswered},
		{"an error beside a verdict", verifier.Verdict{Valid: true}, errNobody, false, verifier.Unanswered},
		{"a panic", verifier.Verdict{}, nil, true, verifier.Unanswered},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				type told struct {
					token   string
					outcome verifier.Outcome
					took    time.Duration
				}
				var all []told
				m := verifier.NewMeasured(&oracle{answer: func(context.Context, bearer.Token) (verifier.Verdict, error) {
					pass(time.Second)
					if c.panics {
						panic("x")
					}
					return c.verdict, c.err
				}}, func(token bearer.Token, o verifier.Outcome, took time.Duration) {
					all = append(all, told{token.Fingerprint(), o, took})
				})
				token := newTokens(t).parse(t, "x")
				func() {
					defer func() {
						if p := recover(); (p != nil) != c.panics {
							t.Errorf("the panic is %v", p)
						}
					}()
					v, err := m.Verify(t.Context(), token)
					if v != c.verdict || err != c.err { //nolint:errorlint // it is passed on as it is
						t.Errorf("the verdict is %+v, %v", v, err)
					}
				}()
				if len(all) != 1 || all[0] != (told{token.Fingerprint(), c.want, time.Second}) {
					t.Errorf("it tells of %v", all)
				}
			})
		})
	}
}
