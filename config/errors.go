package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// maxShown is how many problems the text of an [Error] holds at most. A file that is wrong all over (not a
// configuration at all, say) would push the first of them off the screen.
const maxShown = 50

// Problem is one thing that is wrong with a configuration, and what to write instead. It holds no value that came from
// the environment.
type Problem struct {
	// File is the name of the configuration file as it was given.
	File string
	// Line and Column say where in the file, in lines and characters from 1. Both are 0 when the file could not be read.
	Line, Column int
	// Field is the path of the field, such as verifiers[0].verifytoken.url; empty when it is about the whole file.
	Field string
	// Text says what is wrong and what to write instead.
	Text string
}

// String gives the problem in one line: file:line:column: field: text, without the parts that are not known.
func (p Problem) String() string {
	var line strings.Builder
	line.WriteString(p.File)
	if p.Line > 0 {
		fmt.Fprintf(&line, ":%d:%d", p.Line, p.Column)
	}
	if p.Field != "" {
		line.WriteString(": ")
		line.WriteString(p.Field)
	}
	line.WriteString(": ")
	line.WriteString(p.Text)
	return line.String()
}

// Error is all that is wrong with a configuration. It is what [Load] and [Parse] return when they return an error.
type Error struct {
	// Problems are in the order of the file. There is at least one.
	Problems []Problem

	cause error // why the file could not be read, when that is the problem
}

// Error gives one line for each problem, and says how many it left out when there are more than fifty.
func (e *Error) Error() string {
	lines := make([]string, 0, min(len(e.Problems), maxShown)+1)
	for i, problem := range e.Problems {
		if i == maxShown {
			lines = append(lines, fmt.Sprintf("and %d more; put these right first", len(e.Problems)-maxShown))
			break
		}
		lines = append(lines, problem.String())
	}
	return strings.Join(lines, "\n")
}

// Unwrap gives the error of the file system when the file could not be read, else nil.
func (e *Error) Unwrap() error { return e.cause }

func (e *Error) sort() {
	slices.SortStableFunc(e.Problems, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
}
