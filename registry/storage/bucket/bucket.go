// Package bucket keeps a registry's bytes in an object store that speaks S3, for any number of registry
// processes at the same time.
//
//	<prefix>/content/<algorithm>-<hex>   cell: which object has the content (content)
//	<prefix>/data/<name>                 bytes, written once under a name that is never used again
//	<prefix>/uploads/<id>                cell: how far an upload is (upload)
//	<prefix>/records/<key elements>      cells; the last element is marked with "="
//
// A cell is a small object that is compared and swapped by S3's conditional writes: its entity tag is
// the version. It holds a random line and then the value, so that no two writes have the same tag. A
// cell without such a line is one that was removed. The random line also shows a writer whose answer got lost that it
// was its own write that a repetition found.
//
// Content becomes visible by its cell, after its digest was verified, without copying a byte; and an
// object of data is removed only by whoever made its cell say so. See docs/adr/0080.
package bucket

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"davit/oci"
	"davit/oci/errdefs"
	"davit/registry/storage"
)

// Store implements storage.Store. What it remembers are places of content, which never change.
type Store struct {
	s3     minio.Core
	bucket string
	prefix string // empty, or ends with "/"

	mu     sync.Mutex
	places map[oci.Digest]place
}

var (
	_ storage.Store     = (*Store)(nil)
	_ storage.Addresses = (*Store)(nil)
)

// IsURL says whether a registry's root names a bucket rather than a directory.
func IsURL(root string) bool { return strings.HasPrefix(root, "s3://") }

// Open uses a bucket that exists:
//
//	s3://BUCKET[/PREFIX][?region=REGION][&endpoint=http(s)://HOST:PORT][&lookup=path|dns]
//
// Without an endpoint it is Amazon's. Credentials are those of AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY
// and AWS_SESSION_TOKEN, of the AWS credentials file, or of the machine's or the container's role. A
// store that does not honour conditional writes is refused: registries would lose each other's records.
func Open(ctx context.Context, root string) (*Store, error) {
	s, err := parse(root)
	if err != nil {
		return nil, err
	}
	if err := s.probe(ctx); err != nil {
		return nil, fmt.Errorf("open bucket %s: %w", s.bucket, err)
	}
	return s, nil
}

func parse(root string) (*Store, error) {
	u, err := url.Parse(root)
	if err != nil || u.Scheme != "s3" || u.Host == "" {
		return nil, errdefs.Invalid("invalid bucket %q: want s3://BUCKET/PREFIX?region=REGION&endpoint=URL", root)
	}
	query := u.Query()
	endpoint := query.Get("endpoint")
	if endpoint == "" {
		endpoint = "https://s3.amazonaws.com"
	}
	at, err := url.Parse(endpoint)
	if err != nil || at.Host == "" || at.Scheme != "http" && at.Scheme != "https" {
		return nil, errdefs.Invalid("invalid endpoint %q of bucket %s: want http://HOST:PORT or https://HOST", endpoint, u.Host)
	}
	lookup, ok := map[string]minio.BucketLookupType{"": minio.BucketLookupAuto, "path": minio.BucketLookupPath, "dns": minio.BucketLookupDNS}[query.Get("lookup")]
	if !ok {
		return nil, errdefs.Invalid("invalid lookup %q of bucket %s: want path or dns", query.Get("lookup"), u.Host)
	}
	secure := at.Scheme == "https"
	transport, err := minio.DefaultTransport(secure)
	if err != nil {
		return nil, fmt.Errorf("open bucket %s: %w", u.Host, err)
	}
	transport.MaxIdleConnsPerHost = transport.MaxIdleConns // there is one host
	client, err := minio.NewCore(at.Host, &minio.Options{
		Creds: credentials.NewChainCredentials([]credentials.Provider{
			&credentials.EnvAWS{}, &credentials.FileAWSCredentials{}, &credentials.IAM{},
		}),
		Secure:       secure,
		Transport:    transport,
		Region:       region(query),
		BucketLookup: lookup,
		MaxRetries:   4,
	})
	if err != nil {
		return nil, fmt.Errorf("open bucket %s: %w", u.Host, err)
	}
	prefix := strings.Trim(u.Path, "/")
	if prefix != "" {
		prefix += "/"
	}
	return &Store{s3: *client, bucket: u.Host, prefix: prefix, places: map[oci.Digest]place{}}, nil
}

func region(query url.Values) string {
	for _, region := range []string{query.Get("region"), os.Getenv("AWS_REGION"), os.Getenv("AWS_DEFAULT_REGION")} {
		if region != "" {
			return region
		}
	}
	return "us-east-1"
}

// probe tries the conditional writes that everything rests on.
func (s *Store) probe(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	key := "probe/" + rand.Text()
	first, err := s.putObject(ctx, key, encode(nil), condition{absent: true})
	if err != nil {
		return err
	}
	_, createErr := s.putObject(ctx, key, encode(nil), condition{absent: true})
	_, replaceErr := s.putObject(ctx, key, encode(nil), condition{tag: first})
	_, staleErr := s.putObject(ctx, key, encode(nil), condition{tag: first})
	if err := errors.Join(replaceErr, s.deleteObject(ctx, key)); err != nil {
		return err
	}
	if !errors.Is(createErr, errCondition) || !errors.Is(staleErr, errCondition) {
		return errdefs.Invalid("the store ignores the conditions If-None-Match and If-Match of writes, which a registry needs (Amazon S3, MinIO and versitygw have them)")
	}
	return nil
}
