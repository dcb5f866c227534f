package cgroup

import (
	"fmt"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// setDevicesV1 brings the group's list from what it is to what the rules say. Between two lists of
// allowed devices it writes only the differences, so that a running container never loses a device it
// keeps.
func (g *Group) setDevicesV1(rules []specs.LinuxDeviceCgroup) error {
	d, ok := g.v1("devices")
	if !ok && g.fd != nil {
		return g.setDevicesV2(rules)
	}
	if !ok {
		return g.unsupported(setting{"devices", "devices.allow", "", false})
	}
	want, err := resolveDevices(rules)
	if err != nil {
		return err
	}
	text, err := d.read("devices.list")
	if err != nil {
		return fmt.Errorf("read device rules: %w", err)
	}
	have, err := parseDeviceList(text)
	if err != nil {
		return err
	}
	for _, w := range deviceWrites(have, want) {
		if err := d.write(w.file, w.value); err != nil {
			return fmt.Errorf("set device rule: %w", err)
		}
	}
	return nil
}

// deviceWrites lists the writes that turn have into want.
func deviceWrites(have, want deviceList) []setting {
	var out []setting
	allow, deny := "devices.allow", "devices.deny"
	// devices.list does not tell the exceptions of a list that allows by default.
	switch {
	case want.allow:
		out = append(out, setting{"devices", allow, "a", false})
		have = deviceList{allow: true}
		allow, deny = deny, allow // an exception to "allowed" is written to devices.deny
	case have.allow:
		out = append(out, setting{"devices", deny, "a", false})
		have = deviceList{}
	}
	for _, dev := range want.sorted() {
		if missing := want.except[dev] &^ have.except[dev]; missing != 0 {
			out = append(out, setting{"devices", allow, dev.String() + " " + missing.String(), false})
		}
	}
	for _, dev := range have.sorted() {
		if extra := have.except[dev] &^ want.except[dev]; extra != 0 {
			out = append(out, setting{"devices", deny, dev.String() + " " + extra.String(), false})
		}
	}
	return out
}

// parseDeviceList reads devices.list: "a *:* rwm", or one "c 1:3 rwm" for each allowed device.
func parseDeviceList(text string) (deviceList, error) {
	l := deviceList{except: map[device]access{}}
	for line := range strings.SplitSeq(text, "\n") {
		if strings.HasPrefix(line, "a ") {
			l.allow = true
			continue
		}
		var d device
		var major, minor string
		fields := strings.Fields(line)
		if len(fields) != 3 || len(fields[0]) != 1 {
			continue
		}
		d.kind = fields[0][0]
		major, minor, _ = strings.Cut(fields[1], ":")
		bits, err := parseAccess(fields[2])
		if err != nil {
			return l, fmt.Errorf("read devices.list: %w", err)
		}
		if d.major, err = parseNumber(major); err == nil {
			d.minor, err = parseNumber(minor)
		}
		if err != nil {
			return l, fmt.Errorf("read devices.list: %w", err)
		}
		l.except[d] |= bits
	}
	return l, nil
}

func parseNumber(s string) (int64, error) {
	if s == "*" {
		return anyNumber, nil
	}
	var n int64
	_, err := fmt.Sscan(s, &n)
	return n, err
}
