package crmnow

import (
	"container/heap"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

// errFull is returned when no more tokens can be remembered.
var errFull = errors.New("the emulator remembers as many tokens as it may; wait until some have ended, or raise its bound")

// tokens remembers which tokens are good, by digest and until they end. It is
// not safe for concurrent use.
type tokens struct {
	most int
	ends map[digest]time.Time
	next endings
}

func (t *tokens) add(d digest, now, end time.Time) error {
	t.dropEnded(now)
	if _, known := t.ends[d]; !known && len(t.ends) >= t.most {
		return errFull
	}
	t.ends[d] = end
	heap.Push(&t.next, ending{d, end})
	if len(t.next) > 2*t.most { // tokens that were removed, or added again
		t.next = t.next[:0]
		for d, end := range t.ends {
			t.next = append(t.next, ending{d, end})
		}
		heap.Init(&t.next)
	}
	return nil
}

func (t *tokens) good(d digest, now time.Time) bool {
	end, known := t.ends[d]
	return known && now.Before(end)
}

// remove makes a token bad and reports whether it was good. Its entry in next
// stays until it comes up or is cleared away.
func (t *tokens) remove(d digest, now time.Time) bool {
	good := t.good(d, now)
	delete(t.ends, d)
	return good
}

func (t *tokens) dropEnded(now time.Time) {
	for len(t.next) > 0 && !now.Before(t.next[0].at) {
		e := heap.Pop(&t.next).(ending) //nolint:forcetypeassert // the heap holds nothing else
		// A token that was added again may have got a later end.
		if t.ends[e.digest].Equal(e.at) {
			delete(t.ends, e.digest)
		}
	}
}

// ending is when a token ends.
type ending struct {
	digest digest
	at     time.Time
}

// endings is a heap with the next ending on top.
type endings []ending

func (e endings) Len() int           { return len(e) }
func (e endings) Less(i, j int) bool { return e[i].at.Before(e[j].at) }
func (e endings) Swap(i, j int)      { e[i], e[j] = e[j], e[i] }

// Push is for container/heap alone.
func (e *endings) Push(x any) { *e = append(*e, x.(ending)) } //nolint:forcetypeassert // the heap holds nothing else

// Pop is for container/heap alone.
func (e *endings) Pop() any {
	last := len(*e) - 1
	x := (*e)[last]
	*e = (*e)[:last]
	return x
}

// The sizes that a token in the shape of a JWT may have, in bytes.
const (
	minJWTBytes = 1 << 10
	maxJWTBytes = 16 << 10
)

// opaqueToken returns a token without inner meaning.
func opaqueToken() string {
	raw := make([]byte, 32)
	_, _ = rand.Read(raw) // never fails
	return base64.RawURLEncoding.EncodeToString(raw)
}

// jwtToken returns a token of exactly size bytes in the shape of Keycloak's. Its
// signature is random: nobody can verify it, and nobody is meant to.
func jwtToken(size int, client string, now, end time.Time) (string, error) {
	const (
		header    = `{"alg":"RS256","typ":"JWT","kid":"emulator"}`
		signature = 256 // bytes, as RSA with 2048 bits gives
	)
	encode := base64.RawURLEncoding.EncodeToString
	random := make([]byte, signature+1)
	_, _ = rand.Read(random) // never fails
	head := encode([]byte(header)) + "."
	tail := "." + encode(random[:signature])
	if (size-len(head)-len(tail))%4 == 1 { // no base64 text has this length
		tail = "." + encode(random)
	}
	claims := map[string]any{
		"iss":   "https://emulator.invalid/realms/crmnow",
		"sub":   client,
		"azp":   client,
		"typ":   "Bearer",
		"scope": DefaultScope,
		"jti":   rand.Text(),
		"iat":   now.Unix(),
		"exp":   end.Unix(),
		"pad":   "",
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		return "", fmt.Errorf("write the claims of a token: %w", err)
	}
	missing := base64.RawURLEncoding.DecodedLen(size-len(head)-len(tail)) - len(payload)
	if missing < 0 {
		return "", fmt.Errorf("a token of %d bytes has no room for its claims; make it longer, or the client ID shorter", size)
	}
	claims["pad"] = strings.Repeat("x", missing)
	if payload, err = json.Marshal(claims); err != nil {
		return "", fmt.Errorf("write the claims of a token: %w", err)
	}
	return head + encode(payload) + tail, nil
}
