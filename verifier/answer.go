package verifier

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// parseAnswer reads the reply of a verifytoken endpoint: a JSON object whose
// one member "result" is a boolean. Everything else is an error, that is, no
// answer. encoding/json's own mapping to a struct will not do: it takes the
// last of two equal members and matches names without regard to case.
//
// Errors hold nothing of the reply.
func parseAnswer(body []byte) (valid bool, err error) {
	if !utf8.Valid(body) {
		return false, errors.New("the reply is not UTF-8")
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	if open, err := dec.Token(); err != nil || open != json.Delim('{') {
		return false, errors.New("the reply is not a JSON object")
	}
	found := false
	for dec.More() {
		token, err := dec.Token()
		name, ok := token.(string)
		if err != nil || !ok {
			return false, errCutJSON
		}
		if !strings.EqualFold(name, "result") {
			var skipped json.RawMessage
			if err := dec.Decode(&skipped); err != nil {
				return false, errCutJSON
			}
			continue
		}
		if name != "result" {
			return false, errors.New(`the reply has a member "result" in another letter case`)
		}
		if found {
			return false, errors.New(`the reply has two members "result"`)
		}
		found = true
		var value any
		if err := dec.Decode(&value); err != nil {
			return false, errCutJSON
		}
		boolean, ok := value.(bool)
		if !ok {
			return false, fmt.Errorf(`the reply's "result" is %s, not a boolean`, kindOf(value))
		}
		valid = boolean
	}
	if _, err := dec.Token(); err != nil { // the closing brace
		return false, errCutJSON
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return false, errors.New("something follows the JSON object of the reply")
	}
	if !found {
		return false, errors.New(`the reply has no member "result"`)
	}
	return valid, nil
}

var errCutJSON = errors.New("the reply's JSON is broken or cut off")

func kindOf(value any) string {
	switch value.(type) {
	case nil:
		return "null"
	case string:
		return "a string"
	case float64:
		return "a number"
	case []any:
		return "an array"
	default:
		return "an object"
	}
}
