package oidc

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"davit/oci/errdefs"
)

func TestSealer(t *testing.T) {
	key, now := make([]byte, 32), time.Now()
	s := NewSealer(key, "a")
	text, err := s.Seal(Pending{State: "x"}, now.Add(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	var got Pending
	if err := s.Open(text, &got, now); err != nil || got.State != "x" {
		t.Errorf("%+v, %v", got, err)
	}
	if err := s.Open(text, &got, now.Add(time.Minute)); err == nil {
		t.Error("it opens when its time is over")
	}
	if err := NewSealer(key, "b").Open(text, &got, now); err == nil {
		t.Error("it opens for another purpose")
	}
	if again, err := s.Seal(Pending{State: "x"}, now.Add(time.Minute)); err != nil || again == text {
		t.Errorf("the same is sealed alike: %v", err)
	}
	for i := range text {
		changed := text[:i] + string(text[i]^1) + text[i+1:]
		if err := s.Open(changed, &got, now); err == nil && i < len(text)-1 { // the last character has bits that mean nothing
			t.Fatalf("changed at %d it opens", i)
		}
	}
}

func TestPersons(t *testing.T) {
	for _, c := range []struct {
		config Config
		claims string
		want   Person // Name empty: refused
	}{
		{Config{}, `{"sub":"1","preferred_username":"ada","groups":["x","y"]}`, Person{Name: "ada", Groups: []string{"x", "y"}}},
		{Config{GroupsClaim: "roles"}, `{"sub":"1","preferred_username":"ada","groups":["x"],"roles":"one"}`, Person{Name: "ada", Groups: []string{"one"}}},
		{Config{}, `{"sub":"1","preferred_username":"ada","groups":{"x":1}}`, Person{Name: "ada"}},
		{Config{UsernameClaim: "email"}, `{"sub":"1","email":"ada@example.com","email_verified":true}`, Person{Name: "ada@example.com"}},
		{Config{UsernameClaim: "email"}, `{"sub":"1","email":"ada@example.com"}`, Person{Name: "ada@example.com"}},
		{Config{UsernameClaim: "email"}, `{"sub":"1","email":"ada@example.com","email_verified":false}`, Person{}},
		{Config{UsernameClaim: "email"}, `{"sub":"1","email":"ada@example.com","email_verified":"true"}`, Person{Name: "ada@example.com"}},
		{Config{}, `{"sub":"1","name":"ada"}`, Person{}},
		{Config{}, `{"sub":"1","preferred_username":7}`, Person{}},
		{Config{}, `{"sub":"1","preferred_username":"a:b"}`, Person{}},
		{Config{}, `{"sub":"1","preferred_username":"a b"}`, Person{}},
		{Config{}, `{"sub":"1","preferred_username":"a\u202eb"}`, Person{}},
		{Config{}, `{"sub":"1","preferred_username":"*"}`, Person{}},
		{Config{}, `{"sub":"1","preferred_username":"anonymous"}`, Person{}},
		{Config{}, `{"sub":"1","preferred_username":"users"}`, Person{}},
		{Config{}, `{"sub":"1","preferred_username":"@staff"}`, Person{}},
		{Config{}, `{"sub":"1","preferred_username":"robot+ci"}`, Person{}},
		{Config{}, `{"sub":"1","preferred_username":"` + strings.Repeat("x", 129) + `"}`, Person{}},
	} {
		found := claims{}
		if err := json.Unmarshal([]byte(c.claims), &found); err != nil {
			t.Fatal(err)
		}
		got, err := (&Provider{config: c.config}).person(found)
		if c.want.Name == "" {
			if !errors.Is(err, errdefs.ErrForbidden) {
				t.Errorf("%s: %+v, %v", c.claims, got, err)
			}
			continue
		}
		if err != nil || got.Name != c.want.Name || strings.Join(got.Groups, " ") != strings.Join(c.want.Groups, " ") || got.Subject != "1" {
			t.Errorf("%s: %+v, %v", c.claims, got, err)
		}
	}
}

func TestConfig(t *testing.T) {
	good := Config{Issuer: "https://login.example.com/realms/x", ClientID: "registry"}
	if err := good.Check(); err != nil {
		t.Error(err)
	}
	for _, change := range []func(*Config){
		func(c *Config) { c.ClientID = "" },
		func(c *Config) { c.Issuer = "" },
		func(c *Config) { c.Issuer = "login.example.com" },
		func(c *Config) { c.Issuer = "https://login.example.com/?x" },
		func(c *Config) { c.URL = "registry.example.com" },
	} {
		bad := good
		change(&bad)
		if err := bad.Check(); !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
	good.SecretFile = "/nonexistent"
	if _, err := New(good); err == nil {
		t.Error("a secret that cannot be read is taken")
	}
}
