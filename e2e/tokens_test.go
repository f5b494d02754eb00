package e2e

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// tokenBook knows every token that the tests use, so that at the end every output
// can be searched for them. It may be used concurrently.
type tokenBook struct {
	mu     sync.Mutex
	tokens []string
}

// add notes a token that was issued, and returns it.
func (b *tokenBook) add(token string) string {
	if len(token) < windowSize {
		panic("a token that is shorter than what is searched for")
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.tokens = append(b.tokens, token)
	return token
}

// b64token are the characters of a token (RFC 6750 §2.1), = apart.
const b64token = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~+/"

// invent returns a token of n characters that nobody has issued.
func (b *tokenBook) invent(n int) string {
	random := make([]byte, n)
	_, _ = rand.Read(random) // never fails (Go 1.24 and later)
	for i, c := range random {
		random[i] = b64token[int(c)%len(b64token)]
	}
	return b.add(string(random))
}

// all returns the tokens noted so far.
func (b *tokenBook) all() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.tokens)
}

// windowSize is how many characters of a token in a row may be seen nowhere.
const windowSize = 16

type window [windowSize]byte

// finder finds tokens, and pieces of them, in text.
type finder struct {
	forms map[window]string // what was found, in words
}

// newFinder looks for pieces of the tokens as they are and in every usual coding.
func newFinder(tokens []string) *finder {
	f := &finder{forms: map[window]string{}}
	for i, token := range tokens {
		name := fmt.Sprintf("token %d of %d", i+1, len(tokens))
		f.add(name, token)
		f.add(name+" in percent coding", url.QueryEscape(token))
		f.add(name+" in percent coding", url.PathEscape(token))
		f.add(name+" in hexadecimal", hex.EncodeToString([]byte(token)))
		f.add(name+" in hexadecimal", strings.ToUpper(hex.EncodeToString([]byte(token))))
		// The same bytes look different by where they stand among threes.
		for before := range 3 {
			for _, coding := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
				coded := coding.EncodeToString([]byte(strings.Repeat("\x00", before) + token))
				f.add(name+" in Base64", coded[min(len(coded), []int{0, 2, 3}[before]):])
			}
		}
	}
	return f
}

func (f *finder) add(what, text string) {
	for i := 0; i+windowSize <= len(text); i++ {
		f.forms[window([]byte(text[i:i+windowSize]))] = what
	}
}

// find returns what was found in text, each thing once.
func (f *finder) find(text []byte) []string {
	var found []string
	for i := 0; i+windowSize <= len(text); i++ {
		what, ok := f.forms[window(text[i:i+windowSize])]
		if !ok {
			continue
		}
		line := 1 + bytes.Count(text[:i], []byte("\n"))
		start := bytes.LastIndexByte(text[:i], '\n') + 1
		// What stands before it tells where it comes from. Not the token: this is printed.
		before := text[max(start, i-80):i]
		found = append(found, fmt.Sprintf("%s, in line %d after %q", what, line, before))
		// The rest of this line is not searched: it would be the same piece, one further.
		end := bytes.IndexByte(text[i:], '\n')
		if end < 0 {
			break
		}
		i += end
	}
	return found
}

// outputs are all texts that no token may be in. They may be added concurrently.
type outputs struct {
	mu    sync.Mutex
	files map[string]string // path to name
	texts []output
}

type output struct{ name, text string }

// addFile has a file searched, as it is at the end.
func (o *outputs) addFile(name, path string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.files == nil {
		o.files = map[string]string{}
	}
	o.files[path] = name
}

// addFolder has every file in a folder searched, as it is at the end.
func (o *outputs) addFolder(t *testing.T, name, dir string) {
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.Type().IsRegular() {
			o.addFile(name, path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// addText has a text searched.
func (o *outputs) addText(name, text string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.texts = append(o.texts, output{name, text})
}

// search fails the test for every output with a piece of a token in it.
func (o *outputs) search(t *testing.T, tokens []string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	f := newFinder(tokens)
	size := 0
	report := func(name string, text []byte) {
		size += len(text)
		if found := f.find(text); found != nil {
			t.Errorf("%s: %d times; first: %s", name, len(found), found[0])
		}
	}
	for path, name := range o.files {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Error(err)
		}
		report(name, text)
	}
	for _, output := range o.texts {
		report(output.name, []byte(output.text))
	}
	t.Logf("searched %d files and %d texts, %d KiB, for %d tokens", len(o.files), len(o.texts), size>>10, len(tokens))
}

func TestTheSearchFindsATokenInEveryForm(t *testing.T) {
	var book tokenBook
	book.invent(40)
	token := book.invent(40)
	book.invent(9000)
	f := newFinder(book.all())

	leaks := map[string]string{
		"as it is":               "token=" + token,
		"in a JSON log line":     `{"authorization":"Bearer ` + token + `"}`,
		"the first 16 letters":   "seen " + token[:16] + "...",
		"16 letters in between":  "..." + token[11:27] + "...",
		"the last 16 letters":    token[24:],
		"in percent coding":      "/api?access_token=" + url.QueryEscape(token) + "&x=1",
		"in hexadecimal":         fmt.Sprintf("%x", token),
		"in capital hexadecimal": fmt.Sprintf("%X", token),
		"in Base64":              base64.StdEncoding.EncodeToString([]byte(token)),
		"in Base64 for URLs":     base64.URLEncoding.EncodeToString([]byte(token)),
		"a header in Base64":     base64.StdEncoding.EncodeToString([]byte("Authorization: Bearer " + token)),
		"a pair in Base64":       base64.StdEncoding.EncodeToString([]byte("x:" + token)),
		"a triple in Base64":     base64.StdEncoding.EncodeToString([]byte("xy:" + token)),
	}
	for name, text := range leaks {
		t.Run(name, func(t *testing.T) {
			found := f.find([]byte("a line before\n" + text + "\na line after\n"))
			if len(found) != 1 || !strings.HasPrefix(found[0], "token 2 of 3") || !strings.Contains(found[0], "line 2 ") {
				t.Errorf("found %q", found)
			}
		})
	}
	for _, harmless := range []string{"", "short", token[:15], strings.Repeat("no token here ", 100)} {
		if found := f.find([]byte(harmless)); found != nil {
			t.Errorf("found %q where nothing is", found)
		}
	}
}
