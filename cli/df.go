package cli

import (
	"context"
	"fmt"
	"net/url"
	"strconv"
	"time"

	units "github.com/docker/go-units"
	"github.com/moby/moby/api/types/build"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/system"
	"github.com/moby/moby/api/types/volume"
	"github.com/spf13/cobra"

	"davit/cli/format"
)

// usage is what the engine keeps. Since API 1.52 there are totals for each kind, before that the lists
// alone, from which fill computes the totals.
type usage struct {
	system.DiskUsage

	LayersSize int64
	Images     []image.Summary
	Containers []container.Summary
	Volumes    []volume.Volume
	BuildCache []build.CacheRecord
	DataRoot   *dataRoot // only davit's engine tells
}

// dataRoot is about the engine's directory as a whole; sizes are bytes.
type dataRoot struct {
	Path                    string
	Used, Other, Disk, Free int64
}

// printDataRoot adds up, so that the figures can be compared with du's.
func (a *app) printDataRoot(r *dataRoot) {
	if r == nil {
		return
	}
	size := func(bytes int64) string { return units.HumanSizeWithPrecision(float64(bytes), 4) }
	fmt.Fprintf(a.out, "\nAll of %s takes %s, records and work in progress %s of it; %s of the disk's %s are free.\n",
		r.Path, size(r.Used), size(r.Other), size(r.Free), size(r.Disk))
}

type usageRow struct {
	Active      string
	Reclaimable string
	Size        string
	TotalCount  string
	Type        string
}

func (a *app) diskUsageCommand() *cobra.Command {
	var verbose bool
	var spec string
	cmd := &cobra.Command{
		Use:   "df [OPTIONS]",
		Short: "Show disk usage",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			u, err := a.diskUsage(cmd.Context(), verbose)
			if err != nil {
				return err
			}
			if verbose {
				return a.verboseUsage(u, spec)
			}
			err = format.List(a.out, spec, `{{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}`, format.Headings{
				"Active": "ACTIVE", "Reclaimable": "RECLAIMABLE", "Size": "SIZE", "TotalCount": "TOTAL", "Type": "TYPE",
			}, u.rows())
			if err == nil && spec == "" {
				a.printDataRoot(u.DataRoot)
			}
			return err
		},
	}
	addFormat(cmd, &spec)
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "Show detailed information on space usage")
	return cmd
}

func (a *app) diskUsage(ctx context.Context, verbose bool) (usage, error) {
	var u usage
	query := url.Values{}
	setTrue(query, "verbose", verbose)
	if err := a.get(ctx, "/system/df", query, &u); err != nil {
		return u, err
	}
	u.fill()
	return u, nil
}

// fill makes both forms say the same.
func (u *usage) fill() {
	if u.ImageUsage == nil {
		u.ImageUsage = imageUsage(u.Images, u.LayersSize)
	}
	if u.ContainerUsage == nil {
		u.ContainerUsage = containerUsage(u.Containers)
	}
	if u.VolumeUsage == nil {
		u.VolumeUsage = volumeUsage(u.Volumes)
	}
	if u.BuildCacheUsage == nil {
		u.BuildCacheUsage = cacheUsage(u.BuildCache)
	}
}

// imageUsage counts as reclaimable all that no image with containers has for itself.
func imageUsage(list []image.Summary, layers int64) *image.DiskUsage {
	d := &image.DiskUsage{Items: list, TotalCount: int64(len(list)), TotalSize: layers, Reclaimable: layers}
	for _, i := range list {
		if i.Containers > 0 {
			d.ActiveCount++
			if i.Size >= 0 && i.SharedSize >= 0 {
				d.Reclaimable -= i.Size - i.SharedSize
			}
		}
	}
	d.Reclaimable = max(d.Reclaimable, 0)
	return d
}

func containerUsage(list []container.Summary) *container.DiskUsage {
	d := &container.DiskUsage{Items: list, TotalCount: int64(len(list))}
	for _, c := range list {
		d.TotalSize += c.SizeRw
		switch c.State {
		case container.StateRunning, container.StatePaused, container.StateRestarting:
			d.ActiveCount++
		default:
			d.Reclaimable += c.SizeRw
		}
	}
	return d
}

func volumeUsage(list []volume.Volume) *volume.DiskUsage {
	d := &volume.DiskUsage{Items: list, TotalCount: int64(len(list))}
	for _, v := range list {
		if v.UsageData == nil {
			continue
		}
		size := max(v.UsageData.Size, 0) // -1 is unknown
		d.TotalSize += size
		if v.UsageData.RefCount > 0 {
			d.ActiveCount++
		} else {
			d.Reclaimable += size
		}
	}
	return d
}

func cacheUsage(list []build.CacheRecord) *build.DiskUsage {
	d := &build.DiskUsage{Items: list, TotalCount: int64(len(list))}
	for _, r := range list {
		if r.InUse {
			d.ActiveCount++
		}
		if r.Shared {
			continue // it is an image's
		}
		d.TotalSize += r.Size
		if !r.InUse {
			d.Reclaimable += r.Size
		}
	}
	return d
}

func (u usage) rows() []usageRow {
	row := func(kind string, total, active, size, reclaimable int64, percent bool) usageRow {
		text := units.HumanSize(float64(reclaimable))
		if percent && size > 0 {
			text = fmt.Sprintf("%s (%d%%)", text, reclaimable*100/size)
		}
		return usageRow{strconv.FormatInt(active, 10), text, units.HumanSize(float64(size)), strconv.FormatInt(total, 10), kind}
	}
	i, c, v, b := u.ImageUsage, u.ContainerUsage, u.VolumeUsage, u.BuildCacheUsage
	return []usageRow{
		row("Images", i.TotalCount, i.ActiveCount, i.TotalSize, i.Reclaimable, true),
		row("Containers", c.TotalCount, c.ActiveCount, c.TotalSize, c.Reclaimable, true),
		row("Local Volumes", v.TotalCount, v.ActiveCount, v.TotalSize, v.Reclaimable, true),
		row("Build Cache", b.TotalCount, b.ActiveCount, b.TotalSize, b.Reclaimable, false),
	}
}

// cacheRow is one record of the build cache.
type cacheRow struct {
	CacheID, CacheType, Size, CreatedSince, LastUsedSince, UsageCount, Shared string
}

// verboseUsage lists every image, container, volume and cache record. With --format json it is one object.
func (a *app) verboseUsage(u usage, spec string) error {
	if spec == "json" {
		return format.List(a.out, spec, "", nil, []system.DiskUsage{u.DiskUsage})
	}
	if spec != "" {
		return fmt.Errorf("the verbose and the format options cannot be combined, except for json")
	}
	fmt.Fprint(a.out, "Images space usage:\n\n")
	var images []imageRow
	for _, i := range u.ImageUsage.Items {
		for _, row := range imageRows(i, imagesFlags{}) {
			row.SharedSize, row.UniqueSize = units.HumanSize(float64(i.SharedSize)), units.HumanSize(float64(i.Size-i.SharedSize))
			row.Containers = strconv.FormatInt(i.Containers, 10)
			images = append(images, row)
		}
	}
	if err := format.List(a.out, "", `{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}\t{{.SharedSize}}\t{{.UniqueSize}}\t{{.Containers}}`, imageHeadings, images); err != nil {
		return err
	}
	fmt.Fprint(a.out, "\nContainers space usage:\n\n")
	var containers []containerLine
	for _, c := range u.ContainerUsage.Items {
		row := containerRow(c, false)
		row.Size = units.HumanSizeWithPrecision(float64(c.SizeRw), 3)
		containers = append(containers, row)
	}
	if err := format.List(a.out, "", `{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.LocalVolumes}}\t{{.Size}}\t{{.RunningFor}}\t{{.Status}}\t{{.Names}}`, psHeadings, containers); err != nil {
		return err
	}
	fmt.Fprint(a.out, "\nLocal Volumes space usage:\n\n")
	if err := format.List(a.out, "", `{{.Name}}\t{{.Links}}\t{{.Size}}`, volumeHeadings, volumeRows(u.VolumeUsage.Items)); err != nil {
		return err
	}
	fmt.Fprintf(a.out, "\nBuild cache usage: %s\n\n", units.HumanSize(float64(u.BuildCacheUsage.TotalSize)))
	err := format.List(a.out, "", `{{.CacheID}}\t{{.CacheType}}\t{{.Size}}\t{{.CreatedSince}}\t{{.LastUsedSince}}\t{{.UsageCount}}\t{{.Shared}}`, format.Headings{
		"CacheID": "CACHE ID", "CacheType": "CACHE TYPE", "Size": "SIZE", "CreatedSince": "CREATED", "LastUsedSince": "LAST USED",
		"UsageCount": "USAGE", "Shared": "SHARED",
	}, cacheRows(u.BuildCacheUsage.Items, time.Now()))
	if err == nil {
		a.printDataRoot(u.DataRoot)
	}
	return err
}

func cacheRows(list []build.CacheRecord, now time.Time) []cacheRow {
	var rows []cacheRow
	for _, r := range list {
		row := cacheRow{
			CacheID: short(r.ID), CacheType: r.Type, Size: units.HumanSizeWithPrecision(float64(r.Size), 3),
			CreatedSince: units.HumanDuration(now.Sub(r.CreatedAt)) + " ago", UsageCount: strconv.Itoa(r.UsageCount),
			Shared: strconv.FormatBool(r.Shared),
		}
		if r.InUse {
			row.CacheID += "*"
		}
		if r.LastUsedAt != nil {
			row.LastUsedSince = units.HumanDuration(now.Sub(*r.LastUsedAt)) + " ago"
		}
		rows = append(rows, row)
	}
	return rows
}
