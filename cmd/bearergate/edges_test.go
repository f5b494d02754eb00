package main

import (
	"fmt"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/signal"
	"regexp"
	"syscall"
	"time"
)

// openDoor is an edge that reads nginx's configuration and asks nobody: every
// request goes on to the API, token and all.
func openDoor() {
	text, err := os.ReadFile(argument("-c"))
	if err != nil {
		panic(err)
	}
	edge := regexp.MustCompile(`\n\s*listen (\S+);`).FindSubmatch(text)[1]
	api := regexp.MustCompile(`upstream api \{[^}]*?server (\S+);`).FindSubmatch(text)[1]
	server := &http.Server{
		Addr:              string(edge),
		Handler:           httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: string(api)}),
		ReadHeaderTimeout: 10 * time.Second,
	}
	panic(server.ListenAndServe()) // until it is killed
}

// dyingProxy is an edge that does not start.
func dyingProxy() {
	fmt.Fprintln(os.Stderr, "the bind() failed, as the operator should read")
	os.Exit(1)
}

// deafProxy is an edge that starts and never listens.
func deafProxy() {
	told := make(chan os.Signal, 1)
	signal.Notify(told, syscall.SIGTERM)
	fmt.Fprintln(os.Stderr, "started")
	<-told
}

func argument(name string) string {
	for i, arg := range os.Args[:len(os.Args)-1] {
		if arg == name {
			return os.Args[i+1]
		}
	}
	return ""
}
