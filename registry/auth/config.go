package auth

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"davit/oci/errdefs"
)

// ConfigFile is Docker's client configuration as far as credentials go:
//
//	{"auths": {"host:5000": {"auth": "<base64 user:password>", "identitytoken": "..."}},
//	 "credsStore": "pass", "credHelpers": {"gcr.io": "gcloud"}, ...}
//
// A helper is the program docker-credential-NAME in PATH, which takes "get", "store", "erase" and
// "list". What davit does not know in the file stays as it is when it is written.
type ConfigFile struct {
	path   string
	fields map[string]json.RawMessage

	auths       map[string]Credentials
	credsStore  string
	credHelpers map[string]string
}

// DefaultConfigPath returns $DOCKER_CONFIG/config.json, else ~/.docker/config.json.
func DefaultConfigPath() string {
	if dir := os.Getenv("DOCKER_CONFIG"); dir != "" {
		return filepath.Join(dir, "config.json")
	}
	home, err := os.UserHomeDir()
	if err != nil {
		home = "/root"
	}
	return filepath.Join(home, ".docker", "config.json")
}

// LoadConfig reads the file at path; a missing one is empty.
func LoadConfig(path string) (*ConfigFile, error) {
	c := &ConfigFile{path: path, fields: map[string]json.RawMessage{}, auths: map[string]Credentials{}}
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) || (err == nil && len(bytes.TrimSpace(b)) == 0) {
		return c, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read client configuration: %w", err)
	}
	if err := json.Unmarshal(b, &c.fields); err != nil {
		return nil, errdefs.Invalid("read client configuration %s: %w", path, err)
	}
	for name, into := range map[string]any{"auths": &c.auths, "credsStore": &c.credsStore, "credHelpers": &c.credHelpers} {
		if raw, ok := c.fields[name]; ok {
			if err := json.Unmarshal(raw, into); err != nil {
				return nil, errdefs.Invalid("read client configuration %s: %s: %w", path, name, err)
			}
		}
	}
	if c.auths == nil {
		c.auths = map[string]Credentials{}
	}
	return c, nil
}

// Get returns the credentials for a registry host, anonymous ones when none are kept.
func (c *ConfigFile) Get(ctx context.Context, host string) (Credentials, error) {
	if helper := c.helper(host); helper != "" {
		return helperGet(ctx, helper, ConfigKey(host))
	}
	for address, kept := range c.auths {
		if Host(address) != Host(host) {
			continue
		}
		full, err := kept.expand()
		if err != nil {
			return Credentials{}, fmt.Errorf("read client configuration %s: %s: %w", c.path, address, err)
		}
		full.ServerAddress = address
		return full, nil
	}
	return Credentials{}, nil
}

// All returns the credentials of every registry that the file or the credential helpers know, by
// normalised host; POST /build sends them along. A helper that fails only loses its own.
func (c *ConfigFile) All(ctx context.Context) map[string]Credentials {
	hosts := map[string]bool{}
	for address := range c.auths {
		hosts[Host(address)] = true
	}
	for address := range c.credHelpers {
		hosts[Host(address)] = true
	}
	if c.credsStore != "" {
		for _, address := range helperList(ctx, c.credsStore) {
			hosts[Host(address)] = true
		}
	}
	all := map[string]Credentials{}
	for host := range hosts {
		if found, err := c.Get(ctx, host); err == nil && !found.Anonymous() {
			all[host] = found
		}
	}
	return all
}

// Store keeps credentials for a host, in its helper or in the file, and says where.
func (c *ConfigFile) Store(ctx context.Context, host string, creds Credentials) (where string, err error) {
	key := ConfigKey(host)
	if helper := c.helper(host); helper != "" {
		return "docker-credential-" + helper, helperStore(ctx, helper, key, creds)
	}
	kept := Credentials{IdentityToken: creds.IdentityToken, RegistryToken: creds.RegistryToken}
	if creds.Username != "" {
		secret := creds.Password
		if creds.IdentityToken != "" {
			secret = "" // the token replaces the password
		}
		kept.Auth = base64.StdEncoding.EncodeToString([]byte(creds.Username + ":" + secret))
	}
	c.auths[key] = kept
	return c.path, c.save()
}

// Erase forgets the credentials for a host and says whether there were any.
func (c *ConfigFile) Erase(ctx context.Context, host string) (bool, error) {
	known := false
	if helper := c.helper(host); helper != "" {
		if kept, err := helperGet(ctx, helper, ConfigKey(host)); err == nil && !kept.Anonymous() {
			known = true
		}
		if err := helperErase(ctx, helper, ConfigKey(host)); err != nil {
			return known, err
		}
	}
	changed := false
	for address := range c.auths {
		if Host(address) == Host(host) {
			delete(c.auths, address)
			changed = true
		}
	}
	if !changed {
		return known, nil
	}
	return true, c.save()
}

func (c *ConfigFile) helper(host string) string {
	for address, helper := range c.credHelpers {
		if Host(address) == Host(host) {
			return helper
		}
	}
	return c.credsStore
}

// save replaces the file as a whole, readable by its owner only. A link to a file elsewhere stays one.
func (c *ConfigFile) save() error {
	raw, err := json.Marshal(c.auths)
	if err != nil {
		return fmt.Errorf("encode client configuration: %w", err)
	}
	c.fields["auths"] = raw
	b, err := json.MarshalIndent(c.fields, "", "\t")
	if err != nil {
		return fmt.Errorf("encode client configuration: %w", err)
	}
	path := c.path
	if target, err := filepath.EvalSymlinks(path); err == nil {
		path = target
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("write client configuration: %w", err)
	}
	if err := replaceFile(path, b); err != nil {
		return fmt.Errorf("write client configuration: %w", err)
	}
	return nil
}

func replaceFile(path string, content []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".config-*.json") // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	_, werr := f.Write(content)
	if err := errors.Join(werr, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// helperReply is what a credential helper prints for "get" and reads for "store".
type helperReply struct {
	ServerURL string
	Username  string
	Secret    string
}

// tokenUser is the user name by which helpers mark an identity token.
const tokenUser = "<token>"

func helperGet(ctx context.Context, helper, server string) (Credentials, error) {
	out, err := runHelper(ctx, helper, "get", []byte(server))
	if err != nil {
		if strings.Contains(string(out), "credentials not found") {
			return Credentials{}, nil
		}
		return Credentials{}, err
	}
	var reply helperReply
	if err := json.Unmarshal(out, &reply); err != nil {
		return Credentials{}, fmt.Errorf("docker-credential-%s get: %w", helper, err)
	}
	if reply.Username == tokenUser {
		return Credentials{IdentityToken: reply.Secret, ServerAddress: server}, nil
	}
	return Credentials{Username: reply.Username, Password: reply.Secret, ServerAddress: server}, nil
}

func helperStore(ctx context.Context, helper, server string, creds Credentials) error {
	entry := helperReply{ServerURL: server, Username: creds.Username, Secret: creds.Password}
	if creds.IdentityToken != "" {
		entry.Username, entry.Secret = tokenUser, creds.IdentityToken
	}
	b, err := json.Marshal(entry)
	if err != nil {
		return fmt.Errorf("encode credentials: %w", err)
	}
	_, err = runHelper(ctx, helper, "store", b)
	return err
}

func helperErase(ctx context.Context, helper, server string) error {
	_, err := runHelper(ctx, helper, "erase", []byte(server))
	return err
}

func helperList(ctx context.Context, helper string) []string {
	out, err := runHelper(ctx, helper, "list", nil)
	var users map[string]string
	if err != nil || json.Unmarshal(out, &users) != nil {
		return nil
	}
	servers := make([]string, 0, len(users))
	for server := range users {
		servers = append(servers, server)
	}
	return servers
}

func runHelper(ctx context.Context, helper, verb string, input []byte) ([]byte, error) {
	if helper == "" || strings.ContainsAny(helper, "/ ") {
		return nil, errdefs.Invalid("invalid credential helper name %q", helper)
	}
	cmd := exec.CommandContext(ctx, "docker-credential-"+helper, verb)
	cmd.Stdin = bytes.NewReader(input)
	out, err := cmd.Output()
	if err != nil {
		return out, fmt.Errorf("docker-credential-%s %s: %w: %s", helper, verb, err, bytes.TrimSpace(out))
	}
	return out, nil
}
