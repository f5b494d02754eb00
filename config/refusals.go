package config

import (
	"fmt"
	"slices"

	"github.com/bearergate/bearergate/gate"
	"github.com/bearergate/bearergate/policy"
	configv1 "github.com/bearergate/bearergate/proto/bearergate/config/v1"
	"github.com/bearergate/bearergate/verifier"
)

const (
	bodyProblem  = "problem"
	bodyTemplate = "template"
)

// wording makes of a policy's refusal how it is worded.
func wording(r *configv1.Refusal) gate.Wording {
	w := gate.Wording{ResourceMetadata: r.GetResourceMetadata()}
	switch r.GetBody() {
	case bodyProblem:
		w.Problem, w.ProblemTypes = true, r.GetProblemTypes()
	case bodyTemplate:
		w.Template, w.ContentType = r.GetTemplate(), r.GetContentType()
		if w.ContentType == "" {
			w.ContentType = "application/json"
		}
	}
	return w
}

// checkRefusal sees that a policy's refusals can be made, and that nothing is written
// that has no effect.
func checkRefusal(at string, p *configv1.Policy) []finding {
	r := p.GetRefusal()
	if r == nil {
		return nil
	}
	at += ".refusal"
	var found []finding
	for _, of := range []struct {
		body, field string
		set         bool
	}{
		{bodyProblem, "problem_types", r.GetProblemTypes() != ""},
		{bodyTemplate, "template", r.GetTemplate() != ""},
		{bodyTemplate, "content_type", r.GetContentType() != ""},
	} {
		if of.set && r.GetBody() != of.body {
			found = append(found, finding{
				path: at + "." + of.field, text: "has no effect unless body is " + of.body + "; write body: " + of.body + ", or take it out", bare: true,
				unless: []string{at + ".body"},
			})
		}
	}
	if r.GetBody() == bodyTemplate && r.GetTemplate() == "" {
		found = append(found, finding{path: at + ".template", text: "is missing; write the body, for example '{\"error\":\"{{.detail}}\"}'", bare: true})
	}
	name := p.GetName()
	if name == "" {
		name = policy.DefaultName
	}
	for _, mistake := range gate.CheckWording(wording(r), name, p.GetRealm()) {
		found = append(found, finding{path: at + "." + mistake.Field, text: mistake.Text, bare: mistake.Field == "template"})
	}
	return found
}

// metadata makes of a policy's metadata what the edge is told.
func metadata(m *configv1.Metadata) gate.Metadata {
	made := gate.Metadata{Fingerprint: m.GetFingerprint()}
	for _, c := range m.GetClaims() {
		made.Claims = append(made.Claims, gate.MetadataClaim{Name: c.GetName(), Path: c.GetClaim()})
	}
	return made
}

// checkMetadata sees that Envoy can be told what a policy tells of tokens.
func checkMetadata(at string, m *configv1.Metadata) []finding {
	if m == nil {
		return nil
	}
	at += ".metadata"
	var found []finding
	if !m.GetFingerprint() && len(m.GetClaims()) == 0 {
		found = append(found, finding{path: at, text: "tells nothing; write fingerprint: true or claims, or take it out", bare: true})
	}
	seen := map[string]string{}
	for i, c := range m.GetClaims() {
		claim := item(at+".claims", i)
		if err := gate.CheckMetadataName(c.GetName()); err != nil {
			found = append(found, finding{path: claim + ".name", text: err.Error()})
		} else if first, twice := seen[c.GetName()]; twice {
			found = append(found, finding{path: claim + ".name", text: "is also the name of " + first + "; write another name, or keep one of them"})
		} else {
			seen[c.GetName()] = claim
		}
		if len(c.GetClaim()) == 0 {
			found = append(found, finding{path: claim + ".claim", text: "is missing; write the claim's name, or the names that lead to it, for example [realm_access, roles]", bare: true})
		}
		found = append(found, checkClaim(claim+".claim", c.GetClaim())...)
	}
	return found
}

// checkClaim sees that names lead to a claim.
func checkClaim(at string, names []string) []finding {
	switch {
	case len(names) > verifier.MaxClaimsDepth:
		return []finding{{path: at, text: fmt.Sprintf("has more names than a token is deep; write at most %d", verifier.MaxClaimsDepth), bare: true}}
	case slices.Contains(names, ""):
		return []finding{{path: at, text: "has an empty name; take it out", bare: true}}
	default:
		return nil
	}
}
