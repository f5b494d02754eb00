package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// output is what --output chooses: text for people, or json for scripts.
type output struct{ format string }

func (o *output) flag(cmd *cobra.Command) {
	cmd.Flags().VarP(newChoice(&o.format, "text", "json"), "output", "o", "how to print: text or json")
	must(cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"text", "json"}, cobra.ShellCompDirectiveNoFileComp)))
}

// print writes the value as JSON, or the text.
func (o *output) print(w io.Writer, value any, text string) error {
	if o.format != "json" {
		_, err := io.WriteString(w, text)
		return err
	}
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	return encoder.Encode(value)
}

// choice is a flag with few values.
type choice struct {
	value *string
	all   []string
}

func newChoice(value *string, all ...string) *choice { *value = all[0]; return &choice{value, all} }

// Set takes one of the values.
func (c *choice) Set(value string) error {
	if !slices.Contains(c.all, value) {
		return fmt.Errorf("write one of %s", strings.Join(c.all, ", "))
	}
	*c.value = value
	return nil
}

// String returns the value that is chosen.
func (c *choice) String() string {
	if c.value == nil { // the flag package asks a zero value
		return ""
	}
	return *c.value
}

// Type names the value in the help.
func (c *choice) Type() string { return "WORD" }
