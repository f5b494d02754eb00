package config

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// parseYAML gives the root of the one document in data, or the problem that keeps it from being one.
func parseYAML(data []byte) (*yaml.Node, *Problem) {
	if len(data) > maxFileBytes {
		return nil, &Problem{Line: 1, Column: 1, Text: "has more than 1 MiB; a configuration is a few kilobytes, see that this is the right file"}
	}
	if problem := checkText(data); problem != nil {
		return nil, problem
	}

	source := &byteReader{data: data}
	decoder := yaml.NewDecoder(source)
	var first, second yaml.Node
	if err := decoder.Decode(&first); errors.Is(err, io.EOF) {
		return nil, &Problem{Line: 1, Column: 1, Text: "is empty; write at least listeners and verifiers"}
	} else if err != nil {
		return nil, syntaxProblem(data, source.at, err)
	}
	if err := decoder.Decode(&second); err == nil {
		return nil, &Problem{Line: second.Line, Column: second.Column, Text: "begins a second document; keep one, and take the --- out"}
	} else if !errors.Is(err, io.EOF) {
		return nil, syntaxProblem(data, source.at, err)
	}

	root := first.Content[0]
	switch {
	case root.Kind == yaml.ScalarNode && root.Tag == "!!null" && root.Style&yaml.TaggedStyle == 0:
		return nil, &Problem{Line: 1, Column: 1, Text: "is empty; write at least listeners and verifiers"}
	case root.Kind != yaml.MappingNode:
		return nil, &Problem{Line: root.Line, Column: root.Column, Text: "is " + kindName(root) + ", not a configuration; write fields with values, such as listeners: and verifiers:"}
	}
	return root, nil
}

// checkText finds the first byte that no YAML file holds. The YAML package would find it too, but not tell where.
func checkText(data []byte) *Problem {
	line, column := 1, 1
	for rest := data; len(rest) > 0; {
		r, size := utf8.DecodeRune(rest)
		switch {
		case r == utf8.RuneError && size == 1:
			return &Problem{Line: line, Column: column, Text: "is not UTF-8 here; save the file in that encoding"}
		case r < 0x20 && r != '\t' && r != '\n' && r != '\r', r == 0x7f:
			return &Problem{Line: line, Column: column, Text: fmt.Sprintf("has the control character %U here; take it out", r)}
		case r == '\n':
			line, column = line+1, 0
		}
		column++
		rest = rest[size:]
	}
	return nil
}

// byteReader hands out one byte at a time, so that at is close behind the place where the parser gave up. The parser's
// own error does not tell that place.
type byteReader struct {
	data []byte
	at   int
}

// Read implements [io.Reader].
func (r *byteReader) Read(p []byte) (int, error) {
	if r.at == len(r.data) {
		return 0, io.EOF
	}
	if len(p) == 0 {
		return 0, nil
	}
	p[0] = r.data[r.at]
	r.at++
	return 1, nil
}

// lookahead is how far the parser has read at least past the place that it complains about.
const lookahead = 3

// syntaxProblem makes a problem of an error of the YAML package, which has read data up to the given offset.
//
// The package names the line of a character that it cannot read; when it is the structure that is wrong it names the
// line before the one where the list or mapping begins. Then the place where it stopped says more.
func syntaxProblem(data []byte, offset int, err error) *Problem {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	line := 0
	if number, rest, ok := strings.Cut(strings.TrimPrefix(text, "line "), ": "); ok {
		if n, numErr := strconv.Atoi(number); numErr == nil {
			line, text = n, rest
		}
	}
	lines := strings.Split(strings.TrimRight(string(data), "\r\n"), "\n")
	if strings.HasPrefix(text, "did not find expected") {
		start := line + 1
		line = 1 + strings.Count(string(data[:max(0, offset-lookahead)]), "\n")
		if start < line {
			text += fmt.Sprintf(" in what begins on line %d", start)
		}
	}
	line = min(max(line, 1), len(lines))
	wrong := lines[line-1]
	switch {
	case strings.Contains(wrong, "${"):
		text += `; inside { } and [ ] write "${NAME}" in quotes`
	case strings.HasPrefix(strings.TrimLeft(wrong, " "), "\t"):
		text += "; indent with spaces, not with tabs"
	default:
		text += "; see the indentation, the quotes and the brackets around here"
	}
	column := 1 + utf8.RuneCountInString(wrong) - utf8.RuneCountInString(strings.TrimLeft(wrong, " \t"))
	return &Problem{Line: line, Column: column, Text: "is not YAML: " + text}
}

// unread makes a problem of protoyaml's error, whose text is file:line:column and a message that may hold a value.
func unread(file string, err error) Problem {
	problem := Problem{File: file, Line: 1, Column: 1, Text: "cannot be read; write it as config.proto describes the field"}
	if place, ok := strings.CutPrefix(err.Error(), file+":"); ok {
		var line, column int
		if _, scanErr := fmt.Sscanf(place, "%d:%d", &line, &column); scanErr == nil {
			problem.Line, problem.Column = line, column
		}
	}
	return problem
}

func kindName(node *yaml.Node) string {
	switch node.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	case yaml.AliasNode:
		return "an alias"
	case yaml.ScalarNode, yaml.DocumentNode:
	}
	return "a single value"
}
