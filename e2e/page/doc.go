// Package page tests the status page of a gateway as an operator sees it: in real
// Chromium, while the gateway decides about real requests. It also takes the pictures
// of the page that the documentation shows (make screenshots).
//
// It has no code but tests. They need Chromium on the machine (make setup brings
// it), open ports on loopback alone, and leave no process behind.
package page
