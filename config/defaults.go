package config

import (
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	configv1 "github.com/bearergate/bearergate/proto/bearergate/config/v1"
)

// WithDefaults returns a copy of a configuration with a value in every field that has a default and holds none (0, an
// empty string, no duration, no message). A listener that is not named stays so, and so does an empty list of verifiers. It checks
// nothing. What [Load] and [Parse] return is filled in already; this is for a configuration made in code.
func WithDefaults(config *configv1.Config) *configv1.Config {
	filled := proto.CloneOf(config)
	if filled == nil {
		filled = &configv1.Config{}
	}
	fill(filled, func(string) bool { return false })
	return filled
}

// fill is the one place where a default has its value; the comments in config.proto name the same, and a test compares
// them. A field at a path that was written keeps what was written, so that a 0 is refused and not replaced.
func fill(config *configv1.Config, written func(path string) bool) {
	f := filler{written: written}

	config.Listeners = orNew(config.GetListeners())
	for _, e := range entries(config.GetListeners()) {
		switch l := e.fields.(type) {
		case *configv1.ExtAuthz:
			f.number(&l.MaxConcurrentStreams, e.path+".max_concurrent_streams", 1000)
			f.number(&l.MaxMessageBytes, e.path+".max_message_bytes", 1<<20)
		case *configv1.AuthRequest:
			f.number(&l.MaxHeaderBytes, e.path+".max_header_bytes", 64<<10)
			l.Trust = orNew(l.GetTrust())
			f.text(&l.Trust.Original, e.path+".trust.original", "none")
			f.text(&l.Trust.Policy, e.path+".trust.policy", "none")
			f.text(&l.Trust.Client, e.path+".trust.client", "none")
		}
		if socket := e.GetSocket(); socket != nil {
			f.text(&socket.Mode, e.path+".socket.mode", "0660")
		}
		if tls := e.GetTls(); tls != nil {
			f.text(&tls.MinVersion, e.path+".tls.min_version", "1.2")
		}
	}

	for i, verifier := range config.GetVerifiers() {
		path := item("verifiers", i)
		f.duration(&verifier.Timeout, 3*time.Second)
		f.verifierKind(path, verifier)
		verifier.Calls = orNew(verifier.GetCalls())
		f.number(&verifier.Calls.Max, path+".calls.max", 64)
		f.number(&verifier.Calls.Reserved, path+".calls.reserved", verifier.GetCalls().GetMax()/4)
		f.number(&verifier.Calls.MaxWaiting, path+".calls.max_waiting", 1000)
		f.duration(&verifier.Calls.MaxWait, time.Second)
		if verifier.GetJwt() != nil && verifier.GetBreaker() == nil {
			continue // It calls nobody for a token.
		}
		verifier.Breaker = orNew(verifier.GetBreaker())
		f.number(&verifier.Breaker.Failures, path+".breaker.failures", 10)
		f.number(&verifier.Breaker.OfLast, path+".breaker.of_last", 20)
		f.duration(&verifier.Breaker.OpenFor, time.Second)
	}

	config.Cache = orNew(config.GetCache())
	f.number(&config.Cache.MaxTokens, "cache.max_tokens", 100_000)
	f.duration(&config.Cache.ValidTtl, 60*time.Second)
	f.duration(&config.Cache.InvalidTtl, 10*time.Second)
	f.duration(&config.Cache.RefreshBefore, max(0, min(config.GetCache().GetValidTtl().AsDuration()/5, 300*time.Second)))
	f.duration(&config.Cache.StaleIfError, 0)

	config.Credential = orNew(config.GetCredential())
	f.number(&config.Credential.MaxTokenBytes, "credential.max_token_bytes", 8<<10)

	config.DefaultPolicy = orNew(config.GetDefaultPolicy())
	f.policy(config.GetDefaultPolicy(), "default_policy")
	for i, policy := range config.GetPolicies() {
		f.policy(policy, item("policies", i))
	}

	config.Log = orNew(config.GetLog())
	f.text(&config.Log.Level, "log.level", "info")
	f.text(&config.Log.Format, "log.format", "auto")

	f.duration(&config.ShutdownTimeout, 10*time.Second)
	f.duration(&config.DrainDelay, 0)
	config.Health = orNew(config.GetHealth())
	f.text(&config.ClientAddresses, "client_addresses", "whole")
}

type filler struct {
	written func(path string) bool
}

// verifierKind fills in what a verifier's kind has.
func (f filler) verifierKind(path string, v *configv1.Verifier) {
	tokens := "any"
	if v.GetJwt() != nil {
		tokens = "jwt"
	}
	f.text(&v.Tokens, path+".tokens", tokens)
	switch kind := v.GetKind().(type) {
	case *configv1.Verifier_Verifytoken:
		f.text(&kind.Verifytoken.Encoding, path+".verifytoken.encoding", "multipart")
	case *configv1.Verifier_Introspection:
		at := path + ".introspection"
		f.text(&kind.Introspection.TokenTypeHint, at+".token_type_hint", "access_token")
		if client := kind.Introspection.GetClient(); client != nil {
			f.text(&client.Authentication, at+".client.authentication", "client_secret_basic")
		}
		if signed := kind.Introspection.GetSigned(); signed != nil {
			signed.Keys = f.keys(signed.GetKeys())
		}
	case *configv1.Verifier_Jwt:
		f.duration(&kind.Jwt.Leeway, 10*time.Second)
		kind.Jwt.Keys = f.keys(kind.Jwt.GetKeys())
	}
}

func (f filler) keys(k *configv1.Keys) *configv1.Keys {
	k = orNew(k)
	f.duration(&k.RefreshEvery, 5*time.Minute)
	f.duration(&k.MaxAge, time.Hour)
	f.duration(&k.Pause, 5*time.Second)
	return k
}

func (f filler) policy(p *configv1.Policy, path string) {
	f.text(&p.Realm, path+".realm", "api")
	f.text(&p.ForwardToken, path+".forward_token", "strip")
	f.duration(&p.EdgeCache, 0)
	f.text(&p.Preflight, path+".preflight", "refuse")
	if p.GetRefusal() != nil {
		f.text(&p.Refusal.Body, path+".refusal.body", "crm-now")
	}
}

func (f filler) number(field *uint32, path string, value uint32) {
	if *field == 0 && !f.written(path) {
		*field = value
	}
}

func (f filler) text(field *string, path, value string) {
	if *field == "" && !f.written(path) {
		*field = value
	}
}

// duration needs no path: a message field tells by itself whether it was written.
func (f filler) duration(field **durationpb.Duration, value time.Duration) {
	if *field == nil {
		*field = durationpb.New(value)
	}
}

func orNew[T any](message *T) *T {
	if message == nil {
		return new(T)
	}
	return message
}
