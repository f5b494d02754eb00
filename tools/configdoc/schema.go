package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"google.golang.org/protobuf/compiler/protogen"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// schemaID is where editors find the schema.
const schemaID = "https://raw.githubusercontent.com/bearergate/bearergate/main/config/bearergate.schema.json"

// members are those of a JSON object.
type members = map[string]any

// writeSchema gives a JSON Schema (draft 2020-12) for the message that is the whole file.
//
// It refuses no file that the gateway takes. It knows names, kinds, words, bounds of numbers and lists, and what is needed.
// It does not know what depends on another field, nor files, variables, URLs, expressions and the ranges of durations.
func writeSchema(config *protogen.Message) ([]byte, error) {
	defs := members{}
	var wrong []error
	var add func(message *protogen.Message)
	add = func(message *protogen.Message) {
		name := string(message.Desc.Name())
		if _, there := defs[name]; there {
			return
		}
		defs[name] = nil // its fields may hold it again
		object, err := objectOf(message)
		if err != nil {
			wrong = append(wrong, fmt.Errorf("%s: %w", name, err))
		}
		defs[name] = object
		for _, f := range message.Fields {
			if holdsMessage(f) {
				add(f.Message)
			}
		}
	}
	add(config)
	root, _ := defs["Config"].(members)
	delete(defs, "Config")
	if root == nil {
		return nil, errors.New("there is no message Config")
	}
	root["$schema"], root["$id"], root["$defs"] = "https://json-schema.org/draft/2020-12/schema", schemaID, defs
	root["title"] = "The configuration file of bearergate"
	root["$comment"] = "Written by make generate, from proto/bearergate/config/v1/config.proto and tools/configdoc. Change those."

	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(root); err != nil {
		wrong = append(wrong, err)
	}
	return text.Bytes(), errors.Join(wrong...)
}

// holdsMessage reports whether a field has fields of its own.
func holdsMessage(f *protogen.Field) bool {
	return f.Message != nil && f.Message.Desc.FullName() != "google.protobuf.Duration"
}

// objectOf gives the schema of a message.
func objectOf(message *protogen.Message) (members, error) {
	properties, needed := members{}, []string{}
	var wrong []error
	for _, f := range message.Fields {
		name := string(f.Desc.Name())
		property, err := propertyOf(f)
		if err != nil {
			wrong = append(wrong, fmt.Errorf("%s: %w", name, err))
		}
		properties[name] = property
		comment := strings.Join(strings.Fields(lines(f.Comments.Leading)), " ")
		if neededSays.MatchString(comment) || slices.ContainsFunc(expressions(f.Desc), func(e string) bool { return strings.HasPrefix(e, "this.size() > 0 ?") }) {
			needed = append(needed, name)
		}
	}
	object := members{"type": "object", "additionalProperties": false, "properties": properties}
	if comment := strings.Join(strings.Fields(withoutFirstSentence(lines(message.Comments.Leading))), " "); comment != "" {
		object["description"] = comment
	}
	if len(needed) > 0 {
		object["required"] = needed
	}
	rules, _ := proto.GetExtension(message.Desc.Options(), validate.E_Message).(*validate.MessageRules)
	for _, rule := range rules.GetCel() {
		keyword, fields, err := whichOf(rule.GetExpression())
		if err != nil {
			wrong = append(wrong, fmt.Errorf("rule %s: %w", rule.GetId(), err))
			continue
		}
		if f := message.Desc.Fields().ByName(protoreflect.Name(fields[0])); f != nil && f.ContainingOneof() != nil {
			keyword = "oneOf" // which no rule has to say
		}
		ways := []any{}
		for _, name := range fields {
			f := message.Desc.Fields().ByName(protoreflect.Name(name))
			if f == nil {
				wrong = append(wrong, fmt.Errorf("rule %s: there is no field %s", rule.GetId(), name))
				continue
			}
			way := members{"required": []string{name}}
			if f.Message() == nil || f.IsList() { // one that is empty is not there
				way["properties"] = members{name: members{"not": members{"enum": []any{"", false, []any{}}}}}
			}
			ways = append(ways, way)
		}
		object[keyword] = ways
	}
	return object, errors.Join(wrong...)
}

var ofThis = regexp.MustCompile(`this\.([a-z_]+)`)

// whichOf reads a rule about which fields of a message are there: exactly one of some, or at least one.
func whichOf(expression string) (keyword string, fields []string, err error) {
	for _, found := range ofThis.FindAllStringSubmatch(expression, -1) {
		if !slices.Contains(fields, found[1]) {
			fields = append(fields, found[1])
		}
	}
	switch {
	case len(fields) < 2:
	case strings.HasSuffix(expression, " == 1"):
		return "oneOf", fields, nil
	case strings.Contains(expression, " || ") && !strings.Contains(expression, "=="):
		return "anyOf", fields, nil
	}
	return "", nil, errors.New("says something else than which fields are there")
}

// expressions are the rules of a field.
func expressions(f protoreflect.FieldDescriptor) []string {
	rules, _ := proto.GetExtension(f.Options(), validate.E_Field).(*validate.FieldRules)
	var all []string
	for _, rule := range rules.GetCel() {
		all = append(all, rule.GetExpression())
	}
	return all
}

var (
	wordsSay   = regexp.MustCompile(`^this in \[(.*)\]$`)
	entriesSay = regexp.MustCompile(`!\(a in \[([^\]]*)\]\)`)
	formSays   = regexp.MustCompile(`this\.matches\('([^']*)'\)`)
	mostSays   = regexp.MustCompile(`this\.size\(\) (?:<=|>) ([1-9]\d*)\b`)
	numberSays = regexp.MustCompile(`^(\d+) to (\d+)$`)
)

// A scalar that holds a variable may turn out to be anything. A text may stand there without quotes whatever it looks like.
const variable = `\$\{`

// aDuration is what time.ParseDuration reads.
const aDuration = `^[-+]?(0|(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+)$`

// propertyOf gives the schema of a field.
func propertyOf(f *protogen.Field) (members, error) {
	comment := strings.Join(strings.Fields(lines(f.Comments.Leading)), " ")
	property, err := kindSchema(f, comment)
	if err != nil {
		return nil, err
	}
	if f.Desc.IsList() {
		list := members{"type": "array", "items": property}
		for _, expression := range expressions(f.Desc) {
			if found := mostSays.FindStringSubmatch(expression); len(found) > 1 {
				list["maxItems"] = json.Number(found[1])
			}
			if strings.HasPrefix(expression, "this.size() > 0 ?") || strings.HasPrefix(expression, "this.size() == 0 ?") {
				list["minItems"] = 1
			}
		}
		property = list
	}
	property["description"] = comment
	return property, nil
}

func kindSchema(f *protogen.Field, comment string) (members, error) {
	if holdsMessage(f) {
		return members{"$ref": "#/$defs/" + string(f.Message.Desc.Name())}, nil
	}
	said := func(says *regexp.Regexp) string {
		if found := says.FindStringSubmatch(comment); found != nil {
			return found[1]
		}
		return ""
	}
	fallback := said(defaultSays)
	property := members{}
	switch kindOf(f.Desc) {
	case "duration":
		property["anyOf"] = []any{
			members{"type": "string", "pattern": aDuration},
			members{"const": 0},
			members{"type": "string", "pattern": variable},
		}
		if fallback != "" {
			property["default"] = fallback
		}
	case "`true` or `false`":
		property["anyOf"] = []any{members{"type": "boolean"}, members{"type": "string", "pattern": variable}}
		if fallback != "" {
			property["default"] = fallback == "true"
		}
	case "number":
		number := members{"type": "integer", "minimum": 0}
		if found := numberSays.FindStringSubmatch(said(rangeSays)); found != nil {
			number["minimum"], number["maximum"] = json.Number(found[1]), json.Number(found[2])
		}
		property["anyOf"] = []any{number, members{"type": "string", "pattern": variable}}
		if fallback != "" {
			property["default"] = json.Number(fallback)
		}
	case "text", "list of texts":
		if err := textSchema(property, f.Desc); err != nil {
			return nil, err
		}
		if fallback != "" {
			property["default"] = fallback
		}
		if neededSays.MatchString(comment) && !f.Desc.IsList() {
			property["not"] = members{"const": ""}
		}
	default:
		return nil, fmt.Errorf("no schema for the kind %s", f.Desc.Kind())
	}
	return property, nil
}

// textSchema says what a text may be, or each entry of a list of texts.
func textSchema(property members, f protoreflect.FieldDescriptor) error {
	anything := []string{"string", "number", "boolean"}
	property["type"] = anything
	for _, expression := range expressions(f) {
		words := wordsSay
		if f.IsList() {
			words = entriesSay
		}
		if found := words.FindStringSubmatch(expression); found != nil {
			all := []any{}
			for word := range strings.SplitSeq(found[1], ",") {
				word = strings.Trim(strings.TrimSpace(word), "'")
				all = append(all, word)
				// Without quotes YAML takes 1.2 for a number.
				if _, err := strconv.ParseFloat(word, 64); err == nil {
					all = append(all, json.Number(word))
				}
			}
			delete(property, "type")
			property["anyOf"] = []any{members{"enum": all}, members{"type": "string", "pattern": variable}}
			continue
		}
		if found := formSays.FindStringSubmatch(expression); found != nil {
			form := strings.ReplaceAll(found[1], `\\`, `\`)
			if _, err := regexp.Compile(form); err != nil {
				return err
			}
			// Of what is no string here, YAML has changed how it was written: 0660 is a number.
			property["pattern"] = form + "|" + variable
		}
	}
	return nil
}
