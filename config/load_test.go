package config_test

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bearergate/bearergate/config"
)

var update = flag.Bool("update", false, "write the messages of the refused files again; read the difference before you keep it")

// The environment of the files in testdata.
func setVariables(t *testing.T) {
	for name, value := range map[string]string{
		"EMPTY":  "",
		"SECRET": "s3cr3t",
		"HOUR":   "1h",
		"LATIN1": "\xfc",
		"YAML":   "{host: 127.0.0.1, port: 9191}",
	} {
		t.Setenv(name, value)
	}
}

// Each file in testdata/refused has one mistake, or several where its name says so, and beside it the text that the
// operator sees.
func TestWrongFilesAreRefusedWithLineFieldAndRemedy(t *testing.T) {
	t.Chdir("testdata/refused")
	setVariables(t)
	files, err := filepath.Glob("*.yaml")
	if err != nil || len(files) < 30 {
		t.Fatalf("found %d files, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(file, ".yaml"), func(t *testing.T) {
			got, err := config.Load(file)
			if err == nil {
				t.Fatalf("accepted as %v", got)
			}
			if got != nil {
				t.Errorf("an error, and half a configuration too: %v", got)
			}
			var problems *config.Error
			if !errors.As(err, &problems) || len(problems.Problems) == 0 {
				t.Fatalf("%T without problems: %v", err, err)
			}
			for _, problem := range problems.Problems {
				if problem.File != file || problem.Line < 1 || problem.Column < 1 || problem.Text == "" {
					t.Errorf("not whole: %#v", problem)
				}
			}
			if strings.Contains(err.Error(), os.Getenv("SECRET")) {
				t.Errorf("shows what a variable holds: %v", err)
			}

			golden := strings.TrimSuffix(file, ".yaml") + ".txt"
			if *update {
				if err := os.WriteFile(golden, []byte(err.Error()+"\n"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, readErr := os.ReadFile(golden)
			if readErr != nil {
				t.Fatal(readErr)
			}
			if got := err.Error() + "\n"; got != string(want) {
				t.Errorf("\ngot:\n%s\nwant:\n%s", got, want)
			}
		})
	}
}
