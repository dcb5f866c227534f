// Command oidcprovider is an OpenID provider for tests: zitadel's, which is certified, with the login pages
// and the storage of its example, and what a test wants to change while it runs.
//
//	oidcprovider -addr 127.0.0.1:PORT -client ID -secret SECRET -redirect URL -users FILE
//
// FILE is {"NAME": {"password": "...", "groups": ["..."], "subject": "..."}} and is read at every question.
// SIGHUP makes a new signing key; the former one is gone. A line is printed after that, and when it listens.
package main

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"

	jose "github.com/go-jose/go-jose/v4"
	"github.com/zitadel/oidc/v3/example/server/exampleop"
	"github.com/zitadel/oidc/v3/example/server/storage"
	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

func main() {
	addr := flag.String("addr", "127.0.0.1:0", "")
	id := flag.String("client", "", "")
	secret := flag.String("secret", "", "")
	redirect := flag.String("redirect", "", "")
	path := flag.String("users", "", "")
	flag.Parse()
	storage.RegisterClients(storage.WebClient(*id, *secret, *redirect))
	p := &provider{Storage: storage.NewStorage(users(*path)), users: users(*path)}
	if err := p.rotate(); err != nil {
		log.Fatal(err)
	}
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	listener, err := net.Listen("tcp", *addr)
	if err != nil {
		log.Fatal(err)
	}
	issuer := "http://" + listener.Addr().String()
	handler := exampleop.SetupServer(issuer, p, slog.New(slog.NewTextHandler(os.Stderr, nil)), false)
	fmt.Println("listening", issuer)
	go func() {
		for range hangups {
			if err := p.rotate(); err != nil {
				log.Fatal(err)
			}
			fmt.Println("rotated", p.key.Load().id)
		}
	}()
	log.Fatal(http.Serve(listener, handler))
}

// users is a storage.UserStore over the file. A user's ID is the subject.
type users string

type user struct {
	Password string
	Subject  string
	Groups   []string
}

func (u users) find(is func(name string, u user) bool) (*storage.User, []string) {
	content, err := os.ReadFile(string(u))
	all := map[string]user{}
	if err == nil {
		err = json.Unmarshal(content, &all)
	}
	if err != nil {
		log.Fatal(err)
	}
	for name, one := range all {
		if is(name, one) {
			return &storage.User{ID: one.Subject, Username: name, Password: one.Password}, one.Groups
		}
	}
	return nil, nil
}

func (u users) GetUserByID(id string) *storage.User {
	found, _ := u.find(func(_ string, one user) bool { return one.Subject == id })
	return found
}

func (u users) GetUserByUsername(name string) *storage.User {
	found, _ := u.find(func(other string, _ user) bool { return other == name })
	return found
}

func (u users) ExampleClientID() string { return "service" }

// provider is the example's storage with groups and changing keys.
type provider struct {
	*storage.Storage
	users users
	key   atomic.Pointer[key]
}

// GetClientByClientID lets the client sign people in on other devices too.
func (p *provider) GetClientByClientID(ctx context.Context, id string) (op.Client, error) {
	c, err := p.Storage.GetClientByClientID(ctx, id)
	if err != nil {
		return nil, err
	}
	return client{c}, nil
}

type client struct{ op.Client }

func (c client) GrantTypes() []oidc.GrantType {
	return append(c.Client.GrantTypes(), oidc.GrantTypeDeviceCode)
}

// CompleteDeviceAuthorization is told the name by the example's pages.
func (p *provider) CompleteDeviceAuthorization(ctx context.Context, code, name string) error {
	return p.Storage.CompleteDeviceAuthorization(ctx, code, p.users.GetUserByUsername(name).ID)
}

// SetUserinfoFromToken answers the userinfo endpoint; the ID token has none of it.
func (p *provider) SetUserinfoFromToken(ctx context.Context, info *oidc.UserInfo, token, subject, origin string) error {
	if err := p.Storage.SetUserinfoFromToken(ctx, info, token, subject, origin); err != nil {
		return err
	}
	_, groups := p.users.find(func(_ string, one user) bool { return one.Subject == subject })
	info.AppendClaims("groups", groups)
	return nil
}

func (p *provider) rotate() error {
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return err
	}
	p.key.Store(&key{rand.Text(), private})
	return nil
}

func (p *provider) SigningKey(context.Context) (op.SigningKey, error) { return p.key.Load(), nil }

func (p *provider) KeySet(context.Context) ([]op.Key, error) {
	return []op.Key{public{p.key.Load()}}, nil
}

type key struct {
	id      string
	private *rsa.PrivateKey
}

func (k *key) SignatureAlgorithm() jose.SignatureAlgorithm { return jose.RS256 }
func (k *key) Key() any                                    { return k.private }
func (k *key) ID() string                                  { return k.id }

type public struct{ key *key }

func (p public) ID() string                         { return p.key.id }
func (p public) Algorithm() jose.SignatureAlgorithm { return jose.RS256 }
func (p public) Use() string                        { return "sig" }
func (p public) Key() any                           { return &p.key.private.PublicKey }
