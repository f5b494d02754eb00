package config

import (
	"path/filepath"
	"slices"

	configv1 "github.com/bearergate/bearergate/proto/bearergate/config/v1"
	"github.com/bearergate/bearergate/verifier"
)

// surroundings are what the check of a configuration needs besides it.
type surroundings struct {
	folder string // of the configuration file
	lookup func(string) (string, bool)
	wrote  func(path string) bool // whether a field has a value from the file
}

// checkVerifiers sees that each verifier can do its work, and that each is asked.
func checkVerifiers(config *configv1.Config, around surroundings) []finding {
	var found []finding
	for i, v := range config.GetVerifiers() {
		path := item("verifiers", i)
		switch kind := v.GetKind().(type) {
		case *configv1.Verifier_Verifytoken:
			found = append(found, checkVerifytoken(path+".verifytoken", kind.Verifytoken, around.folder)...)
		case *configv1.Verifier_Introspection:
			found = append(found, checkIntrospection(path+".introspection", kind.Introspection, around)...)
		case *configv1.Verifier_Jwt:
			found = append(found, checkKeys(path+".jwt.keys", kind.Jwt.GetKeys(), path+".jwt.issuer", kind.Jwt.GetIssuer(), around)...)
		}
		if calls := v.GetCalls(); calls.GetReserved() >= calls.GetMax() {
			found = append(found, finding{
				path: path + ".calls.reserved", text: "leaves no call for a token that is seen for the first time; write less than calls.max",
				unless: []string{path + ".calls.reserved", path + ".calls.max"},
			})
		}
		switch breaker := v.GetBreaker(); {
		case v.GetJwt() != nil && around.wrote(path+".breaker"):
			found = append(found, finding{path: path + ".breaker", text: "has no use with jwt, which calls nobody for a token; take it out", bare: true})
		case breaker.GetOfLast() < breaker.GetFailures():
			found = append(found, finding{
				path: path + ".breaker.of_last", text: "is less than breaker.failures, so the breaker would never open; write at least as many",
				unless: []string{path + ".breaker.of_last", path + ".breaker.failures"},
			})
		}
		found = append(found, checkTokens(path, v, config, around)...)
	}
	return found
}

// checkTokens sees that it is clear which tokens a verifier is for.
func checkTokens(path string, v *configv1.Verifier, config *configv1.Config, around surroundings) []finding {
	var found []finding
	say := func(field, text string) {
		found = append(found, finding{path: path + "." + field, text: text})
	}
	written := func(text string) {
		for _, field := range []string{"tokens", "issuers"} {
			if around.wrote(path + "." + field) {
				found = append(found, finding{path: path + "." + field, text: text, bare: true, unless: []string{path + "." + field}})
			}
		}
	}
	switch {
	case v.GetJwt() != nil:
		written("has no use with jwt, which is for the JWTs of its issuer; take it out")
		if v.GetBehind() != "" {
			say("behind", "has no use with jwt, which calls nobody; take it out")
		}
	case v.GetBehind() != "":
		written("has no use with behind, which makes it for the JWTs of that verifier's issuer; take it out")
		first := verifierNamed(config, v.GetBehind())
		switch {
		case first == nil:
			say("behind", "is the name of no verifier; write one of a jwt verifier, or add that")
		case first.GetJwt() == nil:
			say("behind", "is the name of a verifier that is not of the kind jwt; write one that is")
		}
	case v.GetTokens() == "opaque" && len(v.GetIssuers()) > 0:
		say("issuers", "has no use with tokens: opaque, which name no issuer; take one of the two out")
	}
	return found
}

func verifierNamed(config *configv1.Config, name string) *configv1.Verifier {
	i := slices.IndexFunc(config.GetVerifiers(), func(v *configv1.Verifier) bool { return v.GetName() == name })
	if i < 0 {
		return nil
	}
	return config.GetVerifiers()[i]
}

// checkAsked sees that a policy's list is one of verifiers, each of which can be asked.
func checkAsked(path string, policy *configv1.Policy, config *configv1.Config) []finding {
	path += ".verifiers"
	names := askedBy(policy, config)
	if len(names) == 0 && len(config.GetVerifiers()) > 1 {
		return []finding{{path: path, text: "is missing, and there are several verifiers; write the names of those that are asked", bare: true}}
	}
	var found []finding
	var before []verifier.Choice
	for i, name := range names {
		v := verifierNamed(config, name)
		if v == nil {
			found = append(found, finding{path: item(path, i), text: "is the name of no verifier; write one that verifiers has", unless: []string{"verifiers"}})
			continue
		}
		choice := choiceOf(v, verifierNamed(config, v.GetBehind()))
		if slices.ContainsFunc(before, func(earlier verifier.Choice) bool { return covers(&earlier, &choice) }) {
			found = append(found, finding{path: item(path, i), text: "is never asked, because all its tokens are for one before it; put it further up, or take it out"})
		}
		before = append(before, choice)
	}
	return found
}

// covers reports whether all tokens that a choice is for are for an earlier one.
func covers(earlier, later *verifier.Choice) bool {
	kind := later.Kind
	if len(later.Issuers) > 0 {
		kind = verifier.JWTToken
	}
	if earlier.Kind != verifier.AnyToken && earlier.Kind != kind {
		return false
	}
	if len(earlier.Issuers) == 0 {
		return true
	}
	return len(later.Issuers) > 0 && !slices.ContainsFunc(later.Issuers, func(issuer string) bool { return !slices.Contains(earlier.Issuers, issuer) })
}

// checkNobodyAsks finds the verifiers that no policy asks.
func checkNobodyAsks(config *configv1.Config, policies ...*configv1.Policy) []finding {
	used := map[string]bool{}
	for _, policy := range policies {
		names := askedBy(policy, config)
		if len(names) == 0 {
			return nil // That is reported.
		}
		for _, name := range names {
			used[name] = true
			used[verifierNamed(config, name).GetBehind()] = true
		}
	}
	var found []finding
	for i, v := range config.GetVerifiers() {
		if !used[v.GetName()] && v.GetName() != "" {
			found = append(found, finding{
				path: item("verifiers", i) + ".name", text: "is asked by nobody; add it to the verifiers of a policy, or take it out",
				unless: []string{"verifiers", item("verifiers", i) + ".name", "default_policy.verifiers"},
			})
		}
	}
	return found
}

func checkIntrospection(path string, endpoint *configv1.Introspection, around surroundings) []finding {
	found := checkEndpoint(path, endpoint.GetUrl(), endpoint.GetAllowPlaintext(), endpoint.GetCaFile(), around.folder)
	client := endpoint.GetClient()
	if client == nil {
		return append(found, finding{path: path + ".client", text: "is missing; write who the gateway is, for example client: {id: gateway, secret: {file: secret.txt}}", bare: true})
	}
	at := path + ".client"
	missing := func(field, text string) {
		found = append(found, finding{path: at + "." + field, text: text, bare: true})
	}
	needed, other := "secret", "private_key"
	secret, unused := client.GetSecret(), client.GetPrivateKey()
	if client.GetAuthentication() == string(verifier.PrivateKeyJWT) {
		needed, other, secret, unused = other, needed, unused, secret
	}
	switch {
	case client.GetAuthentication() == string(verifier.NoClientAuthentication):
		if secret != nil {
			missing(needed, "has no use with authentication: none; take it out")
		}
	case secret == nil:
		missing(needed, "is missing for authentication: "+client.GetAuthentication()+"; write where it is, for example "+needed+": {file: "+needed+".txt}")
	default:
		found = append(found, checkSecret(at+"."+needed, secret, client.GetAuthentication(), around)...)
	}
	if unused != nil {
		missing(other, "has no use with authentication: "+client.GetAuthentication()+"; take it out")
	}
	if client.GetId() == "" && client.GetAuthentication() != string(verifier.NoClientAuthentication) {
		missing("id", "is missing; write the client_id that the authorization server knows the gateway by")
	}
	if signed := endpoint.GetSigned(); signed != nil {
		if signed.GetAudience() == "" && client.GetId() == "" {
			found = append(found, finding{path: path + ".signed.audience", text: "is missing; write the aud of the answers", bare: true, unless: []string{at + ".id"}})
		}
		found = append(found, checkKeys(path+".signed.keys", signed.GetKeys(), path+".signed.issuer", signed.GetIssuer(), around)...)
	}
	return found
}

// checkSecret sees that a secret is there and can be used.
func checkSecret(path string, secret *configv1.Secret, authentication string, around surroundings) []finding {
	at := path + ".file"
	switch {
	case secret.GetEnvironment() != "":
		at = path + ".environment"
		if !isVariable(secret.GetEnvironment()) {
			return []finding{{path: at, text: "is no name of an environment variable; write letters, digits and _", unless: []string{path}}}
		}
	case secret.GetCredential() != "":
		at = path + ".credential"
		if !isCredential(secret.GetCredential()) {
			return []finding{{path: at, text: "is no name of a systemd credential; write the name that stands in LoadCredential=", unless: []string{path}}}
		}
	case secret.GetFile() == "":
		return nil // The rule in config.proto reports it.
	}
	here := &configv1.Secret{Environment: secret.GetEnvironment(), Credential: secret.GetCredential(), File: inFolder(around.folder, secret.GetFile())}
	text, err := secretSource(here, around.lookup)()
	if err != nil {
		return []finding{{path: at, text: err.Error(), unless: []string{path}}}
	}
	if authentication == string(verifier.PrivateKeyJWT) {
		if _, err := verifier.ParsePrivateKey(text); err != nil {
			return []finding{{path: at, text: "cannot be used: " + err.Error() + "; write where a private key is", unless: []string{path}}}
		}
	}
	return nil
}

// checkKeys sees that the keys of an issuer can be had.
func checkKeys(path string, keys *configv1.Keys, issuerPath, issuer string, around surroundings) []finding {
	var found []finding
	switch {
	case keys.GetUrl() != "" && keys.GetFile() != "":
		found = append(found, finding{path: path + ".file", text: "stands beside url, and keys have one place; take one of the two out"})
	case keys.GetUrl() != "":
		found = append(found, checkEndpoint(path, keys.GetUrl(), keys.GetAllowPlaintext(), keys.GetCaFile(), around.folder)...)
	case keys.GetFile() != "":
		text, err := readBounded(inFolder(around.folder, keys.GetFile()), maxKeysBytes)
		if err != nil {
			found = append(found, finding{path: path + ".file", text: err.Error()})
		} else if _, err := verifier.ParseKeySet(text); err != nil {
			found = append(found, finding{path: path + ".file", text: "is no key set that can be used: " + err.Error() + "; write where one is"})
		}
		if keys.GetCaFile() != "" {
			found = append(found, finding{path: path + ".ca_file", text: "has no use with a file of keys; take one of the two out"})
		}
	case issuer != "":
		if _, err := parseEndpoint(issuer, keys.GetAllowPlaintext()); err != nil {
			found = append(found, finding{path: issuerPath, text: err.Error() + "; or write keys.url or keys.file, since without them the issuer's metadata are asked", bare: true})
		} else if file := keys.GetCaFile(); file != "" {
			if err := checkCAFile(inFolder(around.folder, file)); err != nil {
				found = append(found, finding{path: path + ".ca_file", text: err.Error()})
			}
		}
	}
	if keys.GetRefreshEvery().AsDuration() < keys.GetPause().AsDuration() {
		found = append(found, finding{
			path: path + ".refresh_every", text: "is less than keys.pause, and so the keys would be old before they may be fetched again; write at least as long",
			unless: []string{path + ".refresh_every", path + ".pause"},
		})
	}
	if keys.GetMaxAge().AsDuration() < keys.GetRefreshEvery().AsDuration() {
		found = append(found, finding{
			path: path + ".max_age", text: "is less than keys.refresh_every, and so there would be times without keys; write at least as long",
			unless: []string{path + ".max_age", path + ".refresh_every"},
		})
	}
	return found
}

// checkEndpoint sees that a URL can be asked, and by whom its certificate is signed.
func checkEndpoint(path, url string, plaintext bool, caFile, folder string) []finding {
	var found []finding
	at, err := parseEndpoint(url, plaintext)
	if err != nil && url != "" {
		found = append(found, finding{path: path + ".url", text: err.Error(), bare: true})
	}
	if caFile != "" {
		if at != nil && at.Scheme != "https" {
			found = append(found, finding{path: path + ".ca_file", text: "has no use with an http URL; write an https URL, or take ca_file out"})
		} else if err := checkCAFile(inFolder(folder, caFile)); err != nil {
			found = append(found, finding{path: path + ".ca_file", text: err.Error()})
		}
	}
	return found
}

// resolveVerifierFiles makes the paths that verifiers name independent of where the configuration's own file lies.
func resolveVerifierFiles(config *configv1.Config, file string) {
	resolve := func(path *string) {
		if path != nil && *path != "" {
			*path = inFolder(filepath.Dir(file), *path)
		}
	}
	keys := func(k *configv1.Keys) {
		if k != nil {
			resolve(&k.File)
			resolve(&k.CaFile)
		}
	}
	for _, v := range config.GetVerifiers() {
		switch kind := v.GetKind().(type) {
		case *configv1.Verifier_Verifytoken:
			resolve(&kind.Verifytoken.CaFile)
		case *configv1.Verifier_Introspection:
			resolve(&kind.Introspection.CaFile)
			for _, secret := range []*configv1.Secret{kind.Introspection.GetClient().GetSecret(), kind.Introspection.GetClient().GetPrivateKey()} {
				if secret != nil {
					resolve(&secret.File)
				}
			}
			keys(kind.Introspection.GetSigned().GetKeys())
		case *configv1.Verifier_Jwt:
			keys(kind.Jwt.GetKeys())
		}
	}
}
