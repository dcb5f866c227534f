package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"davit/oci"
	"davit/oci/errdefs"
	"davit/store/layer"
)

// Import makes an image of one layer from a tar in any compression.
func (s *Store) Import(ctx context.Context, r io.Reader, o ImportOptions) (img Image, err error) {
	config, err := ApplyChanges(oci.Config{}, o.Changes)
	if err != nil {
		return Image{}, err
	}
	defer s.o.Content.Lease()()
	defer s.o.Layers.Lease()()
	report := newReporter(o.Progress)
	tar, _, err := layer.Decompress(&counter{Reader: r, report: report, status: "Importing"})
	if err != nil {
		return Image{}, fmt.Errorf("import file system: %w", err)
	}
	defer func() { err = errors.Join(err, tar.Close()) }()
	diffID, err := s.o.Layers.Import(ctx, nil, tar)
	if err != nil {
		return Image{}, fmt.Errorf("import file system: %w", err)
	}
	platform := s.o.Platform
	if o.Platform != nil {
		platform = *o.Platform
	}
	message := o.Message
	if message == "" {
		message = "Imported from -"
	}
	now := created(s.o.Now())
	return s.Put(ctx, PutOptions{Names: o.Names, By: ByImport, Config: oci.Image{
		Created: now, Architecture: platform.Architecture, Variant: platform.Variant, OS: platform.OS, Config: config, Comment: message,
		RootFS:  oci.RootFS{DiffIDs: []oci.DiffID{diffID}},
		History: []oci.History{{Created: now, Comment: message}},
	}})
}

// expandPorts turns "8000-8002/udp" into "8000/udp", "8001/udp", "8002/udp"; tcp is the default.
func expandPorts(spec string) ([]string, error) {
	bad := errdefs.Invalid("invalid containerPort: %s", spec)
	numbers, protocol, _ := strings.Cut(spec, "/")
	if protocol == "" {
		protocol = "tcp"
	}
	protocol = strings.ToLower(protocol)
	if protocol != "tcp" && protocol != "udp" && protocol != "sctp" {
		return nil, errdefs.Invalid("invalid proto: %s", protocol)
	}
	low, high, isRange := strings.Cut(numbers, "-")
	first, err := strconv.ParseUint(low, 10, 16)
	if err != nil {
		return nil, bad
	}
	last := first
	if isRange {
		if last, err = strconv.ParseUint(high, 10, 16); err != nil || last < first {
			return nil, bad
		}
	}
	var ports []string
	for port := first; port <= last; port++ {
		ports = append(ports, strconv.FormatUint(port, 10)+"/"+protocol)
	}
	return ports, nil
}
