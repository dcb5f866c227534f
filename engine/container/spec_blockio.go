package container

import (
	"fmt"

	"github.com/moby/moby/api/types/blkiodev"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"davit/oci/errdefs"
)

// throttle adds limits of single devices to the spec, whose numbers the host knows.
func (b builder) throttle(s *specs.Spec) error {
	r, io := &b.Record.HostConfig.Resources, specs.LinuxBlockIO{}
	if s.Linux.Resources.BlockIO != nil {
		io = *s.Linux.Resources.BlockIO
	}
	asked := false
	for _, limit := range []struct {
		into    *[]specs.LinuxThrottleDevice
		devices []*blkiodev.ThrottleDevice
	}{
		{&io.ThrottleReadBpsDevice, r.BlkioDeviceReadBps},
		{&io.ThrottleWriteBpsDevice, r.BlkioDeviceWriteBps},
		{&io.ThrottleReadIOPSDevice, r.BlkioDeviceReadIOps},
		{&io.ThrottleWriteIOPSDevice, r.BlkioDeviceWriteIOps},
	} {
		for _, d := range limit.devices {
			found, err := b.blockDevice(d.Path)
			if err != nil {
				return err
			}
			throttle := specs.LinuxThrottleDevice{Rate: d.Rate}
			throttle.Major, throttle.Minor = found.Major, found.Minor
			*limit.into, asked = append(*limit.into, throttle), true
		}
	}
	for _, d := range r.BlkioWeightDevice {
		found, err := b.blockDevice(d.Path)
		if err != nil {
			return err
		}
		weight := specs.LinuxWeightDevice{Weight: &d.Weight}
		weight.Major, weight.Minor = found.Major, found.Minor
		io.WeightDevice, asked = append(io.WeightDevice, weight), true
	}
	if asked {
		s.Linux.Resources.BlockIO = &io
	}
	return nil
}

// blockDevice finds the device whose input and output are to be limited.
func (b builder) blockDevice(path string) (specs.LinuxDevice, error) {
	found, err := b.Facts.Device(path)
	if err != nil {
		return specs.LinuxDevice{}, errdefs.As(errdefs.ErrInvalid, fmt.Errorf("limit device %s: %w", path, err))
	}
	if len(found) != 1 || found[0].Type != "b" {
		return specs.LinuxDevice{}, errdefs.Invalid("limit device %s: it is no block device; name a whole disk, such as /dev/sda", path)
	}
	return found[0], nil
}
