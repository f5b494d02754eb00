package config

import (
	"cmp"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/bearergate/bearergate/admin"
	"github.com/bearergate/bearergate/bearer"
	configv1 "github.com/bearergate/bearergate/proto/bearergate/config/v1"
	"github.com/bearergate/bearergate/traces"
	"github.com/bearergate/bearergate/verifier"
)

// verifierPool holds all verifiers that are in use, with their caches, breakers and
// connections. What two configurations say alike of a verifier is one and the same,
// and so keeps what it knows.
type verifierPool struct {
	logger   *slog.Logger
	panicked func(*verifier.Panic)
	version  string
	traces   *traces.Tracer
	denials  *verifier.Denials // of all; so a reload loses none
	// refused, if set, is told of tokens that verifiers find not good, and why.
	refused func(verifier string, t bearer.Token, why string)

	mu      sync.Mutex
	closed  bool
	stacks  map[string]*stack // by key
	made    int               // stacks so far
	closing sync.WaitGroup    // those that nobody uses any more
}

// stack is a verifier with what stands in front of it.
type stack struct {
	key    string
	path   string // in the configuration that it was made for
	fields *configv1.Verifier
	cache  *verifier.Cache
	stages admin.Stages
	close  []func() // what is behind the cache, to be closed when nobody asks any more
	users  int      // configurations; guarded by the pool
	// called counts the calls. It is set when a configuration that uses the stack
	// comes into force: series that were dropped meanwhile are made again.
	called atomic.Pointer[func(bearer.Token, verifier.Outcome, time.Duration)]
}

// verifiers are all that a configuration names, each with its own stages.
type verifiers struct {
	pool   *verifierPool
	byName map[string]*named
}

// named is a verifier as a configuration names it.
type named struct {
	*stack

	fields *configv1.Verifier
}

func newVerifierPool(logger *slog.Logger, panicked func(*verifier.Panic), version string) *verifierPool {
	return &verifierPool{logger: logger, panicked: panicked, version: version, stacks: map[string]*stack{}, denials: verifier.NewDenials()}
}

// take gives a configuration its verifiers: those that are there already, and new
// ones. They are to be given back.
func (vp *verifierPool) take(c *configv1.Config) (*verifiers, error) {
	vs := &verifiers{pool: vp, byName: map[string]*named{}}
	for i, v := range c.GetVerifiers() {
		path := item("verifiers", i)
		s, err := vp.takeOne(path, v, c.GetCache())
		if err != nil {
			vs.release()
			return nil, err
		}
		vs.byName[v.GetName()] = &named{s, v}
	}
	return vs, nil
}

func (vp *verifierPool) takeOne(path string, v *configv1.Verifier, cache *configv1.Cache) (*stack, error) {
	vp.mu.Lock()
	defer vp.mu.Unlock()
	key := keyOf(v, cache)
	if s := vp.stacks[key]; s != nil {
		s.users++
		return s, nil
	}
	s := &stack{key: key, path: path, fields: v, users: 1}
	if err := vp.build(s, cache); err != nil {
		s.end()
		return nil, err
	}
	vp.stacks[key] = s
	vp.made++
	return s, nil
}

// keyOf is the same for two verifiers if one can stand for the other: if they are
// configured alike, remember alike, and the files that are read once are the same.
// For which tokens a policy asks them is the policy's affair.
func keyOf(v *configv1.Verifier, cache *configv1.Cache) string {
	v = proto.CloneOf(v)
	v.Tokens, v.Issuers, v.Behind = "", nil, ""
	h := sha256.New()
	for _, m := range []proto.Message{v, cache} {
		text, _ := proto.MarshalOptions{Deterministic: true}.Marshal(m) // what was read can be written
		_ = binary.Write(h, binary.BigEndian, uint64(len(text)))
		_, _ = h.Write(text)
	}
	digestFiles(h, filesReadOnce(v))
	return string(h.Sum(nil))
}

// release gives the verifiers back. Those that nobody uses any more are closed, in
// the background.
func (vs *verifiers) release() {
	vp := vs.pool
	vp.mu.Lock()
	defer vp.mu.Unlock()
	if vp.closed {
		return // all are
	}
	for _, n := range vs.byName {
		n.users--
		if n.users == 0 {
			delete(vp.stacks, n.key)
			vp.closing.Go(n.end)
		}
	}
}

// forget has all verifiers forget a token, those of configurations from before too.
func (vp *verifierPool) forget(t bearer.Token) {
	vp.mu.Lock() // none is closed meanwhile
	defer vp.mu.Unlock()
	for _, s := range vp.stacks {
		s.cache.Forget(t)
	}
}

// close closes all verifiers, and waits for those that are being closed.
func (vp *verifierPool) close() {
	vp.mu.Lock()
	vp.closed = true
	left := vp.stacks
	vp.stacks = nil
	vp.mu.Unlock()
	for _, s := range left {
		s.end()
	}
	vp.closing.Wait()
}

// end frees all that the stages hold.
func (s *stack) end() {
	if s.cache != nil {
		s.cache.Close()
	}
	for _, end := range s.close {
		end()
	}
}

// count counts a call.
func (s *stack) count(t bearer.Token, outcome verifier.Outcome, took time.Duration) {
	if tell := s.called.Load(); tell != nil {
		(*tell)(t, outcome, took)
	}
}

// show has these verifiers shown to the operator, and no others.
func (vs *verifiers) show(metrics *admin.Metrics) {
	for name, n := range vs.byName {
		tell := metrics.Calls(name)
		n.called.Store(&tell)
	}
	metrics.Verifiers(vs.stages())
}

func (vs *verifiers) stages() map[string]admin.Stages {
	all := map[string]admin.Stages{}
	for name, n := range vs.byName {
		all[name] = n.stages
	}
	return all
}

// build stacks the stages that answer whether a token is good. This is the one place that knows their order.
func (vp *verifierPool) build(s *stack, cache *configv1.Cache) error {
	v := s.fields
	last, err := vp.last(s)
	if err != nil {
		return err
	}
	guard, err := verifier.NewGuard(verifier.NewMeasured(vp.traces.Calls(v.GetName(), last), s.count), verifier.GuardOptions{
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
			vp.logger.Warn("the breaker of a verifier changed its state",
				slog.String("verifier", v.GetName()), slog.String("from", from), slog.String("to", to))
		},
	})
	if err != nil {
		return err
	}
	s.cache, err = verifier.NewCache(guard, verifier.CacheOptions{
		Name:          v.GetName(),
		MaxTokens:     int(cache.GetMaxTokens()),
		ValidTTL:      cache.GetValidTtl().AsDuration(),
		InvalidTTL:    cache.GetInvalidTtl().AsDuration(),
		RefreshBefore: cache.GetRefreshBefore().AsDuration(),
		StaleIfError:  cache.GetStaleIfError().AsDuration(),
		Timeout:       longestCall(v),
		Panicked:      vp.panicked,
		Trace:         vp.traces.Cache(v.GetName()),
		Denials:       vp.denials,
	})
	if err != nil {
		return err
	}
	s.stages.Guard, s.stages.Cache, s.stages.Reset = guard.Stats, s.cache.Stats, guard.Reset
	return nil
}

// last makes the last stage, which knows the answers.
func (vp *verifierPool) last(s *stack) (verifier.Verifier, error) {
	v := s.fields
	refused := func(t bearer.Token, why string) {
		vp.logger.Debug("a verifier refused a token", slog.String("verifier", v.GetName()), slog.Any("token", t), slog.String("why", why))
		if vp.refused != nil {
			vp.refused(v.GetName(), t, why)
		}
	}
	switch kind := v.GetKind().(type) {
	case *configv1.Verifier_Introspection:
		return vp.introspection(s, kind.Introspection, refused)
	case *configv1.Verifier_Jwt:
		keys, err := vp.keySet(s, s.path+".jwt.keys", kind.Jwt.GetKeys(), kind.Jwt.GetIssuer())
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
			UserAgent:      vp.userAgent(),
		})
		if err != nil {
			return nil, err
		}
		s.close = append(s.close, last.Close)
		vp.logProxy(v.GetName(), endpoint.GetUrl())
		return last, nil
	}
}

func (vp *verifierPool) introspection(s *stack, endpoint *configv1.Introspection, refused func(bearer.Token, string)) (verifier.Verifier, error) {
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
		UserAgent:      vp.userAgent(),
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
		keys, err := vp.keySet(s, s.path+".introspection.signed.keys", signed.GetKeys(), signed.GetIssuer())
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
	vp.logProxy(v.GetName(), endpoint.GetUrl())
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
func (vp *verifierPool) keySet(s *stack, path string, keys *configv1.Keys, issuer string) (*verifier.KeySet, error) {
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
		UserAgent:      vp.userAgent(),
		RefreshEvery:   keys.GetRefreshEvery().AsDuration(),
		MaxAge:         keys.GetMaxAge().AsDuration(),
		Pause:          keys.GetPause().AsDuration(),
		Timeout:        s.fields.GetTimeout().AsDuration(),
		Fetched: func(count int, err error) {
			switch {
			case err != nil:
				vp.logger.Warn("the keys of an issuer were not to be had", slog.String("verifier", name), slog.Any("error", err))
			case count != known:
				vp.logger.Info("the keys of an issuer are there", slog.String("verifier", name), slog.Int("keys", count))
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
	s.stages.Keys = set.Stats
	return set, nil
}

// maxKeysBytes is the size of the largest file of keys that is read.
const maxKeysBytes = 256 << 10

func (vp *verifierPool) userAgent() string { return "bearergate/" + vp.version }

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

// logProxy says so when calls to the endpoint go through a proxy that the
// environment names: nobody should be surprised by that.
func (vp *verifierPool) logProxy(name, endpoint string) {
	r, err := http.NewRequest(http.MethodPost, endpoint, http.NoBody) //nolint:noctx // it is sent nowhere
	if err != nil {
		return
	}
	proxy, err := http.ProxyFromEnvironment(r)
	switch {
	case err != nil, proxy == nil && isBroken(r.URL.Scheme), proxy != nil && !isProxy(proxy):
		vp.logger.Warn("the proxy named by the environment cannot be used; look at HTTPS_PROXY and HTTP_PROXY", slog.String("verifier", name))
	case proxy != nil:
		vp.logger.Info("the verifier is asked through the proxy that HTTPS_PROXY or HTTP_PROXY names",
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
