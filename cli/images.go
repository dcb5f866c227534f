package cli

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/image"
	"github.com/spf13/cobra"

	"davit/cli/format"
)

// none stands for a name or digest that an image has not.
const none = "<none>"

// unknown stands for a figure that was not asked for, since it is slow to find.
const unknown = "N/A"

type imagesFlags struct {
	all, digests, full, quiet bool
	filters                   []string
	format                    string
}

func (a *app) imagesCommand() *cobra.Command {
	var f imagesFlags
	cmd := &cobra.Command{
		Use:   "images [OPTIONS] [REPOSITORY[:TAG]]",
		Short: "List images",
		Args:  rangeArgs(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, name := range args {
				f.filters = append(f.filters, "reference="+name)
			}
			return a.images(cmd.Context(), f)
		},
	}
	flags := cmd.Flags()
	flags.BoolVarP(&f.all, "all", "a", false, "Show all images (default hides intermediate and dangling images)")
	flags.BoolVar(&f.digests, "digests", false, "Show digests")
	flags.BoolVar(&f.full, "no-trunc", false, "Don't truncate output")
	flags.BoolVarP(&f.quiet, "quiet", "q", false, "Only show image IDs")
	addFilter(cmd, &f.filters)
	addFormat(cmd, &f.format)
	return cmd
}

// imageRow is a line of "images". An image has one for each of its names.
type imageRow struct {
	Containers   string
	CreatedAt    string
	CreatedSince string
	Digest       string
	ID           string
	Repository   string
	SharedSize   string
	Size         string
	Tag          string
	UniqueSize   string
}

var imageHeadings = format.Headings{
	"Containers": "CONTAINERS", "CreatedAt": "CREATED AT", "CreatedSince": "CREATED", "Digest": "DIGEST", "ID": "IMAGE ID",
	"Repository": "REPOSITORY", "SharedSize": "SHARED SIZE", "Size": "SIZE", "Tag": "TAG", "UniqueSize": "UNIQUE SIZE",
}

func (a *app) images(ctx context.Context, f imagesFlags) error {
	query, err := filterQuery(f.filters)
	if err != nil {
		return err
	}
	setTrue(query, "all", f.all)
	var all []image.Summary
	if err := a.get(ctx, "/images/json", query, &all); err != nil {
		return err
	}
	var rows []imageRow
	for _, image := range all {
		rows = append(rows, imageRows(image, f)...)
	}
	if f.quiet && f.format == "" {
		return format.Quiet(a.out, rows, func(r imageRow) string { return r.ID })
	}
	columns := `{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}`
	if f.digests {
		columns = `{{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}`
	}
	return format.List(a.out, f.format, columns, imageHeadings, rows)
}

func imageRows(i image.Summary, f imagesFlags) []imageRow {
	created := time.Unix(i.Created, 0)
	row := imageRow{
		Containers: unknown, SharedSize: unknown, UniqueSize: unknown,
		CreatedAt: created.String(), CreatedSince: since(created), ID: shortID(i.ID), Size: size(i.Size),
	}
	if f.full {
		row.ID = i.ID
	}
	var rows []imageRow
	for _, name := range imageNames(i, f.digests || strings.Contains(f.format, ".Digest")) {
		row.Repository, row.Tag, row.Digest = name.repository, name.tag, name.digest
		rows = append(rows, row)
	}
	return rows
}

type imageName struct{ repository, tag, digest string }

// imageNames are an image's names: each tag, with each digest that its repository has for the image if
// digests are shown, and the repositories that know it by digest only.
func imageNames(i image.Summary, digests bool) []imageName {
	var names []imageName
	var tagged []string
	for _, name := range i.RepoTags {
		if name == none+":"+none {
			continue
		}
		colon := strings.LastIndexByte(name, ':')
		repository, tag := name[:colon], name[colon+1:]
		tagged = append(tagged, repository)
		known := digestsOf(repository, i.RepoDigests)
		if !digests || len(known) == 0 {
			known = []string{none}
		}
		for _, digest := range known {
			names = append(names, imageName{repository, tag, digest})
		}
	}
	for _, name := range i.RepoDigests {
		if repository, digest, _ := strings.Cut(name, "@"); repository != none && !slices.Contains(tagged, repository) {
			names = append(names, imageName{repository, none, digest})
		}
	}
	if len(names) == 0 {
		names = []imageName{{none, none, none}}
	}
	return names
}

func digestsOf(repository string, names []string) []string {
	var digests []string
	for _, name := range names {
		if r, digest, _ := strings.Cut(name, "@"); r == repository {
			digests = append(digests, digest)
		}
	}
	return digests
}

// size is a number of bytes for people, in three digits.
func size(bytes int64) string { return units.HumanSizeWithPrecision(float64(bytes), 3) }

// since is how long ago something was, for people.
func since(t time.Time) string {
	if t.Unix() <= 0 {
		return unknown
	}
	return units.HumanDuration(time.Since(t)) + " ago"
}
