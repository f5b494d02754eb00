package verifier_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/bearergate/bearergate/verifier"
)

func TestAnswers(t *testing.T) {
	for _, c := range []struct {
		name, reply string
		valid       bool
	}{
		{"as the endpoint's description shows it", `{"result": true, "message": "token valid"}`, true},
		{"a refusal", `{"result": false, "message": "token invalid or expired"}`, false},
		{"nothing but the result, good", `{"result":true}`, true},
		{"nothing but the result, not good", `{"result":false}`, false},
		{"a member before", `{"message":"result","result":true}`, true},
		{"a member after", `{"result":false,"valid":true}`, false},
		{"members around", `{"a":1,"b":[{}],"result":true,"c":{"d":null},"e":"f"}`, true},
		{"white space everywhere", "\r\n\t { \"result\" \t:\n true \r } \n\n", true},
		{"another result in an object before", `{"data":{"result":true},"result":false}`, false},
		{"another result in an object after", `{"result":false,"data":{"result":true}}`, false},
		{"two results in an object beside", `{"data":{"result":true,"result":false},"result":true}`, true},
		{"another result in an array", `{"results":[{"result":true}],"result":false}`, false},
		{"a result within a string", `{"message":"{\"result\":true}","result":false}`, false},
		{"a result within a string with braces", `{"message":"\\\"}, {\"result\": true","result":false}`, false},
		{"an escaped name", `{"\u0072esult":true}`, true},
		{"a name escaped from end to end", `{"\u0072\u0065\u0073\u0075\u006c\u0074":false}`, false},
		{"other names doubled", `{"a":1,"a":2,"result":true}`, true},
		{"names that resemble it", `{"results":false,"result_":false," result":false,"resul":false,"":false,"result":true}`, true},
		{"a name with an accent is another name", "{\"re\u0301sult\":false,\"result\":true}", true},
		{"a huge number beside", `{"n":1e999999,"m":-` + strings.Repeat("9", 5000) + `,"result":true}`, true},
		{"a long string beside", `{"message":"` + strings.Repeat("ä", 10000) + `","result":false}`, false},
		{"half a surrogate pair beside", `{"message":"\ud800","result":true}`, true},
		{"nesting beside", `{"a":` + strings.Repeat("[", 1000) + strings.Repeat("]", 1000) + `,"result":true}`, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			valid, err := verifier.ParseAnswer([]byte(c.reply))
			if err != nil || valid != c.valid {
				t.Errorf("the answer is %v, %v, want %v", valid, err, c.valid)
			}
		})
	}
}

func TestRepliesThatAreNoAnswers(t *testing.T) {
	for _, c := range []struct{ name, reply, err string }{
		{"nothing", "", "not a JSON object"},
		{"white space", " \n", "not a JSON object"},
		{"a web page", "<!DOCTYPE html><title>503</title>", "not a JSON object"},
		{"a boolean", "true", "not a JSON object"},
		{"null", "null", "not a JSON object"},
		{"a string", `"{\"result\":true}"`, "not a JSON object"},
		{"an array", `[{"result":true}]`, "not a JSON object"},
		{"a byte order mark", "\ufeff" + `{"result":true}`, "not a JSON object"},
		{"UTF-16", "{\x00\"\x00r\x00e\x00s\x00u\x00l\x00t\x00\"\x00:\x001\x00}\x00", "broken"},
		{"a comment", `/* */{"result":true}`, "not a JSON object"},
		{"gzip", "\x1f\x8b\x08\x00\x00\x00\x00\x00", "not UTF-8"},
		{"a NUL before", "\x00" + `{"result":true}`, "not a JSON object"},

		{"an empty object", `{}`, "no member"},
		{"another member", `{"valid":true}`, "no member"},
		{"a result deeper only", `{"data":{"result":true}}`, "no member"},
		{"a name with white space", `{"result ":true}`, "no member"},
		{"a name with a NUL", `{"result\u0000":true}`, "no member"},

		{"the string true", `{"result":"true"}`, "a string"},
		{"the string false", `{"result":"false"}`, "a string"},
		{"an empty string", `{"result":""}`, "a string"},
		{"one", `{"result":1}`, "a number"},
		{"zero", `{"result":0}`, "a number"},
		{"a number that no machine holds", `{"result":1e999999}`, "broken"},
		{"null as the result", `{"result":null}`, "null"},
		{"an array as the result", `{"result":[true]}`, "an array"},
		{"an object as the result", `{"result":{"result":true}}`, "an object"},

		{"a doubled member, false last", `{"result":true,"result":false}`, "two members"},
		{"a doubled member, true last", `{"result":false,"result":true}`, "two members"},
		{"a doubled member that agrees", `{"result":true,"result":true}`, "two members"},
		{"a doubled member apart", `{"result":false,"a":{"b":[]},"result":true}`, "two members"},
		{"a doubled member, once escaped", `{"result":false,"\u0072esult":true}`, "two members"},
		{"a doubled member, first escaped", `{"resul\u0074":true,"result":false}`, "two members"},
		{"a doubled member of another kind", `{"result":true,"result":null}`, "two members"},

		{"upper case", `{"RESULT":true}`, "letter case"},
		{"a capital", `{"Result":true}`, "letter case"},
		{"upper case after false", `{"result":false,"RESULT":true}`, "letter case"},
		{"upper case before false", `{"RESULT":true,"result":false}`, "letter case"},
		{"a long s, which folds to s", `{"reſult":true}`, "letter case"},
		{"a long s after false", `{"result":false,"reſult":true}`, "letter case"},
		{"an escaped capital", `{"\u0052esult":true}`, "letter case"},

		{"something after it", `{"result":true} x`, "follows"},
		{"a second object", `{"result":true}{"result":false}`, "follows"},
		{"a second object on a line of its own", `{"result":true}` + "\n" + `{"result":true}`, "follows"},
		{"a brace too many", `{"result":true}}`, "follows"},
		{"a comma after it", `{"result":true},`, "follows"},
		{"half a word after it", `{"result":true}tr`, "follows"},
		{"half a string after it", `{"result":true}"`, "follows"},
		{"a NUL after it", `{"result":true}` + "\x00", "follows"},
		{"a web page after it", `{"result":true}<br />`, "follows"},

		{"no quotes", `{result:true}`, "broken"},
		{"single quotes", `{'result':true}`, "broken"},
		{"a comma before the end", `{"result":true,}`, "broken"},
		{"a comma at the beginning", `{,"result":true}`, "broken"},
		{"two commas", `{"a":1,,"result":true}`, "broken"},
		{"no comma", `{"a":1 "result":true}`, "broken"},
		{"no colon", `{"result" true}`, "broken"},
		{"two colons", `{"result"::true}`, "broken"},
		{"an equals sign", `{"result"=true}`, "broken"},
		{"a capital in true", `{"result":True}`, "broken"},
		{"a number as a name", `{1:2,"result":true}`, "broken"},
		{"another end", `{"result":true]`, "broken"},
		{"a comment within", `{/*x*/"result":true}`, "broken"},
		{"a line break in a string", "{\"a\":\"\n\",\"result\":true}", "broken"},
		{"an unknown escape", `{"a":"\x","result":true}`, "broken"},
		{"a number with a leading zero", `{"a":01,"result":true}`, "broken"},
		{"not a number", `{"a":NaN,"result":true}`, "broken"},
		{"white space that JSON does not know", "{\u00a0\"result\":true}", "broken"},

		{"bytes that are no UTF-8, in a string", "{\"a\":\"\xff\",\"result\":true}", "not UTF-8"},
		{"bytes that are no UTF-8, in a name", "{\"resul\xff\":true,\"result\":true}", "not UTF-8"},
		{"an overlong quote", "{\xc0\xa2result\":true}", "not UTF-8"},
		{"a surrogate in UTF-8", "{\"a\":\"\xed\xa0\x80\",\"result\":true}", "not UTF-8"},

		{"arrays nested 10^5 times", `{"a":` + strings.Repeat("[", 1e5) + strings.Repeat("]", 1e5) + `,"result":true}`, "broken"},
		{"objects nested 10^5 times", strings.Repeat(`{"a":`, 1e5) + "1" + strings.Repeat("}", 1e5), "broken"},
		{"nested 10^5 times within the result", `{"result":` + strings.Repeat("[", 1e5) + strings.Repeat("]", 1e5) + `}`, "broken"},
		{"opened 10^5 times", strings.Repeat("[", 1e5), "not a JSON object"},
	} {
		t.Run(c.name, func(t *testing.T) {
			valid, err := verifier.ParseAnswer([]byte(c.reply))
			if err == nil || valid || !strings.Contains(err.Error(), c.err) {
				t.Errorf("the answer is %v, %v; want an error with %q", valid, err, c.err)
			}
		})
	}
}

func TestTruncatedReplies(t *testing.T) {
	for _, reply := range []string{
		`{"result": true, "message": "token valid"}`,
		` {"a": [{"\u0072esult": true}, "ä\n", -1.5e3, null], "result": false}`,
	} {
		if _, err := verifier.ParseAnswer([]byte(reply)); err != nil {
			t.Fatalf("the whole reply: %v", err)
		}
		for n := range len(reply) {
			if valid, err := verifier.ParseAnswer([]byte(reply[:n])); err == nil {
				t.Errorf("the first %d bytes are taken for an answer, %v: %s", n, valid, reply[:n])
			}
			if valid, err := verifier.ParseAnswer([]byte(reply[:n] + "}")); err == nil && n < len(reply)-1 &&
				!json.Valid([]byte(reply[:n]+"}")) {
				t.Errorf("the first %d bytes and a brace are taken for an answer, %v", n, valid)
			}
		}
	}
}

func TestErrorsHoldNothingOfTheReply(t *testing.T) {
	const canary = "CANARY0123456789"
	for _, reply := range []string{
		canary, `"` + canary + `"`, `{"` + canary, `{"` + canary + `"}`, `{"` + canary + `":1}`, `{"a":"` + canary + `"}`,
		`{"result":"` + canary + `"}`, `{"result":["` + canary + `"]}`, `{"result":{"` + canary + `":1}}`, `{"result":` + canary + `}`,
		`{"result":1` + strings.Repeat("1", 400) + `}`, `{"result":true}` + canary, `{"result":true,"` + canary + `}`,
		`{"a":` + canary + `,"result":true}`, `{"a":"\` + canary + `","result":true}`, "\xff" + canary,
	} {
		valid, err := verifier.ParseAnswer([]byte(reply))
		if err == nil || valid {
			t.Fatalf("%s is taken for an answer, %v", reply, valid)
		}
		expectHidden(t, err.Error(), canary[:4], strings.Repeat("1", 4))
	}
}

// plainAnswer reads a reply in another way than the package does: the whole is
// JSON, and so the members of its object can be found by counting brackets.
func plainAnswer(reply []byte) (valid bool, err error) {
	if !utf8.Valid(reply) || !json.Valid(reply) {
		return false, errors.New("not JSON in UTF-8")
	}
	text := string(bytes.Trim(reply, " \t\r\n"))
	if text[0] != '{' {
		return false, errors.New("not an object")
	}
	var results []string
	depth, begin := 0, 1 // of the brackets, and of the name or value under way
	name, quoted := "", false
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			depth++
		case depth == 1 && c == ':':
			if err := json.Unmarshal([]byte(text[begin:i]), &name); err != nil {
				return false, fmt.Errorf("a name: %w", err)
			}
			begin = i + 1
		case depth == 1 && (c == ',' || c == '}'):
			if strings.Map(fold, name) == "result" {
				if name != "result" {
					return false, errors.New("another letter case")
				}
				results = append(results, strings.Trim(text[begin:i], " \t\r\n"))
			}
			name, begin = "", i+1
		}
		if !quoted && (c == '}' || c == ']') {
			depth--
		}
	}
	if len(results) != 1 || results[0] != "true" && results[0] != "false" {
		return false, errors.New("not one boolean")
	}
	return results[0] == "true", nil
}

// fold returns the least of the runes that differ in letter case alone, in lower
// case if it is ASCII.
func fold(r rune) rune {
	least := r
	for next := unicode.SimpleFold(r); next != r; next = unicode.SimpleFold(next) {
		least = min(least, next)
	}
	if least < utf8.RuneSelf {
		return unicode.ToLower(least)
	}
	return least
}

func FuzzAnswer(f *testing.F) {
	for _, seed := range []string{
		`{"result": true, "message": "token valid"}`, `{"result":false}`, `{"result":false,"RESULT":true}`, `{"result":true,"result":true}`,
		`{"reſult":true}`, `{"\u0072esult":true}`, `{"a":{"result":true},"result":false}`, `{"a":"\"}","result":true}`, `{"result":true,}`,
		`{"result":"true"}`, `{"result":1e999}`, `{"result":null} `, "\ufeff{}", "[]", "{}", `{"result":true}{}`, `{"result":true`, "\xff", "<html>",
		`{"":{"":[0,-0.1e+1,true,"\ud83d\ude00"]},"result":true}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, reply []byte) {
		got, err := verifier.ParseAnswer(reply)
		want, plainErr := plainAnswer(reply)
		if got != want || (err == nil) != (plainErr == nil) {
			t.Errorf("the answer is %v, %v, and read plainly %v, %v", got, err, want, plainErr)
		}
	})
}
