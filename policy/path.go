package policy

import (
	"strings"
	"unicode/utf8"
	"unsafe"
)

// maxPath is the longest path that is looked at, in bytes. Edges have limits of
// their own, about as large.
const maxPath = 8192

// What is wrong with a path. Each is a way to make an edge, this gateway and an API
// see different resources behind one text.
var (
	errNotAbsolute  = because(ErrPath, "it does not begin with a slash")
	errLongPath     = because(ErrPath, "it is longer than 8192 bytes")
	errDots         = because(ErrPath, "it has a segment of dots")
	errDoubledSlash = because(ErrPath, "it has a doubled slash")
	errBackslash    = because(ErrPath, "it has a backslash")
	errSemicolon    = because(ErrPath, "it has a semicolon")
	errDelimiter    = because(ErrPath, "it has a ? or # of its own")
	errControl      = because(ErrPath, "it has a control character")
	errEncoding     = because(ErrPath, "it has a % that is no percent-encoding")
	errEncodedSlash = because(ErrPath, "it has an encoded slash or backslash")
	errEncodedTwice = because(ErrPath, "it is percent-encoded twice")
	errPathNotUTF8  = because(ErrPath, "it is not UTF-8")
)

// CheckPath returns the path that a raw path stands for, with its
// percent-encodings decoded, or an [ErrPath] if it may be read in more than one
// way: whoever normalises it, decodes it again, cuts parameters off or ends it at
// a NUL would see another path than the one that a policy was chosen by.
func CheckPath(raw string) (string, error) {
	return checkPath(raw, nil)
}

// class says what a byte means in a raw path.
type class uint8

const (
	plain class = iota
	slash
	percent
	beyondASCII
	refused
)

var classes = func() (t [256]class) {
	for c := range t {
		switch {
		case c < ' ' || c == 0x7f || c == '\\' || c == ';' || c == '?' || c == '#':
			t[c] = refused
		case c >= utf8.RuneSelf:
			t[c] = beyondASCII
		}
	}
	t['/'], t['%'] = slash, percent
	return t
}()

// checkPath is [CheckPath]. The result may lie in buf.
func checkPath(raw string, buf []byte) (string, error) {
	switch {
	case raw == "" || raw[0] != '/':
		return "", errNotAbsolute
	case len(raw) > maxPath:
		return "", errLongPath
	}
	encoded, wide := 0, false // where the first % is, which is not the slash
	segment := 1              // where a segment begins
	for i := 1; i < len(raw); i++ {
		switch classes[raw[i]] {
		case plain:
		case slash:
			if i == segment {
				return "", errDoubledSlash
			}
			if isDots(raw[segment:i]) {
				return "", errDots
			}
			segment = i + 1
		case percent:
			if encoded == 0 {
				encoded = i
			}
		case beyondASCII:
			wide = true
		case refused:
			return "", refusal(raw[i])
		}
	}
	if isDots(raw[segment:]) {
		return "", errDots
	}
	if encoded > 0 {
		return decodePath(raw, encoded, wide, buf)
	}
	if wide && !utf8.ValidString(raw) {
		return "", errPathNotUTF8
	}
	return raw, nil
}

// decodePath decodes a path whose raw form has been checked, from its first % on.
func decodePath(raw string, first int, wide bool, buf []byte) (string, error) {
	if cap(buf) < len(raw) {
		buf = make([]byte, 0, len(raw))
	}
	buf = append(buf[:0], raw[:first]...)
	unsure := false // whether a segment may be one of dots, or encoded once more
	for rest := raw[first:]; ; {
		if len(rest) < 3 || !isHex(rest[1]) || !isHex(rest[2]) {
			return "", errEncoding
		}
		c := unhex(rest[1])<<4 | unhex(rest[2])
		switch {
		case c == '/' || c == '\\':
			return "", errEncodedSlash
		case c == '?' || c == '#': // part of a name; only bare ones end the path
		case c == '%':
			unsure = true
		case c == '.' || c == ' ':
			// The segment is one of dots only if that is so up to here.
			before := buf[len(buf)-1]
			unsure = unsure || before == '/' || before == '.' || before == ' '
		case c >= utf8.RuneSelf:
			wide = true
		case classes[c] == refused:
			return "", refusal(c)
		}
		buf = append(buf, c)
		rest = rest[3:]
		next := strings.IndexByte(rest, '%')
		if next < 0 {
			buf = append(buf, rest...)
			break
		}
		buf = append(buf, rest[:next]...)
		rest = rest[next:]
	}
	path := unsafe.String(unsafe.SliceData(buf), len(buf)) // nobody writes to buf from here on
	if wide && !utf8.ValidString(path) {
		return "", errPathNotUTF8
	}
	if unsure {
		if err := checkDecoded(path); err != nil {
			return "", err
		}
	}
	return path, nil
}

// checkDecoded looks at each segment of a decoded path.
func checkDecoded(path string) error {
	for rest, more := path[1:], true; more; {
		var segment string
		segment, rest, more = strings.Cut(rest, "/") // strings.SplitSeq would move the path to the heap
		if isDots(segment) {
			return errDots
		}
		if isEncoded(segment) {
			return errEncodedTwice
		}
	}
	return nil
}

// refusal says what is wrong with a byte that no path may have.
func refusal(c byte) error {
	switch c {
	case '\\':
		return errBackslash
	case ';':
		// Some servers cut a segment's parameters off: /admin;x is /admin to them.
		return errSemicolon
	case '?', '#':
		return errDelimiter
	default:
		return errControl
	}
}

// isDots reports whether a segment is ., .. or what careless programs take for
// them: more dots, or spaces around.
func isDots(segment string) bool {
	dots := false
	for i := range len(segment) {
		switch segment[i] {
		case '.':
			dots = true
		case ' ':
		default:
			return false
		}
	}
	return dots
}

// isEncoded reports whether a decoded text still has percent-encodings.
func isEncoded(text string) bool {
	for {
		i := strings.IndexByte(text, '%')
		if i < 0 {
			return false
		}
		text = text[i+1:]
		if len(text) >= 2 && isHex(text[0]) && isHex(text[1]) {
			return true
		}
	}
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

func unhex(c byte) byte {
	switch {
	case c <= '9':
		return c - '0'
	case c <= 'F':
		return c - 'A' + 10
	default:
		return c - 'a' + 10
	}
}
