package oci

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"strings"
)

// Digest is an algorithm and a lower-case hexadecimal sum, "sha256:<64 hex>" or "sha512:<128 hex>"
// (OCI image-spec, descriptor.md, "Digests"). The zero value is no digest.
type Digest string

// DiffID is the digest of a layer's uncompressed tar archive (image-spec, config.md, "Layer DiffID").
type DiffID string

// ChainID identifies a stack of layers, lowest first (image-spec, config.md, "Layer ChainID").
type ChainID string

// algorithms lists the registered algorithms with the length of their sums in hexadecimal digits.
var algorithms = map[string]struct {
	hexLen int
	new    func() hash.Hash
}{
	"sha256": {64, sha256.New},
	"sha512": {128, sha512.New},
}

// ParseDigest accepts a digest of a supported algorithm in canonical form and explains a bad one.
func ParseDigest(s string) (Digest, error) {
	name, sum, ok := strings.Cut(s, ":")
	if !ok {
		return "", fmt.Errorf("invalid digest %q: want algorithm:hex", s)
	}
	algorithm, ok := algorithms[name]
	if !ok {
		return "", fmt.Errorf("invalid digest %q: unsupported algorithm %q (sha256 and sha512 are supported)", s, name)
	}
	if len(sum) != algorithm.hexLen {
		return "", fmt.Errorf("invalid digest %q: %s has %d hexadecimal digits, not %d", s, name, algorithm.hexLen, len(sum))
	}
	for _, c := range []byte(sum) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return "", fmt.Errorf("invalid digest %q: %q is not a lower-case hexadecimal digit", s, c)
		}
	}
	return Digest(s), nil
}

// DigestOf returns the sha256 digest of b.
func DigestOf(b []byte) Digest {
	sum := sha256.Sum256(b)
	return Digest("sha256:" + hex.EncodeToString(sum[:]))
}

// Algorithm returns the part before the colon.
func (d Digest) Algorithm() string { name, _, _ := strings.Cut(string(d), ":"); return name }

// Hex returns the part after the colon.
func (d Digest) Hex() string { _, sum, _ := strings.Cut(string(d), ":"); return sum }

// Short returns the first twelve digits, the form in which people read identifiers.
func (d Digest) Short() string {
	sum := d.Hex()
	return sum[:min(12, len(sum))]
}

func (d Digest) String() string { return string(d) }

// Hash returns a new hash of the digest's algorithm, or nil for an unsupported one.
func (d Digest) Hash() hash.Hash {
	if algorithm, ok := algorithms[d.Algorithm()]; ok {
		return algorithm.new()
	}
	return nil
}

// SumDigest returns h's current sum as a digest of the given algorithm.
func SumDigest(algorithm string, h hash.Hash) Digest {
	return Digest(algorithm + ":" + hex.EncodeToString(h.Sum(nil)))
}

// Chain returns the ChainID of the layers diffIDs, lowest first; of none it is empty.
func Chain(diffIDs ...DiffID) ChainID {
	var chain ChainID
	for i, id := range diffIDs {
		if i == 0 {
			chain = ChainID(id)
			continue
		}
		chain = ChainID(DigestOf([]byte(string(chain) + " " + string(id))))
	}
	return chain
}

// Verifier reads through to r and fails at the end of the stream when the bytes are not those that
// want describes. A reader that stops early has verified nothing.
type Verifier struct {
	r    io.Reader
	want Descriptor
	hash hash.Hash
	n    int64
}

// Verify returns a Verifier of r against want.Digest and, unless it is negative, want.Size.
func Verify(r io.Reader, want Descriptor) *Verifier {
	return &Verifier{r: r, want: want, hash: want.Digest.Hash()}
}

// Read implements io.Reader. In place of io.EOF it returns an error when size or digest differ.
func (v *Verifier) Read(p []byte) (int, error) {
	if v.hash == nil {
		return 0, fmt.Errorf("verify %s: unsupported digest algorithm", v.want.Digest)
	}
	n, err := v.r.Read(p)
	v.hash.Write(p[:n])
	v.n += int64(n)
	if v.want.Size >= 0 && v.n > v.want.Size {
		return n, fmt.Errorf("verify %s: more than the expected %d bytes", v.want.Digest, v.want.Size)
	}
	if err != io.EOF {
		return n, err
	}
	if v.want.Size >= 0 && v.n != v.want.Size {
		return n, fmt.Errorf("verify %s: got %d of %d bytes: %w", v.want.Digest, v.n, v.want.Size, io.ErrUnexpectedEOF)
	}
	if got := SumDigest(v.want.Digest.Algorithm(), v.hash); got != v.want.Digest {
		return n, fmt.Errorf("verify %s: content has digest %s", v.want.Digest, got)
	}
	return n, io.EOF
}
