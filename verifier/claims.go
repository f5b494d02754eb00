package verifier

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// The bounds of what is kept as claims. An answer with more is no answer: with a
// part of its claims only, a policy that forbids something would let it pass.
const (
	// MaxClaimsBytes is how long the JSON of a verdict's claims is at most.
	MaxClaimsBytes = 16 << 10
	// MaxClaimsDepth is how deep lists and objects stand in one another at most, the
	// claims themselves included.
	MaxClaimsDepth = 16
	// MaxClaimsValues is how many values there are at most, however deep.
	MaxClaimsValues = 1024
)

// Claims are what a verifier says of a token besides that it is good: the members
// of a JSON object, such as iss, sub, aud and scope (RFC 7519 §4, RFC 7662 §2.2).
// They are as trustworthy as the verdict that they came with, and live as long.
//
// A nil *Claims has no member. Claims are immutable and may be used concurrently.
// To look something up allocates nothing, unless said otherwise. Names are
// compared as they are: "Scope" is not "scope".
type Claims struct {
	// text holds all names and texts, one behind the other.
	text string
	// nodes are all values in the order of the JSON, the object itself first; what
	// stands in a list or an object comes right behind it.
	nodes []node
	// root is the node that all of them are members of: that of an object.
	root uint32
}

// node is one value.
type node struct {
	name, nameEnd uint32 // its name in text, if it is a member
	from, to      uint32 // its text, if it is a string or a number
	next          uint32 // the node behind it and all that stands in it
	count         uint32 // how many values stand in it
	kind          ClaimKind
}

// ClaimKind is the JSON type of a claim.
type ClaimKind uint8

// The kinds of claims. A claim that is not there is Absent.
const (
	Absent ClaimKind = iota
	Null
	False
	True
	Number
	Text
	List
	Object
)

// ParseClaims reads a JSON object (RFC 8259). It refuses what readers take in
// different ways: a name twice in one object, bytes that are not UTF-8, and
// anything behind the object; and what is larger than the bounds. Errors hold
// nothing of the JSON.
func ParseClaims(object []byte) (*Claims, error) {
	switch {
	case len(object) > MaxClaimsBytes:
		return nil, fmt.Errorf("the claims have more than %d bytes", MaxClaimsBytes)
	case !utf8.Valid(object):
		return nil, errors.New("the claims are not UTF-8")
	case !json.Valid(object):
		return nil, errors.New("the claims' JSON is broken or cut off, or something follows it")
	}
	p := claimsParser{dec: json.NewDecoder(bytes.NewReader(object))}
	p.dec.UseNumber()
	if err := p.value("", 0); err != nil {
		return nil, err
	}
	if p.nodes[0].kind != Object {
		return nil, errors.New("the claims are not a JSON object")
	}
	nodes := make([]node, len(p.nodes)) // they may be held for long, so without room to spare
	copy(nodes, p.nodes)
	return &Claims{text: p.text.String(), nodes: nodes}, nil
}

type claimsParser struct {
	dec   *json.Decoder // of JSON that is known to be valid
	text  strings.Builder
	nodes []node
}

// value reads a value that stands in as many lists and objects as depth says.
func (p *claimsParser) value(name string, depth int) error {
	if len(p.nodes) == MaxClaimsValues {
		return fmt.Errorf("the claims have more than %d values", MaxClaimsValues)
	}
	at := len(p.nodes)
	n := node{}
	n.name, n.nameEnd = p.add(name)
	p.nodes = append(p.nodes, n)
	token, err := p.dec.Token()
	if err != nil {
		return errors.New("the claims' JSON is broken")
	}
	switch token := token.(type) {
	case json.Delim:
		if depth == MaxClaimsDepth {
			return fmt.Errorf("the claims' JSON is more than %d deep", MaxClaimsDepth)
		}
		n.kind = List
		if token == '{' {
			n.kind = Object
		}
		if n.count, err = p.inside(n.kind, depth+1); err != nil {
			return err
		}
	case string:
		n.kind = Text
		n.from, n.to = p.add(token)
	case json.Number:
		n.kind = Number
		n.from, n.to = p.add(token.String())
	case bool:
		n.kind = False
		if token {
			n.kind = True
		}
	default:
		n.kind = Null
	}
	n.next = uint32(len(p.nodes)) //nolint:gosec // at most MaxClaimsValues
	p.nodes[at] = n
	return nil
}

// inside reads what stands in a list or an object, with its end.
func (p *claimsParser) inside(kind ClaimKind, depth int) (count uint32, err error) {
	var names map[string]struct{}
	for p.dec.More() {
		name := ""
		if kind == Object {
			token, _ := p.dec.Token()
			name, _ = token.(string)
			if _, twice := names[name]; twice {
				return 0, errors.New("the claims have a name twice")
			}
			if names == nil {
				names = map[string]struct{}{}
			}
			names[name] = struct{}{}
		}
		if err := p.value(name, depth); err != nil {
			return 0, err
		}
		count++
	}
	if _, err := p.dec.Token(); err != nil {
		return 0, errors.New("the claims' JSON is broken")
	}
	return count, nil
}

// add appends to the text, which is never longer than the JSON it comes from,
// or three times that: U+FFFD stands for a half of a surrogate pair.
func (p *claimsParser) add(s string) (from, to uint32) {
	from = uint32(p.text.Len()) //nolint:gosec // see above
	p.text.WriteString(s)
	return from, uint32(p.text.Len()) //nolint:gosec // see above
}

// Root returns the object that all claims are members of; the zero Claim if there
// are none.
func (c *Claims) Root() Claim {
	if c == nil {
		return Claim{}
	}
	return Claim{claims: c, at: c.root}
}

// String says how many claims there are, and none of them: they tell of people.
func (c *Claims) String() string { return fmt.Sprintf("%d claims", c.Root().Len()) }

// Lookup returns a claim by its name, and whether there is one.
func (c *Claims) Lookup(name string) (Claim, bool) { return c.Root().Lookup(name) }

// Path returns the claim that is reached by one name after the other, such as
// "realm_access", "roles", and whether there is one. Without names it is the root.
func (c *Claims) Path(names ...string) (Claim, bool) {
	at := c.Root()
	for _, name := range names {
		at, _ = at.Lookup(name)
	}
	return at, at.claims != nil
}

// HasScope reports whether the token has a scope: one of the words of the claim
// "scope" (RFC 7662 §2.2, RFC 9068 §2.2.3), or of "scp", which some servers write
// in its place.
func (c *Claims) HasScope(scope string) bool {
	claim, ok := c.Lookup("scope")
	if !ok {
		claim, _ = c.Lookup("scp")
	}
	return claim.HasWord(scope)
}

// HasAudience reports whether the token is meant for an audience: "aud" is that
// text, or a list that holds it (RFC 7519 §4.1.3).
func (c *Claims) HasAudience(audience string) bool {
	claim, _ := c.Lookup("aud")
	return claim.Contains(audience)
}

// Claim is one value among [Claims]. The zero Claim is Absent: there is nothing in
// it, and it is equal to nothing.
type Claim struct {
	claims *Claims
	at     uint32
}

// Kind returns the claim's JSON type.
func (c Claim) Kind() ClaimKind {
	if c.claims == nil {
		return Absent
	}
	return c.node().kind
}

func (c Claim) node() *node { return &c.claims.nodes[c.at] }

func (c Claim) raw() string { n := c.node(); return c.claims.text[n.from:n.to] }

// Text returns the claim if it is a string.
func (c Claim) Text() (text string, ok bool) {
	if c.Kind() != Text {
		return "", false
	}
	return c.raw(), true
}

// Bool returns the claim if it is a boolean.
func (c Claim) Bool() (value, ok bool) {
	kind := c.Kind()
	return kind == True, kind == True || kind == False
}

// Number returns the claim if it is a number that a float64 can hold, with its
// precision.
func (c Claim) Number() (number float64, ok bool) {
	if c.Kind() != Number {
		return 0, false
	}
	number, err := strconv.ParseFloat(c.raw(), 64)
	return number, err == nil
}

// Digits returns the claim as it is written if it is a number.
func (c Claim) Digits() (number string, ok bool) {
	if c.Kind() != Number {
		return "", false
	}
	return c.raw(), true
}

// Time returns the claim if it is a NumericDate (RFC 7519 §2): seconds since 1970,
// perhaps with a fraction. What lies far outside of any calendar is moved to its
// border.
func (c Claim) Time() (at time.Time, ok bool) {
	const first, last = 1, 1 << 40 // 1970 to the year 36812
	if c.Kind() != Number {
		return time.Time{}, false
	}
	// Out of range is an infinity, which has a border like everything else.
	seconds, _ := strconv.ParseFloat(c.raw(), 64)
	whole, fraction := math.Modf(min(max(seconds, first), last))
	return time.Unix(int64(whole), int64(fraction*1e9)), true
}

// Len returns how many values stand in the claim if it is a list or an object,
// else 0.
func (c Claim) Len() int {
	if c.claims == nil {
		return 0
	}
	return int(c.node().count)
}

// Lookup returns a member of an object by its name, and whether there is one.
func (c Claim) Lookup(name string) (Claim, bool) {
	if c.Kind() != Object {
		return Claim{}, false
	}
	all := c.claims
	for at, end := c.at+1, c.node().next; at < end; at = all.nodes[at].next {
		if n := &all.nodes[at]; all.text[n.name:n.nameEnd] == name {
			return Claim{claims: all, at: at}, true
		}
	}
	return Claim{}, false
}

// asClaims returns the members of an object as claims of their own; nil if it is none.
func (c Claim) asClaims() *Claims {
	if c.Kind() != Object {
		return nil
	}
	return &Claims{text: c.claims.text, nodes: c.claims.nodes, root: c.at}
}

// Values ranges over what stands in a list, or over the values of an object's
// members.
func (c Claim) Values() iter.Seq[Claim] {
	return func(yield func(Claim) bool) {
		for _, value := range c.Members() {
			if !yield(value) {
				return
			}
		}
	}
}

// Members ranges over the members of an object; over a list with empty names.
func (c Claim) Members() iter.Seq2[string, Claim] {
	return func(yield func(string, Claim) bool) {
		if c.claims == nil {
			return
		}
		all := c.claims
		for at, end := c.at+1, c.node().next; at < end; at = all.nodes[at].next {
			n := &all.nodes[at]
			if !yield(all.text[n.name:n.nameEnd], Claim{claims: all, at: at}) {
				return
			}
		}
	}
}

// Is reports whether the claim is this string.
func (c Claim) Is(text string) bool { return c.Kind() == Text && c.raw() == text }

// Contains reports whether the claim is this string, or a list that holds it.
func (c Claim) Contains(text string) bool {
	if c.Kind() != List {
		return c.Is(text)
	}
	all := c.claims
	for at, end := c.at+1, c.node().next; at < end; at = all.nodes[at].next {
		if (Claim{claims: all, at: at}).Is(text) {
			return true
		}
	}
	return false
}

// HasWord reports whether the claim is a string that has this word, set apart by
// spaces (RFC 6749 §3.3), or a list that holds it. There is no empty word.
func (c Claim) HasWord(word string) bool {
	if word == "" {
		return false
	}
	text, ok := c.Text()
	if !ok {
		return c.Contains(word)
	}
	for found := true; found; {
		var one string
		if one, text, found = strings.Cut(text, " "); one == word {
			return true
		}
	}
	return false
}

// Value returns the claim as encoding/json would give it: nil, bool, float64,
// string, []any or map[string]any. It allocates.
func (c Claim) Value() any {
	switch c.Kind() {
	case True, False:
		return c.Kind() == True
	case Number:
		number, _ := c.Number()
		return number
	case Text:
		return c.raw()
	case List:
		list := make([]any, 0, c.Len())
		for value := range c.Values() {
			list = append(list, value.Value())
		}
		return list
	case Object:
		object := make(map[string]any, c.Len())
		for name, value := range c.Members() {
			object[name] = value.Value()
		}
		return object
	default:
		return nil
	}
}
