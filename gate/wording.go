package gate

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"text/template"
	"text/template/parse"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/bearergate/bearergate/bearer"
)

// Wording says how the refusals of a policy are worded. Their status is never a
// matter of words. The zero Wording is that of crm-now's APIs: {"error":"…"}.
type Wording struct {
	// Problem has the bodies be problem details (RFC 9457).
	Problem bool
	// ProblemTypes stands in front of the reason in a problem's type; without it the
	// type is about:blank.
	ProblemTypes string
	// Template is the body, if it is not empty: a text in which {{.reason}} and its
	// like stand for [WordingFields]. What it can do besides is {{if}} with and, or,
	// not, eq and ne. Values are escaped as ContentType needs it.
	Template string
	// ContentType is the template's.
	ContentType string
	// ResourceMetadata is a URL for the challenge's parameter of that name (RFC 9728
	// §5.1), if it is not empty.
	ResourceMetadata string
}

// Limits of what is sent with a refusal.
const (
	maxTemplate = 8 << 10
	// MaxBody is the longest body of a refusal. An edge may have to take it in a header.
	MaxBody             = 2 << 10
	maxContentType      = 128
	maxURL              = 256
	maxRequestID        = 128
	fieldRequestID      = "request_id"
	problemType         = "application/problem+json"
	crmNowType          = "application/json"
	exampleRequestID    = "f81d4fae-7dec-11d0-a765-00a0c91e6bf6"
	contentTypesInstead = "write application/json, text/plain, text/html or application/xml, or one that ends in +json or +xml; charset=utf-8 may follow"
)

// WordingFields are the names of what a template can say.
func WordingFields() []string {
	return []string{"reason", "status", "title", "detail", "policy", "realm", "retry_after", fieldRequestID}
}

// WordingMistake is what is wrong with a Wording.
type WordingMistake struct {
	// Field is problem_types, template, content_type or resource_metadata.
	Field string
	// Text begins with a verb, and ends with what to write instead.
	Text string
}

// CheckWording returns all that is wrong with the wording of a policy of this name
// and realm.
func CheckWording(w Wording, policy, realm string) []WordingMistake {
	_, mistakes := newWording(w, policy, realm)
	return mistakes
}

// saying is what a refusal is about.
type saying struct {
	reason      Reason
	description string // what is wrong, if more can be said than the reason
	retryAfter  time.Duration
	requestID   string
	status      int
}

// wording makes bodies.
type wording struct {
	Wording

	policy, realm string
	template      *template.Template
	escape        func(string) string
	// personal says that bodies may show the request's ID.
	personal bool
}

func newWording(w Wording, policy, realm string) (*wording, []WordingMistake) {
	made := &wording{Wording: w, policy: policy, realm: realm}
	var mistakes []WordingMistake
	mistake := func(field string, err error) {
		if err != nil {
			mistakes = append(mistakes, WordingMistake{field, err.Error()})
		}
	}
	if w.ProblemTypes != "" {
		mistake("problem_types", checkURL(w.ProblemTypes, true))
	}
	if w.ResourceMetadata != "" {
		mistake("resource_metadata", checkURL(w.ResourceMetadata, false))
	}
	if w.Template == "" {
		return made, mistakes
	}
	var err error
	made.escape, err = escapeFor(w.ContentType)
	mistake("content_type", err)
	made.template, made.personal, err = parseTemplate(w.Template)
	mistake("template", err)
	if made.escape != nil && made.template != nil {
		mistake("template", made.try())
	}
	return made, mistakes
}

// checkURL sees that a URL can be in a challenge and in a body.
func checkURL(text string, prefix bool) error {
	u, err := url.Parse(text)
	if err != nil || len(text) > maxURL || u.Host == "" || u.User != nil || u.Scheme != "https" && u.Scheme != "http" ||
		strings.ContainsFunc(text, func(c rune) bool { return c <= ' ' || c > '~' || strings.ContainsRune(`"\<>`, c) }) {
		return fmt.Errorf("is no URL that can be sent; write https:// and what follows, at most %d printable ASCII characters without spaces, quotes and backslashes", maxURL)
	}
	if !prefix && strings.Contains(text, "#") {
		return errors.New("has a fragment; write the URL without it") // RFC 9728 §3
	}
	return nil
}

// escapeFor returns what escapes values for a content type.
func escapeFor(contentType string) (func(string) string, error) {
	kind, parameters, err := mime.ParseMediaType(contentType)
	charset, named := parameters["charset"]
	if err != nil || len(contentType) > maxContentType || named && !strings.EqualFold(charset, "utf-8") || len(parameters) > 0 && !named ||
		strings.ContainsFunc(contentType, func(c rune) bool { return c < ' ' || c > '~' }) {
		return nil, errors.New("is no content type that is known here; " + contentTypesInstead)
	}
	switch {
	case kind == "text/plain":
		return func(s string) string { return s }, nil
	case isJSON(kind):
		return escapeJSON, nil
	case kind == "text/html", kind == "application/xhtml+xml", kind == "text/xml", kind == "application/xml", strings.HasSuffix(kind, "+xml"):
		return html.EscapeString, nil
	default:
		return nil, errors.New("is no content type whose values can be escaped; " + contentTypesInstead)
	}
}

func isJSON(kind string) bool { return kind == "application/json" || strings.HasSuffix(kind, "+json") }

// escapeJSON makes of a text what may stand between the quotes of a JSON string.
func escapeJSON(s string) string {
	quoted, _ := json.Marshal(s) // a string always marshals
	return string(quoted[1 : len(quoted)-1])
}

// parseTemplate reads a template, and says whether it can show the request's ID.
func parseTemplate(text string) (made *template.Template, personal bool, err error) {
	if len(text) > maxTemplate {
		return nil, false, fmt.Errorf("is too long; write at most %d bytes", maxTemplate)
	}
	made, err = template.New("refusal").Parse(text)
	if err != nil {
		where := strings.TrimPrefix(err.Error(), "template: refusal:")
		return nil, false, fmt.Errorf("cannot be read (line %s); write text with {{.reason}} and the like in it", where)
	}
	if len(made.Templates()) > 1 {
		return nil, false, errors.New("defines templates of its own; write one text")
	}
	if err := walkTemplate(made.Root, func(field string) { personal = personal || field == fieldRequestID }); err != nil {
		return nil, false, err // it is not to be filled in either: that may never end
	}
	return made, personal, nil
}

// errTemplate is what a template is told that uses more of text/template than is
// good for it. What is left always ends, and does so quickly.
func errTemplate(what string) error {
	fields := WordingFields()
	for i := range fields {
		fields[i] = "{{." + fields[i] + "}}"
	}
	return fmt.Errorf("has %.40s; write only %s, and {{if}} with and, or, not, eq and ne", what, strings.Join(fields, ", "))
}

// walkTemplate sees that there is nothing in a template but texts, fields and ifs,
// and names the fields.
func walkTemplate(node parse.Node, named func(field string)) error {
	var inside []parse.Node
	switch n := node.(type) {
	case *parse.ListNode:
		if n != nil { // the else of an if that has none
			inside = n.Nodes
		}
	case *parse.IfNode:
		inside = []parse.Node{n.Pipe, n.List, n.ElseList}
	case *parse.ActionNode:
		inside = []parse.Node{n.Pipe}
	case *parse.PipeNode:
		if len(n.Decl) > 0 {
			return errTemplate("a variable")
		}
		for _, c := range n.Cmds {
			inside = append(inside, c)
		}
	case *parse.CommandNode:
		inside = n.Args
	case *parse.FieldNode:
		if len(n.Ident) != 1 || !slices.Contains(WordingFields(), n.Ident[0]) {
			return errTemplate(n.String())
		}
		named(n.Ident[0])
	case *parse.IdentifierNode:
		if !slices.Contains([]string{"and", "or", "not", "eq", "ne"}, n.Ident) {
			return errTemplate("the function " + n.Ident)
		}
	case *parse.TextNode, *parse.StringNode, *parse.NumberNode, *parse.BoolNode, *parse.CommentNode:
	default:
		return errTemplate(node.String())
	}
	for _, n := range inside {
		if err := walkTemplate(n, named); err != nil {
			return err
		}
	}
	return nil
}

// try makes all bodies, and says what is wrong with them.
func (w *wording) try() error {
	kind, _, _ := mime.ParseMediaType(w.ContentType)
	check := func(s saying) error {
		for _, s.requestID = range []string{"", exampleRequestID, strings.Repeat("x", maxRequestID)} {
			body, err := w.execute(s)
			switch {
			case err != nil:
				return fmt.Errorf("cannot be filled in for %v; compare only fields with texts", s.reason)
			case len(body) > MaxBody:
				return fmt.Errorf("makes %d bytes for %v; write one that makes at most %d", len(body), s.reason, MaxBody)
			case len(bytes.TrimSpace(body)) == 0:
				return fmt.Errorf("makes an empty body for %v; write something for each reason", s.reason)
			case !utf8.Valid(body) || bytes.ContainsFunc(body, func(c rune) bool { return unicode.IsControl(c) && c != '\n' && c != '\r' && c != '\t' }):
				return errors.New("has control characters, or is no UTF-8; take them out")
			case isJSON(kind) && !json.Valid(body):
				return fmt.Errorf("makes no JSON for %v; write each field in quotes, such as \"reason\": \"{{.reason}}\"", s.reason)
			}
		}
		return nil
	}
	for reason := range Reason(Reasons) {
		if outcome := reason.Outcome(); outcome != Allow {
			if err := check(saying{reason: reason, description: facts[reason].describe, retryAfter: maxRetryAfter, status: outcome.Status()}); err != nil {
				return err
			}
		}
	}
	for _, fault := range bearer.Faults() {
		if err := check(saying{reason: reasonOf(fault), description: fault.Error(), status: http.StatusUnauthorized}); err != nil {
			return err
		}
	}
	return nil
}

// body returns a refusal's body, and its content type.
func (w *wording) body(s saying) (body []byte, contentType string) {
	switch {
	case w.Template != "":
		if body, err := w.execute(s); err == nil {
			return body, w.ContentType
		}
		return []byte(crmNowBody(s.reason)), crmNowType // try has seen to it that this does not happen
	case w.Problem:
		return w.problem(s), problemType
	default:
		return []byte(crmNowBody(s.reason)), crmNowType
	}
}

func (w *wording) execute(s saying) ([]byte, error) {
	retryAfter := ""
	if s.reason.Outcome() == Unavailable {
		retryAfter = seconds(s.retryAfter)
	}
	values := map[string]string{
		"reason": s.reason.String(), "status": strconv.Itoa(s.status), "title": facts[s.reason].title, "detail": s.detail(),
		"policy": w.policy, "realm": w.realm, "retry_after": retryAfter, fieldRequestID: s.requestID,
	}
	for name, value := range values {
		values[name] = w.escape(value)
	}
	var b bytes.Buffer
	err := w.template.Execute(&b, values)
	return b.Bytes(), err
}

// problem makes problem details (RFC 9457 §3).
func (w *wording) problem(s saying) []byte {
	// §4.2.1: about:blank has the status' own words for its title.
	kind, title := "about:blank", http.StatusText(s.status)
	if w.ProblemTypes != "" {
		kind, title = w.ProblemTypes+s.reason.String(), facts[s.reason].title
	}
	body, _ := json.Marshal(struct { // texts and a number always marshal
		Type   string `json:"type"`
		Title  string `json:"title"`
		Status int    `json:"status"`
		Detail string `json:"detail"`
		Reason string `json:"reason"`
	}{kind, title, s.status, s.detail(), s.reason.String()})
	return body
}

// detail says in words of the gateway alone what is wrong.
func (s *saying) detail() string {
	switch {
	case s.description != "":
		return s.description
	case s.reason.Outcome() == Refused:
		return "the request is not acceptable: its path, host or method is unclear"
	case s.reason.Outcome() == Unavailable:
		return "the token could not be checked, try again later"
	default:
		return "the request has no bearer token"
	}
}

// crmNowBody is the body in the form of crm-now's APIs.
func crmNowBody(reason Reason) string {
	switch reason.Outcome() {
	case Refused:
		return refusedBody
	case Forbidden:
		return forbiddenBody
	case Unauthorized:
		return unauthorizedBody
	default:
		return unavailableBody
	}
}

// isRequestID reports whether an ID may be shown to its client: it may be the client's
// own words.
func isRequestID(id string) bool {
	plain := func(c rune) bool {
		return isLetter(c) || c >= '0' && c <= '9' || strings.ContainsRune("-_.:/+=~", c)
	}
	return id != "" && len(id) <= maxRequestID && !strings.ContainsFunc(id, func(c rune) bool { return !plain(c) })
}
