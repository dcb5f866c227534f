// Package oidc signs people in at an OpenID provider: OpenID Connect Core 1.0, the authorization code flow,
// with PKCE (RFC 7636), state and nonce. What has to be known between the way there and the way back goes
// along sealed in a cookie (Sealer), so that any process over the same store can end what another began.
package oidc

import (
	"fmt"
	"net/url"
	"os"
	"strings"

	"davit/oci/errdefs"
)

// Config is the section "oidc" of a registry's rules.
type Config struct {
	Issuer     string `json:"issuer"` // URL, as the provider's discovery document spells it
	ClientID   string `json:"clientID"`
	SecretFile string `json:"clientSecretFile,omitempty"` // empty: a public client
	// UsernameClaim says what people are called here; empty: preferred_username.
	UsernameClaim string `json:"usernameClaim,omitempty"`
	// GroupsClaim says which groups they are in, a list or one text; empty: groups.
	GroupsClaim string   `json:"groupsClaim,omitempty"`
	Scopes      []string `json:"scopes,omitempty"` // beside openid; empty: profile, email
	// URL is where browsers reach this registry, when a request does not show it; "https://HOST".
	URL string `json:"url,omitempty"`
}

// Check says what is wrong with a configuration.
func (c Config) Check() error {
	if c.ClientID == "" {
		return errdefs.Invalid("oidc wants a clientID")
	}
	for what, s := range map[string]string{"issuer": c.Issuer, "url": c.URL} {
		u, err := url.Parse(s)
		if what == "url" && s == "" {
			continue
		}
		if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.RawQuery != "" {
			return errdefs.Invalid("oidc wants an %s such as https://login.example.com: %q", what, s)
		}
	}
	return nil
}

func (c Config) secret() (string, error) {
	if c.SecretFile == "" {
		return "", nil
	}
	content, err := os.ReadFile(c.SecretFile)
	if err != nil {
		return "", fmt.Errorf("read the client's secret: %w", err)
	}
	return strings.TrimSpace(string(content)), nil
}
