package oidc

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"time"
)

// Sealer writes values that only this registry can read and that nobody can change: AES-256-GCM.
type Sealer struct{ aead cipher.AEAD }

// NewSealer derives a key for one purpose: what is sealed for another does not open.
func NewSealer(key []byte, purpose string) Sealer {
	derived, err := hkdf.Key(sha256.New, key, nil, "davit registry "+purpose, 32)
	if err != nil {
		panic(err) // 32 bytes are within HKDF's bounds
	}
	block, err := aes.NewCipher(derived)
	if err != nil {
		panic(err) // the key is as long as AES-256's
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic(err) // AES's blocks are as long as GCM's
	}
	return Sealer{aead}
}

// sealed is what is inside.
type sealed struct {
	Value json.RawMessage `json:"v"`
	Until int64           `json:"u"` // Unix seconds
}

var errSeal = errors.New("it is not ours, or too old")

// Seal returns text for a cookie.
func (s Sealer) Seal(value any, until time.Time) (string, error) {
	inner, err := json.Marshal(value)
	if err != nil {
		return "", err
	}
	plain, err := json.Marshal(sealed{inner, until.Unix()})
	if err != nil {
		return "", err
	}
	return base64.RawURLEncoding.EncodeToString(s.aead.Seal(nil, nil, plain, nil)), nil
}

// Open decodes what Seal returned, until its time is over.
func (s Sealer) Open(text string, into any, now time.Time) error {
	content, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return errSeal
	}
	plain, err := s.aead.Open(nil, nil, content, nil)
	if err != nil {
		return errSeal
	}
	var inner sealed
	if err := json.Unmarshal(plain, &inner); err != nil {
		return err
	}
	if now.Unix() >= inner.Until {
		return errSeal
	}
	return json.Unmarshal(inner.Value, into)
}

// random returns 128 bits as text.
func random() string { return rand.Text() }
