package web

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"io/fs"
	"net/http"
	"strings"

	"davit/oci/errdefs"
)

//go:embed static
var assets embed.FS

var assetTypes = map[string]string{".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}

// assetVersion changes with the assets, so that browsers may keep them for good.
var assetVersion = func() string {
	sum := sha256.New()
	err := fs.WalkDir(assets, "static", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := assets.ReadFile(name)
		sum.Write(content)
		return err
	})
	if err != nil {
		panic(err) // the files are part of the program
	}
	return hex.EncodeToString(sum.Sum(nil)[:6])
}()

// setHeaders says what browsers may do with a page: run our script, use our style, send forms to us, and
// nothing else; in no frame. Referrers stay on this site, where the check of forms' origins wants them.
func setHeaders(h http.Header) {
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; "+
		"connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "same-origin")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cache-Control", "private, no-cache")
	h.Set("Vary", "Authorization, Cookie")
}

// static sends the style, the script or the icon.
func (v *visit) static() error {
	name := strings.TrimPrefix(v.URL.Path, "/")
	content, err := assets.ReadFile(name)
	if err != nil {
		return errdefs.NotFound("there is no page at this address")
	}
	header := v.w.Header()
	header.Set("Content-Type", assetTypes[name[strings.LastIndexByte(name, '.'):]])
	if v.URL.RawQuery == assetVersion {
		header.Set("Cache-Control", "public, max-age=31536000, immutable")
	}
	if v.Method == http.MethodGet {
		_, _ = v.w.Write(content) // the client is gone when this fails
	}
	return nil
}
