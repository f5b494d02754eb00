package gate

// Advice says what whoever sent a request should do about its refusal.
type Advice struct{ English, German string }

// Advice returns what to do about the reason; nothing if the request is let through.
// docs/partners.md says more.
func (r Reason) Advice() Advice {
	if r >= Reasons {
		return Advice{}
	}
	return advice[r]
}

// What is the same for several reasons.
var (
	fixURL = Advice{
		"Build the URL without . and .., doubled or encoded slashes, semicolons and control characters in its path, and write the method in capital letters. A retry of the same request will not help.",
		"Die URL ohne . und .., doppelte oder kodierte Schrägstriche, Semikolons und Steuerzeichen im Pfad bilden und die Methode großschreiben. Dieselbe Anfrage noch einmal zu senden, hilft nicht.",
	}
	waitForIt = Advice{
		"Wait as many seconds as Retry-After says, then send the same request again. The token may well be good; to fetch another one does not help.",
		"So viele Sekunden warten, wie Retry-After sagt, dann dieselbe Anfrage noch einmal senden. Das Token kann durchaus gültig sein; ein neues zu holen, hilft nicht.",
	}
	notYours = Advice{
		"Nothing: this is for whoever runs the API to put right. Send the same request again after Retry-After, and report the time and the URL without its query if it stays so.",
		"Nichts: Das muss in Ordnung bringen, wer die API betreibt. Nach Retry-After dieselbe Anfrage noch einmal senden; bleibt es dabei, Zeitpunkt und URL ohne Parameter melden.",
	}
)

// advice is by reason.
var advice = [Reasons]Advice{
	InternalError: notYours,
	MissingToken: {
		"Send the token with each request in the header Authorization: Bearer <token>. If it is sent, see whether a proxy or a redirect on the way takes the header off; Apache in front of PHP does unless it is told SetEnvIf Authorization.",
		"Das Token bei jeder Anfrage im Header Authorization: Bearer <Token> mitsenden. Wird es gesendet, prüfen, ob ein Proxy oder eine Umleitung unterwegs den Header entfernt; Apache vor PHP tut das ohne SetEnvIf Authorization.",
	},
	MalformedToken: {
		"Write the header as Bearer, one space and the token: no quotes, no colon, no line break, and not the whole JSON reply but the value of access_token.",
		"Den Header als Bearer, ein Leerzeichen und das Token schreiben: ohne Anführungszeichen, Doppelpunkt und Zeilenumbruch, und nicht die ganze JSON-Antwort, sondern den Wert von access_token.",
	},
	MultipleTokens: {
		"Send one Authorization header with one token in it. Some libraries add a second header by themselves.",
		"Nur einen Authorization-Header mit einem Token senden. Manche Bibliotheken fügen von selbst einen zweiten hinzu.",
	},
	TokenInURL: {
		"Take the token out of the URL and send it in the header Authorization: Bearer <token>. What stood in a URL may be in logs: fetch a new token.",
		"Das Token aus der URL nehmen und im Header Authorization: Bearer <Token> senden. Was in einer URL stand, kann in Logs stehen: ein neues Token holen.",
	},
	InvalidToken: {
		"Fetch a new token and send that: this one has ended, was withdrawn, or is not from here. It lives expires_in seconds, usually 300; fetch the next one a little before it ends.",
		"Ein neues Token holen und senden: Dieses ist abgelaufen, wurde zurückgezogen oder stammt nicht von hier. Es lebt expires_in Sekunden, in der Regel 300; das nächste etwas vor dem Ende holen.",
	},
	VerifierUnavailable: waitForIt,
	Overloaded:          waitForIt,
	InsufficientScope: {
		"The token is good, but does not allow this. Ask whoever gave the access; if WWW-Authenticate has scope=, fetch a token with that scope.",
		"Das Token gilt, erlaubt dies aber nicht. Bei der Stelle nachfragen, die den Zugang vergeben hat; steht scope= in WWW-Authenticate, ein Token mit diesem Scope holen.",
	},
	BadPath: fixURL,
	BadHost: {
		"Send the request to the host by its name, as the documentation of the API has it. A retry of the same request will not help.",
		"Die Anfrage an den Host mit dem Namen senden, den die Dokumentation der API nennt. Dieselbe Anfrage noch einmal zu senden, hilft nicht.",
	},
	BadMethod:     fixURL,
	UnknownPolicy: notYours,
	UnclearEdge:   notYours,
	UntrustedEdge: notYours,
	UnusableClaim: {
		"The token is good, but what it says of its owner cannot be passed on to the API. Ask whoever issues the tokens.",
		"Das Token gilt, aber was es über seinen Inhaber sagt, lässt sich nicht an die API weitergeben. Bei der Stelle nachfragen, die die Token ausgibt.",
	},
}
