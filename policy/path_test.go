package policy_test

import (
	"errors"
	"net/url"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/bearergate/bearergate/policy"
)

func TestPathsThatProgramsReadInDifferentWaysAreRefused(t *testing.T) {
	for name, test := range map[string]struct{ raw, why string }{
		"nothing":                              {"", "slash"},
		"an asterisk":                          {"*", "slash"},
		"a whole URL":                          {"http://api.example.com/", "slash"},
		"no slash in front":                    {"admin", "slash"},
		"too long":                             {"/" + strings.Repeat("a", 8192), "8192"},
		"a dot segment":                        {"/a/./b", "dots"},
		"a dot segment at the end":             {"/a/.", "dots"},
		"two dots":                             {"/public/../admin", "dots"},
		"two dots at the end":                  {"/public/..", "dots"},
		"two dots at the beginning":            {"/../admin", "dots"},
		"two dots before a slash at the end":   {"/a/../", "dots"},
		"three dots":                           {"/a/.../b", "dots"},
		"encoded dots":                         {"/public/%2e%2e/admin", "dots"},
		"encoded dots in capitals":             {"/public/%2E%2E/admin", "dots"},
		"a dot and an encoded one":             {"/public/.%2e/admin", "dots"},
		"an encoded dot and a bare one":        {"/public/%2e./admin", "dots"},
		"one encoded dot":                      {"/a/%2e/b", "dots"},
		"encoded dots at the end":              {"/a/%2e%2e", "dots"},
		"dots and an encoded space":            {"/a/..%20/b", "dots"},
		"dots with a parameter":                {"/a/..;/b", "semicolon"},
		"dots with a named parameter":          {"/a/..;x=y/b", "semicolon"},
		"a parameter":                          {"/admin;x", "semicolon"},
		"an encoded semicolon":                 {"/admin%3bx", "semicolon"},
		"an encoded semicolon in capitals":     {"/admin%3Bx", "semicolon"},
		"an encoded slash":                     {"/public%2fadmin", "encoded slash"},
		"an encoded slash in capitals":         {"/public%2Fadmin", "encoded slash"},
		"an encoded backslash":                 {"/public%5cadmin", "encoded slash"},
		"an encoded backslash in capitals":     {"/public%5Cadmin", "encoded slash"},
		"dots and an encoded slash":            {"/public/..%2fadmin", "encoded slash"},
		"a backslash":                          {`/public\admin`, "backslash"},
		"a backslash in front":                 {`/\admin`, "backslash"},
		"an encoded NUL":                       {"/admin%00.css", "control"},
		"a NUL":                                {"/admin\x00.css", "control"},
		"a line feed":                          {"/a\nb", "control"},
		"an encoded line feed":                 {"/a%0ab", "control"},
		"an encoded carriage return":           {"/a%0Db", "control"},
		"an encoded tab":                       {"/a%09b", "control"},
		"an encoded delete":                    {"/a%7fb", "control"},
		"a doubled slash":                      {"/a//b", "doubled"},
		"a doubled slash in front":             {"//admin", "doubled"},
		"a doubled slash at the end":           {"/a//", "doubled"},
		"three slashes":                        {"///", "doubled"},
		"a % alone":                            {"/100%", "percent-encoding"},
		"a % with one digit":                   {"/a%2", "percent-encoding"},
		"a % with other letters":               {"/a%zz", "percent-encoding"},
		"a % with a sign":                      {"/a%+1", "percent-encoding"},
		"the %u of old servers":                {"/%u002e%u002e/", "percent-encoding"},
		"dots encoded twice":                   {"/public/%252e%252e/admin", "twice"},
		"a slash encoded twice":                {"/public%252fadmin", "twice"},
		"an encoded encoding":                  {"/a%25%34%31", "twice"},
		"a dot in too many bytes":              {"/%c0%ae%c0%ae/admin", "UTF-8"},
		"a slash in too many bytes":            {"/public%c0%afadmin", "UTF-8"},
		"half a character":                     {"/caf%c3", "UTF-8"},
		"a surrogate":                          {"/%ed%a0%80", "UTF-8"},
		"bytes that are not UTF-8":             {"/caf\xe9", "UTF-8"},
		"encoded bytes that are not UTF-8":     {"/caf%e9", "UTF-8"},
		"a query":                              {"/a?b", "? or #"},
		"a fragment":                           {"/a#b", "? or #"},
		"a fragment and dots":                  {"/public#/../admin", "? or #"},
		"what hides in the second half":        {"/a%20b/../c", "dots"},
		"a backslash among encodings":          {`/a%20b\c`, "backslash"},
		"a tab between slashes":                {"/a/\t/b", "control"},
		"a space and an encoded dot":           {"/a/ %2e/b", "dots"},
		"an encoded dot behind a space":        {"/a/%20%2e", "dots"},
		"dots behind a good encoding":          {"/%61b/%2e%2e/c", "dots"},
		"twice, behind a good encoding":        {"/%61/%252e", "twice"},
		"a segment of an encoded space is one": {"/a/%20./b", "dots"},
	} {
		t.Run(name, func(t *testing.T) {
			path, err := policy.CheckPath(test.raw)
			if !errors.Is(err, policy.ErrPath) || path != "" {
				t.Fatalf("%q is taken as %q, %v", test.raw, path, err)
			}
			if !strings.Contains(err.Error(), test.why) {
				t.Errorf("%q: %q does not say %q", test.raw, err, test.why)
			}
			if test.raw != "" && test.raw != "*" && strings.Contains(err.Error(), test.raw) {
				t.Errorf("the error shows the path: %v", err)
			}
		})
	}
}

func TestPathsAreComparedDecoded(t *testing.T) {
	for raw, want := range map[string]string{
		"/":                       "/",
		"/a":                      "/a",
		"/a/":                     "/a/",
		"/a.b/.hidden/..x/x..":    "/a.b/.hidden/..x/x..",
		"/%61dmin":                "/admin",
		"/%41%42":                 "/AB",
		"/a%20b":                  "/a b",
		"/caf%c3%a9":              "/café",
		"/café":                   "/café",
		"/a:b/c=d/e@f/g+h/i,j/$k": "/a:b/c=d/e@f/g+h/i,j/$k",
		"/100%25":                 "/100%",
		"/a%2e%2e":                "/a..",
		"/%2e%2ea/%20b/a%20%2e":   "/..a/ b/a .",
		"/100%25/x":               "/100%/x",
		"/why%3f":                 "/why?",
		"/issue%231":              "/issue#1",
		"/~user/(x)/'y'/!*":       "/~user/(x)/'y'/!*",
	} {
		if got, err := policy.CheckPath(raw); err != nil || got != want {
			t.Errorf("%q is %q, %v; want %q", raw, got, err, want)
		}
	}
	long := "/" + strings.Repeat("%61", 2730)
	if got, err := policy.CheckPath(long); err != nil || got != "/"+strings.Repeat("a", 2730) {
		t.Errorf("the longest path is refused: %v", err)
	}
}

// FuzzCheckPath holds the check against what it promises, said in other words.
func FuzzCheckPath(f *testing.F) {
	for _, raw := range []string{"/", "/a/b", "/a/../b", "/%2e%2e/", "/a%2fb", "//", "/a;b", "/%25%32%65", "/caf%c3%a9", "/\xff", "/..%20", `/\`, "/%", "/%3f%23"} {
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		path, err := policy.CheckPath(raw)
		if err != nil {
			if !errors.Is(err, policy.ErrPath) || path != "" {
				t.Fatalf("%q: %q, %v", raw, path, err)
			}
			return
		}
		decoded, err := url.PathUnescape(raw)
		if err != nil || decoded != path {
			t.Fatalf("%q is taken as %q, net/url says %q, %v", raw, path, decoded, err)
		}
		again, err := url.PathUnescape(path)
		if err == nil && again != path {
			t.Fatalf("%q decodes to %q and then to %q", raw, path, again)
		}
		if !utf8.ValidString(path) || strings.Count(path, "/") != strings.Count(raw, "/") || strings.ContainsAny(path, "\\;\x00\r\n\t\x7f") || strings.ContainsAny(raw, "?#") {
			t.Fatalf("%q is taken as %q", raw, path)
		}
		segments := strings.Split(path, "/")
		for i, segment := range segments {
			if bare := strings.Trim(segment, ". "); bare == "" && strings.Contains(segment, ".") || segment == "" && i > 0 && i < len(segments)-1 {
				t.Fatalf("%q is taken as %q", raw, path)
			}
		}
	})
}
