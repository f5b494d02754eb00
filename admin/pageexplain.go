package admin

import (
	"cmp"
	"context"
	"errors"
	"mime"
	"net/http"
	"strings"

	"connectrpc.com/connect/v2"

	adminv1 "github.com/bearergate/bearergate/proto/bearergate/admin/v1"
)

// answerView says what a request with a token gets here and now, and why. The token
// is not in it.
type answerView struct {
	// Wrong is what is wrong with the question. Nothing else is there then.
	Wrong, WrongDetail string

	Known                               bool
	Class, Reason, Says, Detail, Source string
	Shadow                              bool
	Status                              uint32
	Advice, Fault                       string
	Fingerprint, Form, Policy, Listener string
	Expires                             *instant
	Denial                              *denialRow
	Remembered                          []rememberedRow
	Because, Requires, Unknown          []string
	Header                              []*adminv1.HeaderLine
	Body                                string
	Recent                              []eventRow
}

type rememberedRow struct {
	Verifier, Says string
	Until          *instant
}

// explained answers a form with a token, or with a fingerprint. It is a POST, so that
// the token is in no URL, and its answer is kept by nobody.
func (s *Server) explained(w http.ResponseWriter, r *http.Request) {
	words, _ := choose(r)
	if !isPosted(r) {
		http.Error(w, errOrigin.Message(), http.StatusForbidden)
		return
	}
	answer, status := s.explainForm(w, r, words)
	v := s.viewFor(r)
	v.Answer = answer
	s.write(w, status, v)
}

// isPosted reports whether a form was sent by the page itself. Every browser that can
// show the page says so, by one header or the other; the rest are other pages, or
// programs, which have the API.
func isPosted(r *http.Request) bool {
	told := r.Header.Get("Sec-Fetch-Site") != "" || r.Header.Get("Origin") != ""
	return told && http.NewCrossOriginProtection().Check(r) == nil
}

func (s *Server) explainForm(w http.ResponseWriter, r *http.Request, words *words) (answer *answerView, status int) {
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/x-www-form-urlencoded" {
		return &answerView{Wrong: words.WrongForm}, http.StatusUnsupportedMediaType
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxCallBytes)
	if err := r.ParseForm(); err != nil {
		status = http.StatusBadRequest
		if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
			status = http.StatusRequestEntityTooLarge
		}
		return &answerView{Wrong: words.WrongForm}, status
	}
	ctx, cancel := context.WithTimeout(context.WithValue(r.Context(), caller{}, who(r)), callTimeout)
	defer cancel()
	e, err := (&api{server: s}).Explain(ctx, questionOf(r))
	if err != nil {
		answer = &answerView{Wrong: words.WrongQuestion}
		if known, ok := errors.AsType[*connect.Error](err); ok {
			answer.WrongDetail = known.Message() // has no part of the token
		}
		return answer, http.StatusBadRequest
	}
	return words.answer(e), http.StatusOK
}

// questionOf reads the form. What stands in the URL is not looked at.
func questionOf(r *http.Request) *adminv1.ExplainRequest {
	field := func(name string) string { return strings.TrimSpace(r.PostForm.Get(name)) }
	q := &adminv1.ExplainRequest{Method: strings.ToUpper(field("method")), Ask: field("ask") != ""}
	if token := field("token"); token != "" {
		// A line of a header is as good as its value.
		if name, value, ok := strings.Cut(token, ":"); ok && strings.EqualFold(strings.TrimSpace(name), "Authorization") {
			token = value
		}
		q.Which = &adminv1.ExplainRequest_Token{Token: token}
	} else {
		q.Which = &adminv1.ExplainRequest_Fingerprint{Fingerprint: field("fingerprint")}
	}
	target := field("url")
	if target == "" {
		q.Method = ""
		return q
	}
	if _, rest, ok := strings.Cut(target, "://"); ok {
		target = rest
	}
	end := strings.IndexAny(target, "/?#")
	if end < 0 {
		end = len(target)
	}
	path := target[end:]
	if end := strings.IndexAny(path, "?#"); end >= 0 {
		path = path[:end]
	}
	q.Host, q.Path = target[:end], cmp.Or(path, "/")
	return q
}

// answer puts an explanation into words.
func (w *words) answer(e *adminv1.ExplainResponse) *answerView {
	a := &answerView{
		Known: e.GetAnswer().GetKnown(), Fault: e.GetFault(), Fingerprint: e.GetFingerprint(), Form: w.forms[e.GetForm()],
		Policy: e.GetPolicy(), Listener: e.GetListener(), Because: e.GetBecause(), Requires: e.GetRequires(), Unknown: e.GetUnknown(),
	}
	if t := e.GetExpires(); t != nil {
		a.Expires = at(t.AsTime())
	}
	if d := e.GetDenial(); d != nil {
		a.Denial = &denialRow{d.GetFingerprint(), d.GetReason(), d.GetWho(), at(d.GetUntil().AsTime())}
	}
	a.Advice = e.GetAdvice().GetEnglish()
	if w.Lang == "de" {
		a.Advice = e.GetAdvice().GetGerman()
	}
	for _, r := range e.GetRemembered() {
		row := rememberedRow{Verifier: r.GetVerifier(), Says: w.remembered[r.GetAnswer()]}
		if r.GetUntil() != nil {
			row.Until = at(r.GetUntil().AsTime())
		}
		a.Remembered = append(a.Remembered, row)
	}
	for _, d := range e.GetRecent() {
		a.Recent = append(a.Recent, w.decision(d))
	}
	if !a.Known {
		return a
	}
	reply := e.GetAnswer()
	reason := reasonsByWord[reply.GetReason()]
	a.Class, a.Reason, a.Says, a.Detail = reason.Outcome().String(), reason.String(), w.reasons[reason], reply.GetDetail()
	a.Shadow, a.Status, a.Header, a.Body = reply.GetShadow(), reply.GetStatus(), reply.GetHeader(), reply.GetBody()
	if source, ok := sourcesByWord[reply.GetSource()]; ok {
		a.Source = w.sources[source]
	}
	return a
}
