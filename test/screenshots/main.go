// Command screenshots looks at the registry's pages in a headless Chromium: it fills a registry, opens every
// kind of page at the width of a desktop and of a phone, light and dark, checks what only a browser can tell
// (that nothing breaks the policy, overflows or is hard to read, that filter, copy and rollback work), and
// saves pictures for people to look at.
//
//	screenshots DAVITD DIRECTORY
package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: screenshots DAVITD DIRECTORY")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "screenshots:", err)
		os.Exit(1)
	}
}

func run(davitd, pictures string) (err error) {
	work, err := os.MkdirTemp("", "davit-screenshots-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	address, stop, err := serve(davitd, work)
	if err != nil {
		return err
	}
	defer stop()
	s := shelf{"http://" + address}
	if err := s.fill(); err != nil {
		return err
	}
	b, err := openBrowser(filepath.Join(work, "profile"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	return errors.Join(looks(b, s.url, pictures), works(b, s.url))
}

// serve runs a registry on a free port of loopback.
func serve(davitd, work string) (address string, stop func(), err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	address = l.Addr().String()
	if err := l.Close(); err != nil {
		return "", nil, err
	}
	var log bytes.Buffer
	cmd := exec.Command(davitd, "registry", "serve", "--addr", address, "--root", filepath.Join(work, "registry"), "--immutable", "team/shop:v1.1.0")
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		return "", nil, err
	}
	stop = func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
	}
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		response, err := http.Get("http://" + address + "/healthz")
		if err == nil {
			return address, stop, response.Body.Close()
		}
	}
	stop()
	return "", nil, fmt.Errorf("the registry does not answer: %s", log.String())
}

// looks opens each page in four ways, checks and saves it.
func looks(b *browser, url, pictures string) error {
	image, files, err := follow(b, url)
	if err != nil {
		return err
	}
	var failures []error
	for _, page := range []struct{ name, path, prepare string }{
		{"1-repositories", "/", ""},
		{"2-tags", "/r/team/shop", ""},
		{"3-tag", "/r/team/shop/-/tag/latest", ""},
		{"3-rollback", "/r/team/shop/-/tag/latest", `document.querySelector(".moves summary").click()`},
		{"4-index", "/r/team/shop/-/tag/v2.0.0-multi", ""},
		{"5-deleted", "/r/team/shop/-/tag/v1.0.0", ""},
		{"6-files", files, ""},
		{"7-directory", files + "?path=usr/lib", ""},
		{"8-diff", "/r/team/shop/-/diff?from=v1.1.0&to=v1.3.0", ""},
		{"9-hostile", "/r/team/evil/-/tag/v1", ""},
		{"a-error", "/r/team/none", ""},
		{"b-deleted-tags", "/r/team/shop?deleted=1", ""},
		{"c-manifest", image, ""},
	} {
		for _, screen := range []struct {
			name  string
			width int
			dark  bool
		}{{"desktop-light", 1280, false}, {"desktop-dark", 1280, true}, {"phone-light", 390, false}, {"phone-dark", 390, true}} {
			if err := errors.Join(b.screen(screen.width, 800, screen.dark), b.visit(url+page.path)); err != nil {
				return err
			}
			if page.prepare != "" {
				if err := b.eval(page.prepare, nil); err != nil {
					return err
				}
			}
			if err := b.shoot(filepath.Join(pictures, screen.name, page.name+".png")); err != nil {
				return err
			}
			if err := check(b, page.name == "a-error"); err != nil {
				failures = append(failures, fmt.Errorf("%s, %s: %w", page.name, screen.name, err))
			}
		}
	}
	return errors.Join(failures...)
}

// follow returns the addresses of an image by its digest and of its files.
func follow(b *browser, url string) (image, files string, err error) {
	if err := errors.Join(b.screen(1280, 800, false), b.visit(url+"/r/team/shop/-/tag/latest")); err != nil {
		return "", "", err
	}
	err = b.eval(`[...document.querySelectorAll("a.button")].find(a => a.textContent === "Browse files").getAttribute("href")`, &files)
	return strings.Replace(files, "/files/", "/manifest/", 1), files, err
}

// check asks the page itself: does anything stick out, is any text hard to read, is any field without a label?
func check(b *browser, missing bool) error {
	var found []string
	if err := b.eval(examine, &found); err != nil {
		return err
	}
	for _, problem := range b.problems {
		if missing && strings.Contains(problem, "404") {
			continue // the browser notes that the page says so
		}
		found = append(found, "the browser says: "+problem)
	}
	if len(found) > 0 {
		return errors.New(strings.Join(found, "\n  "))
	}
	return nil
}

// examine computes contrasts as WCAG 2 does: 4.5 at least for text.
const examine = `(() => {
  const found = [];
  const root = document.scrollingElement;
  if (root.scrollWidth > innerWidth) found.push("the page is " + root.scrollWidth + " wide, the window " + innerWidth);
  const rgb = c => c.match(/[\d.]+/g).map(Number);
  const light = c => { const [r, g, b] = rgb(c).map(v => { v /= 255; return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; }); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const ground = e => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor; const v = rgb(c); if (v.length < 4 || v[3] > 0.99) return c; } return "rgb(255, 255, 255)"; };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const e = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !e.checkVisibility() || e.closest(".hide, .off, script, datalist, option")) continue;
    const a = light(getComputedStyle(e).color), b = light(ground(e));
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) found.push("contrast " + ratio.toFixed(2) + ": " + walker.currentNode.data.trim().slice(0, 40));
  }
  for (const field of document.querySelectorAll("input:not([type=hidden]), select"))
    if (!field.labels.length) found.push("no label: " + field.outerHTML);
  for (const e of document.querySelectorAll("a, button"))
    if (e.checkVisibility() && !e.textContent.trim() && !e.getAttribute("aria-label")) found.push("nothing to read: " + e.outerHTML);
  if (document.querySelectorAll("h1").length !== 1) found.push("not one h1");
  if (document.title === "owned") found.push("a script of an image ran");
  return [...new Set(found)];
})()`

// works uses what needs a browser: the filter that answers while one types, copying, a rollback, the keyboard.
func works(b *browser, url string) error {
	for _, step := range []struct {
		name string
		do   func(*browser, string) error
	}{{"filter", filters}, {"copy", copies}, {"rollback", rollsBack}, {"keyboard", skips}, {"no scripts", plain}} {
		if err := step.do(b, url); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
		fmt.Println("works:", step.name)
	}
	return nil
}

func (b *browser) expect(expression, want string) error {
	var got string
	if err := b.eval(expression, &got); err != nil {
		return err
	}
	if got != want {
		return fmt.Errorf("%s is %q, not %q", expression, got, want)
	}
	return nil
}

func filters(b *browser, url string) error {
	if err := errors.Join(b.screen(1280, 800, false), b.visit(url+"/")); err != nil {
		return err
	}
	if err := b.eval(`new Promise(done => {
	  new MutationObserver(done).observe(document.querySelector("main"), {childList: true});
	  const q = document.getElementById("q"); q.value = "search"; q.dispatchEvent(new Event("input", {bubbles: true}));
	}).then(() => true)`, nil); err != nil {
		return err
	}
	return errors.Join(b.expect(`[...document.querySelectorAll(".row b")].map(b => b.textContent).join()`, "search-indexer"), b.expect(`location.search`, "?q=search"))
}

func copies(b *browser, url string) error {
	if err := b.visit(url + "/r/team/shop/-/tag/latest"); err != nil {
		return err
	}
	if err := b.call("Browser.grantPermissions", map[string]any{"permissions": []string{"clipboardReadWrite", "clipboardSanitizedWrite"}, "origin": url}, nil); err != nil {
		return err
	}
	if err := b.call("Page.bringToFront", nil, nil); err != nil {
		return err
	}
	if err := b.eval(`new Promise(done => {
	  const button = document.querySelector("[data-copy]");
	  new MutationObserver(done).observe(button, {childList: true});
	  button.click();
	}).then(() => true)`, nil); err != nil {
		return err
	}
	return errors.Join(
		b.expect(`document.querySelector("[data-copy]").textContent`, "Copied"),
		b.expect(`navigator.clipboard.readText()`, "davit pull "+strings.TrimPrefix(url, "http://")+"/team/shop:latest"))
}

func rollsBack(b *browser, url string) error {
	if err := b.visit(url + "/r/team/shop/-/tag/latest"); err != nil {
		return err
	}
	if err := b.eval(`(() => { document.querySelector(".moves details summary").click(); document.querySelector(".moves details form button").click(); })()`, nil); err != nil {
		return err
	}
	if err := b.loaded(); err != nil {
		return err
	}
	return b.expect(`document.querySelector(".flash")?.textContent.startsWith("Done: latest names") + " " + document.querySelectorAll(".moves li").length`, "true 5")
}

func skips(b *browser, url string) error {
	if err := b.visit(url + "/"); err != nil {
		return err
	}
	for _, kind := range []string{"keyDown", "keyUp"} {
		if err := b.call("Input.dispatchKeyEvent", map[string]any{"type": kind, "key": "Tab", "code": "Tab", "windowsVirtualKeyCode": 9}, nil); err != nil {
			return err
		}
	}
	return b.expect(`document.activeElement.textContent`, "Skip to content")
}

// plain is a browser that runs no scripts: what needs them is not there, and forms work.
func plain(b *browser, url string) error {
	if err := b.call("Emulation.setScriptExecutionDisabled", map[string]any{"value": true}, nil); err != nil {
		return err
	}
	if err := b.visit(url + "/r/team/shop/-/tag/latest"); err != nil {
		return err
	}
	if err := b.expect(`String([...document.querySelectorAll("[data-copy]")].some(e => e.checkVisibility()))`, "false"); err != nil {
		return err
	}
	if err := b.visit(url + "/"); err != nil {
		return err
	}
	if err := b.eval(`(() => { document.getElementById("q").value = "shop"; document.querySelector("form button").click(); })()`, nil); err != nil {
		return err
	}
	if err := b.loaded(); err != nil {
		return err
	}
	return b.expect(`[...document.querySelectorAll(".row b")].map(b => b.textContent).join() + location.search`, "shop?q=shop")
}
