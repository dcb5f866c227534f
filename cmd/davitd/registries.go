package main

import (
	"context"
	"log/slog"
	"strings"

	"davit/engine"
	"davit/internal/version"
	"davit/oci/ref"
	"davit/registry/auth"
	"davit/registry/client"
)

// registries reaches registries by registry/client; it implements engine.Registries.
type registries struct{ client *client.Client }

func newRegistries(c config, log *slog.Logger) (registries, error) {
	made, err := client.New(client.Options{Insecure: c.insecure, Mirrors: mirrors(c.mirrors), UserAgent: "davit/" + version.Version, Log: log})
	return registries{made}, err
}

// mirrors reads --registry-mirror: URL is Docker's form, a mirror of Docker Hub; HOST=URL one of that
// registry, and *=URL one of all.
func mirrors(given []string) map[string][]string {
	byHost := map[string][]string{}
	for _, m := range given {
		host, url, ok := strings.Cut(m, "=")
		switch {
		case !ok || strings.Contains(host, "/"):
			host, url = "docker.io", m
		case host != "*":
			host = auth.Host(host)
		}
		byHost[host] = append(byHost[host], url)
	}
	return byHost
}

// repository adds to a client's repository that its closing cannot fail.
type repository struct{ *client.Repository }

func (r repository) Close() error {
	r.Repository.Close()
	return nil
}

// Repository implements engine.Registries.
func (r registries) Repository(name ref.Ref, creds auth.Credentials) (engine.Repository, error) {
	found, err := r.client.Repository(name, creds)
	if err != nil {
		return nil, err
	}
	return repository{found}, nil
}

// Tags implements engine.Registries.
func (r registries) Tags(ctx context.Context, name ref.Ref, creds auth.Credentials) ([]string, error) {
	found, err := r.client.Repository(name, creds)
	if err != nil {
		return nil, err
	}
	defer found.Close()
	return found.Tags(ctx)
}

// Login implements engine.Registries.
func (r registries) Login(ctx context.Context, creds auth.Credentials) (string, error) {
	return r.client.Login(ctx, creds)
}
