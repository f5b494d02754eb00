package main

import (
	"errors"
	"os"
	"runtime/pprof"
)

// profile writes where the processor's time goes into a file, or a new one if the
// name is a folder's, until the function that it returns is called. Without a name
// it does nothing.
func profile(name string) (stop func() error, err error) {
	if name == "" {
		return func() error { return nil }, nil
	}
	var file *os.File
	if info, failed := os.Stat(name); failed == nil && info.IsDir() {
		file, err = os.CreateTemp(name, "bearergate-*.pprof")
	} else {
		file, err = os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	}
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(file); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return func() error {
		pprof.StopCPUProfile()
		return file.Close()
	}, nil
}
