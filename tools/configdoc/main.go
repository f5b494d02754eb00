// Configdoc writes docs/configuration.md, the page of every field of the configuration file: as a plugin of buf, from
// the comments in config.proto, so that what operators read is what the schema says. With the option output=schema it
// writes the JSON Schema for editors instead, config/bearergate.schema.json.
//
// A test in config/ holds those comments against the code. The examples of refusals come from the files and messages
// that another test there compares (its folder is the plugin's option refused), and the words around all this from
// configuration.md.tmpl. The page holds nothing that is written twice.
package main

import (
	"bytes"
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"text/template"

	"google.golang.org/protobuf/compiler/protogen"
	"google.golang.org/protobuf/reflect/protoreflect"
)

//go:embed configuration.md.tmpl
var page string

func main() {
	var options flag.FlagSet
	refused := options.String("refused", "", "folder of refused files, each with its message in a .txt beside it")
	output := options.String("output", "page", "what to write: page or schema")
	protogen.Options{ParamFunc: options.Set}.Run(func(plugin *protogen.Plugin) error {
		for _, file := range plugin.Files {
			if !file.Generate {
				continue
			}
			for _, message := range file.Messages {
				if message.Desc.FullName() != "bearergate.config.v1.Config" {
					continue
				}
				name := "configuration.md"
				content := func() ([]byte, error) { return write(message, *refused) }
				if *output == "schema" {
					name, content = "bearergate.schema.json", func() ([]byte, error) { return writeSchema(message) }
				}
				text, err := content()
				if err != nil {
					return err
				}
				_, err = plugin.NewGeneratedFile(name, "").Write(text)
				return err
			}
		}
		return nil
	})
}

// write gives the page for the message that is the whole file.
func write(config *protogen.Message, refused string) ([]byte, error) {
	sections, err := sectionsOf(config)
	if err != nil {
		return nil, err
	}
	parsed, err := template.New("configuration.md").Option("missingkey=error").Funcs(template.FuncMap{
		"plain": plain,
		"code":  code,
		"refused": func(name string) (refusal, error) {
			return readRefusal(refused, name)
		},
	}).Parse(page)
	if err != nil {
		return nil, err
	}
	var text bytes.Buffer
	err = parsed.Execute(&text, map[string]any{
		"File":     withoutFirstSentence(lines(config.Comments.Leading)),
		"Sections": sections,
	})
	return text.Bytes(), err
}

// section is a message of the file and the values in it.
type section struct {
	// Path is where it stands, such as verifiers[].verifytoken; empty for the file itself.
	Path string
	// Comment says what it is for.
	Comment string
	Fields  []field
	// Like is the path of an earlier section with the same fields, which are not listed again.
	Like string
}

// field is a line that an operator may write.
type field struct {
	Name, Kind, Default, Range, Comment string
}

// sectionsOf gives the message and all that it holds, in the order of the schema.
func sectionsOf(config *protogen.Message) ([]section, error) {
	var all []section
	var wrong []error
	first := map[protoreflect.FullName]string{} // the path at which a message came first
	var walk func(path, comment string, message *protogen.Message)
	walk = func(path, comment string, message *protogen.Message) {
		// The fields of a message may hold messages, whose sections come behind it.
		here := section{Path: path, Comment: comment}
		first[message.Desc.FullName()] = path
		at := len(all)
		all = append(all, here)
		for _, f := range message.Fields {
			inner := strings.TrimPrefix(path+"."+string(f.Desc.Name()), ".")
			comment := lines(f.Comments.Leading)
			if comment == "" {
				wrong = append(wrong, fmt.Errorf("%s has no comment", inner))
			}
			if holdsMessage(f) {
				if f.Desc.IsList() {
					inner += "[]"
				}
				if like, again := first[f.Message.Desc.FullName()]; again {
					all = append(all, section{Path: inner, Comment: comment, Like: like})
					continue
				}
				comment += " " + withoutFirstSentence(lines(f.Message.Comments.Leading))
				if f.Oneof != nil {
					comment = lines(f.Oneof.Comments.Leading) + " " + comment
				}
				walk(inner, strings.TrimSpace(comment), f.Message)
				continue
			}
			value, err := valueOf(f, comment)
			if err != nil {
				wrong = append(wrong, fmt.Errorf("%s: %w", inner, err))
			}
			here.Fields = append(here.Fields, value)
		}
		all[at] = here
	}
	walk("", "", config)
	return all, errors.Join(wrong...)
}

var (
	defaultSays = regexp.MustCompile(`(?:^| )Default: (\S+)\.( |$)`)
	rangeSays   = regexp.MustCompile(`(?:^| )Range: (\S+ to \S+)\.( |$)`)
	neededSays  = regexp.MustCompile(`(?:^| )Needed\.( |$)`)
	// absentSays is what stands in the place of a default where there is none to name.
	absentSays = regexp.MustCompile(`(?:^| )Without it, ([^.]+)\.( |$)`)
)

// valueOf takes what a comment says about a field apart.
func valueOf(f *protogen.Field, comment string) (field, error) {
	value := field{Name: string(f.Desc.Name()), Kind: kindOf(f.Desc)}
	if value.Kind == "" {
		return field{}, fmt.Errorf("no name for the kind %s", f.Desc.Kind())
	}
	comment = strings.Join(strings.Fields(comment), " ")
	take := func(says *regexp.Regexp) string {
		found := says.FindStringSubmatch(comment)
		if found == nil {
			return ""
		}
		comment = strings.TrimSpace(strings.Replace(comment, found[0], " ", 1))
		return found[1]
	}
	needed := neededSays.MatchString(comment)
	take(neededSays)
	if value.Default = take(defaultSays); value.Default != "" {
		value.Default = "`" + value.Default + "`"
	} else {
		value.Default = take(absentSays)
	}
	value.Range = take(rangeSays)
	value.Comment = comment
	switch {
	case needed && value.Default != "":
		return field{}, errors.New("the comment says Needed, and names a default")
	case needed:
		value.Default = "needed"
	case value.Default == "":
		return field{}, errors.New("the comment says neither Default nor Needed, nor what is so without it")
	}
	return value, nil
}

// kindOf says what is to be written; it is empty for a kind that the configuration has not.
func kindOf(f protoreflect.FieldDescriptor) string {
	switch {
	case f.IsList() && f.Kind() == protoreflect.StringKind:
		return "list of texts"
	case f.IsList() || f.IsMap():
		return ""
	case f.Message() != nil: // sectionsOf lets nothing else pass.
		return "duration"
	case f.Kind() == protoreflect.StringKind:
		return "text"
	case f.Kind() == protoreflect.BoolKind:
		return "`true` or `false`"
	case f.Kind() == protoreflect.Uint32Kind:
		return "number"
	}
	return ""
}

// lines gives the text of a comment, without the blank that each line begins with.
func lines(comment protogen.Comments) string {
	text := strings.Split(strings.TrimSuffix(string(comment), "\n"), "\n")
	for i := range text {
		text[i] = strings.TrimPrefix(text[i], " ")
	}
	return strings.Join(text, "\n")
}

var sentenceEnds = regexp.MustCompile(`\.\s+`)

// withoutFirstSentence drops what the comment of a message says for the reader of the schema: what it is.
func withoutFirstSentence(comment string) string {
	end := sentenceEnds.FindStringIndex(comment)
	if end == nil {
		return ""
	}
	return comment[end[1]:]
}

// refusal is a mistake and what the operator is told about it.
type refusal struct {
	Name, Written, Message string
}

// readRefusal reads one mistake of the folder: the line that is wrong, and the message without the file's name.
func readRefusal(folder, name string) (refusal, error) {
	file, err := os.ReadFile(filepath.Join(folder, name+".yaml"))
	if err != nil {
		return refusal{}, err
	}
	messages, err := os.ReadFile(filepath.Join(folder, name+".txt"))
	if err != nil {
		return refusal{}, err
	}
	first, _, _ := strings.Cut(string(messages), "\n")
	found := regexp.MustCompile(`^[^:]+:(\d+):\d+: (.+)$`).FindStringSubmatch(first)
	if found == nil {
		return refusal{}, fmt.Errorf("%s.txt does not begin with file:line:column", name)
	}
	number, err := strconv.Atoi(found[1])
	written := strings.Split(string(file), "\n")
	if err != nil || number > len(written) {
		return refusal{}, fmt.Errorf("%s.txt names line %s of %d", name, found[1], len(written))
	}
	return refusal{
		Name:    strings.ReplaceAll(name, "-", " "),
		Written: strings.TrimSpace(written[number-1]),
		Message: found[2],
	}, nil
}

// plain writes a text into Markdown as it stands, in one line that fits into a cell of a table.
func plain(text string) string {
	return strings.NewReplacer(`\`, `\\`, "|", `\|`, "*", `\*`, "<", `\<`, "`", "\\`").Replace(strings.Join(strings.Fields(text), " "))
}

// code writes a text as code that fits into a cell of a table.
func code(text string) (string, error) {
	if strings.ContainsAny(text, "`\n") {
		return "", fmt.Errorf("cannot be written as code: %q", text)
	}
	return "`" + strings.ReplaceAll(text, "|", `\|`) + "`", nil
}
