package crmnow

import (
	"maps"
	"slices"
)

// AllRefusals are those that have a reply.
func AllRefusals() []Refusal { return slices.Sorted(maps.Keys(refusals)) }

// AuthorizationOf is the header that a client sends.
func AuthorizationOf(c *Client) string { return c.authorization.Reveal() }
