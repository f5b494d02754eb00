package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"
)

// maxSecretBytes bounds what is read as a secret or a token.
const maxSecretBytes = 64 << 10

// readSecret returns what a file holds, or standard input if the file is "-",
// or else the environment variable, without the line break at its end. Secrets
// are never arguments: every user of the machine can read those.
func readSecret(cmd *cobra.Command, what, file, flag, variable string) (string, error) {
	switch {
	case file == "-":
		return readOne(cmd.InOrStdin(), what, "standard input")
	case file != "":
		f, err := os.Open(file)
		if err != nil {
			return "", fmt.Errorf("the %s from --%s: %w", what, flag, bareFileError(err))
		}
		defer f.Close()
		return readOne(f, what, "--"+flag)
	}
	if value := os.Getenv(variable); variable != "" && value != "" {
		return value, nil
	}
	if variable == "" {
		return "", fmt.Errorf("no %s; give --%s FILE, or - for standard input", what, flag)
	}
	return "", fmt.Errorf("no %s; give --%s FILE (- for standard input), or set %s", what, flag, variable)
}

func readOne(r io.Reader, what, from string) (string, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxSecretBytes+1))
	switch {
	case err != nil:
		return "", fmt.Errorf("the %s from %s: %w", what, from, bareFileError(err))
	case len(text) > maxSecretBytes:
		return "", fmt.Errorf("the %s from %s is longer than %d bytes", what, from, maxSecretBytes)
	}
	value := strings.TrimRight(string(text), "\r\n")
	if value == "" {
		return "", errors.New("the " + what + " from " + from + " is empty")
	}
	return value, nil
}

// bareFileError leaves out the name of the file: it may be the secret itself,
// given where the name of its file should stand.
func bareFileError(err error) error {
	if path, ok := errors.AsType[*fs.PathError](err); ok {
		return path.Err
	}
	return err
}
