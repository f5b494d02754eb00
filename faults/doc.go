// Package faults tests what partners see while the endpoint is in trouble.
//
// It has no code but tests. Each runs whole gateways in this process, made of a
// configuration file's text and asked through their listeners, and between them
// and the emulator of package crmnow a network that fails: toxiproxy, with two
// kinds of trouble of its own, name servers and certificates that go bad. All
// of it is on loopback, with real sockets and the real clock.
//
// What has to hold in every trouble: a token that is known to be good goes on, a
// 401 is never due to the trouble, nothing is allowed without a good answer, and
// when the trouble ends all is well again by itself, with nothing left behind.
// Times are logged and not judged.
package faults
