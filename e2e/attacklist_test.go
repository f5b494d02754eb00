package e2e

import (
	"fmt"
	"strings"

	"golang.org/x/net/http2/hpack"
)

// Why it does no harm that an attack reaches the API.
const (
	plainFirst = "harmless: the edge makes the path plain first, so the policy and the API see one path"
	takenOff   = "harmless: the edge takes the header off, or puts its own in its place"
	ownHost    = "harmless: the policy and the API see one host"
	noPartOfIt = "harmless: the gateway does not read it, nor does it change what the request is"
	asPublic   = "harmless: the request is for what is public, under every reading"
	framedAnew = "harmless: the edge writes the request anew, with one length"
)

func h2(pairs ...string) []hpack.HeaderField {
	fields := make([]hpack.HeaderField, 0, len(pairs)/2)
	for i := 0; i+1 < len(pairs); i += 2 {
		fields = append(fields, hpack.HeaderField{Name: pairs[i], Value: pairs[i+1]})
	}
	return fields
}

// attacks is the list. docs/attacks.md shows it.
var attacks = []attack{
	// Paths: another reader finds another path in it.
	{name: "dot segments out of what is public", source: "CVE-2019-9901 CVE-2026-33494", target: "/public/../private/CASE"},
	{name: "dot segments with encoded dots", source: "CVE-2025-47952 CVE-2026-42274", target: "/public/%2e%2e/private/CASE"},
	{name: "dot segments with one dot encoded", source: "CVE-2021-41773", target: "/public/.%2e/private/CASE"},
	{name: "dot segments with dots encoded twice", source: "CVE-2021-42013", target: "/public/%252e%252e/private/CASE"},
	{name: "dot segments with dots that are encoded inside the encoding", source: "CVE-2021-42013", target: "/public/%%32%65%%32%65/private/CASE"},
	{name: "dots glued to the public prefix", source: "CVE-2026-48020", target: "/public../private/CASE"},
	{name: "encoded dots glued to the public prefix", source: "CVE-2026-48020", target: "/public%2e%2e/private/CASE"},
	{name: "a segment with one dot", source: "CVE-2021-28164", target: "/public/./../private/CASE"},
	{name: "an encoded dot before the path", source: "CVE-2021-28164", target: "/%2e/private/CASE"},
	{name: "three dots", source: "https://i.blackhat.com/us-18/Wed-August-8/us-18-Orange-Tsai-Breaking-Parser-Logic-Take-Your-Path-Normalization-Off-And-Pop-0days-Out-2.pdf", target: "/public/.../private/CASE"},
	{name: "dots in the coding of old IIS", source: "CVE-2021-34429", target: "/public/%u002e%u002e/private/CASE"},
	{name: "dots in an overlong coding of UTF-8", source: "CVE-2008-2938", target: "/public/%c0%ae%c0%ae/private/CASE"},
	{name: "a slash in an overlong coding of UTF-8", source: "CVE-2000-0884", target: "/public/..%c0%afprivate/CASE"},
	{name: "dot segments at the end", source: "CVE-2025-32431", target: "/public/CASE/../../private"},
	{name: "dots and a parameter", source: "CVE-2020-5902 https://i.blackhat.com/us-18/Wed-August-8/us-18-Orange-Tsai-Breaking-Parser-Logic-Take-Your-Path-Normalization-Off-And-Pop-0days-Out-2.pdf", target: "/public/..;/private/CASE"},
	{name: "dots and an encoded semicolon", source: "CVE-2020-13933", target: "/public/..%3b/private/CASE"},
	{name: "a parameter before dots", source: "CVE-2020-1957", target: "/public;/../private/CASE"},
	{name: "a parameter at the end", source: "CVE-2020-1957", target: "/private;/public/CASE"},
	{name: "an encoded slash inside dots", source: "CVE-2021-29492 CVE-2025-66490", target: "/public/..%2fprivate/CASE"},
	{name: "an encoded slash in capitals", source: "CVE-2021-29492", target: "/public/..%2Fprivate/CASE"},
	{name: "a slash encoded twice", source: "CVE-2020-11989", target: "/public/..%252fprivate/CASE"},
	{name: "an encoded slash in place of the first one inside", source: "CVE-2025-66490 GHSA-6jwx-7vp4-9847", target: "/public%2f..%2fprivate/CASE"},
	{name: "a backslash", source: "GHSA-qrp7-cvwr-j2c6", target: `/public/..\private/CASE`},
	{name: "an encoded backslash", source: "CVE-2021-29492 GHSA-qrp7-cvwr-j2c6", target: "/public/..%5cprivate/CASE"},
	{name: "two slashes before what is protected", source: "CVE-2021-31920", target: "//private/CASE"},
	{name: "two slashes, so that a host seems to come first", source: "CVE-2026-26205", target: "//public/../private/CASE"},
	{name: "two slashes inside", source: "CVE-2021-31920 https://mailman.nginx.org/pipermail/nginx/2013-November/041222.html", target: "/public//..//private/CASE", harmless: plainFirst},
	{name: "two slashes around dots", source: "CVE-2026-33494", target: "/public/x//../../private/CASE", harmless: plainFirst},
	{name: "a NUL, encoded", source: "CVE-2013-4547 CVE-2025-66490", target: "/private/CASE%00/public"},
	{name: "a NUL, as it is", source: "CVE-2019-9900 https://github.com/envoyproxy/envoy/issues/6434", target: "/private/CASE\x00/public"},
	{name: "a space in the path", source: "CVE-2013-4547", target: "/private/CASE /public"},
	{name: "an encoded space at the end of a segment", source: "CVE-2020-17523", target: "/public/..%20/private/CASE"},
	{name: "a new line, encoded", source: "CVE-2022-32532 CVE-2022-22978", target: "/public/%0a../../private/CASE", harmless: plainFirst},
	{name: "a tab at the end of the path", source: "https://rafa.hashnode.dev/exploiting-http-parsers-inconsistencies", target: "/private/CASE\t"},
	{name: "a byte 0xa0 at the end of the path", source: "https://rafa.hashnode.dev/exploiting-http-parsers-inconsistencies", target: "/private/CASE\xa0"},
	{name: "a byte 0x85 at the end of the path", source: "https://rafa.hashnode.dev/exploiting-http-parsers-inconsistencies", target: "/private/CASE\x85"},
	{name: "bytes that are no UTF-8", source: "CVE-2023-27488", target: "/public/\xff\xfe/../../private/CASE"},
	{name: "encoded bytes that are no UTF-8", source: "CVE-2023-27488", target: "/public/%ff%fe/CASE"},
	{name: "a fragment", source: "CVE-2021-32779 CVE-2021-39156", target: "/private/CASE#/public"},
	{name: "a fragment after what is public", source: "CVE-2026-41059 CVE-2023-47106", target: "/public/#/../../private/CASE"},
	{name: "an encoded fragment", source: "CVE-2023-45539 CVE-2026-41059", target: "/private/CASE%23/public"},
	{name: "an encoded question mark", source: "CVE-2020-8595", target: "/private/CASE%3f/public"},
	{name: "the public path in the query", source: "CVE-2025-54576", target: "/private/CASE?x=/public/"},
	{name: "an empty query, and dots behind it", source: "CVE-2020-8595", target: "/private/CASE?/../../public"},
	{name: "a static file's ending", source: "CVE-2025-54576", target: "/private/CASE/style.css?/public/x.css"},
	{name: "a prefix that only begins like what is public", source: "https://i.blackhat.com/us-18/Wed-August-8/us-18-Orange-Tsai-Breaking-Parser-Logic-Take-Your-Path-Normalization-Off-And-Pop-0days-Out-2.pdf", target: "/publicity/CASE"},
	{name: "other letter case", source: "CVE-2026-27587", target: "/PUBLIC/CASE"},
	{name: "letters in percent coding", source: "CVE-2026-27587", target: "/%70rivate/CASE"},
	{name: "half a percent coding", source: "CVE-2021-42013", target: "/public/%2/../private/CASE", harmless: plainFirst},
	{name: "a path of 9,000 bytes", source: "https://github.com/GrrrDog/weird_proxies", target: "/public/" + strings.Repeat("a/", 4500) + strings.Repeat("../", 4500) + "../private/CASE"},
	{name: "no slash at the beginning", source: "CVE-2021-39240", target: "private/CASE"},
	{name: "an asterisk for the path", source: "RFC9112§3.2.4", target: "*"},
	{name: "no path", source: "RFC9112§3.2", raw: "GET  HTTP/1.1\r\nHost: api.example\r\nX-Case: CASE\r\n\r\n"},
	{name: "a path that the edge opens, and dots", source: "CVE-2026-48020", target: "/partners/../private/CASE"},
	{name: "a path that the edge opens, and an encoded slash", source: "CVE-2025-66490", target: "/private/..%2fpartners/CASE"},
	{name: "a path that the edge opens, and a parameter", source: "CVE-2020-1957", target: "/partners/..;/private/CASE"},

	// Where the edge asks: not for clients.
	{name: "nginx's own place for the question", source: "https://nginx.org/en/docs/http/ngx_http_core_module.html#internal", target: "/_bearergate?CASE"},
	{name: "nginx's own place for a named policy", source: "https://nginx.org/en/docs/http/ngx_http_core_module.html#internal", target: "/_bearergate/partners?CASE"},
	{name: "the gateway's own path", source: "CVE-2026-34457", target: "/auth/partners/CASE"},
	{name: "the user agent of a health check", source: "CVE-2026-34457", lines: []string{"User-Agent: GoogleHC/1.0"}},

	// Hosts.
	{name: "an absolute target with another host", source: "RFC9112§3.2.2", target: "http://api.example/private/CASE", host: "open.example"},
	{name: "an absolute target with an open host", source: "RFC9112§3.2.2", target: "http://open.example/private/CASE", harmless: ownHost},
	{name: "an absolute target with a user before the host", source: "CVE-2018-3774", target: "http://open.example@api.example/private/CASE", host: "open.example"},
	{name: "an absolute target with another scheme", source: "CVE-2023-35944", target: "HTTPS://api.example/private/CASE", host: "open.example"},
	{name: "an absolute target inside the path", source: "CVE-2026-26205", target: "/http://open.example/private/CASE"},
	{name: "two hosts", source: "https://portswigger.net/web-security/host-header/exploiting", host: "open.example", lines: []string{"Host: api.example"}},
	{name: "two hosts in one header", source: "https://portswigger.net/web-security/host-header/exploiting", host: "open.example, api.example"},
	{name: "no host", source: "CVE-2019-18838", host: "-"},
	{name: "an empty host", source: "CVE-2019-18838", host: " "},
	{name: "a host with a user", source: "https://portswigger.net/research/cracking-the-lens-targeting-https-hidden-attack-surface", host: "open.example:80@api.example", harmless: ownHost},
	{name: "a host with a NUL", source: "CVE-2019-9900", host: "open.example\x00.api.example"},
	{name: "a host with a space", source: "https://portswigger.net/web-security/host-header/exploiting", host: "open.example api.example"},
	{name: "a host with a path", source: "https://portswigger.net/research/cracking-the-lens-targeting-https-hidden-attack-surface", host: "open.example/private"},
	{name: "a host that begins like an open one", source: "https://portswigger.net/web-security/host-header/exploiting", host: "open.example.api.example"},
	{name: "a host in capitals", source: "CVE-2021-39155 GHSA-x76f-jf84-rqj8", host: "OPEN.EXAMPLE", harmless: ownHost},
	{name: "a host with a final dot", source: "https://portswigger.net/web-security/host-header/exploiting", host: "open.example.", harmless: ownHost},
	{name: "a host with a port that is none", source: "https://portswigger.net/web-security/host-header/exploiting", host: "open.example:api.example", harmless: ownHost},
	{name: "a host in a header for proxies", source: "CVE-2024-45410 https://portswigger.net/research/practical-web-cache-poisoning", host: "open.example", lines: []string{"X-Forwarded-Host: api.example", "X-Host: api.example", "X-Forwarded-Server: api.example", "X-Original-Host: api.example", "X-HTTP-Host-Override: api.example"}, harmless: takenOff},
	{name: "an open host in a header for proxies", source: "CVE-2024-45410", lines: []string{"X-Forwarded-Host: open.example", "X-Original-Host: open.example", "X-Host: open.example"}},
	{name: "a host in Forwarded", source: "RFC7239§8.1", host: "open.example", lines: []string{`Forwarded: for=127.0.0.1;host="api.example";proto=https`}, harmless: takenOff},

	// Headers that name another path or method.
	{name: "X-Original-URL on a public path", source: "CVE-2018-14773", target: "/public/CASE", lines: []string{"X-Original-URL: /private/CASE"}, harmless: takenOff},
	{name: "X-Rewrite-URL on a public path", source: "CVE-2018-14773", target: "/public/CASE", lines: []string{"X-Rewrite-URL: /private/CASE"}, harmless: takenOff},
	{name: "X-Original-URL with an underscore or a dot", source: "CVE-2025-64484", target: "/public/CASE", lines: []string{"X_Original_URL: /private/CASE", "X.Original.URL: /private/CASE"}, harmless: takenOff},
	{name: "the public path in X-Original-URI", source: "CVE-2026-40575", lines: []string{"X-Original-URI: /public/CASE"}},
	{name: "the public path in X-Original-URI, twice", source: "CVE-2026-40575", lines: []string{"X-Original-URI: /public/CASE", "x-original-uri: /public/CASE"}},
	{name: "the public path in X-Forwarded-Uri", source: "CVE-2026-40575", lines: []string{"X-Forwarded-Uri: /public/CASE"}},
	{name: "the public path in X_Forwarded_Uri", source: "CVE-2026-39858", lines: []string{"X_Forwarded_Uri: /public/CASE", "X.Forwarded.Uri: /public/CASE"}},
	{name: "the private path in X-Forwarded-Uri", source: "CVE-2026-40575", target: "/public/CASE", lines: []string{"X-Forwarded-Uri: /private/CASE", "X-Forwarded-Path: /private/CASE"}, harmless: takenOff},
	{name: "X-Forwarded-Prefix", source: "GHSA-6384-m2mw-rf54", target: "/public/CASE", lines: []string{"X-Forwarded-Prefix: /private"}, harmless: takenOff},
	{name: "X-Envoy-Original-Path", source: "CVE-2023-27487", target: "/public/CASE", lines: []string{"X-Envoy-Original-Path: /private/CASE"}, harmless: takenOff},
	{name: "the public path in X-Envoy-Original-Path", source: "CVE-2023-27487", lines: []string{"X-Envoy-Original-Path: /public/CASE"}},
	{name: "another method in a header", source: "https://owasp.org/www-project-web-security-testing-guide/latest/4-Web_Application_Security_Testing/02-Configuration_and_Deployment_Management_Testing/06-Test_HTTP_Methods", method: "POST", target: "/orders/CASE", lines: []string{"Authorization: Bearer CRM", "X-HTTP-Method-Override: DELETE", "X-HTTP-Method: DELETE", "X-Method-Override: DELETE", "Content-Length: 0"}, good: "CRM", harmless: takenOff},
	{name: "another method in X-Original-Method", source: "CVE-2026-40575", method: "PUT", target: "/orders/CASE", lines: []string{"Authorization: Bearer CRM", "X-Original-Method: GET", "X-Forwarded-Method: GET", "Content-Length: 0"}},
	{name: "another method for the API in X-Original-Method", source: "CVE-2026-40575", target: "/orders/CASE", lines: []string{"Authorization: Bearer CRM", "X-Original-Method: DELETE", "X-Forwarded-Method: DELETE"}, good: "CRM", harmless: takenOff},

	// Methods.
	{name: "a method in small letters", source: "https://github.com/GrrrDog/weird_proxies", method: "put", target: "/orders/CASE", lines: []string{"Authorization: Bearer CRM", "Content-Length: 0"}},
	{name: "an unknown method", source: "https://owasp.org/www-project-web-security-testing-guide/latest/4-Web_Application_Security_Testing/02-Configuration_and_Deployment_Management_Testing/06-Test_HTTP_Methods", method: "JEFF"},
	{name: "HEAD", source: "https://blog.teddykatz.com/2019/11/05/github-oauth-bypass.html", method: "HEAD"},
	{name: "TRACE", source: "CVE-2003-1567", method: "TRACE", lines: []string{"Authorization: Bearer BAD"}},
	{name: "CONNECT to the API", source: "CVE-2025-64763", method: "CONNECT", target: "api.example:80", host: "api.example:80", body: "GET /private/CASE HTTP/1.1\r\nHost: api.example\r\nX-Case: smuggled\r\n\r\n"},
	{name: "a question of a browser, where none is allowed", source: "https://fetch.spec.whatwg.org/#cors-preflight-fetch", method: "OPTIONS", lines: []string{"Origin: https://evil.example", "Access-Control-Request-Method: GET"}},
	{name: "a question of a browser that is none", source: "https://fetch.spec.whatwg.org/#cors-preflight-fetch", method: "OPTIONS", target: "/web/CASE"},
	{name: "a request with the headers of a browser's question", source: "https://fetch.spec.whatwg.org/#cors-preflight-fetch", method: "POST", target: "/web/CASE", lines: []string{"Origin: https://evil.example", "Access-Control-Request-Method: POST", "Content-Length: 0"}},
	{name: "a question of a browser with another method in a header", source: "https://fetch.spec.whatwg.org/#cors-preflight-fetch", method: "OPTIONS", target: "/web/CASE", lines: []string{"Origin: https://evil.example", "Access-Control-Request-Method: POST", "X-HTTP-Method-Override: POST"}, harmless: takenOff},
	{name: "a question of a browser in small letters", source: "https://github.com/GrrrDog/weird_proxies", method: "options", target: "/web/CASE", lines: []string{"Origin: https://evil.example", "Access-Control-Request-Method: POST"}},

	// Credentials.
	{name: "two Authorization headers, the good one first", source: "CVE-2021-32777 CVE-2020-25017", lines: []string{"Authorization: Bearer CRM", "Authorization: Bearer BAD"}},
	{name: "two Authorization headers, the good one last", source: "CVE-2021-32777 CVE-2020-25017", lines: []string{"Authorization: Bearer BAD", "authorization: Bearer CRM"}},
	{name: "two credentials with a comma", source: "CVE-2026-26308", lines: []string{"Authorization: Bearer BAD,Bearer CRM"}},
	{name: "a token of another scheme before it", source: "CVE-2021-32777", lines: []string{"Authorization: Basic eDp4, Bearer CRM"}},
	{name: "a token for another policy", source: "CVE-2021-32701", method: "PUT", target: "/orders/CASE", lines: []string{"Authorization: Bearer READ", "Content-Length: 0"}},
	{name: "a token of another issuer", source: "CVE-2026-33496", lines: []string{"Authorization: Bearer WRITE"}},
	{name: "a token without its signature", source: "CVE-2015-9235", method: "PUT", target: "/orders/CASE", lines: []string{"Authorization: Bearer eyJhbGciOiJub25lIn0.eyJpc3MiOiJodHRwczovL3Nzby5leGFtcGxlLmNvbSIsImF1ZCI6Im9yZGVycyIsInNjb3BlIjoib3JkZXJzOndyaXRlIn0.", "Content-Length: 0"}},
	{name: "a header folded over two lines", source: "RFC9112§5.2", lines: []string{"Authorization: Bearer BAD", " CRM"}},
	{name: "a header folded over two lines after another", source: "RFC9112§5.2", lines: []string{"X-Y: 1", "\tAuthorization: Bearer CRM"}},
	{name: "a space before the colon", source: "CVE-2019-18802", lines: []string{"Authorization : Bearer CRM"}},
	{name: "a tab before the colon", source: "CVE-2019-18802", lines: []string{"Authorization\t: Bearer CRM"}},
	{name: "a space before the header's name", source: "CVE-2019-18802", raw: "GET /private/CASE HTTP/1.1\r\n Authorization: Bearer CRM\r\nHost: api.example\r\nX-Case: CASE\r\n\r\n"},
	{name: "a tab in the credential", source: "CVE-2019-18802", lines: []string{"Authorization: Bearer\tCRM"}},
	{name: "a NUL in the credential", source: "CVE-2019-9900", lines: []string{"Authorization: Bearer CRM\x00"}},
	{name: "a bare carriage return in the credential", source: "CVE-2023-27493", lines: []string{"Authorization: Bearer BAD\rAuthorization: Bearer CRM"}},
	{name: "bytes beyond ASCII in the credential", source: "CVE-2023-27488", lines: []string{"Authorization: Bearer CRM\xff"}},
	{name: "an underscore for a hyphen in the header's name", source: "CVE-2025-64484", lines: []string{"Proxy_Authorization: Bearer CRM", "HTTP_AUTHORIZATION: Bearer CRM"}},
	{name: "the token in the query", source: "RFC9700§2.6", target: "/private/CASE?access_token=CRM"},
	{name: "the token in a form", source: "RFC6750§2.2", method: "POST", lines: []string{"Content-Type: application/x-www-form-urlencoded", "Content-Length: LENGTH"}, body: "access_token=CRM"},
	{name: "the header named as one of the connection", source: "https://nathandavison.com/blog/abusing-http-hop-by-hop-request-headers", lines: []string{"Connection: close, Authorization", "Authorization: Bearer BAD"}},
	{name: "the header of an edge cache that says it was checked", source: "CVE-2025-29927", lines: []string{"X-Middleware-Subrequest: middleware", "X-Bearergate-Kept: true", "bearergate: kept", "X-Accel-Expires: 300", "X-Envoy-Dynamic-Metadata: bearergate.kept=true", "X-Accel-Redirect: /private"}},

	// Who is calling.
	{name: "a header of the gateway's", source: "CVE-2026-30851", lines: []string{"Authorization: Bearer CRM", "X-Partner: forged", "X-Bearergate-Fingerprint: forged", "X-Editor: forged"}, good: "CRM", harmless: takenOff},
	{name: "a header of the gateway's on a public path", source: "CVE-2026-30851", target: "/public/CASE", lines: []string{"X-Partner: forged", "X-Bearergate-Fingerprint: forged", "X-Editor: forged"}, harmless: takenOff},
	{name: "a header of the gateway's, twice, in odd letter case", source: "CVE-2020-25017", lines: []string{"Authorization: Bearer CRM", "x-PARTNER: forged", "X-partner: forged too", "X-BEARERGATE-FINGERPRINT: forged"}, good: "CRM", harmless: takenOff},
	{name: "a header of the gateway's with underscores", source: "CVE-2025-64484 GHSA-f59h-q822-g45g CVE-2026-39858", lines: []string{"Authorization: Bearer CRM", "X_Partner: forged", "X_Editor: forged", "X_Bearergate_Fingerprint: forged", "X-Bearergate_Fingerprint: forged"}, good: "CRM", harmless: takenOff},
	{name: "a header of the gateway's with dots", source: "CVE-2025-64484 https://www.php.net/manual/en/language.variables.external.php", lines: []string{"Authorization: Bearer CRM", "X.Partner: forged", "X.Editor: forged", "X.Bearergate.Fingerprint: forged", "X-Bearergate.Fingerprint: forged"}, good: "CRM", harmless: takenOff},
	{name: "a header of the gateway's with other characters", source: "CVE-2025-64484", lines: []string{"Authorization: Bearer CRM", "X~Partner: forged", "X+Editor: forged", "X'Partner: forged", "X-Bearergate!Fingerprint: forged"}, good: "CRM", harmless: takenOff},
	{name: "a header of the gateway's with a space before the colon", source: "CVE-2019-18802", lines: []string{"Authorization: Bearer CRM", "X-Partner : forged"}},
	{name: "a header of the gateway's, folded", source: "RFC9112§5.2", lines: []string{"Authorization: Bearer CRM", "X-Y: 1", " X-Partner: forged"}, good: "CRM", harmless: takenOff},
	{name: "a header of the gateway's as one of the connection", source: "CVE-2025-48865 CVE-2024-45410 CVE-2026-29054", lines: []string{"Authorization: Bearer CRM", "Connection: close, x-partner, X-Bearergate-Fingerprint, X-Bearergate-Policy", "X-Partner: forged"}, good: "CRM", harmless: takenOff},
	{name: "the edge's words as those of the connection", source: "CVE-2025-48865 CVE-2024-45410", lines: []string{"Connection: close, X-Original-URI, X-Original-Method, X-Forwarded-Uri, X-Forwarded-Method, X-Forwarded-Host, X-Bearergate-Edge", "X-Original-URI: /public/CASE", "X-Forwarded-Uri: /public/CASE"}},
	{name: "the name of another policy", source: "GHSA-g53w-w6mj-hrpp", lines: []string{"X-Bearergate-Policy: open", "X_Bearergate_Policy: open", "bearergate_policy: open", "X-Bearergate-Edge: open"}},
	{name: "headers of Envoy's own", source: "CVE-2024-45806", lines: []string{"X-Envoy-Internal: true", "X-Envoy-Auth-Partial-Body: true", "X-Envoy-Auth-Headers-To-Remove: x-case", "X-Envoy-Decorator-Operation: public", "X-Envoy-Upstream-Alt-Stat-Name: x"}},
	{name: "the header Proxy", source: "CVE-2016-5385", lines: []string{"Authorization: Bearer CRM", "Proxy: http://evil.example"}, good: "CRM", harmless: noPartOfIt},
	{name: "trailers with a header of the gateway's", source: "RFC9110§6.5.1", method: "POST", lines: []string{"Authorization: Bearer CRM", "Transfer-Encoding: chunked", "Trailer: X-Partner, Authorization"}, body: "1\r\nx\r\n0\r\nX-Partner: forged\r\nAuthorization: Bearer BAD\r\n\r\n", good: "CRM", harmless: takenOff},

	// Requests that end in another place for another reader.
	{name: "both lengths", source: "https://portswigger.net/research/http-desync-attacks-request-smuggling-reborn", method: "POST", target: "/public/CASE", lines: []string{"Content-Length: 4", "Transfer-Encoding: chunked"}, body: smuggledChunk, harmless: framedAnew},
	{name: "both lengths, the other way round", source: "https://portswigger.net/research/http-desync-attacks-request-smuggling-reborn", method: "POST", target: "/public/CASE", lines: []string{"Transfer-Encoding: chunked", "Content-Length: 6"}, body: "0\r\n\r\n" + smuggled, harmless: framedAnew},
	{name: "two lengths", source: "CVE-2021-40346", method: "POST", target: "/public/CASE", lines: []string{"Content-Length: 0", "Content-Length: LENGTH"}, body: smuggled},
	{name: "a length with a sign", source: "CVE-2021-40346", method: "POST", target: "/public/CASE", lines: []string{"Content-Length: +LENGTH"}, body: smuggled},
	{name: "a length that is too large for a number", source: "CVE-2021-40346", method: "POST", target: "/public/CASE", lines: []string{"Content-Length: 18446744073709551616"}, body: smuggled},
	{name: "an unknown transfer coding", source: "https://portswigger.net/research/http-desync-attacks-request-smuggling-reborn", method: "POST", target: "/public/CASE", lines: []string{"Transfer-Encoding: xchunked"}, body: smuggled},
	{name: "a transfer coding with a tab", source: "https://portswigger.net/research/http-desync-attacks-request-smuggling-reborn", method: "POST", target: "/public/CASE", lines: []string{"Transfer-Encoding:\tchunked", "Content-Length: 6"}, body: "0\r\n\r\n" + smuggled, harmless: framedAnew},
	{name: "a transfer coding with a space before the colon", source: "https://portswigger.net/research/http-desync-attacks-request-smuggling-reborn", method: "POST", target: "/public/CASE", lines: []string{"Transfer-Encoding : chunked", "Content-Length: 6"}, body: "0\r\n\r\n" + smuggled},
	{name: "two transfer codings", source: "https://portswigger.net/research/http-desync-attacks-request-smuggling-reborn", method: "POST", target: "/public/CASE", lines: []string{"Transfer-Encoding: chunked", "Transfer-Encoding: identity"}, body: smuggled},
	{name: "a chunk's length with a line's end alone", source: "CVE-2025-22871", method: "POST", target: "/public/CASE", lines: []string{"Transfer-Encoding: chunked"}, body: "2;\nxx\r\n0\r\n\r\n", harmless: framedAnew},
	{name: "a length of a GET, and a request in it", source: "https://portswigger.net/research/browser-powered-desync-attacks", target: "/public/CASE", lines: []string{"Content-Length: LENGTH"}, body: smuggled, harmless: framedAnew},
	{name: "a request behind a public one on the same connection", source: "https://portswigger.net/research/browser-powered-desync-attacks", target: "/public/CASE", body: smuggled, harmless: asPublic},
	{name: "lines that end with a line feed alone", source: "RFC9112§2.2", raw: "GET /private/CASE HTTP/1.1\nHost: api.example\nX-Case: CASE\nX: y\n\n"},
	{name: "a version that does not exist", source: "https://github.com/GrrrDog/weird_proxies", raw: "GET /private/CASE HTTP/1.9\r\nHost: api.example\r\nX-Case: CASE\r\n\r\n"},
	{name: "HTTP/0.9", source: "https://github.com/GrrrDog/weird_proxies", raw: "GET /private/CASE\r\n\r\n"},
	{name: "a header without a name", source: "CVE-2023-25725", lines: []string{": x", "Authorization: Bearer BAD"}},

	// Other protocols.
	{name: "an upgrade to a web socket without a token", source: "CVE-2024-23326", lines: []string{"Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="}},
	{name: "an upgrade to a web socket on a public path, and a request behind it", source: "CVE-2024-23326 https://github.com/0ang3el/websocket-smuggle", target: "/public/CASE", lines: []string{"Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 777", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="}, body: smuggled, harmless: asPublic},
	{name: "an upgrade to HTTP/2 on a public path", source: "https://bishopfox.com/blog/h2c-smuggling-request", target: "/public/CASE", lines: []string{"Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA"}, body: smuggled, harmless: asPublic},
	{name: "what looks like gRPC", source: "https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md", method: "POST", lines: []string{"Content-Type: application/grpc", "TE: trailers", "Content-Length: 0"}},

	// HTTP/2, through Envoy alone: the other recipes do not speak it without TLS.
	{name: "HTTP/2: :authority and host differ", source: "CVE-2021-39242", http2: h2(":method", "GET", ":scheme", "http", ":authority", "api.example", ":path", "/private/CASE", "host", "open.example")},
	{name: "HTTP/2: host alone", source: "CVE-2021-39242", http2: h2(":method", "GET", ":scheme", "http", ":path", "/private/CASE", "host", "api.example")},
	{name: "HTTP/2: a host in :scheme", source: "CVE-2021-39240", http2: h2(":method", "GET", ":scheme", "http://open.example/?", ":authority", "api.example", ":path", "/private/CASE")},
	{name: "HTTP/2: :scheme in capitals", source: "CVE-2023-35944", http2: h2(":method", "GET", ":scheme", "HTTPS", ":authority", "api.example", ":path", "/private/CASE")},
	{name: "HTTP/2: a request line in :method", source: "CVE-2021-39241", http2: h2(":method", "GET /private/CASE HTTP/1.1\r\nx: y", ":scheme", "http", ":authority", "api.example", ":path", "/public/CASE")},
	{name: "HTTP/2: a space in :path", source: "https://portswigger.net/research/http2", http2: h2(":method", "GET", ":scheme", "http", ":authority", "api.example", ":path", "/public/CASE HTTP/1.1\r\nx-partner: forged\r\nx: y")},
	{name: "HTTP/2: :path without a slash", source: "CVE-2021-39240", http2: h2(":method", "GET", ":scheme", "http", ":authority", "open.example", ":path", ".api.example/private/CASE")},
	{name: "HTTP/2: an absolute :path", source: "https://portswigger.net/research/http2", http2: h2(":method", "GET", ":scheme", "http", ":authority", "open.example", ":path", "http://api.example/private/CASE")},
	{name: "HTTP/2: an empty :path", source: "CVE-2023-27491", http2: h2(":method", "GET", ":scheme", "http", ":authority", "api.example", ":path", "")},
	{name: "HTTP/2: two :path", source: "https://portswigger.net/research/http2", http2: h2(":method", "GET", ":scheme", "http", ":authority", "api.example", ":path", "/public/CASE", ":path", "/private/CASE")},
	{name: "HTTP/2: :path behind other headers", source: "CVE-2023-27491", http2: h2(":method", "GET", ":scheme", "http", ":authority", "api.example", "x-y", "1", ":path", "/public/CASE")},
	{name: "HTTP/2: a pseudo header that does not exist", source: "CVE-2023-27491", http2: h2(":method", "GET", ":scheme", "http", ":authority", "api.example", ":path", "/public/CASE", ":x-partner", "forged")},
	{name: "HTTP/2: dots in :path", source: "CVE-2019-9901", http2: h2(":method", "GET", ":scheme", "http", ":authority", "api.example", ":path", "/public/%2e%2e/private/CASE")},
	{name: "HTTP/2: a fragment in :path", source: "CVE-2021-32779", http2: h2(":method", "GET", ":scheme", "http", ":authority", "api.example", ":path", "/private/CASE#/public")},
	{name: "HTTP/2: a header's name in capitals", source: "CVE-2023-27491", http2: h2(":method", "GET", ":scheme", "http", ":authority", "api.example", ":path", "/public/CASE", "X-Partner", "forged")},
	{name: "HTTP/2: a header's name with a line in it", source: "https://portswigger.net/research/http2", http2: h2(":method", "GET", ":scheme", "http", ":authority", "api.example", ":path", "/public/CASE", "x: y\r\nx-partner", "forged")},
	{name: "HTTP/2: a header's value with lines in it", source: "https://portswigger.net/research/http2 CVE-2023-27493", http2: h2(":method", "GET", ":scheme", "http", ":authority", "api.example", ":path", "/public/CASE", "x-y", "1\r\nx-partner: forged")},
	{name: "HTTP/2: a transfer coding", source: "https://portswigger.net/research/http2", http2: h2(":method", "POST", ":scheme", "http", ":authority", "api.example", ":path", "/public/CASE", "transfer-encoding", "chunked"), body: "0\r\n\r\n" + smuggled},
	{name: "HTTP/2: a length that is too short", source: "https://portswigger.net/research/http2", http2: h2(":method", "POST", ":scheme", "http", ":authority", "api.example", ":path", "/public/CASE", "content-length", "0"), body: smuggled},
	{name: "HTTP/2: a length that is too short, and what is too long for it late", source: "https://portswigger.net/research/http2", http2: h2(":method", "POST", ":scheme", "http", ":authority", "api.example", ":path", "/public/CASE", "content-length", "0"), body: smuggled, late: true, harmless: "harmless: the API gets the request without a body, and nothing of what comes behind it"},
	{name: "HTTP/2: headers of one connection", source: "CVE-2023-27491", http2: h2(":method", "GET", ":scheme", "http", ":authority", "api.example", ":path", "/public/CASE", "connection", "x-partner", "x-partner", "forged")},
	{name: "HTTP/2: two Authorization headers", source: "CVE-2021-32777", http2: h2(":method", "GET", ":scheme", "http", ":authority", "api.example", ":path", "/private/CASE", "authorization", "Bearer BAD", "authorization", "Bearer CRM")},
	{name: "HTTP/2: CONNECT for a web socket", source: "RFC8441§4", http2: h2(":method", "CONNECT", ":protocol", "websocket", ":scheme", "http", ":authority", "api.example", ":path", "/public/CASE")},
	{name: "HTTP/2: CONNECT", source: "CVE-2025-64763", http2: h2(":method", "CONNECT", ":authority", "api.example:80"), body: smuggled},
}

// smuggled is a request that is to be taken for one of its own. Its name is that of no case.
const smuggled = "GET /private/x HTTP/1.1\r\nHost: api.example\r\nX-Case: smuggled\r\nX-Partner: forged\r\n\r\n"

// smuggledChunk is read by the length as four bytes and then a request.
var smuggledChunk = fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(smuggled), smuggled)
