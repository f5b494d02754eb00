package config

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/reflect/protoreflect"

	configv1 "github.com/bearergate/bearergate/proto/bearergate/config/v1"
)

// tree holds the file against the schema before protoyaml decodes it. protoyaml stops at nothing of this: doubled keys
// (the last one wins), other spellings of names, null for a text, numbers with units. The tree also knows where each
// field stands, which errors found later need, and puts the environment variables in.
//
// What is wrong is reported and taken out, so that the rest can be decoded and checked in the same run.
type tree struct {
	file     string
	root     *yaml.Node
	lookup   func(string) (string, bool)
	places   map[string]place
	broken   map[string]bool // paths that were taken out: whatever is found there or below follows from it
	touched  map[string]bool // the paths above them: what is missing there may be what was taken out
	reported map[string]bool // paths that a rule has found fault with
	problems []Problem
}

// place is where a field stands in the file.
type place struct {
	key, value *yaml.Node // key is nil for the entry of a list
	written    string     // a scalar as the operator wrote it, before variables were put in
	variables  bool       // written holds variables
	text       bool       // it is a text or was written in quotes, and so it is shown
	clamped    bool       // a number that the field cannot hold, which a range is to refuse
}

func newTree(file string, root *yaml.Node, lookup func(string) (string, bool)) *tree {
	return &tree{
		file:     file,
		root:     root,
		lookup:   lookup,
		places:   map[string]place{"": {value: root}},
		broken:   map[string]bool{},
		touched:  map[string]bool{},
		reported: map[string]bool{},
	}
}

// message reads a mapping as the fields of a message, and leaves in it what can be decoded.
func (t *tree) message(path string, node *yaml.Node, message protoreflect.MessageDescriptor) {
	var kept []*yaml.Node
	var meant []string
	first := map[string]int{}                               // the line of each key
	chosen := map[protoreflect.OneofDescriptor]*yaml.Node{} // of fields of which there can be one alone, the first
	for pair := range slices.Chunk(node.Content, 2) {
		key, value := pair[0], pair[1]
		if key.Kind != yaml.ScalarNode {
			t.problem(key, path, "has "+kindName(key)+" for a field name; write one of: "+fieldNames(message))
			t.touch(path)
			continue
		}
		if !isPlain(key) {
			t.problem(key, path, "has an anchor or a tag at a field name; write the name alone, without & and !")
			t.touch(path)
			continue
		}
		below := join(path, key.Value)
		line, doubled := first[key.Value]
		field := message.Fields().ByName(protoreflect.Name(key.Value))
		switch {
		case doubled:
			t.problem(key, below, fmt.Sprintf("is written twice, first on line %d; keep one", line))
			t.breakOff(below)
			continue
		case field == nil:
			first[key.Value] = key.Line
			meant = append(meant, t.unknown(path, key, message))
			continue
		}
		first[key.Value] = key.Line
		if oneof := field.ContainingOneof(); oneof != nil && !oneof.IsSynthetic() {
			if other := chosen[oneof]; other != nil {
				t.problem(key, below, fmt.Sprintf("cannot stand beside %s on line %d; keep one", other.Value, other.Line))
				t.breakOff(below)
				continue
			}
			chosen[oneof] = key
		}
		t.places[below] = place{key: key, value: value}
		if t.field(below, value, field) {
			kept = append(kept, key, value)
		} else {
			t.breakOff(below)
		}
	}
	node.Content = kept
	for _, name := range meant {
		// That the field is missing follows from its name being wrong.
		if _, there := first[name]; !there && name != "" {
			t.breakOff(join(path, name))
		}
	}
}

// field reads the value of a field, and reports whether it can be decoded.
func (t *tree) field(path string, node *yaml.Node, field protoreflect.FieldDescriptor) bool {
	if !field.IsList() {
		return t.value(path, node, field)
	}
	if !t.whole(path, node) {
		return false
	}
	if node.Kind != yaml.SequenceNode {
		t.problem(node, path, "is "+kindName(node)+"; write a list, each entry after a dash or all in [ ]")
		return false
	}
	good := true
	for i, entry := range node.Content {
		below := item(path, i)
		t.places[below] = place{value: entry}
		if t.value(below, entry, field) {
			continue
		}
		t.breakOff(below)
		if field.Message() == nil {
			good = false
			continue
		}
		// An empty entry keeps the numbers of those behind it.
		node.Content[i] = &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map", Line: entry.Line, Column: entry.Column}
	}
	return good
}

// value reads one value of a field: a message or a scalar.
func (t *tree) value(path string, node *yaml.Node, field protoreflect.FieldDescriptor) bool {
	if !t.whole(path, node) {
		return false
	}
	if message := field.Message(); message != nil && message.FullName() != "google.protobuf.Duration" {
		if node.Kind != yaml.MappingNode {
			t.problem(node, path, "is "+kindName(node)+"; write fields with values: "+fieldNames(message))
			return false
		}
		t.message(path, node, message)
		return true
	}

	if node.Kind != yaml.ScalarNode {
		t.problem(node, path, "is "+kindName(node)+"; write one value")
		return false
	}
	at := t.places[path]
	at.written = node.Value
	at.text = field.Kind() == protoreflect.StringKind || node.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) != 0
	expanded, used, problem := expand(node.Value, t.lookup)
	if problem != "" {
		t.problem(node, path, problem)
		return false
	}
	node.Value, at.variables = expanded, used
	good := true
	switch field.Kind() {
	case protoreflect.BoolKind:
		good = t.boolean(path, node, at)
	case protoreflect.Uint32Kind:
		at.clamped, good = t.number(path, node, at)
	case protoreflect.MessageKind:
		good = t.duration(path, node, at)
	default: // A text is taken as it stands. A test sees that there is no other kind.
	}
	t.places[path] = at
	return good
}

// whole reports whether a value is there, and written out.
func (t *tree) whole(path string, node *yaml.Node) bool {
	switch {
	case !isPlain(node):
		t.problem(node, path, "has an anchor, an alias or a tag; write the value itself, without & * and !")
		return false
	case node.Kind == yaml.ScalarNode && node.Tag == "!!null":
		t.problem(node, path, "has no value; write one, or take the line out")
		return false
	}
	return true
}

func isPlain(node *yaml.Node) bool {
	return node.Kind != yaml.AliasNode && node.Anchor == "" && node.Style&yaml.TaggedStyle == 0
}

func (t *tree) boolean(path string, node *yaml.Node, at place) bool {
	quoted := node.Tag != "!!bool" && !at.variables
	if quoted || node.Value != "true" && node.Value != "false" {
		t.problem(node, path, at.quote()+"is neither true nor false; write one of them, without quotes")
		return false
	}
	node.Tag = "!!bool"
	return true
}

// number makes a whole number of a value. One that the field cannot hold becomes the nearest that it can, so that the
// field's own rule refuses it and says what is allowed.
func (t *tree) number(path string, node *yaml.Node, at place) (clamped, good bool) {
	digits := strings.TrimPrefix(node.Value, "-")
	quoted := node.Tag == "!!str" && !at.variables
	if quoted || !isDigits(digits) || len(digits) > 1 && digits[0] == '0' {
		t.problem(node, path, at.quote()+"is not a whole number; write digits alone: no quotes, units, separators or zeros in front")
		return false, false
	}
	if digits != node.Value && digits != "0" {
		node.Value = "0"
		return true, true
	}
	if n, err := strconv.ParseUint(digits, 10, 32); err != nil {
		node.Value = strconv.FormatUint(math.MaxUint32, 10)
		return true, true
	} else if n == 0 {
		node.Value = "0"
	}
	return false, true
}

// duration hands protoyaml what Go's own parser understood: protoyaml's takes numbers that overflow for others.
func (t *tree) duration(path string, node *yaml.Node, at place) bool {
	d, err := time.ParseDuration(node.Value)
	switch {
	case isDigits(node.Value) && node.Value != "0" && !at.variables:
		t.problem(node, path, fmt.Sprintf("%shas no unit; write %ss for seconds, or another unit: ms, s, m, h", at.quote(), node.Value))
		return false
	case err != nil:
		t.problem(node, path, at.quote()+"is no duration; write numbers with units (ms, s, m, h), for example 500ms, 3s or 1m30s")
		return false
	}
	node.Value = d.String()
	return true
}

func isDigits(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool { return r < '0' || r > '9' })
}

// unknown reports a field that the message does not have, with the name that was meant as far as that can be told. It
// returns that name, or an empty string.
func (t *tree) unknown(path string, key *yaml.Node, message protoreflect.MessageDescriptor) (meant string) {
	t.touch(path)
	if key.Value == "<<" {
		t.problem(key, path, "has a merge key (<<); write the fields themselves")
		return ""
	}
	text := "is no known field; "
	if name, ok := nearest(key.Value, message.Fields()); ok {
		meant = name
		text += "did you mean " + meant + "?"
	} else if where, ok := home(key.Value, (&configv1.Config{}).ProtoReflect().Descriptor(), ""); ok {
		text += "it belongs in " + where
	} else {
		text += "known here: " + fieldNames(message)
	}
	t.problem(key, join(path, key.Value), text)
	return meant
}

func fieldNames(message protoreflect.MessageDescriptor) string {
	names := make([]string, message.Fields().Len())
	for i := range names {
		names[i] = string(message.Fields().Get(i).Name())
	}
	return strings.Join(names, ", ")
}

func (t *tree) problem(at *yaml.Node, path, text string) {
	t.problems = append(t.problems, Problem{File: t.file, Line: at.Line, Column: at.Column, Field: path, Text: text})
}

// breakOff notes that what stood at a path was taken out.
func (t *tree) breakOff(path string) {
	t.broken[path] = true
	t.touch(path)
}

// touch notes that something at or below a path was taken out.
func (t *tree) touch(path string) {
	for ; path != "" && !t.touched[path]; path = above(path) {
		t.touched[path] = true
	}
	t.touched[""] = true
}

// wrote reports whether a field has a value from the file.
func (t *tree) wrote(path string) bool {
	_, there := t.places[path]
	return there && !t.broken[path]
}

// report makes a problem of what a rule found, unless that follows from what was taken out.
func (t *tree) report(found finding) {
	if t.touched[found.path] || slices.ContainsFunc(found.unless, func(path string) bool { return t.reported[path] }) {
		return
	}
	for path := found.path; path != ""; path = above(path) {
		if t.broken[path] {
			return
		}
	}
	t.reported[found.path] = true

	at, there := t.places[found.path]
	text := found.text
	switch {
	case !there:
		// What is missing is missing from the closest thing that is there.
		path := found.path
		for !there {
			path = above(path)
			at, there = t.places[path]
		}
	case found.bare:
	case at.variables && at.value.Value == "":
		text += fmt.Sprintf(" (%s is empty)", at.written)
	default:
		text = at.quote() + text
	}
	node := at.value
	if at.key != nil && node.Kind != yaml.ScalarNode {
		node = at.key
	}
	t.problem(node, found.path, text)
}

// reportClamped reports the numbers that are outside what the field can hold, where no rule of the field did.
func (t *tree) reportClamped() {
	for _, path := range slices.Sorted(maps.Keys(t.places)) {
		if at := t.places[path]; at.clamped && !t.reported[path] {
			t.report(finding{path: path, text: fmt.Sprintf("is out of range; write a whole number from 0 to %d", uint32(math.MaxUint32))})
		}
	}
}

// maxQuoted is the longest value that is shown in an error. What is longer is of no help there, and may be a secret in
// the wrong place.
const maxQuoted = 24

// quote gives a value as the operator wrote it, and a space, to begin an error with. Variables are shown by name.
func (p place) quote() string {
	switch {
	case p.written == "" || utf8.RuneCountInString(p.written) > maxQuoted:
		return ""
	case p.text || strings.ContainsFunc(p.written, func(r rune) bool { return !unicode.IsPrint(r) || r == ' ' }):
		return strconv.Quote(p.written) + " "
	}
	return p.written + " "
}

// maxName is how much of a name that no field has is shown.
const maxName = 40

// join, item and above make and take apart paths as protovalidate writes them: verifiers[0].verifytoken.url.
func join(path, name string) string {
	if utf8.RuneCountInString(name) > maxName {
		name = string([]rune(name)[:maxName]) + "…"
	}
	if strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) || strings.ContainsRune(" .[]:", r) }) {
		name = strconv.Quote(name)
	}
	if path == "" {
		return name
	}
	return path + "." + name
}

func item(path string, i int) string { return path + "[" + strconv.Itoa(i) + "]" }

func above(path string) string {
	return path[:max(0, strings.LastIndexAny(path, ".["))]
}
