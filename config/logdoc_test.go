package config_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestTheDocsSayWhatEachLineOfTheLogMeans, for who is woken by one: each message that
// the code writes stands in the tables, whole or shortened.
func TestTheDocsSayWhatEachLineOfTheLogMeans(t *testing.T) {
	var told []string // what stands in code quotes; one that ends in … is the beginning of a message
	for _, name := range []string{"operations.md", "logs.md"} {
		text, err := os.ReadFile("../docs/" + name)
		if err != nil {
			t.Fatal(err)
		}
		for i, part := range strings.Split(string(text), "`") {
			if i%2 == 1 {
				told = append(told, part)
			}
		}
	}
	var files []string
	for _, room := range []string{"admin", "authrequest", "bearer", "cmd/bearergate", "config", "extauthz", "gate", "listen", "policy", "talkers", "traces", "verifier", "watch"} {
		found, err := filepath.Glob("../" + room + "/*.go")
		if err != nil || len(found) == 0 {
			t.Fatalf("%s: %v", room, err)
		}
		files = append(files, found...)
	}
	messages := 0
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") || filepath.Base(file) == "emulate.go" { // which is no gateway
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(parsed, func(n ast.Node) bool {
			if message, ok := logged(n); ok {
				messages++
				if !slices.ContainsFunc(told, func(one string) bool {
					begin, short := strings.CutSuffix(one, "…")
					return one == message || short && len(begin) > 10 && strings.HasPrefix(message, begin[:len(begin)-1])
				}) {
					t.Errorf("%s logs %q, and docs/operations.md does not say what it means", file, message)
				}
			}
			return true
		})
	}
	if messages < 40 {
		t.Errorf("%d messages were found; what finds them does not do so any more", messages)
	}
}

// logged returns the message that a call logs, if it is one that does.
func logged(n ast.Node) (string, bool) {
	call, ok := n.(*ast.CallExpr)
	if !ok {
		return "", false
	}
	of, ok := call.Fun.(*ast.SelectorExpr)
	if !ok || !slices.Contains([]string{"Debug", "Info", "Warn", "Error", "Log", "LogAttrs", "refusals", "audit"}, of.Sel.Name) {
		return "", false
	}
	if x, ok := of.X.(*ast.Ident); ok && x.Name == "http" { // http.Error
		return "", false
	}
	for _, argument := range call.Args {
		if literal, ok := argument.(*ast.BasicLit); ok && literal.Kind == token.STRING {
			message, err := strconv.Unquote(literal.Value)
			return message, err == nil
		}
	}
	return "", false
}
