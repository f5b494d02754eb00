# A request is good when verifytoken says that its token is. http.send keeps the answer across requests, as
# https://www.openpolicyagent.org/docs/policy-reference/builtins/http describes:
#   force_cache    the endpoint names no life of its answers, so the policy does
#   caching_mode   deserialized: the answer is not parsed again on each hit
package envoy.authz

default allow := false

allow if {
	[scheme, token] := split(input.attributes.request.http.headers.authorization, " ")
	lower(scheme) == "bearer"
	response := http.send({
		"method": "POST",
		"url": data.endpoint,
		"headers": {"Content-Type": "application/x-www-form-urlencoded"},
		"raw_body": concat("", ["verifytoken=", urlquery.encode(token)]),
		"raise_error": false,
		"force_json_decode": true,
		"force_cache": true,
		"force_cache_duration_seconds": 3600,
		"caching_mode": "deserialized",
	})
	response.status_code == 200
	response.body.result == true
}
