package crmnow

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math"
	"mime"
	"mime/multipart"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

// Job is what a request to the endpoint asks for. Jobs can be joined with |.
type Job uint8

// The two jobs of the endpoint.
const (
	// Fetch is a request for a token.
	Fetch Job = 1 << iota
	// Verify is a question about a token.
	Verify
	// Both are Fetch and Verify.
	Both = Fetch | Verify
)

// String returns "fetch", "verify" or "both".
func (j Job) String() string {
	switch j {
	case Fetch:
		return "fetch"
	case Verify:
		return "verify"
	case Both:
		return "both"
	default:
		return fmt.Sprintf("Job(%d)", uint8(j))
	}
}

// EmulatorOptions describe the endpoint that an [Emulator] stands for. The zero
// value gives one that accepts no client.
type EmulatorOptions struct {
	// Clients are the partners: client ID and secret, both plain.
	Clients map[string]Secret
	// Lifetime is how long a token is good, in whole seconds; 0 means
	// DefaultLifetime.
	Lifetime time.Duration
	// JWTBytes gives tokens the shape of a JWT, as Keycloak issues them, of
	// exactly so many bytes, from 1024 to 16384. Nobody can verify their
	// signature. 0 means opaque tokens of 43 bytes.
	JWTBytes int
	// MaxTokens bounds how many tokens are remembered at one time, and for how
	// many questions about them are counted one by one; 0 means 100,000. A client
	// that asks for one more gets 503.
	MaxTokens int
	// ServeControl makes the emulator answer on ControlPath too; see
	// [Emulator.Control]. Whoever reaches the listener can then set faults.
	ServeControl bool
	// Logger gets a line for each request: what was asked and what became of it,
	// never a token or a secret. nil means none.
	Logger *slog.Logger
}

// Emulator is the endpoint in memory. It is an [http.Handler] for both jobs on
// [Path]; every other path is not found.
//
// A POST with the form field verifytoken, as multipart/form-data or
// application/x-www-form-urlencoded, is a question about that token. The reply is
// 200 with {"result": true, "message": "token valid"}, or with false and a message
// that tells an obvious mistake. Every other POST asks for a token; it has no
// body, and in Authorization: Basic the ID and secret of a client, each
// form-urlencoded before they were joined (RFC 6749 §2.3.1). The reply is 200 with
// the token, or 401 if the credentials are wrong. Refusals have the form of
// RFC 6749 §5.2, and error_description says what partners get wrong there; see
// [Refusal].
//
// Requests have at most 64 KiB. Time is [time.Now], so an Emulator that is made in
// a bubble of testing/synctest lives by the bubble's clock. All methods may be
// called at any time, concurrently, from any goroutine.
type Emulator struct {
	clients      map[string]Secret
	lifetime     time.Duration
	jwtBytes     int
	maxTokens    int
	serveControl bool
	control      http.Handler
	logger       *slog.Logger

	mu      sync.Mutex
	tokens  tokens
	asked   map[digest]int64 // questions by token
	stats   Stats            // all but InForce
	changed chan struct{}    // closed when stats change; nil if nobody waits
	fetch   faulty
	verify  faulty
}

// NewEmulator returns an emulator. The error names the option that is wrong.
func NewEmulator(o EmulatorOptions) (*Emulator, error) {
	for id, secret := range o.Clients {
		if err := usable("client ID", id); err != nil {
			return nil, err
		}
		if err := usable("client secret", secret.Reveal()); err != nil {
			return nil, err
		}
	}
	switch {
	case o.JWTBytes != 0 && (o.JWTBytes < minJWTBytes || o.JWTBytes > maxJWTBytes):
		return nil, fmt.Errorf("the size of tokens is %d bytes; it is %d to %d, or 0 for opaque ones", o.JWTBytes, minJWTBytes, maxJWTBytes)
	case o.MaxTokens < 0 || o.MaxTokens > math.MaxInt32:
		return nil, fmt.Errorf("the number of tokens is %d; it is 0 to %d", o.MaxTokens, math.MaxInt32)
	}
	if o.MaxTokens == 0 {
		o.MaxTokens = 100_000
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	e := &Emulator{
		clients:      maps.Clone(o.Clients),
		lifetime:     DefaultLifetime,
		jwtBytes:     o.JWTBytes,
		maxTokens:    o.MaxTokens,
		serveControl: o.ServeControl,
		logger:       o.Logger,
		tokens:       tokens{most: o.MaxTokens, ends: map[digest]time.Time{}},
		asked:        map[digest]int64{},
		stats:        Stats{Refused: map[Refusal]int64{}},
	}
	var err error
	if e.lifetime, err = e.lifetimeOr(o.Lifetime); err != nil {
		return nil, err
	}
	e.control = e.Control()
	for id := range o.Clients { // an ID may leave no room for the claims
		if _, err := e.newToken(id, time.Now(), time.Now()); err != nil {
			return nil, err
		}
	}
	return e, nil
}

// Issue returns a new token without asking for credentials. It is good for the
// given time, in whole seconds; 0 means what the options say. The error says that
// the lifetime makes no sense, or that MaxTokens are in force.
func (e *Emulator) Issue(lifetime time.Duration) (Grant, error) {
	return e.issue("emulator", lifetime)
}

// Accept makes a token of the caller's own good for the given time, in whole
// seconds; 0 means what the options say. The errors are those of [Emulator.Issue].
func (e *Emulator) Accept(token Secret, lifetime time.Duration) error {
	if token.IsZero() {
		return errors.New("an empty token cannot be good")
	}
	lifetime, err := e.lifetimeOr(lifetime)
	if err != nil {
		return err
	}
	now := time.Now()
	return e.remember(token, now, now.Add(lifetime))
}

// lifetimeOr returns a lifetime that makes sense, the emulator's own for 0.
func (e *Emulator) lifetimeOr(lifetime time.Duration) (time.Duration, error) {
	if lifetime == 0 {
		return e.lifetime, nil
	}
	// expires_in counts whole seconds.
	if lifetime < time.Second || lifetime > maxLifetime || lifetime%time.Second != 0 {
		return 0, fmt.Errorf("a token cannot be good for %s; give whole seconds, at most %s", lifetime, maxLifetime)
	}
	return lifetime, nil
}

// Revoke makes a token bad before its end, and reports whether it was good.
func (e *Emulator) Revoke(token Secret) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.tell()
	return e.tokens.remove(token.digest(), time.Now())
}

func (e *Emulator) issue(client string, lifetime time.Duration) (Grant, error) {
	lifetime, err := e.lifetimeOr(lifetime)
	if err != nil {
		return Grant{}, err
	}
	now := time.Now()
	end := now.Add(lifetime)
	token, err := e.newToken(client, now, end)
	if err != nil {
		return Grant{}, err
	}
	if err := e.remember(token, now, end); err != nil {
		return Grant{}, err
	}
	return Grant{AccessToken: token, Scope: DefaultScope, ExpiresIn: lifetime, ExpiresAt: end}, nil
}

func (e *Emulator) newToken(client string, now, end time.Time) (Secret, error) {
	if e.jwtBytes == 0 {
		return NewSecret(opaqueToken()), nil
	}
	token, err := jwtToken(e.jwtBytes, client, now, end)
	return NewSecret(token), err
}

func (e *Emulator) remember(token Secret, now, end time.Time) error {
	d := token.digest()
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.tokens.add(d, now, end); err != nil {
		return err
	}
	e.stats.Issued++
	e.tell()
	return nil
}

// question is a request that was read: a question about a token, or, if job is
// Fetch, a request for one.
type question struct {
	job   Job
	token Secret
	// refusal is why it will be refused, "" if nothing is known against it.
	refusal Refusal
}

// reply is what the endpoint answers.
type reply struct {
	status int
	header map[string]string
	body   []byte
	// outcome is one word for the log.
	outcome string
}

// ServeHTTP answers a request. A fault may end it with [http.ErrAbortHandler],
// which a server takes as the order to break the connection.
func (e *Emulator) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if e.serveControl && strings.HasPrefix(r.URL.Path, ControlPath) {
		e.control.ServeHTTP(w, r)
		return
	}
	log := e.log(r)
	body, refusal := readBody(w, r)
	if why := misdirected(r); why != "" {
		refusal = why
	}
	if refusal != "" {
		a := e.refuse(refusal)
		send(w, a, nil)
		log("none", a.status, a.outcome)
		return
	}
	q := read(r, body)
	job := q.job.String()
	a, fault, err := e.respond(r, q)
	switch {
	case err != nil:
		log(job, 0, "connection ended during a fault")
		panic(http.ErrAbortHandler)
	case fault.Close || fault.Reset:
		log(job, 0, "connection ended by a fault")
		drop(w, fault.Reset)
	}
	send(w, a, fault.CutAfter)
	log(job, a.status, a.outcome)
}

// respond finds the reply, and the fault that was met on the way. The request is
// in flight until then: were it in flight until the reply is written, a client
// that sends its next request on another connection could be counted twice. The
// error is that of [Emulator.meet].
func (e *Emulator) respond(r *http.Request, q question) (reply, Fault, error) {
	end := e.begin(q)
	defer end()
	fault, err := e.meet(r.Context(), q.job)
	if err != nil || fault.Close || fault.Reset {
		return reply{}, fault, err
	}
	a := reply{status: http.StatusOK, outcome: "fault"}
	if !fault.replaces() {
		a = e.answer(r, q)
	}
	return fault.bend(a), fault, nil
}

// misdirected refuses what can be seen before the body.
func misdirected(r *http.Request) Refusal {
	switch {
	case r.URL.Path != Path:
		return RefusedPath
	case r.URL.Query().Has("verifytoken") || r.URL.Query().Has("access_token"):
		return RefusedTokenInURL
	case r.Method != http.MethodPost:
		return RefusedMethod
	default:
		return ""
	}
}

// readBody reads the body to its end, so that the server notices when the client
// goes away during a fault.
func readBody(w http.ResponseWriter, r *http.Request) ([]byte, Refusal) {
	if r.Body == http.NoBody || r.Body == nil {
		return nil, ""
	}
	// Not http.Server's ReadTimeout, which would be for all that a listener's owner
	// serves. The server itself takes it off at the end of the body, so that it does
	// not end a request that waits in a fault. Some writers have no deadlines.
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(exchangeTimeout))
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return nil, RefusedTooLarge
	case err != nil:
		return nil, RefusedBroken
	}
	return body, ""
}

// read finds out what a request asks for.
func read(r *http.Request, body []byte) question {
	kind, parameters, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	form := err == nil && (kind == "multipart/form-data" || kind == "application/x-www-form-urlencoded")
	switch {
	case len(body) == 0:
		return question{job: Fetch}
	case !form:
		return question{job: Fetch, refusal: RefusedNoForm}
	case kind == "multipart/form-data":
		return readMultipart(body, parameters["boundary"])
	}
	fields, err := url.ParseQuery(string(body))
	if err != nil {
		return question{job: Verify, refusal: RefusedBroken}
	}
	return about(fields["verifytoken"])
}

func readMultipart(body []byte, boundary string) question {
	var values []string
	for parts := multipart.NewReader(bytes.NewReader(body), boundary); ; {
		part, err := parts.NextRawPart()
		if err == io.EOF { //nolint:errorlint // a wrapped EOF says that the form is cut off
			return about(values)
		}
		if err != nil {
			return question{job: Verify, refusal: RefusedBroken}
		}
		value, err := io.ReadAll(part)
		switch {
		case err != nil:
			return question{job: Verify, refusal: RefusedBroken}
		case part.FormName() != "verifytoken":
		case part.FileName() != "":
			return question{job: Verify, refusal: RefusedFile}
		default:
			values = append(values, string(value))
		}
	}
}

// about makes a question of the values of the field verifytoken.
func about(values []string) question {
	switch len(values) {
	case 0:
		return question{job: Fetch, refusal: RefusedBody}
	case 1:
		return question{job: Verify, token: NewSecret(values[0])}
	default:
		return question{job: Verify, refusal: RefusedTwice}
	}
}

// begin counts a request; the function it returns ends the count.
func (e *Emulator) begin(q question) (end func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	job := e.stats.of(q.job)
	job.Requests++
	job.InFlight++
	job.MaxInFlight = max(job.MaxInFlight, job.InFlight)
	if q.job == Verify && q.refusal == "" {
		d := q.token.digest()
		if _, known := e.asked[d]; known || len(e.asked) < e.maxTokens {
			e.asked[d]++
		}
	}
	e.tell()
	return func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		job.InFlight--
		e.tell()
	}
}

// answer gives the true answer.
func (e *Emulator) answer(r *http.Request, q question) reply {
	if q.refusal != "" {
		return e.refuse(q.refusal)
	}
	if q.job == Verify {
		return e.answerVerify(q.token)
	}
	client, refusal := e.authenticate(r.Header.Values("Authorization"))
	if refusal != "" {
		return e.refuse(refusal)
	}
	grant, err := e.issue(client, 0)
	if err != nil {
		return e.refuse(RefusedFull)
	}
	// Strings and numbers always marshal.
	body, _ := json.Marshal(map[string]any{
		"access_token":       grant.AccessToken.Reveal(),
		"expires_in":         int64(grant.ExpiresIn / time.Second),
		"refresh_expires_in": 0,
		"token_type":         "Bearer",
		"scope":              grant.Scope,
	})
	return reply{status: http.StatusOK, body: body, outcome: "token issued"}
}

func (e *Emulator) answerVerify(token Secret) reply {
	e.mu.Lock()
	good := e.tokens.good(token.digest(), time.Now())
	if good {
		e.stats.Valid++
	} else {
		e.stats.Invalid++
	}
	e.mu.Unlock()
	if good {
		return reply{status: http.StatusOK, body: []byte(`{"result": true, "message": "token valid"}`), outcome: "token valid"}
	}
	message := "token invalid or expired"
	switch value := token.Reveal(); {
	case value == "":
		message = "token missing: verifytoken is empty"
	case strings.ContainsAny(value[:1]+value[len(value)-1:], `"'`):
		message = "token invalid: it arrived with quotes around it"
	case len(value) > 7 && strings.EqualFold(value[:7], "Bearer "):
		message = "token invalid: send the bare token, without the word Bearer"
	case strings.ContainsAny(value, " \t\r\n"):
		message = "token invalid: it arrived with a blank or a line break"
	}
	return reply{status: http.StatusOK, body: []byte(`{"result": false, "message": "` + message + `"}`), outcome: "token invalid"}
}

// refuse counts a refusal and gives its reply.
func (e *Emulator) refuse(why Refusal) reply {
	e.mu.Lock()
	e.stats.Refused[why]++
	e.tell()
	e.mu.Unlock()
	return why.reply()
}

// send writes a reply, or its first bytes; the server ends the connection when
// there are fewer than announced.
func send(w http.ResponseWriter, a reply, cutAfter *int) {
	// The server takes it off before the next request. Some writers have none.
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(exchangeTimeout))
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store") // RFC 6749 §5.1
	h.Set("Pragma", "no-cache")
	for name, value := range a.header {
		h.Set(name, value)
	}
	body := a.body
	if a.status == http.StatusNoContent || a.status == http.StatusNotModified {
		body = nil
		h.Del("Content-Type")
	} else {
		h.Set("Content-Length", fmt.Sprint(len(body)))
	}
	w.WriteHeader(a.status)
	if cutAfter != nil {
		body = body[:min(*cutAfter, len(body))]
	}
	// A client that went away is no error here.
	_, _ = w.Write(body)
}

// log starts a line about a request; the function it returns writes it.
func (e *Emulator) log(r *http.Request) func(job string, status int, outcome string) {
	began := time.Now()
	return func(job string, status int, outcome string) {
		// Path and query are left out: a token may be in them.
		e.logger.LogAttrs(context.WithoutCancel(r.Context()), slog.LevelInfo, "request",
			slog.String("job", job),
			slog.String("method", r.Method),
			slog.String("remote", r.RemoteAddr),
			slog.Int("status", status),
			slog.String("outcome", outcome),
			slog.Duration("took", time.Since(began)))
	}
}
