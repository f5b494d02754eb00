// Package config turns the configuration file into a checked message, and the message into running parts.
//
// [Load] and [Parse] refuse a file that is wrong in any way, with every problem they can find at once: file, line,
// column, field, what is wrong and what to write instead. What they return is whole: every default is filled in, every
// rule holds. The fields, their defaults and their ranges are described in proto/bearergate/config/v1/config.proto.
package config

import (
	"os"
	"path/filepath"

	"buf.build/go/protoyaml"
	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/proto"

	configv1 "github.com/bearergate/bearergate/proto/bearergate/config/v1"
)

// maxFileBytes is the size of the largest file that is read. A real one has a few kilobytes.
const maxFileBytes = 1 << 20

// Load reads the configuration from the file at path, with the values of environment variables put in. See [Parse] for
// what it returns; a file that cannot be read is a problem like the others.
func Load(path string) (*configv1.Config, error) {
	read, err := Read(path)
	if err != nil {
		return nil, err
	}
	return read.Config, nil
}

// Reading is a configuration with what is known of how it was written.
type Reading struct {
	// Config is what [Load] returns.
	Config *configv1.Config
	// Warnings are what is allowed and hardly meant, in the order of the file.
	Warnings []Problem

	places map[string]place
}

// Read is [Load] for those who want to know more.
func Read(path string) (*Reading, error) {
	data, file, err := readFile(path, 0)
	if err != nil {
		return nil, err
	}
	if file != nil {
		_ = file.Close()
	}
	return read(path, data, os.LookupEnv)
}

// Parse reads a configuration from data, which is YAML: one document in UTF-8 of at most 1 MiB, without anchors,
// aliases and tags. The name of the file stands in errors, and the files that the configuration names relative to it
// are looked for in its folder, read and checked; ca_file holds its whole path afterwards.
//
// In a value, ${NAME} stands for what lookup returns for NAME, and $${ for a plain ${. Keys and comments are left alone.
// A variable's content is data: it is never read as YAML.
//
// The message that Parse returns is filled in as by [WithDefaults], and all rules hold for it. An error is an [*Error].
// Parse keeps nothing and may be called from several goroutines.
func Parse(name string, data []byte, lookup func(string) (string, bool)) (*configv1.Config, error) {
	read, err := read(name, data, lookup)
	if err != nil {
		return nil, err
	}
	return read.Config, nil
}

func read(name string, data []byte, lookup func(string) (string, bool)) (*Reading, error) {
	root, problem := parseYAML(data)
	if problem != nil {
		problem.File = name
		return nil, &Error{Problems: []Problem{*problem}}
	}

	read := newTree(name, root, lookup)
	config := &configv1.Config{}
	read.message("", root, config.ProtoReflect().Descriptor())
	if err := decode(name, data, root, config); err != nil {
		// The tree let something pass that protoyaml does not. Its error may hold a value, so only the place is told.
		return nil, &Error{Problems: append(read.problems, unread(name, err))}
	}

	fill(config, read.wrote)
	policies, wrong := check(config, surroundings{folder: filepath.Dir(name), lookup: lookup, wrote: read.wrote})
	for _, found := range wrong {
		read.report(found)
	}
	read.reportClamped()
	if len(read.problems) > 0 {
		err := &Error{Problems: read.problems}
		err.sort()
		return nil, err
	}
	for _, found := range policies.warnings(config) {
		read.report(finding{path: found.Field, text: found.Text, bare: true})
	}
	warnings := &Error{Problems: read.problems}
	warnings.sort()
	resolveFiles(config, name)
	return &Reading{Config: config, Warnings: warnings.Problems, places: read.places}, nil
}

// decode has protoyaml read what is left of the tree: the fields that are known, once each, with variables put in.
func decode(name string, data []byte, root *yaml.Node, config *configv1.Config) error {
	return protoyaml.UnmarshalOptions{
		Path:              name,
		CustomUnmarshaler: substitute{root: root},
	}.Unmarshal(data, config)
}

// substitute makes protoyaml read a tree of ours in the place of the one that it has just read from the same bytes.
type substitute struct{ root *yaml.Node }

// Unmarshal implements [protoyaml.CustomUnmarshaler].
func (s substitute) Unmarshal(node *yaml.Node, message proto.Message) (bool, error) {
	if _, ok := message.(*configv1.Config); ok {
		*node = *s.root
	}
	return false, nil
}
