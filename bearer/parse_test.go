package bearer_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"testing"

	"github.com/bearergate/bearergate/bearer"
)

func newParser(t testing.TB) *bearer.Parser {
	t.Helper()
	p, err := bearer.NewParser(0)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestParse(t *testing.T) {
	longest := strings.Repeat("x", bearer.DefaultMaxTokenBytes)
	for _, c := range []struct {
		name   string
		values []string
		token  string // what is revealed, when err is nil
		err    error
		detail string
	}{
		{"a token", []string{"Bearer abc"}, "abc", nil, ""},
		{"one character", []string{"Bearer a"}, "a", nil, ""},
		{"the scheme in lower case", []string{"bearer abc"}, "abc", nil, ""},
		{"the scheme in odd case", []string{"bEaReR abc"}, "abc", nil, ""},
		{"several spaces", []string{"Bearer    abc"}, "abc", nil, ""},
		{"the whole alphabet", []string{"Bearer AZaz09-._~+/=="}, "AZaz09-._~+/==", nil, ""},
		{"a JWT", []string{"Bearer eyJhbGciOiJub25lIn0.e30."}, "eyJhbGciOiJub25lIn0.e30.", nil, ""},
		{"the longest token", []string{"Bearer " + longest}, longest, nil, ""},
		{"a token that reads Bearer", []string{"Bearer Bearer"}, "Bearer", nil, ""},

		{"no header", nil, "", bearer.ErrMissing, "no Authorization header"},
		{"an empty header", []string{""}, "", bearer.ErrMissing, "no Authorization header"},
		{"Basic", []string{"Basic dXNlcjpwYXNz"}, "", bearer.ErrMissing, "another scheme"},
		{"Basic with Bearer after it", []string{"Basic x Bearer y"}, "", bearer.ErrMissing, "another scheme"},
		{"a scheme that begins with Bearer", []string{"BearerToken abc"}, "", bearer.ErrMissing, "another scheme"},
		{"the bare token", []string{"abcdefghij"}, "", bearer.ErrMissing, "another scheme"},
		{"a short word", []string{"Bear"}, "", bearer.ErrMissing, "another scheme"},
		{"a Kelvin sign for the letter k does not fold into a scheme", []string{"Bea\u212aer x"}, "", bearer.ErrMissing, "another scheme"},

		{"nothing after the scheme", []string{"Bearer"}, "", bearer.ErrMalformed, "no token after"},
		{"only a space after the scheme", []string{"Bearer "}, "", bearer.ErrMalformed, "no token after"},
		{"a tab after the scheme", []string{"Bearer\tabc"}, "", bearer.ErrMalformed, "spaces alone"},
		{"a space and a tab after the scheme", []string{"Bearer \tabc"}, "", bearer.ErrMalformed, "spaces alone"},
		{"a colon after the scheme", []string{"Bearer: abc"}, "", bearer.ErrMalformed, "spaces alone"},
		{"an equals sign after the scheme", []string{"Bearer=abc"}, "", bearer.ErrMalformed, "spaces alone"},
		{"double quotes", []string{`Bearer "abc"`}, "", bearer.ErrMalformed, "quotes"},
		{"single quotes", []string{`Bearer 'abc'`}, "", bearer.ErrMalformed, "quotes"},
		{"something after the token", []string{"Bearer abc def"}, "", bearer.ErrMalformed, "follows"},
		{"a space after the token", []string{"Bearer abc "}, "", bearer.ErrMalformed, "follows"},
		{"a tab after the token", []string{"Bearer abc\t"}, "", bearer.ErrMalformed, "follows"},
		{"a leading space", []string{" Bearer abc"}, "", bearer.ErrMissing, "another scheme"},
		{"padding alone", []string{"Bearer =="}, "", bearer.ErrMalformed, "cannot have"},
		{"padding in the middle", []string{"Bearer ab=cd"}, "", bearer.ErrMalformed, "equals sign"},
		{"padding first", []string{"Bearer =ab"}, "", bearer.ErrMalformed, "equals sign"},
		{"a byte over 0x7f", []string{"Bearer on\xff"}, "", bearer.ErrMalformed, "cannot have"},
		{"what Envoy makes of a byte over 0x7f", []string{"Bearer on!"}, "", bearer.ErrMalformed, "cannot have"},
		{"a letter outside ASCII", []string{"Bearer größe"}, "", bearer.ErrMalformed, "cannot have"},
		{"NUL", []string{"Bearer a\x00b"}, "", bearer.ErrMalformed, "cannot have"},
		{"CR LF", []string{"Bearer a\r\nb"}, "", bearer.ErrMalformed, "cannot have"},
		{"percent-encoding", []string{"Bearer a%20b"}, "", bearer.ErrMalformed, "cannot have"},
		{"parameters", []string{`Bearer token="abc"`}, "", bearer.ErrMalformed, "equals sign"},
		{"a token one byte too long", []string{"Bearer x" + longest}, "", bearer.ErrMalformed, "too long"},

		{"two headers", []string{"Bearer one", "Bearer two"}, "", bearer.ErrMultiple, "more than one"},
		{"the same header twice", []string{"Bearer one", "Bearer one"}, "", bearer.ErrMultiple, "more than one"},
		{"a good header and an empty one", []string{"Bearer one", ""}, "", bearer.ErrMultiple, "more than one"},
		{"a good header and Basic", []string{"Bearer one", "Basic dTpw"}, "", bearer.ErrMultiple, "more than one"},
		{"two headers that a proxy joined", []string{"Bearer one,Bearer two"}, "", bearer.ErrMultiple, "more than one"},
		{"two headers joined with a space", []string{"Bearer one, Bearer two"}, "", bearer.ErrMultiple, "more than one"},
		{"a trailing comma", []string{"Bearer one,"}, "", bearer.ErrMultiple, "more than one"},
	} {
		t.Run(c.name, func(t *testing.T) {
			token, err := newParser(t).Parse(c.values)
			if !errors.Is(err, c.err) {
				t.Fatalf("got error %v, want %v", err, c.err)
			}
			if err != nil && !strings.Contains(err.Error(), c.detail) {
				t.Errorf("the error says %q, want it to say %q", err, c.detail)
			}
			if got := token.Reveal(); got != c.token {
				t.Errorf("got token %q, want %q", got, c.token)
			}
		})
	}
}

func TestParserBounds(t *testing.T) {
	for _, n := range []int{-1, bearer.MaxTokenBytes + 1} {
		if _, err := bearer.NewParser(n); err == nil {
			t.Errorf("a Parser for tokens of %d bytes was made", n)
		}
	}
	p, err := bearer.NewParser(4)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Parse([]string{"Bearer abcd"}); err != nil {
		t.Errorf("a token as long as allowed was refused: %v", err)
	}
	if _, err := p.Parse([]string{"Bearer abcde"}); !errors.Is(err, bearer.ErrMalformed) {
		t.Errorf("a token longer than allowed: %v", err)
	}
}

func TestDigest(t *testing.T) {
	p, other := newParser(t), newParser(t)
	parse := func(p *bearer.Parser, value string) bearer.Digest {
		token, err := p.Parse([]string{"Bearer " + value})
		if err != nil {
			t.Fatal(err)
		}
		return *token.Digest()
	}
	if parse(p, "abc") != parse(p, "abc") {
		t.Error("one token has two digests")
	}
	if parse(p, "abc") == parse(other, "abc") {
		t.Error("two Parsers share a key")
	}
	longer, err := p.WithMax(bearer.MaxTokenBytes)
	if err != nil {
		t.Fatal(err)
	}
	if parse(p, "abc") != parse(longer, "abc") {
		t.Error("another bound gives another digest")
	}
	if _, err := p.WithMax(bearer.MaxTokenBytes + 1); err == nil {
		t.Error("a Parser for tokens that are too long was made")
	}
	// Lengths around the border between the two ways to digest.
	seen := map[bearer.Digest]int{}
	for n := 1; n < 600; n++ {
		d := parse(p, strings.Repeat("x", n))
		if m, ok := seen[d]; ok {
			t.Fatalf("tokens of %d and %d bytes share a digest", m, n)
		}
		seen[d] = n
		if again := parse(p, strings.Repeat("x", n)); again != d {
			t.Fatalf("a token of %d bytes has two digests", n)
		}
	}
}

const secret = "s3cr3t-t0ken-that-must-not-be-seen"

func TestTokenDoesNotPrintItself(t *testing.T) {
	const key = "f1ngerprint-key-that-must-not-be-seen"
	for name, p := range map[string]*bearer.Parser{
		"with fingerprints of the process": newParser(t),
		"with those of a key":              newParser(t).WithFingerprints(bearer.KeyedFingerprints([]byte(key))),
	} {
		t.Run(name, func(t *testing.T) { testTokenDoesNotPrintItself(t, p, key) })
	}
}

func testTokenDoesNotPrintItself(t *testing.T, p *bearer.Parser, key string) {
	token, err := p.Parse([]string{"Bearer " + secret})
	if err != nil {
		t.Fatal(err)
	}
	type holder struct {
		Open   bearer.Token
		hidden bearer.Token
		inner  *bearer.Token
	}
	held := holder{token, token, &token}
	show := map[string]string{}
	for verb := range strings.SplitSeq("v +v #v s q x X d t c U e g p T 10s -20v 08x", " ") {
		show["%"+verb] = fmt.Sprintf("%"+verb+"|%"+verb+"|%"+verb+"|%"+verb, token, &token, []bearer.Token{token}, map[string]bearer.Token{"k": token})
		show["%"+verb+" of a struct"] = fmt.Sprintf("%"+verb+"|%"+verb, held, &held)
	}
	show["Print"] = fmt.Sprint(token, &token)
	show["an error"] = fmt.Errorf("asking about %v", token).Error()
	asJSON, err := json.Marshal(map[string]any{"a": token, "b": &token, "c": held, "d": map[string]bearer.Token{"e": token}})
	show["JSON"] = string(asJSON)
	if err != nil {
		t.Error(err)
	}
	for name, handler := range map[string]func(*strings.Builder) slog.Handler{
		"slog text": func(b *strings.Builder) slog.Handler { return slog.NewTextHandler(b, nil) },
		"slog JSON": func(b *strings.Builder) slog.Handler { return slog.NewJSONHandler(b, nil) },
	} {
		var out strings.Builder
		slog.New(handler(&out)).Info("asked", "token", token, "pointer", &token, "held", held, slog.Any("list", []bearer.Token{token}))
		show[name] = out.String()
	}
	for how, text := range show {
		inner := key[0] ^ 0x36
		for _, part := range []string{key, key[:8], fmt.Sprintf("%x", key[:8]), fmt.Sprintf("[%d %d", inner, key[1]^0x36), secret, secret[:8], fmt.Sprintf("%x", secret[:8]), fmt.Sprintf("%X", secret[:8]), "[115 51"} {
			if strings.Contains(text, part) {
				t.Errorf("%s shows the token: %s", how, text)
			}
		}
	}
	fingerprint := token.Fingerprint()
	if !regexp.MustCompile(`^[0-9a-f]{12}$`).MatchString(fingerprint) {
		t.Errorf("fingerprint %q is not twelve hexadecimal digits", fingerprint)
	}
	for _, how := range []string{"%v", "%s", "%x", "%#v", "%d"} {
		if got := fmt.Sprintf(how, token); got != fingerprint {
			t.Errorf("%s prints %q, want the fingerprint %q", how, got, fingerprint)
		}
	}
	if got, _ := json.Marshal(token); string(got) != `"`+fingerprint+`"` {
		t.Errorf("JSON is %s, want the fingerprint", got)
	}
	if got := (bearer.Token{}).String(); got != "none" {
		t.Errorf("the zero Token prints %q", got)
	}
}

func TestParseAllocatesNothing(t *testing.T) {
	p := newParser(t)
	for name, values := range map[string][]string{
		"a short token":  {"Bearer " + secret},
		"a JWT of 2 KiB": {"Bearer " + strings.Repeat("eyJh", 512)},
		"no header":      nil,
		"a bad header":   {"Bearer a,b"},
	} {
		if n := testing.AllocsPerRun(1000, func() { _, _ = p.Parse(values) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

// reference is RFC 6750 §2.1 as a regular expression, the slow and plain way.
var reference = regexp.MustCompile(`^(?i:bearer) +([A-Za-z0-9\-._~+/]+=*)$`)

func FuzzParse(f *testing.F) {
	for _, seed := range []string{"", "Bearer abc", "bearer  x==", "Bearer a,b", "Basic x", "Bearer \t", "Bearer =", "Bearer \xff", "Bearer a\n"} {
		f.Add(seed, "")
		f.Add(seed, "Bearer other")
	}
	p, err := bearer.NewParser(64)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, one, two string) {
		values := []string{one}
		if two != "" {
			values = append(values, two)
		}
		token, err := p.Parse(values)
		match := reference.FindStringSubmatch(one)
		good := two == "" && match != nil && len(match[1]) <= 64 && !strings.HasSuffix(one, "\n")
		if good != (err == nil) {
			t.Fatalf("%q: error %v, but by the grammar good is %t", values, err, good)
		}
		if good && token.Reveal() != match[1] {
			t.Fatalf("%q: token %q, want %q", values, token.Reveal(), match[1])
		}
		if err != nil && !errors.Is(err, bearer.ErrMissing) && !errors.Is(err, bearer.ErrMalformed) && !errors.Is(err, bearer.ErrMultiple) {
			t.Fatalf("%q: error %v is none of the three", values, err)
		}
	})
}

func BenchmarkParse(b *testing.B) {
	p := newParser(b)
	for _, n := range []int{32, 180, 1024, 4096} {
		values := []string{"Bearer " + strings.Repeat("x", n)}
		b.Run(fmt.Sprintf("%d-byte token", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := p.Parse(values); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
