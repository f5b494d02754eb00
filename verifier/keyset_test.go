package verifier_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bearergate/bearergate/verifier"
)

// judgeOf returns a JWT verifier over a key set.
func judgeOf(t testing.TB, set *verifier.KeySet) *verifier.JWT {
	t.Helper()
	j, err := verifier.NewJWT(verifier.JWTOptions{
		Name: "sso", Issuer: issuerName, Audiences: []string{"orders"}, Algorithms: []string{"RS256", "EdDSA"}, Keys: set,
	})
	if err != nil {
		t.Fatal(err)
	}
	return j
}

// plainToken is a good one of a key, for a day.
func plainToken(t testing.TB, k *signingKey, header object) string {
	t.Helper()
	return k.sign(t, changes{"alg": k.alg, "kid": k.kid}.with(header), goodClaims().with(object{"exp": time.Now().Unix() + 86400}))
}

func TestPlacesOfKeys(t *testing.T) {
	key := newKeys()["EdDSA"]
	i := startIssuer(t, key)
	for _, c := range []struct {
		name    string
		options verifier.KeySetOptions
		problem string
	}{
		{"a URL", verifier.KeySetOptions{URL: i.URL + "/keys"}, ""},
		{"the metadata of OpenID Connect", verifier.KeySetOptions{Issuer: i.URL + "/oidc"}, ""},
		{"the metadata of RFC 8414", verifier.KeySetOptions{Issuer: i.URL + "/oauth"}, ""},
		{"a function", verifier.KeySetOptions{Read: fromText(keySet(key))}, ""},
		{"a URL where nothing is", verifier.KeySetOptions{URL: i.URL + "/nothing"}, "status 404"},
		{"an issuer without metadata", verifier.KeySetOptions{Issuer: i.URL + "/none"}, "metadata cannot be fetched: the endpoint answered with status 404"},
		{"metadata of another issuer", verifier.KeySetOptions{Issuer: i.URL + "/wrong"}, "another issuer"},
		{"the issuer with a slash more", verifier.KeySetOptions{Issuer: i.URL + "/oidc/"}, "another issuer"},
		{"metadata that name a place in clear", verifier.KeySetOptions{Issuer: i.URL + "/plain"}, "in clear"},
		{"a function that fails", verifier.KeySetOptions{Read: func() ([]byte, error) { return nil, errors.New("no such file") }}, "cannot be read: no such file"},
		{"no JSON", verifier.KeySetOptions{Read: fromText("<html>")}, `list "keys"`},
		{"no keys", verifier.KeySetOptions{Read: fromText(`{"keys":[]}`)}, "no public key"},
		{"keys by another name", verifier.KeySetOptions{Read: fromText(strings.Replace(keySet(key), "keys", "Keys", 1))}, `list "keys"`},
		{"a shared secret alone", verifier.KeySetOptions{Read: fromText(`{"keys":[{"kty":"oct","k":"AAAA","kid":"ed-1"}]}`)}, "no public key"},
		{"a key for encryption alone", verifier.KeySetOptions{Read: fromText(strings.Replace(keySet(key), `"sig"`, `"enc"`, 1))}, "no public key"},
		{"a short RSA key", verifier.KeySetOptions{Read: fromText(`{"keys":[{"kty":"RSA","e":"AQAB","n":"` + strings.Repeat("A1", 85) + `"}]}`)}, "no public key"},
		{"too many keys", verifier.KeySetOptions{Read: fromText(`{"keys":[{}` + strings.Repeat(",{}", 100) + `]}`)}, "more than 100"},
		{"keys of kinds that nobody knows beside a good one", verifier.KeySetOptions{Read: fromText(strings.Replace(keySet(key), `[`, `[{"kty":"new"},{"kty":"EC","crv":"P-999"},7,`, 1))}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			set := newKeySet(t, c.options)
			defer set.Close()
			v, err := judgeOf(t, set).Verify(t.Context(), newTokens(t).parse(t, plainToken(t, key, nil)))
			if c.problem == "" {
				if err != nil || !v.Valid {
					t.Errorf("the verdict is %+v, %v", v, err)
				}
				return
			}
			if _, ok := errors.AsType[*verifier.NoAnswer](err); !ok || !strings.Contains(err.Error(), c.problem) {
				t.Errorf("the verdict is %+v, %v, want the problem %q", v, err, c.problem)
			}
		})
	}
}

func TestKeySetsThatMakeNoSense(t *testing.T) {
	for name, o := range map[string]verifier.KeySetOptions{
		"no place":             {},
		"no URL":               {URL: "keys"},
		"a URL in clear":       {URL: "http://sso.example.com/keys"},
		"an issuer in clear":   {Issuer: "http://sso.example.com"},
		"an issuer's query":    {Issuer: "https://sso.example.com?tenant=1"},
		"an issuer's password": {Issuer: "https://a:b@sso.example.com"},
	} {
		o.RefreshEvery, o.MaxAge, o.Pause, o.Timeout = time.Minute, time.Hour, time.Second, time.Second
		if _, err := verifier.NewKeySet(o); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
	for name, change := range map[string]func(*verifier.KeySetOptions){
		"no pause":               func(o *verifier.KeySetOptions) { o.Pause = 0 },
		"no time-out":            func(o *verifier.KeySetOptions) { o.Timeout = 0 },
		"refreshed before pause": func(o *verifier.KeySetOptions) { o.RefreshEvery = time.Millisecond },
		"too old to be fetched":  func(o *verifier.KeySetOptions) { o.MaxAge = time.Second },
	} {
		o := verifier.KeySetOptions{Read: fromText(""), RefreshEvery: time.Minute, MaxAge: time.Hour, Pause: time.Second, Timeout: time.Second}
		change(&o)
		if _, err := verifier.NewKeySet(o); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
}

// source is a key set that changes, breaks and counts.
type source struct {
	mu    sync.Mutex
	text  string
	err   error
	reads atomic.Int64
}

func (s *source) set(text string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.text, s.err = text, err
}

func (s *source) read() ([]byte, error) {
	s.reads.Add(1)
	<-time.After(100 * time.Millisecond)
	s.mu.Lock()
	defer s.mu.Unlock()
	return []byte(s.text), s.err
}

// TestLifeOfKeys: they are fetched when needed, refreshed in use, kept while they
// cannot be fetched, and not for ever.
func TestLifeOfKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old, next := newKeys()["RS256"], newKeys()["EdDSA"]
		s := &source{text: keySet(old)}
		set := newKeySet(t, verifier.KeySetOptions{Read: s.read}) // refreshed every minute, used for an hour, 5 s apart
		defer set.Close()
		j, tokens := judgeOf(t, set), newTokens(t)
		ask := func(k *signingKey, header object, want string, reads int64) {
			t.Helper()
			v, err := j.Verify(t.Context(), tokens.parse(t, plainToken(t, k, header)))
			synctest.Wait() // what goes on in the background has begun
			got := "no answer"
			if err == nil {
				got = fmt.Sprint(v.Valid)
			}
			if got != want || s.reads.Load() != reads {
				t.Errorf("the verdict is %+v, %v; the keys were read %d times; want %s and %d", v, err, s.reads.Load(), want, reads)
			}
		}
		stands := func(keys int, age time.Duration, fetches, failures uint64) {
			t.Helper()
			got := set.Stats()
			if got.Keys != keys || got.Fetches != fetches || got.Failures != failures || time.Since(got.Fetched).Round(time.Second) != age {
				t.Errorf("%+v, fetched %v ago; want %d keys, %v ago, %d fetches, %d failures", got, time.Since(got.Fetched), keys, age, fetches, failures)
			}
		}
		if got := set.Stats(); got != (verifier.KeyStats{}) {
			t.Errorf("before anything is needed: %+v", got)
		}
		ask(old, nil, "true", 1)
		ask(old, nil, "true", 1)
		stands(1, 0, 1, 0)

		// A new key that is there at once, or in a moment.
		s.set(keySet(old, next), nil)
		ask(next, nil, "false", 1) // the keys were fetched less than 5 s ago
		pass(5 * time.Second)
		ask(next, nil, "true", 2)
		stands(2, 0, 2, 0)

		// Keys that nobody has cost no more than a read in 5 s.
		for i := range 100 {
			ask(next, object{"kid": fmt.Sprint("made up ", i)}, "false", 2)
		}
		pass(5 * time.Second)
		for i := range 100 {
			ask(next, object{"kid": fmt.Sprint("made up again ", i)}, "false", 3)
		}
		// One whose key is there, but not for its algorithm, costs none.
		pass(5 * time.Second)
		ask(next, object{"alg": "RS256"}, "false", 3)

		// A key that was withdrawn goes with the next refresh.
		s.set(keySet(next), nil)
		pass(50 * time.Second)
		ask(old, nil, "true", 3)
		pass(10 * time.Second)
		ask(old, nil, "true", 4)
		pass(time.Second)
		ask(old, nil, "false", 4)

		// While they cannot be fetched those are used that are there, for an hour after
		// they came.
		s.set("", errors.New("gone"))
		pass(2 * time.Minute)
		ask(next, nil, "true", 5)
		pass(time.Second)
		ask(old, nil, "no answer", 5) // is its key there again? nobody knows
		ask(next, nil, "true", 5)
		pass(56 * time.Minute)
		ask(next, nil, "true", 6)
		stands(1, 58*time.Minute+2*time.Second, 4, 1) // the second failure is under way
		pass(2 * time.Minute)
		stands(0, time.Hour+2*time.Second, 4, 2)
		ask(next, nil, "no answer", 7)
		ask(next, nil, "no answer", 7)
		s.set(keySet(next), nil)
		pass(5 * time.Second)
		ask(next, nil, "true", 8)
	})
}

// TestRefusalsForAKeyThatIsNotThereEndWhenKeysAreFetchedAgain, so that the cache
// does not keep them for longer.
func TestRefusalsForAKeyThatIsNotThereEndWhenKeysAreFetchedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old, next := newKeys()["RS256"], newKeys()["EdDSA"]
		s := &source{text: keySet(old)}
		set := newKeySet(t, verifier.KeySetOptions{Read: s.read})
		defer set.Close()
		c := newCache(t, judgeOf(t, set), verifier.CacheOptions{InvalidTTL: time.Minute})
		defer c.Close()
		tokens := newTokens(t)
		begin := time.Now()
		expect(t, c, tokens.parse(t, plainToken(t, old, nil)), true, verifier.FromEndpoint)
		s.set(keySet(old, next), nil)
		token := tokens.parse(t, plainToken(t, next, nil))
		if v := expect(t, c, token, false, verifier.FromEndpoint); v.Until.Sub(begin) > 5*time.Second+time.Millisecond {
			t.Errorf("it is refused for %v", v.Until.Sub(begin))
		}
		pass(5 * time.Second)
		expect(t, c, token, true, verifier.FromEndpoint)
	})
}

// TestManyWaitForOneAttempt, and none longer than it may.
func TestManyWaitForOneAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		key := newKeys()["EdDSA"]
		s := &source{text: keySet(key)}
		set := newKeySet(t, verifier.KeySetOptions{Read: s.read})
		j, token := judgeOf(t, set), newTokens(t).parse(t, plainToken(t, key, nil))
		var all sync.WaitGroup
		for i := range 100 {
			all.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), 2*time.Duration(i+1)*time.Millisecond)
				defer cancel()
				v, err := j.Verify(ctx, token)
				_, none := errors.AsType[*verifier.NoAnswer](err)
				switch {
				case i >= 50 && (err != nil || !v.Valid), i < 49 && !none:
					t.Errorf("who waits for %d ms gets %+v, %v", 2*(i+1), v, err)
				}
			})
		}
		all.Wait()
		if s.reads.Load() != 1 {
			t.Errorf("the keys were read %d times", s.reads.Load())
		}
		set.Close()
		pass(2 * time.Hour)
		if _, err := j.Verify(t.Context(), token); !errors.Is(err, verifier.ErrClosed) {
			t.Errorf("after the end the error is %v", err)
		}
	})
}

// TestFetchesAreTold, those that fail too.
func TestFetchesAreTold(t *testing.T) {
	i := startIssuer(t, newKeys()["EdDSA"])
	var told []string
	set := newKeySet(t, verifier.KeySetOptions{URL: i.URL + "/keys", Pause: time.Nanosecond, RefreshEvery: time.Nanosecond, Fetched: func(keys int, err error) {
		told = append(told, fmt.Sprint(keys, err != nil))
	}})
	j, tokens := judgeOf(t, set), newTokens(t)
	i.status.Store(http.StatusInternalServerError)
	_, _ = j.Verify(t.Context(), tokens.parse(t, plainToken(t, newKeys()["EdDSA"], nil)))
	i.status.Store(http.StatusOK)
	_, _ = j.Verify(t.Context(), tokens.parse(t, plainToken(t, newKeys()["EdDSA"], nil)))
	set.Close()
	if len(told) < 2 || told[0] != "0 true" || told[1] != "1 false" {
		t.Errorf("told was %v", told)
	}
	for _, q := range i.asked() {
		if q.method != http.MethodGet || q.header.Get("Authorization") != "" || len(q.body) != 0 {
			t.Errorf("the question is %+v", q)
		}
	}
}
