package crmnow_test

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/bearergate/bearergate/crmnow"
)

func TestSecretDoesNotShowItself(t *testing.T) {
	const value = "s3cr3t-value"
	s := crmnow.NewSecret(value)
	type exported struct{ S crmnow.Secret }
	type unexported struct{ s crmnow.Secret }
	printed := []any{
		s, &s,
		exported{s},
		&exported{s},
		unexported{s},
		&unexported{s},
		[]crmnow.Secret{s},
		map[string]crmnow.Secret{"a": s},
		crmnow.Grant{AccessToken: s},
	}
	for _, v := range printed {
		for verb := range strings.FieldsSeq("%v %+v %#v %s %q %x %X %d %t %c %U %e %p %08.3f") {
			expectHidden(t, fmt.Sprintf(verb, v), value, fmt.Sprintf("%x", value), fmt.Sprintf("%X", value))
		}
		text, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		expectHidden(t, string(text), value)
		var log bytes.Buffer
		slog.New(slog.NewTextHandler(&log, nil)).Info("text", slog.Any("value", v))
		slog.New(slog.NewJSONHandler(&log, nil)).Info("json", slog.Any("value", v))
		expectHidden(t, log.String(), value)
	}
	if text, err := xml.Marshal(exported{s}); err != nil {
		t.Error(err)
	} else {
		expectHidden(t, string(text), value)
	}
	if got := fmt.Sprintf("%s %v %#v ", s, s, s) + s.GoString(); got != "(hidden) (hidden) (hidden) (hidden)" {
		t.Errorf("a secret shows as %s", got)
	}
}

func TestSecret(t *testing.T) {
	s, none := crmnow.NewSecret("abc"), crmnow.NewSecret("")
	if s.Reveal() != "abc" || s.IsZero() {
		t.Error("a secret does not hold its value")
	}
	if none.Reveal() != "" || !none.IsZero() || none.String() != "(none)" {
		t.Error("an empty value is no zero Secret")
	}
	if !s.Equal(crmnow.NewSecret("abc")) || s.Equal(crmnow.NewSecret("abd")) || s.Equal(none) || !none.Equal(crmnow.Secret{}) {
		t.Error("secrets are not compared by value")
	}
}
