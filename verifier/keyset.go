package verifier

import (
	"context"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// The bounds of a key set.
const (
	maxKeySetBytes = 256 << 10 // keys may come with chains of certificates
	maxKeys        = 100
)

// KeySetOptions say where the keys of an issuer are. One of URL, Issuer and Read is
// required, and the times are.
type KeySetOptions struct {
	// Name stands for the verifier in errors.
	Name string
	// URL is where the key set is (RFC 7517 §5).
	URL string
	// Issuer is whose metadata say where it is (OpenID Connect Discovery 1.0 §4, or
	// RFC 8414 §3).
	Issuer string
	// Read returns the key set, from a file for instance.
	Read func() ([]byte, error)
	// AllowPlaintext lets keys travel over http:// from a host that is not loopback.
	// Whoever can change them on their way can sign tokens.
	AllowPlaintext bool
	// RootCAs may sign the servers' certificates; nil means the system's.
	RootCAs *x509.CertPool
	// UserAgent is sent with every question; "" means "bearergate".
	UserAgent string
	// RefreshEvery is how old the keys are when they are fetched again, in the
	// background. So long a key that was withdrawn may be used.
	RefreshEvery time.Duration
	// MaxAge is how old they may be while they cannot be fetched; at least
	// RefreshEvery.
	MaxAge time.Duration
	// Pause is how long there is at least between two attempts to fetch them, whatever
	// tokens come.
	Pause time.Duration
	// Timeout bounds an attempt.
	Timeout time.Duration
	// Fetched, if set, is told of each attempt: how many keys can be used, or the
	// error. It is called by one goroutine at a time.
	Fetched func(keys int, err error)
}

// KeySet holds the public keys of an issuer, fetches them when they are first
// needed, and again when they are old, or when a token names one that is not there.
// It may be used concurrently.
type KeySet struct {
	options KeySetOptions
	client  *client
	fetch   func(context.Context) ([]byte, error)
	current atomic.Pointer[keyring]
	clock   clock

	ctx     context.Context //nolint:containedctx // the life of all attempts, which outlives each request
	end     context.CancelFunc
	running sync.WaitGroup

	mu     sync.Mutex
	closed bool
	latest *attempt // under way, or the last one; nil before the first

	fetches, failures atomic.Uint64
}

// KeyStats are what a [KeySet] shows of itself.
type KeyStats struct {
	// Keys is how many keys can be used: none before they were fetched, and when they
	// are too old.
	Keys int
	// Fetched is when they were, also if they are too old; zero if they never were.
	Fetched time.Time
	// Fetches counts the attempts that brought keys, Failures the others.
	Fetches, Failures uint64
}

// Stats returns how the key set stands.
func (k *KeySet) Stats() KeyStats {
	s := KeyStats{Fetches: k.fetches.Load(), Failures: k.failures.Load()}
	if ring := k.current.Load(); ring != nil {
		s.Fetched = time.Unix(0, ring.fetched.wall)
		if ring.fetched.since(k.clock.now()) < k.options.MaxAge {
			s.Keys = len(ring.keys)
		}
	}
	return s
}

// attempt is one try to fetch the keys.
type attempt struct {
	begun instant
	done  chan struct{}
	err   error // to be read when it is done
}

// keyring is a key set as it was fetched.
type keyring struct {
	fetched instant
	keys    []jose.JSONWebKey
}

// NewKeySet returns a KeySet. It fetches nothing yet. Close ends it.
func NewKeySet(o KeySetOptions) (*KeySet, error) {
	if o.Pause <= 0 || o.RefreshEvery < o.Pause || o.MaxAge < o.RefreshEvery || o.Timeout <= 0 {
		return nil, fmt.Errorf("verifier %s: keys that are refreshed every %v, are used for %v, and fetched within %v and %v apart, make no sense",
			o.Name, o.RefreshEvery, o.MaxAge, o.Timeout, o.Pause)
	}
	if o.Fetched == nil {
		o.Fetched = func(int, error) {}
	}
	ctx, end := context.WithCancel(context.Background())
	k := &KeySet{options: o, clock: newClock(), ctx: ctx, end: end}
	k.client = newClient(clientOptions{name: o.Name, allowPlaintext: o.AllowPlaintext, maxConnections: 2, rootCAs: o.RootCAs, userAgent: o.UserAgent})
	var err error
	switch {
	case o.Read != nil:
		k.fetch = k.read
	case o.URL != "":
		var u string
		u, err = k.client.checkURL(o.URL)
		k.fetch = func(ctx context.Context) ([]byte, error) { return k.get(ctx, u) }
	default:
		if _, err = k.client.checkURL(o.Issuer); err == nil {
			_, err = metadataURLs(o.Issuer)
		}
		k.fetch = k.discover
	}
	if err != nil {
		end()
		return nil, err
	}
	return k, nil
}

// Close ends the attempt under way and waits for it.
func (k *KeySet) Close() {
	k.mu.Lock()
	k.closed = true
	k.mu.Unlock()
	k.end()
	k.running.Wait()
	k.client.close()
}

// find returns the keys with an id that fit an algorithm, or says that there is
// none. Without an id there must be exactly one that fits (RFC 7515 §4.1.4 leaves it
// open). The error is a [*NoAnswer] or [ErrClosed]: nobody knows the keys.
func (k *KeySet) find(ctx context.Context, kid string, algorithm jose.SignatureAlgorithm) ([]any, *refusal, error) {
	now := k.clock.now()
	ring := k.current.Load()
	if ring != nil && ring.fetched.since(now) < k.options.MaxAge {
		if ring.fetched.since(now) >= k.options.RefreshEvery {
			_, _ = k.begin(now) // what is there is good enough, and a fault is told by the attempt
		}
		if keys, known := ring.find(kid, algorithm); known {
			return fitting(keys, kid)
		}
	}
	a, err := k.begin(now)
	if err != nil {
		return nil, nil, err
	}
	select {
	case <-a.done:
	default:
		select {
		case <-a.done:
		case <-ctx.Done():
			return nil, nil, k.client.noAnswer("the keys were not there in time", context.Cause(ctx))
		}
	}
	if a.err != nil {
		return nil, nil, a.err
	}
	keys, known := k.current.Load().find(kid, algorithm)
	if !known {
		// As soon as the keys can be fetched again the token can be asked about again.
		return nil, &refusal{
			why:   "its key is not one of the issuer's",
			until: time.Now().Add(max(time.Millisecond, k.options.Pause-a.begun.since(k.clock.now()))),
		}, nil
	}
	return fitting(keys, kid)
}

func fitting(keys []any, kid string) ([]any, *refusal, error) {
	switch {
	case len(keys) == 0:
		return nil, &refusal{why: "its key is not made for its algorithm"}, nil
	case kid == "" && len(keys) > 1:
		return nil, &refusal{why: "it does not say which of the issuer's keys it is signed with (kid)"}, nil
	default:
		return keys, nil, nil
	}
}

// begin returns the attempt under way, or begins one. If the last one was a moment
// ago, that is returned.
func (k *KeySet) begin(now instant) (*attempt, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return nil, ErrClosed
	}
	if a := k.latest; a != nil {
		select {
		case <-a.done:
			if a.begun.since(now) < k.options.Pause {
				return a, nil
			}
		default:
			return a, nil
		}
	}
	a := &attempt{begun: now, done: make(chan struct{})}
	k.latest = a
	k.running.Go(func() { k.try(a) })
	return a, nil
}

// try fetches the keys. It keeps those that are there if it fails.
func (k *KeySet) try(a *attempt) {
	defer close(a.done)
	ctx, cancel := context.WithTimeout(k.ctx, k.options.Timeout)
	defer cancel()
	a.err = errors.New("the attempt ended in a panic") // if it does not end otherwise
	text, err := k.fetch(ctx)
	var keys []jose.JSONWebKey
	if err == nil {
		if keys, err = ParseKeySet(text); err != nil {
			err = k.client.noAnswer("the issuer's key set cannot be used", err)
		}
	}
	a.err = err
	if err == nil {
		k.current.Store(&keyring{fetched: a.begun, keys: keys})
		k.fetches.Add(1)
	} else {
		k.failures.Add(1)
	}
	k.options.Fetched(len(keys), err)
}

// find returns the keys that fit, and whether there are any with this id.
func (r *keyring) find(kid string, algorithm jose.SignatureAlgorithm) (keys []any, known bool) {
	for i := range r.keys {
		key := &r.keys[i]
		if kid != "" && key.KeyID != kid {
			continue
		}
		known = true
		if fits(key.Key, algorithm) && (key.Algorithm == "" || key.Algorithm == string(algorithm)) {
			keys = append(keys, key.Key)
		}
	}
	return keys, known
}

// ParseKeySet reads a JWK Set (RFC 7517 §5) and returns the public keys in it that
// signatures can be checked with. It leaves out what is of another kind or for
// another use, and is an error if nothing is left.
func ParseKeySet(text []byte) ([]jose.JSONWebKey, error) {
	var set map[string]json.RawMessage
	var raw []json.RawMessage
	if json.Unmarshal(text, &set) != nil || json.Unmarshal(set["keys"], &raw) != nil {
		return nil, errors.New(`it is not a JSON object with a list "keys"`)
	}
	if len(raw) > maxKeys {
		return nil, fmt.Errorf("it has more than %d keys", maxKeys)
	}
	var keys []jose.JSONWebKey
	for _, text := range raw {
		var key jose.JSONWebKey
		// RFC 7517 §5: what is not understood is ignored.
		if json.Unmarshal(text, &key) != nil || !key.Valid() || !key.IsPublic() || key.Use != "" && key.Use != "sig" {
			continue
		}
		if public, ok := key.Key.(*rsa.PublicKey); ok && public.N.BitLen() < minRSABits {
			continue
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return nil, errors.New("it has no public key for signatures: RSA with at least 2048 bits, ECDSA with P-256, P-384 or P-521, or Ed25519")
	}
	return keys, nil
}

// read has the keys from the function.
func (k *KeySet) read(context.Context) ([]byte, error) {
	text, err := k.options.Read()
	if err != nil {
		return nil, k.client.noAnswer("the issuer's key set cannot be read", err)
	}
	return text, nil
}

// get has the keys from a URL.
func (k *KeySet) get(ctx context.Context, from string) ([]byte, error) {
	a, _, err := k.client.ask(ctx, &question{
		method: http.MethodGet, url: from, accept: "application/jwk-set+json, application/json", maxReply: maxKeySetBytes,
	})
	if none, ok := errors.AsType[*NoAnswer](err); ok {
		none.Problem = "the issuer's keys cannot be fetched: " + none.Problem
	}
	return a.body, err
}

// discover has the keys from where the issuer's metadata say they are.
func (k *KeySet) discover(ctx context.Context) ([]byte, error) {
	places, err := metadataURLs(k.options.Issuer)
	if err != nil {
		return nil, err
	}
	var found answer
	for _, place := range places {
		var status int
		found, status, err = k.client.ask(ctx, &question{method: http.MethodGet, url: place, accept: "application/json"})
		if status != http.StatusNotFound {
			break
		}
	}
	if err != nil {
		if none, ok := errors.AsType[*NoAnswer](err); ok {
			none.Problem = "the issuer's metadata cannot be fetched: " + none.Problem
		}
		return nil, err
	}
	// A map, not a struct: names in other letter case are other names.
	var metadata map[string]json.RawMessage
	var issuer, at string
	if json.Unmarshal(found.body, &metadata) != nil || json.Unmarshal(metadata["issuer"], &issuer) != nil || json.Unmarshal(metadata["jwks_uri"], &at) != nil {
		return nil, k.client.noAnswer("the issuer's metadata do not say where its keys are; is the issuer right?", nil)
	}
	if issuer != k.options.Issuer { // RFC 8414 §3.3
		return nil, k.client.noAnswer("the issuer's metadata are those of another issuer; write it exactly as they do", nil)
	}
	u, err := k.client.checkURL(at)
	if err != nil {
		return nil, k.client.noAnswer("the issuer's metadata name a URL of its keys that is not used", err)
	}
	return k.get(ctx, u)
}

// metadataURLs returns where an issuer's metadata may be: OpenID Connect Discovery
// 1.0 §4.1 puts the place behind the issuer's path, RFC 8414 §3.1 in front of it.
func metadataURLs(issuer string) ([]string, error) {
	u, err := url.Parse(issuer)
	if err != nil || u.RawQuery != "" || u.Fragment != "" || u.ForceQuery {
		return nil, errors.New("the issuer is not a URL without query and fragment (RFC 8414 §2)")
	}
	path := strings.TrimSuffix(u.EscapedPath(), "/")
	base := u.Scheme + "://" + u.Host
	return []string{
		base + path + "/.well-known/openid-configuration",
		base + "/.well-known/oauth-authorization-server" + path,
	}, nil
}
