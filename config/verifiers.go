package config

import (
	"cmp"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/bearergate/bearergate/admin"
	"github.com/bearergate/bearergate/bearer"
	configv1 "github.com/bearergate/bearergate/proto/bearergate/config/v1"
	"github.com/bearergate/bearergate/verifier"
)

// verifiers are all that the configuration names, each with its own stages.
type verifiers struct {
	logger   *slog.Logger
	metrics  *admin.Metrics
	panicked func(*verifier.Panic)
	version  string
	cache    *configv1.Cache
	byName   map[string]*stack

	// refused, if set, is told of tokens that verifiers find not good, and why.
	refused func(verifier, why string)
}

// stack is a verifier with what stands in front of it.
type stack struct {
	path   string // in the configuration
	fields *configv1.Verifier
	cache  *verifier.Cache
	stages admin.Stages
	close  []func() // what is behind the cache, to be closed when nobody asks any more
}

// buildVerifiers stacks the stages of each verifier. What it returns is to be closed, also if there is an error.
func buildVerifiers(c *configv1.Config, logger *slog.Logger, metrics *admin.Metrics, panicked func(*verifier.Panic), version string) (*verifiers, error) {
	vs := &verifiers{logger: logger, metrics: metrics, panicked: panicked, version: version, cache: c.GetCache(), byName: map[string]*stack{}}
	for i, v := range c.GetVerifiers() {
		s := &stack{path: item("verifiers", i), fields: v}
		vs.byName[v.GetName()] = s
		if err := vs.build(s); err != nil {
			return vs, err
		}
	}
	stages := map[string]admin.Stages{}
	for name, s := range vs.byName {
		stages[name] = s.stages
	}
	metrics.Verifiers(stages)
	return vs, nil
}

// build stacks the stages that answer whether a token is good. This is the one place that knows their order.
func (vs *verifiers) build(s *stack) error {
	v := s.fields
	last, err := vs.last(s)
	if err != nil {
		return err
	}
	guard, err := verifier.NewGuard(verifier.NewMeasured(last, vs.metrics.Calls(v.GetName())), verifier.GuardOptions{
		Name:       v.GetName(),
		MaxCalls:   int(v.GetCalls().GetMax()),
		Reserved:   int(v.GetCalls().GetReserved()),
		MaxWaiting: int(v.GetCalls().GetMaxWaiting()),
		MaxWait:    v.GetCalls().GetMaxWait().AsDuration(),
		Timeout:    v.GetTimeout().AsDuration(),
		// The keys of a JWT's issuer have a bound of their own. With a breaker, tokens whose key nobody knows could
		// close the way for good ones.
		NoBreaker: v.GetJwt() != nil,
		Failures:  int(v.GetBreaker().GetFailures()),
		OfLast:    int(v.GetBreaker().GetOfLast()),
		OpenFor:   v.GetBreaker().GetOpenFor().AsDuration(),
		StateChanged: func(from, to string) {
			vs.logger.Warn("the breaker of a verifier changed its state",
				slog.String("verifier", v.GetName()), slog.String("from", from), slog.String("to", to))
		},
	})
	if err != nil {
		return err
	}
	s.cache, err = verifier.NewCache(guard, verifier.CacheOptions{
		Name:          v.GetName(),
		MaxTokens:     int(vs.cache.GetMaxTokens()),
		ValidTTL:      vs.cache.GetValidTtl().AsDuration(),
		InvalidTTL:    vs.cache.GetInvalidTtl().AsDuration(),
		RefreshBefore: vs.cache.GetRefreshBefore().AsDuration(),
		StaleIfError:  vs.cache.GetStaleIfError().AsDuration(),
		Timeout:       longestCall(v),
		Panicked:      vs.panicked,
	})
	if err != nil {
		return err
	}
	s.stages = admin.Stages{Guard: guard.Stats, Cache: s.cache.Stats}
	return nil
}

// last makes the last stage, which knows the answers.
func (vs *verifiers) last(s *stack) (verifier.Verifier, error) {
	v := s.fields
	refused := func(t bearer.Token, why string) {
		vs.logger.Debug("a verifier refused a token", slog.String("verifier", v.GetName()), slog.Any("token", t), slog.String("why", why))
		if vs.refused != nil {
			vs.refused(v.GetName(), why)
		}
	}
	switch kind := v.GetKind().(type) {
	case *configv1.Verifier_Introspection:
		return vs.introspection(s, kind.Introspection, refused)
	case *configv1.Verifier_Jwt:
		keys, err := vs.keySet(s, s.path+".jwt.keys", kind.Jwt.GetKeys(), kind.Jwt.GetIssuer())
		if err != nil {
			return nil, err
		}
		return verifier.NewJWT(verifier.JWTOptions{
			Name:            v.GetName(),
			Issuer:          kind.Jwt.GetIssuer(),
			Audiences:       kind.Jwt.GetAudiences(),
			Algorithms:      kind.Jwt.GetAlgorithms(),
			Keys:            keys,
			AccessTokenOnly: kind.Jwt.GetAccessTokensOnly(),
			Leeway:          kind.Jwt.GetLeeway().AsDuration(),
			Refused:         refused,
		})
	default:
		endpoint := v.GetVerifytoken()
		roots, err := rootCAs(endpoint.GetCaFile())
		if err != nil {
			return nil, fmt.Errorf("%s.verifytoken.ca_file: %w", s.path, err)
		}
		last, err := verifier.NewVerifytoken(verifier.VerifytokenOptions{
			Name:           v.GetName(),
			URL:            endpoint.GetUrl(),
			AllowPlaintext: endpoint.GetAllowPlaintext(),
			Encoding:       verifier.Encoding(endpoint.GetEncoding()),
			MaxConnections: int(v.GetCalls().GetMax()),
			RootCAs:        roots,
			UserAgent:      vs.userAgent(),
		})
		if err != nil {
			return nil, err
		}
		s.close = append(s.close, last.Close)
		vs.logProxy(v.GetName(), endpoint.GetUrl())
		return last, nil
	}
}

func (vs *verifiers) introspection(s *stack, endpoint *configv1.Introspection, refused func(bearer.Token, string)) (verifier.Verifier, error) {
	v := s.fields
	roots, err := rootCAs(endpoint.GetCaFile())
	if err != nil {
		return nil, fmt.Errorf("%s.introspection.ca_file: %w", s.path, err)
	}
	hint := endpoint.GetTokenTypeHint()
	if hint == "none" {
		hint = ""
	}
	options := verifier.IntrospectionOptions{
		Name:           v.GetName(),
		URL:            endpoint.GetUrl(),
		AllowPlaintext: endpoint.GetAllowPlaintext(),
		MaxConnections: int(v.GetCalls().GetMax()),
		RootCAs:        roots,
		UserAgent:      vs.userAgent(),
		Client: verifier.ClientCredentials{
			Authentication: verifier.ClientAuthentication(endpoint.GetClient().GetAuthentication()),
			ID:             endpoint.GetClient().GetId(),
			Secret:         secretSource(clientSecret(endpoint.GetClient()), os.LookupEnv),
			KeyID:          endpoint.GetClient().GetKeyId(),
			Audience:       endpoint.GetClient().GetAudience(),
		},
		TokenTypeHint: hint,
		Issuer:        endpoint.GetIssuer(),
		Refused:       refused,
	}
	if signed := endpoint.GetSigned(); signed != nil {
		keys, err := vs.keySet(s, s.path+".introspection.signed.keys", signed.GetKeys(), signed.GetIssuer())
		if err != nil {
			return nil, err
		}
		options.Signed = &verifier.SignedAnswers{
			Keys:       keys,
			Algorithms: signed.GetAlgorithms(),
			Issuer:     signed.GetIssuer(),
			Audience:   cmp.Or(signed.GetAudience(), endpoint.GetClient().GetId()),
		}
	}
	last, err := verifier.NewIntrospection(options)
	if err != nil {
		return nil, err
	}
	s.close = append(s.close, last.Close)
	vs.logProxy(v.GetName(), endpoint.GetUrl())
	return last, nil
}

// clientSecret is what the client proves itself with.
func clientSecret(c *configv1.Client) *configv1.Secret {
	if c.GetAuthentication() == string(verifier.PrivateKeyJWT) {
		return c.GetPrivateKey()
	}
	return c.GetSecret()
}

// keySet makes the keys of an issuer.
func (vs *verifiers) keySet(s *stack, path string, keys *configv1.Keys, issuer string) (*verifier.KeySet, error) {
	name := s.fields.GetName()
	roots, err := rootCAs(keys.GetCaFile())
	if err != nil {
		return nil, fmt.Errorf("%s.ca_file: %w", path, err)
	}
	known := -1
	options := verifier.KeySetOptions{
		Name:           name,
		URL:            keys.GetUrl(),
		Issuer:         issuer,
		AllowPlaintext: keys.GetAllowPlaintext(),
		RootCAs:        roots,
		UserAgent:      vs.userAgent(),
		RefreshEvery:   keys.GetRefreshEvery().AsDuration(),
		MaxAge:         keys.GetMaxAge().AsDuration(),
		Pause:          keys.GetPause().AsDuration(),
		Timeout:        s.fields.GetTimeout().AsDuration(),
		Fetched: func(count int, err error) {
			switch {
			case err != nil:
				vs.logger.Warn("the keys of an issuer were not to be had", slog.String("verifier", name), slog.Any("error", err))
			case count != known:
				vs.logger.Info("the keys of an issuer are there", slog.String("verifier", name), slog.Int("keys", count))
			}
			if err == nil {
				known = count
			}
		},
	}
	if file := keys.GetFile(); file != "" {
		options.Read = func() ([]byte, error) { return readBounded(file, maxKeysBytes) }
	}
	set, err := verifier.NewKeySet(options)
	if err != nil {
		return nil, err
	}
	s.close = append(s.close, set.Close)
	return set, nil
}

// maxKeysBytes is the size of the largest file of keys that is read.
const maxKeysBytes = 256 << 10

func (vs *verifiers) userAgent() string { return "bearergate/" + vs.version }

// asked makes one verifier of those with these names, in this order: the first that is for a token is asked. A
// configuration that was checked has no unknown names.
func (vs *verifiers) asked(names []string) (verifier.Verifier, error) {
	var choices []verifier.Choice
	for _, name := range names {
		s := vs.byName[name]
		if s == nil {
			return nil, fmt.Errorf("there is no verifier %s", name)
		}
		choice := choiceOf(s.fields, vs.fieldsOf(s.fields.GetBehind()))
		choice.Verifier = s.cache
		if first := vs.byName[s.fields.GetBehind()]; first != nil {
			choice.Verifier = verifier.NewBoth(first.cache, s.cache)
		}
		choices = append(choices, choice)
	}
	if len(choices) == 1 && choices[0].TakesAll() {
		return choices[0].Verifier, nil
	}
	return verifier.NewChoose(choices...), nil
}

func (vs *verifiers) fieldsOf(name string) *configv1.Verifier {
	if s := vs.byName[name]; s != nil {
		return s.fields
	}
	return nil
}

// choiceOf says which tokens a verifier is for; first is the one that it stands behind, or nil.
func choiceOf(v, first *configv1.Verifier) verifier.Choice {
	switch {
	case v.GetJwt() != nil:
		return verifier.Choice{Kind: verifier.JWTToken, Issuers: []string{v.GetJwt().GetIssuer()}}
	case first != nil:
		return choiceOf(first, nil)
	case v.GetTokens() == "opaque":
		return verifier.Choice{Kind: verifier.OpaqueToken, Issuers: v.GetIssuers()}
	case v.GetTokens() == "jwt":
		return verifier.Choice{Kind: verifier.JWTToken, Issuers: v.GetIssuers()}
	default:
		return verifier.Choice{Issuers: v.GetIssuers()}
	}
}

// askedBy gives the names of the verifiers that a policy asks: those it lists, or the one there is.
func askedBy(p *configv1.Policy, c *configv1.Config) []string {
	if len(p.GetVerifiers()) == 0 && len(c.GetVerifiers()) == 1 {
		return []string{c.GetVerifiers()[0].GetName()}
	}
	return p.GetVerifiers()
}

// longestCall is how long a call may take with its waiting.
func longestCall(v *configv1.Verifier) time.Duration {
	return v.GetCalls().GetMaxWait().AsDuration() + v.GetTimeout().AsDuration()
}

// longestAnswer is how long it may take until there is an answer about a token, whoever is asked.
func longestAnswer(c *configv1.Config) time.Duration {
	calls := map[string]time.Duration{}
	for _, v := range c.GetVerifiers() {
		calls[v.GetName()] = longestCall(v)
	}
	var longest time.Duration
	for _, v := range c.GetVerifiers() {
		longest = max(longest, calls[v.GetName()]+calls[v.GetBehind()])
	}
	return longest
}

// close frees all that the verifiers hold.
func (vs *verifiers) close() {
	for _, s := range vs.byName {
		if s.cache != nil {
			s.cache.Close()
		}
		for _, end := range s.close {
			end()
		}
	}
}

// logProxy says so when calls to the endpoint go through a proxy that the
// environment names: nobody should be surprised by that.
func (vs *verifiers) logProxy(name, endpoint string) {
	r, err := http.NewRequest(http.MethodPost, endpoint, http.NoBody) //nolint:noctx // it is sent nowhere
	if err != nil {
		return
	}
	proxy, err := http.ProxyFromEnvironment(r)
	switch {
	case err != nil, proxy == nil && isBroken(r.URL.Scheme), proxy != nil && !isProxy(proxy):
		vs.logger.Warn("the proxy named by the environment cannot be used; look at HTTPS_PROXY and HTTP_PROXY", slog.String("verifier", name))
	case proxy != nil:
		vs.logger.Info("the verifier is asked through the proxy that HTTPS_PROXY or HTTP_PROXY names",
			slog.String("verifier", name), slog.String("proxy", proxy.Host))
	}
}

// isProxy reports whether a URL names a proxy that net/http can speak to. Whoever
// forgets the http:// in front of it gets a URL, too, but none of a proxy.
func isProxy(u *url.URL) bool {
	return u.Host != "" && slices.Contains([]string{"http", "https", "socks5", "socks5h"}, u.Scheme)
}

// isBroken reports whether the environment names a proxy for a scheme in a way that
// net/http cannot read. It asks directly then, and says nothing.
func isBroken(scheme string) bool {
	name := scheme + "_proxy"
	value := cmp.Or(os.Getenv(strings.ToUpper(name)), os.Getenv(name))
	_, whole := url.Parse(value)
	_, host := url.Parse("http://" + value)
	return whole != nil && host != nil
}

func rootCAs(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no certificate in PEM form", file)
	}
	return pool, nil
}
