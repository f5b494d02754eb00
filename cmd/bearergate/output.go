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
	addChoice(cmd, &o.format, "output", "o", "how to print: text or json", "text", "json")
}

// print writes the value as JSON, or the text.
func (o *output) print(w io.Writer, value any, text string) error {
	var err error
	if o.format == "json" {
		encoder := json.NewEncoder(w)
		encoder.SetEscapeHTML(false)
		err = encoder.Encode(value)
	} else {
		_, err = io.WriteString(w, text)
	}
	if err != nil {
		return &ending{exitUnknown, fmt.Errorf("standard output: %w", err)}
	}
	return nil
}

// choice is a flag with few values.
type choice struct {
	value *string
	all   []string
}

// addChoice adds a flag with few values, of which the first is the default.
func addChoice(cmd *cobra.Command, value *string, name, letter, usage string, all ...string) {
	*value = all[0]
	cmd.Flags().VarP(&choice{value, all}, name, letter, usage)
	must(cmd.RegisterFlagCompletionFunc(name, cobra.FixedCompletions(all, cobra.ShellCompDirectiveNoFileComp)))
}

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
