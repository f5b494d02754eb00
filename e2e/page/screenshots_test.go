package page

import (
	"context"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	cdppage "github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"

	"github.com/bearergate/bearergate/crmnow"
)

var (
	screenshots = flag.String("screenshots", "", "take the pictures of the documentation, and put them into this folder")
	minutes     = flag.Duration("screenshots-after", 5*time.Minute, "for how long requests are decided before")
)

// maxPicture bounds a picture, in bytes.
const maxPicture = 200 << 10

// TestTakeScreenshots takes the pictures that the documentation shows: of a gateway
// that has been at work, and then of one whose endpoint gives no answers. Only make
// screenshots asks for them.
func TestTakeScreenshots(t *testing.T) {
	if *screenshots == "" {
		return
	}
	g := start(t, "")
	if err := g.endpoint.SetFault(crmnow.Verify, crmnow.Fault{Delay: 14 * time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	defer clients.Wait()
	defer cancel()
	clients.Go(func() { g.work(ctx, t) })
	wait(t, *minutes)

	b := open(t)
	for _, lang := range []string{"en", "de"} {
		for _, dark := range []bool{false, true} {
			b.picture(t, g, "status-page-"+lang, look{lang: lang, dark: dark})
		}
	}
	if err := g.endpoint.SetFault(crmnow.Verify, crmnow.Fault{Status: 503}); err != nil {
		t.Fatal(err)
	}
	wait(t, 25*time.Second)
	for _, dark := range []bool{false, true} {
		b.picture(t, g, "status-page-trouble-en", look{lang: "en", dark: dark})
	}
}

// wait lets real time pass, in which real requests are decided.
func wait(t *testing.T, d time.Duration) {
	t.Helper()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-t.Context().Done():
	}
}

// work has requests decided as on a usual day, until ctx ends: about a hundred in a
// second, by tokens of which some are used often, and a few that go wrong.
func (g *gateway) work(ctx context.Context, t *testing.T) {
	tokens := make([]string, 400)
	for i := range tokens {
		tokens[i] = g.token(t)
	}
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	random := rand.New(rand.NewPCG(1, 2))
	begin := time.Now()
	for {
		select {
		case now := <-ticker.C:
			wave := 1 + .35*math.Sin(now.Sub(begin).Seconds()/25) + .15*math.Sin(now.Sub(begin).Seconds()/7)
			for range int(9*wave + random.Float64()*3) {
				often := int(math.Abs(random.NormFloat64()) * 60)
				_, _ = g.decide(ctx, "/v1/orders", "Bearer "+tokens[often%len(tokens)])
			}
			for chance, authorization := range map[float64]string{
				.04: "Bearer an-old-token", .03: "", .01: "Bearer two words", .05: fmt.Sprintf("Bearer made-up-%d", random.IntN(20)),
			} {
				if random.Float64() < chance*wave {
					_, _ = g.decide(ctx, "/v1/orders", authorization)
				}
			}
		case <-ctx.Done():
			return
		}
	}
}

// picture takes one, as large as a screen is.
func (b *browser) picture(t *testing.T, g *gateway, name string, l look) {
	t.Helper()
	l.width, l.height = 1180, 1000
	tab := b.tab(t, l)
	tab.do(chromedp.EmulateViewport(l.width, l.height, chromedp.EmulateScale(1.5)), chromedp.Navigate(g.url("/")))
	tab.waitFor("the stream", "document.getElementById('live').className.includes('on')")
	quality := int64(85)
	shot := call(tab, cdppage.CaptureScreenshot, cdppage.CaptureScreenshotParams{Format: cdppage.CaptureScreenshotFormatWebp, Quality: &quality})
	if len(shot.Data) > maxPicture {
		t.Errorf("%s has %d bytes", name, len(shot.Data))
	}
	scheme := "light"
	if l.dark {
		scheme = "dark"
	}
	if err := os.WriteFile(filepath.Join(*screenshots, name+"-"+scheme+".webp"), shot.Data, 0o644); err != nil {
		t.Fatal(err)
	}
}
