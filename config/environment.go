package config

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// expand puts the values of environment variables into a value: ${NAME} is what lookup returns for NAME, $${ is a plain
// ${, and any other $ stands for itself. A value that comes in is not looked at again, so it may hold ${ and quotes as
// it likes. Used reports whether there was a variable; problem is empty when all went well.
func expand(value string, lookup func(string) (string, bool)) (expanded string, used bool, problem string) {
	if !strings.Contains(value, "${") {
		return value, false, ""
	}
	var out strings.Builder
	for rest := value; ; {
		before, after, found := strings.Cut(rest, "${")
		if !found {
			out.WriteString(rest)
			return out.String(), used, ""
		}
		if plain, escaped := strings.CutSuffix(before, "$"); escaped {
			out.WriteString(plain + "${")
			rest = after
			continue
		}
		out.WriteString(before)
		name, after, found := strings.Cut(after, "}")
		if !found || !isVariable(name) {
			return "", true, "has ${ without a name and } behind it; write ${NAME} with letters, digits and _ in the name, or $${ for a plain ${"
		}
		content, set := lookup(name)
		if !set {
			return "", true, fmt.Sprintf("needs the environment variable %s, which is not set; set it, or write the value here", name)
		}
		if !utf8.ValidString(content) {
			return "", true, fmt.Sprintf("needs the environment variable %s, which is not UTF-8; set it again in that encoding", name)
		}
		out.WriteString(content)
		used, rest = true, after
	}
}

// isVariable reports whether name can be the name of an environment variable (POSIX.1-2017 XBD section 8.1, and lower
// case letters).
func isVariable(name string) bool {
	if name == "" || '0' <= name[0] && name[0] <= '9' {
		return false
	}
	return !strings.ContainsFunc(name, func(r rune) bool { return !isWord(r) })
}
