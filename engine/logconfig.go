package engine

import (
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/docker/go-units"

	wire "github.com/moby/moby/api/types/container"

	"davit/engine/container"
	"davit/oci/errdefs"
	"davit/task"
)

// checkLogs refuses log drivers and options that mean nothing, in Docker's words.
func checkLogs(c wire.LogConfig) error {
	known := []string{"max-size", "max-file", "compress", "mode", "max-buffer-size"}
	switch c.Type {
	case "none":
		return nil
	case "json-file":
		known = append(known, "labels", "labels-regex", "env", "env-regex", "tag")
	case "local":
	default:
		return errdefs.Invalid("logger: no log driver named '%s' is registered", c.Type)
	}
	for _, name := range slices.Sorted(maps.Keys(c.Config)) {
		if !slices.Contains(known, name) {
			return errdefs.Invalid("unknown log opt '%s' for %s log driver", name, c.Type)
		}
	}
	return checkLogValues(c.Config)
}

func checkLogValues(options map[string]string) error {
	if mode := options["mode"]; mode != "" && mode != "blocking" && mode != "non-blocking" {
		return errdefs.Invalid("logger: logging mode not supported: %s", mode)
	}
	if size, ok := options["max-buffer-size"]; ok {
		if options["mode"] != "non-blocking" {
			return errdefs.Invalid("logger: max-buffer-size option is only supported with 'mode=non-blocking'")
		}
		if _, err := units.RAMInBytes(size); err != nil {
			return errdefs.Invalid("error parsing option max-buffer-size: invalid size: '%s'", size)
		}
	}
	if compress, ok := options["compress"]; ok {
		if _, err := strconv.ParseBool(compress); err != nil {
			return errdefs.Invalid("invalid value for compress: '%s'", compress)
		}
	}
	if size, ok := options["max-size"]; ok && size != "-1" {
		if n, err := units.RAMInBytes(size); err != nil || n <= 0 {
			return errdefs.Invalid("invalid value for max-size: invalid size: '%s'", size)
		}
	}
	if files, ok := options["max-file"]; ok {
		if n, err := strconv.Atoi(files); err != nil {
			return errdefs.Invalid("invalid value for max-file: '%s'", files)
		} else if n < 1 {
			return errdefs.Invalid("max-file cannot be less than 1")
		}
	}
	for _, name := range []string{"labels-regex", "env-regex"} {
		if _, err := regexp.Compile(options[name]); err != nil {
			return errdefs.Invalid("invalid value for %s: %v", name, err)
		}
	}
	return nil
}

// logConfig reads the size and number of log files from the log driver's options, and what is written
// with every entry.
func logConfig(r *container.Record) task.LogConfig {
	options := r.HostConfig.LogConfig.Config
	c := task.LogConfig{Path: r.LogPath, MaxFiles: 1, Attrs: logAttributes(r)}
	if size, err := units.RAMInBytes(options["max-size"]); err == nil && size > 0 {
		c.MaxSize = size
	}
	if n, err := strconv.Atoi(options["max-file"]); err == nil && n > 0 {
		c.MaxFiles = n
	}
	return c
}

// logAttributes are the labels, variables and tag that docker logs --details shows.
func logAttributes(r *container.Record) map[string]string {
	options := r.HostConfig.LogConfig.Config
	attributes := map[string]string{}
	env := map[string]string{}
	for _, entry := range r.Config.Env {
		name, value, _ := strings.Cut(entry, "=")
		env[name] = value
	}
	for _, from := range []struct {
		values map[string]string
		option string
	}{{r.Config.Labels, "labels"}, {env, "env"}} {
		names := strings.Split(options[from.option], ",")
		pattern := options[from.option+"-regex"]
		for name, value := range from.values {
			matches := false
			if pattern != "" {
				matches, _ = regexp.MatchString(pattern, name) // checked at create
			}
			if matches || slices.Contains(names, name) {
				attributes[name] = value
			}
		}
	}
	if tag := options["tag"]; tag != "" {
		attributes["tag"] = logTag(tag, r)
	}
	if len(attributes) == 0 {
		return nil
	}
	return attributes
}

// logTag fills in a tag's template: {{.Name}}, {{.ID}}, {{.FullID}}, {{.ImageName}}, {{.ImageID}},
// {{.ImageFullID}} and {{.DaemonName}}.
func logTag(template string, r *container.Record) string {
	image := strings.TrimPrefix(string(r.Image.ID), "sha256:")
	values := map[string]string{
		"Name": r.Name, "ID": r.ID[:12], "FullID": r.ID, "ImageName": r.Image.Name,
		"ImageID": image[:min(12, len(image))], "ImageFullID": string(r.Image.ID), "DaemonName": "docker",
	}
	field := regexp.MustCompile(`{{\s*\.(\w+)\s*}}`)
	return field.ReplaceAllStringFunc(template, func(found string) string {
		return values[field.FindStringSubmatch(found)[1]]
	})
}
