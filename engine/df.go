package engine

import (
	"context"

	wire "github.com/moby/moby/api/types/container"
	imagewire "github.com/moby/moby/api/types/image"
	volumewire "github.com/moby/moby/api/types/volume"
)

// DiskUsage is what docker system df shows: bytes as du counts them.
type DiskUsage struct {
	LayersSize int64
	Images     []imagewire.Summary
	Containers []wire.Summary
	Volumes    []volumewire.Volume
}

// DiskUsage counts. The flags choose what.
func (y *System) DiskUsage(ctx context.Context, images, containers, volumes bool) (DiskUsage, error) {
	u := DiskUsage{Images: []imagewire.Summary{}, Containers: []wire.Summary{}, Volumes: []volumewire.Volume{}}
	if images {
		if err := y.imageUsage(ctx, &u); err != nil {
			return DiskUsage{}, err
		}
	}
	if containers {
		list, err := (&Views{y.shared}).List(ctx, ListOptions{All: true, Size: true})
		if err != nil {
			return DiskUsage{}, err
		}
		u.Containers = list
	}
	if volumes {
		used := y.usedVolumes()
		for _, v := range y.Options.Volumes.List(ctx) {
			size, err := y.Options.Volumes.Usage(ctx, v.Name)
			if isNotFound(err) {
				continue
			}
			if err != nil {
				return DiskUsage{}, err
			}
			w := wireVolume(v)
			w.UsageData = &volumewire.UsageData{Size: size, RefCount: int64(used[v.Name])}
			u.Volumes = append(u.Volumes, w)
		}
	}
	return u, nil
}

func (y *System) imageUsage(ctx context.Context, u *DiskUsage) error {
	usages, total, err := y.Options.Images.DiskUsage(ctx)
	if err != nil {
		return err
	}
	users := y.ImageUsers()
	u.LayersSize = total
	for _, usage := range usages {
		s := imageSummary(usage.Image)
		s.SharedSize, s.Size = usage.Shared, usage.Shared+usage.Unique
		s.Containers = int64(len(users[usage.Image.ID]))
		u.Images = append(u.Images, s)
	}
	return nil
}
