package admin

import (
	"bytes"
	"embed"
	"errors"
	"html/template"
	"io"
	"mime"
	"net/http"
	"net/url"
	"path"
	"slices"
	"sync"

	"connectrpc.com/connect/v2"

	adminv1 "github.com/bearergate/bearergate/proto/bearergate/admin/v1"
)

// The status page is made here, for each request, of what the API says, too. It
// fetches nothing from elsewhere, runs no script but its own, and is whole without
// it: what JavaScript adds is that the page follows the gateway.

//go:embed page
var pageFiles embed.FS

// pageTemplates are the page, and its parts by their names. They are read when somebody
// looks at it: most runs of the program show no page.
var pageTemplates = sync.OnceValue(func() *template.Template {
	return template.Must(template.New("").Funcs(template.FuncMap{"events": newEventsView}).ParseFS(pageFiles, "page/*.tmpl"))
})

// eventsView is a table of decisions.
type eventsView struct {
	Words       *words
	ID, Caption string
	Events      []eventRow
	Clients     bool // the edge says where requests come from
}

func newEventsView(v *view, id, caption string, events []eventRow) eventsView {
	clients := slices.ContainsFunc(events, func(e eventRow) bool { return e.Client != "" })
	return eventsView{v.Words, id, caption, events, clients}
}

// pageParts are the parts that the stream sends, by their ids and their templates'
// names, which are the same.
var pageParts = []string{"state", "rates", "latency", "verifiers", "cache", "refused", "decisions", "talkers", "denials", "configuration"}

// pagePolicy is the page's Content-Security-Policy: nothing but what the gateway
// itself gives, nothing inline, no frame around it, no form to elsewhere.
const pagePolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"form-action 'self'; frame-ancestors 'none'; base-uri 'none'"

// refreshEvery is how often the page without JavaScript loads itself again, in
// seconds, if its reader wants that.
const refreshEvery = 10

// pageOn puts the page on the listener, if who may call the API can see it there.
func (s *Server) pageOn(mux *http.ServeMux, a Access) {
	if a.Credential != nil {
		mux.HandleFunc("/{$}", noPage)
		return
	}
	guarded := func(h http.HandlerFunc) http.Handler { return s.guardedPage(h, a) }
	mux.Handle("GET /{$}", guarded(s.page))
	for _, name := range []string{"style.css", "page.js", "icon.svg"} {
		mux.Handle("GET /page/"+name, guarded(pageFile(name)))
	}
	mux.Handle("GET /page/stream", guarded(s.stream))
	mux.Handle("GET /configuration", guarded(s.wholeConfiguration))
	mux.Handle("POST /explain", guarded(s.explained))
	mux.Handle("GET /explain", guarded(func(w http.ResponseWriter, _ *http.Request) { // whoever comes back to it
		w.Header().Set("Location", "./#explain")
		w.WriteHeader(http.StatusSeeOther)
	}))
}

// noPage is said where a credential is wanted.
func noPage(w http.ResponseWriter, _ *http.Request) {
	http.Error(w, "There is no status page here: this listener wants a credential, and a browser has no way to send one.\n"+
		"Give the listener tls with client_ca_file instead, or add an admin listener at 127.0.0.1 and reach that through an SSH tunnel.", http.StatusForbidden)
}

// guardedPage lets requests in that may come in, as guarded does for the API: by
// their Host, for who has its own name point here (DNS rebinding) could read the page;
// and from no page of another origin but by a link.
func (s *Server) guardedPage(next http.HandlerFunc, a Access) http.Handler {
	refused := s.refusals("a request for the status page was refused")
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Cache-Control", "no-store")
		h.Set("Content-Security-Policy", pagePolicy)
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		refuse := func(why string) {
			refused(r, why)
			http.Error(w, why, http.StatusForbidden)
		}
		switch {
		case a.isMisled(r):
			refuse(errHost.Message())
		case !isFromPage(r):
			refuse(errOrigin.Message())
		default:
			next(w, r)
		}
	})
}

// isFromPage reports whether a request comes from the page itself or from nobody's, or
// follows a link to the page. Browsers say so (Fetch Metadata); what says nothing is no
// browser, or an old one, which may look.
func isFromPage(r *http.Request) bool {
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "none", "same-origin":
		return true
	default:
		return r.Method == http.MethodGet && r.Header.Get("Sec-Fetch-Mode") == "navigate" && r.Header.Get("Sec-Fetch-Dest") == "document"
	}
}

func pageFile(name string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", mime.TypeByExtension(path.Ext(name)))
		content, _ := pageFiles.ReadFile("page/" + name) // it is embedded
		_, _ = w.Write(content)                          // a client that went away is told nothing
	}
}

// page shows the page.
func (s *Server) page(w http.ResponseWriter, r *http.Request) {
	s.write(w, http.StatusOK, s.viewFor(r))
}

// wholeConfiguration shows what is in force as the API does.
func (s *Server) wholeConfiguration(w http.ResponseWriter, r *http.Request) {
	shown, err := (&api{server: s}).GetConfiguration(r.Context(), &adminv1.GetConfigurationRequest{})
	if refused, ok := errors.AsType[*connect.Error](err); ok {
		http.Error(w, refused.Message(), http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = io.WriteString(w, shown.GetYaml()) // a client that went away is told nothing
}

// viewFor looks at the gateway in the language of a request. Where links lead, the
// language goes with them if it was asked for.
func (s *Server) viewFor(r *http.Request) *view {
	words, asked := choose(r)
	v := s.view(r.Context(), words)
	to := func(path string, more ...string) string {
		query := url.Values{}
		if asked {
			query.Set("lang", words.Lang)
		}
		for i := 0; i < len(more); i += 2 {
			query.Set(more[i], more[i+1])
		}
		if len(query) == 0 {
			return path
		}
		return path + "?" + query.Encode()
	}
	v.Home, v.Refreshing = to("."), to(".", "refresh", "")
	v.Other = to(".", "lang", words.OtherLang)
	v.Stream = to("page/stream", "lang", words.Lang)
	v.ExplainAt = to("explain") + "#answer"
	if r.URL.Query().Has("refresh") {
		v.Refresh = refreshEvery
	}
	return v
}

func (s *Server) write(w http.ResponseWriter, status int, v *view) {
	var page bytes.Buffer
	if err := pageTemplates().ExecuteTemplate(&page, "page.html.tmpl", v); err != nil {
		s.logger.Error("the status page has a fault; please report it", attr("error", err.Error()))
		http.Error(w, "the status page has a fault; the log says more", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Language", v.Words.Lang)
	w.Header().Add("Vary", "Accept-Language")
	w.WriteHeader(status)
	_, _ = page.WriteTo(w) // a client that went away is told nothing
}
