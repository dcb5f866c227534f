// Package auth holds the client's side of registry credentials: as Docker passes them about, and the file
// in which they are kept (~/.docker/config.json and its credential helpers). How a registry takes them is
// in package challenge.
//
// It imports no net/http, so that the command line can use it.
package auth

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"

	"davit/oci/errdefs"
)

// Credentials is what a user knows about one registry. Any field may be empty; none set means
// anonymous. The JSON form is that of Docker's X-Registry-Auth header and of POST /auth.
type Credentials struct {
	Username      string `json:"username,omitempty"`
	Password      string `json:"password,omitempty"`
	Auth          string `json:"auth,omitempty"` // base64 of username:password; fills in the two above
	Email         string `json:"email,omitempty"`
	ServerAddress string `json:"serveraddress,omitempty"`

	// IdentityToken is an OAuth2 refresh token: it is exchanged for access tokens.
	IdentityToken string `json:"identitytoken,omitempty"`
	// RegistryToken is an access token, sent to the registry as it is.
	RegistryToken string `json:"registrytoken,omitempty"`
}

// Anonymous says whether the credentials hold nothing to authenticate with.
func (c Credentials) Anonymous() bool {
	return c.Username == "" && c.Password == "" && c.IdentityToken == "" && c.RegistryToken == ""
}

// DecodeHeader reads the value of an X-Registry-Auth header: base64url (padded or not) of JSON. An
// empty value is anonymous. Errors are errdefs.ErrInvalid.
func DecodeHeader(value string) (Credentials, error) {
	var c Credentials
	if err := decodeHeader(value, &c); err != nil {
		return Credentials{}, errdefs.Invalid("invalid X-Registry-Auth header: %w", err)
	}
	return c.expand()
}

// DecodeConfigHeader reads the value of an X-Registry-Config header: credentials by registry host, as
// POST /build takes them. Keys are normalised by Host.
func DecodeConfigHeader(value string) (map[string]Credentials, error) {
	var raw map[string]Credentials
	if err := decodeHeader(value, &raw); err != nil {
		return nil, errdefs.Invalid("invalid X-Registry-Config header: %w", err)
	}
	byHost := make(map[string]Credentials, len(raw))
	for address, c := range raw {
		full, err := c.expand()
		if err != nil {
			return nil, err
		}
		byHost[Host(address)] = full
	}
	return byHost, nil
}

// EncodeHeader returns the credentials as the value of an X-Registry-Auth header.
func (c Credentials) EncodeHeader() string {
	b, err := json.Marshal(c)
	if err != nil {
		panic(err) // a struct of strings always encodes
	}
	return base64.URLEncoding.EncodeToString(b)
}

func decodeHeader(value string, into any) error {
	if value == "" {
		return nil
	}
	// Clients send base64url with padding; some leave it out, some use the other alphabet.
	plain := strings.NewReplacer("+", "-", "/", "_").Replace(strings.TrimRight(value, "="))
	b, err := base64.RawURLEncoding.DecodeString(plain)
	if err != nil {
		return fmt.Errorf("decode base64: %w", err)
	}
	if len(b) == 0 {
		return nil
	}
	if err := json.Unmarshal(b, into); err != nil {
		return fmt.Errorf("decode JSON: %w", err)
	}
	return nil
}

// expand fills in user name and password from the combined form.
func (c Credentials) expand() (Credentials, error) {
	if c.Auth == "" {
		return c, nil
	}
	user, password, err := decodeAuth(c.Auth)
	if err != nil {
		return Credentials{}, err
	}
	if c.Username == "" {
		c.Username, c.Password = user, password
	}
	c.Auth = ""
	return c, nil
}

func decodeAuth(auth string) (user, password string, err error) {
	b, err := base64.StdEncoding.DecodeString(auth)
	if err != nil {
		return "", "", errdefs.Invalid("invalid registry credentials: decode auth: %w", err)
	}
	user, password, ok := strings.Cut(string(b), ":")
	if !ok {
		return "", "", errdefs.Invalid("invalid registry credentials: auth is not user:password")
	}
	return user, strings.TrimRight(password, "\x00"), nil
}

// IndexServer is the key under which Docker Hub's credentials are kept.
const IndexServer = "https://index.docker.io/v1/"

// Host normalises a registry's address, as a user or a configuration file writes it, to the host[:port]
// that image references use: the scheme, path and Docker Hub's other names go.
func Host(address string) string {
	address = strings.TrimPrefix(strings.TrimPrefix(address, "https://"), "http://")
	host, _, _ := strings.Cut(address, "/")
	switch host {
	case "", "index.docker.io", "registry-1.docker.io", "registry.hub.docker.com":
		return "docker.io"
	}
	return host
}

// ConfigKey returns the key of host in the configuration file: Docker Hub's has a historic form.
func ConfigKey(host string) string {
	if Host(host) == "docker.io" {
		return IndexServer
	}
	return Host(host)
}
