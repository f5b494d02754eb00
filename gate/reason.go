package gate

import (
	"fmt"
	"net/http"
)

// Outcome is what becomes of a request.
type Outcome uint8

const (
	// Unavailable means: nobody could tell; 503. It is the zero value, so that nothing
	// is let through by omission.
	Unavailable Outcome = iota
	// Unauthorized means: the credential is missing, malformed or not good; 401.
	Unauthorized
	// Forbidden means: the token is good, and may not do this; 403.
	Forbidden
	// Refused means: the request itself is not acceptable, whoever sends it; 400.
	Refused
	// Allow means: the request may go on.
	Allow
)

// String returns the outcome's name.
func (o Outcome) String() string {
	switch o {
	case Unavailable:
		return "unavailable"
	case Unauthorized:
		return "unauthorized"
	case Forbidden:
		return "forbidden"
	case Refused:
		return "refused"
	case Allow:
		return "allow"
	default:
		return fmt.Sprintf("outcome(%d)", uint8(o))
	}
}

// Status returns the HTTP status that says it. An edge may have to be told another:
// see package authrequest.
func (o Outcome) Status() int {
	switch o {
	case Unauthorized:
		return http.StatusUnauthorized
	case Forbidden:
		return http.StatusForbidden
	case Refused:
		return http.StatusBadRequest
	case Allow:
		return http.StatusOK
	default:
		return http.StatusServiceUnavailable
	}
}

// Reason is why a request was decided as it was. The word that String gives is
// the same in the log, the metrics, the edge's metadata and the documentation.
type Reason uint8

const (
	// InternalError means: the gateway itself failed. It is the zero value.
	InternalError Reason = iota
	// Valid means: the token is good.
	Valid
	// MissingToken means: there is no Bearer credential.
	MissingToken
	// MalformedToken means: there is one, but it is not what RFC 6750 §2.1 allows.
	MalformedToken
	// MultipleTokens means: there is more than one Authorization value.
	MultipleTokens
	// TokenInURL means: there is none, but the query holds an access_token.
	TokenInURL
	// InvalidToken means: the verifier says that the token is not good.
	InvalidToken
	// VerifierUnavailable means: the verifier gave no answer.
	VerifierUnavailable
	// Overloaded means: the verifier was not asked, because too many questions wait.
	Overloaded
	// InsufficientScope means: the token is good, and does not meet what the policy
	// requires.
	InsufficientScope
	// PublicRoute means: the policy asks for no token.
	PublicRoute
	// Preflight means: a browser asks whether it may send a request (CORS), and the
	// policy lets it ask.
	Preflight
	// BadPath means: policies are chosen by path, and programs may read this one in
	// different ways.
	BadPath
	// BadHost means: policies are chosen by host, and this is none.
	BadHost
	// BadMethod means: policies are chosen by method, and this is not in capitals.
	BadMethod
	// UnknownPolicy means: the edge names a policy that is not configured.
	UnknownPolicy
	// UnclearEdge means: the edge does not say what policies are chosen by, or says
	// it twice.
	UnclearEdge
	// UntrustedEdge means: whoever asks does not prove to be the edge.
	UntrustedEdge
	// UnusableClaim means: the token is good, but a claim of it that the API is to be
	// told cannot be sent in a header.
	UnusableClaim

	// Reasons is the number of reasons.
	Reasons = iota
)

// facts about each reason, in one place.
var facts = [Reasons]struct {
	word    string
	outcome Outcome
	// describe is the error_description of the challenge, where the reason alone
	// says enough; "" leaves it to the error.
	describe string
	// title says in a few words what the reason is, for callers.
	title string
}{
	InternalError:       {word: "internal_error", outcome: Unavailable, title: "The token could not be checked"},
	Valid:               {word: "valid", outcome: Allow},
	MissingToken:        {word: "missing_token", outcome: Unauthorized, title: "The token is missing"},
	MalformedToken:      {word: "malformed_token", outcome: Unauthorized, title: "The token is not well written"},
	MultipleTokens:      {word: "multiple_tokens", outcome: Unauthorized, title: "There is more than one token"},
	TokenInURL:          {word: "token_in_url", outcome: Unauthorized, describe: "the token is in the URL; send it in the Authorization header", title: "The token is in the URL"},
	InvalidToken:        {word: "invalid_token", outcome: Unauthorized, describe: "the token is not good or has ended; fetch a new one", title: "The token is not good"},
	VerifierUnavailable: {word: "verifier_unavailable", outcome: Unavailable, title: "The token could not be checked"},
	Overloaded:          {word: "overloaded", outcome: Unavailable, title: "The token could not be checked"},
	InsufficientScope:   {word: "insufficient_scope", outcome: Forbidden, describe: "the token is good, but not for this", title: "The token does not allow this"},
	PublicRoute:         {word: "public_route", outcome: Allow},
	Preflight:           {word: "preflight", outcome: Allow},
	BadPath:             {word: "bad_path", outcome: Refused, title: "The path is unclear"},
	BadHost:             {word: "bad_host", outcome: Refused, title: "The host is unclear"},
	BadMethod:           {word: "bad_method", outcome: Refused, title: "The method is unclear"},
	UnknownPolicy:       {word: "unknown_policy", outcome: Unavailable, title: "The token could not be checked"},
	UnclearEdge:         {word: "unclear_edge", outcome: Unavailable, title: "The token could not be checked"},
	UntrustedEdge:       {word: "untrusted_edge", outcome: Unavailable, title: "The token could not be checked"},
	UnusableClaim:       {word: "unusable_claim", outcome: Forbidden, describe: "the token is good, but what it says of its owner cannot be passed on", title: "The token cannot be used here"},
}

// String returns the reason's word.
func (r Reason) String() string {
	if r < Reasons {
		return facts[r].word
	}
	return fmt.Sprintf("reason(%d)", uint8(r))
}

// HasVerdict reports whether the reason follows from a verdict, which has a source.
func (r Reason) HasVerdict() bool {
	return r == Valid || r == InvalidToken || r == InsufficientScope || r == UnusableClaim
}

// Outcome returns what follows from the reason.
func (r Reason) Outcome() Outcome {
	if r < Reasons {
		return facts[r].outcome
	}
	return Unavailable
}
