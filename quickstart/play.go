package quickstart

import (
	"context"
	"fmt"
	"time"

	"github.com/bearergate/bearergate/crmnow"
)

// row is what became of one kind of request.
type row struct {
	Face     string  `json:"face"`
	Request  string  `json:"request"`
	Requests int     `json:"requests"`
	Status   int     `json:"status"`
	Reason   string  `json:"reason,omitempty"`
	Took     float64 `json:"took_ms"` // each, on average
	Calls    int64   `json:"endpoint_calls"`
	Right    bool    `json:"right"`
	Wrong    string  `json:"wrong,omitempty"` // what should have been, if it is not right
}

// stage is where the requests are sent.
type stage struct {
	faces    []face
	endpoint *crmnow.Local
	api      *api
	partner  *crmnow.Client
}

func (s *stage) close() {
	for _, f := range s.faces {
		f.close()
	}
}

// expectation is what must become of a kind of request.
type expectation struct {
	request       string
	authorization []string
	query         string
	times         int // 0 means once
	status        int
	reason        string
	calls         int64
}

// play sends every kind of request through every face.
func (s *stage) play(ctx context.Context) ([]row, error) {
	var rows []row
	for _, f := range s.faces {
		// A partner's token, but a new one for each face: the cache is one.
		s.partner.Discard(mustToken(ctx, s.partner))
		grant, err := s.partner.Token(ctx)
		if err != nil {
			return nil, err
		}
		token := grant.AccessToken.Reveal()
		unseen, err := s.endpoint.Issue(0)
		if err != nil {
			return nil, err
		}
		made := "made-up-" + f.name()
		for _, e := range []expectation{
			{request: "good token, first time", authorization: bearer(token), status: 200, reason: "valid", calls: 1},
			{request: "the same token again", authorization: bearer(token), times: 100, status: 200, reason: "valid"},
			{request: "no token", status: 401, reason: "missing_token"},
			{request: "token in quotes", authorization: []string{`Bearer "` + token + `"`}, status: 401, reason: "malformed_token"},
			{request: "two tokens in one header", authorization: []string{"Bearer " + token + ", Bearer " + token}, status: 401, reason: "multiple_tokens"},
			{request: "token in the URL", query: "?access_token=" + token, status: 401, reason: "token_in_url"},
			{request: "made-up token", authorization: bearer(made), status: 401, reason: "invalid_token", calls: 1},
			{request: "the same made-up token", authorization: bearer(made), times: 100, status: 401, reason: "invalid_token"},
		} {
			rows = append(rows, s.try(ctx, f, e))
		}
		if err := s.endpoint.Down(); err != nil {
			return nil, err
		}
		rows = append(rows,
			s.try(ctx, f, expectation{request: "endpoint away: known token", authorization: bearer(token), status: 200, reason: "valid"}),
			s.try(ctx, f, expectation{request: "endpoint away: new token", authorization: bearer(unseen.AccessToken.Reveal()), status: 503, reason: "verifier_unavailable"}))
		if err := s.endpoint.Up(); err != nil {
			return nil, err
		}
		rows = append(rows,
			s.try(ctx, f, expectation{request: "endpoint back: that token", authorization: bearer(unseen.AccessToken.Reveal()), status: 200, reason: "valid", calls: 1}))
		if err := ctx.Err(); err != nil {
			return nil, err // what was cut off looks like a wrong row, and is none
		}
	}
	return rows, nil
}

func bearer(token string) []string { return []string{"Bearer " + token} }

// mustToken returns the partner's token, or an empty one if there is none.
func mustToken(ctx context.Context, partner *crmnow.Client) crmnow.Secret {
	grant, _ := partner.Token(ctx) // if it fails, the next one does too, and says so
	return grant.AccessToken
}

// try sends one kind of request and compares.
func (s *stage) try(ctx context.Context, f face, e expectation) row {
	times := max(1, e.times)
	r := row{Face: f.name(), Request: e.request, Requests: times}
	before := s.endpoint.Stats().Verify.Requests
	begin := time.Now()
	for range times {
		got, err := f.send(ctx, e.authorization, e.query)
		r.Status, r.Reason = got.status, got.reason
		if err == nil {
			err = e.compare(got)
		}
		if err != nil {
			r.Wrong = err.Error()
			break
		}
	}
	r.Took = float64(time.Since(begin).Microseconds()) / 1000 / float64(times)
	r.Calls = s.endpoint.Stats().Verify.Requests - before
	if r.Wrong == "" && r.Calls != e.calls {
		r.Wrong = fmt.Sprintf("want %d calls to the endpoint", e.calls)
	}
	r.Right = r.Wrong == ""
	return r
}

func (e *expectation) compare(got reply) error {
	if got.status != e.status {
		return fmt.Errorf("want %d", e.status)
	}
	if got.reason != "" && got.reason != e.reason { // an edge does not always pass it on
		return fmt.Errorf("want the reason %s", e.reason)
	}
	return nil
}

func allRight(rows []row) bool {
	for _, r := range rows {
		if !r.Right {
			return false
		}
	}
	return len(rows) > 0
}
