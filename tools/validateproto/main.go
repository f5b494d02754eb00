// Validateproto writes buf/validate/validate.proto, which config.proto imports for its rules, into the folder that
// is its one argument.
//
// The usual place for that file is the Buf Schema Registry. The Go package of the same rules comes through the Go
// module proxy, pinned and with a checksum like every module, and its descriptor says all that the file says; so
// buf finds the file without asking any other host.
package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"github.com/jhump/protoreflect/v2/protoprint"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "validateproto:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 1 {
		return errors.New("usage: validateproto FOLDER")
	}
	file := validate.File_buf_validate_validate_proto
	var text bytes.Buffer
	fmt.Fprintln(&text, "// Written by tools/validateproto. Do not edit.")
	if err := (&protoprint.Printer{}).PrintProtoFile(file, &text); err != nil {
		return fmt.Errorf("print %s: %w", file.Path(), err)
	}
	name := filepath.Join(args[0], filepath.FromSlash(file.Path()))
	if old, err := os.ReadFile(name); err == nil && bytes.Equal(old, text.Bytes()) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	return os.WriteFile(name, text.Bytes(), 0o644)
}
