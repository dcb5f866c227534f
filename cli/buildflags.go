package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"davit/cli/opts"
	"davit/oci/errdefs"
	"davit/oci/ref"
)

// buildFlags are those of the classic builder, and those of buildx that have a meaning here.
type buildFlags struct {
	tags, args, labels, hosts, cacheFrom, security, ulimits       []string
	file, target, iidFile, network, platform                      string
	cpus, mems, cgroupParent, isolation, progress                 string
	shmSize, memory, swap                                         string
	cpuShares, cpuPeriod, cpuQuota                                int64
	noCache, pull, remove, forceRemove, quiet, squash, load, push bool
	secrets, ssh, outputs                                         []string
	provenance, sbom                                              string
	compress                                                      bool
}

func (f *buildFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.VarP(opts.ListOf(&f.tags), "tag", "t", `Name and optionally a tag in the "name:tag" format`)
	flags.StringVarP(&f.file, "file", "f", "", `Name of the Dockerfile (default: "PATH/Dockerfile")`)
	flags.Var(opts.ListOf(&f.args), "build-arg", "Set build-time variables")
	flags.Var(opts.ListOf(&f.labels), "label", "Set metadata for an image")
	flags.StringVar(&f.target, "target", "", "Set the target build stage to build")
	flags.BoolVar(&f.noCache, "no-cache", false, "Do not use cache when building the image")
	flags.BoolVar(&f.pull, "pull", false, "Always attempt to pull a newer version of the image")
	flags.BoolVarP(&f.quiet, "quiet", "q", false, "Suppress the build output and print image ID on success")
	flags.StringVar(&f.iidFile, "iidfile", "", "Write the image ID to the file")
	flags.StringVar(&f.network, "network", "default", "Set the networking mode for the RUN instructions during build")
	flags.Var(opts.ListOf(&f.hosts), "add-host", `Add a custom host-to-IP mapping ("host:ip")`)
	flags.Var(opts.ListOf(&f.ulimits), "ulimit", "Ulimit options")
	flags.StringSliceVar(&f.cacheFrom, "cache-from", nil, "Images to consider as cache sources")
	flags.StringSliceVar(&f.security, "security-opt", nil, "Security options")
	flags.BoolVar(&f.remove, "rm", true, "Remove intermediate containers after a successful build")
	flags.BoolVar(&f.forceRemove, "force-rm", false, "Always remove intermediate containers")
	flags.BoolVar(&f.squash, "squash", false, "Squash newly built layers into a single new layer")
	addPlatform(cmd, &f.platform)
	f.addLimits(cmd)
	f.addBuildx(cmd)
}

func (f *buildFlags) addLimits(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.shmSize, "shm-size", "", `Size of "/dev/shm"`)
	flags.StringVarP(&f.memory, "memory", "m", "", "Memory limit")
	flags.StringVar(&f.swap, "memory-swap", "", `Swap limit equal to memory plus swap: "-1" to enable unlimited swap`)
	flags.Int64VarP(&f.cpuShares, "cpu-shares", "c", 0, "CPU shares (relative weight)")
	flags.Int64Var(&f.cpuPeriod, "cpu-period", 0, "Limit the CPU CFS (Completely Fair Scheduler) period")
	flags.Int64Var(&f.cpuQuota, "cpu-quota", 0, "Limit the CPU CFS (Completely Fair Scheduler) quota")
	flags.StringVar(&f.cpus, "cpuset-cpus", "", "CPUs in which to allow execution (0-3, 0,1)")
	flags.StringVar(&f.mems, "cpuset-mems", "", "MEMs in which to allow execution (0-3, 0,1)")
	flags.StringVar(&f.cgroupParent, "cgroup-parent", "", `Set the parent cgroup for the "RUN" instructions during build`)
	flags.StringVar(&f.isolation, "isolation", "", "Container isolation technology")
	flags.BoolVar(&f.compress, "compress", false, "Compress the build context (accepted; it is sent as it is)")
}

func (f *buildFlags) addBuildx(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.progress, "progress", "auto", `Type of progress output ("auto", "plain", "tty", "quiet")`)
	flags.BoolVar(&f.load, "load", false, "Have the image among the engine's (it always is)")
	flags.BoolVar(&f.push, "push", false, "Push the image's tags after the build")
	flags.Var(opts.ListOf(&f.secrets), "secret", "Secret to expose to the build (needs BuildKit)")
	flags.Var(opts.ListOf(&f.ssh), "ssh", "SSH agent socket or keys to expose to the build (needs BuildKit)")
	flags.VarP(opts.ListOf(&f.outputs), "output", "o", "Output destination (needs BuildKit, but for type=image and type=docker)")
	flags.StringVar(&f.provenance, "provenance", "", `Attestation of the build ("false" only)`)
	flags.StringVar(&f.sbom, "sbom", "", `List of the image's parts ("false" only)`)
}

// check refuses what the classic API cannot carry, rather than building something else.
func (f *buildFlags) check() error {
	const session = "needs a BuildKit session, which this command does not open: use \"docker buildx build\""
	switch {
	case len(f.secrets) > 0:
		return errdefs.NotImplemented("--secret %s", session)
	case len(f.ssh) > 0:
		return errdefs.NotImplemented("--ssh %s", session)
	case f.provenance != "" && f.provenance != "false":
		return errdefs.NotImplemented("--provenance=%s %s", f.provenance, session)
	case f.sbom != "" && f.sbom != "false":
		return errdefs.NotImplemented("--sbom=%s %s", f.sbom, session)
	case f.push && len(f.tags) == 0:
		return errors.New("--push needs a tag (-t)")
	}
	for _, output := range f.outputs {
		if output != "type=image" && output != "type=docker" {
			return errdefs.NotImplemented("--output=%s %s", output, session)
		}
	}
	return nil
}

// query is the request's parameters, but for the context's.
func (f *buildFlags) query() (url.Values, error) {
	q := url.Values{"version": {"1"}, "t": f.tags, "rm": {"0"}}
	for _, tag := range f.tags {
		if _, err := ref.Parse(tag); err != nil {
			return nil, fmt.Errorf("invalid argument %q for \"-t, --tag\" flag: %w", tag, err)
		}
	}
	for name, value := range map[string]bool{"nocache": f.noCache, "pull": f.pull, "q": f.quiet, "rm": f.remove, "forcerm": f.forceRemove, "squash": f.squash} {
		setTrue(q, name, value)
	}
	for name, value := range map[string]string{
		"target": f.target, "networkmode": f.network, "platform": f.platform, "cpusetcpus": f.cpus, "cpusetmems": f.mems,
		"cgroupparent": f.cgroupParent, "isolation": f.isolation,
	} {
		setIf(q, name, value)
	}
	for name, value := range map[string]int64{"cpushares": f.cpuShares, "cpuperiod": f.cpuPeriod, "cpuquota": f.cpuQuota} {
		if value != 0 {
			q.Set(name, strconv.FormatInt(value, 10))
		}
	}
	for name, value := range map[string]string{"shmsize": f.shmSize, "memory": f.memory, "memswap": f.swap} {
		if err := setBytes(q, name, value); err != nil {
			return nil, err
		}
	}
	if err := f.addHosts(q); err != nil {
		return nil, err
	}
	return q, f.addEncoded(q)
}

// setBytes sets a parameter to a size like "64m"; -1 is what it is.
func setBytes(q url.Values, name, value string) error {
	switch value {
	case "":
		return nil
	case "-1":
		q.Set(name, value)
		return nil
	}
	bytes, err := units.RAMInBytes(value)
	if err != nil {
		return errdefs.Invalid("invalid size %q: %w", value, err)
	}
	q.Set(name, strconv.FormatInt(bytes, 10))
	return nil
}

// addHosts sends "host:ip"; "host=ip" is the same.
func (f *buildFlags) addHosts(q url.Values) error {
	for _, mapping := range f.hosts {
		host, ip, ok := strings.Cut(mapping, "=")
		if !ok {
			host, ip, ok = strings.Cut(mapping, ":")
		}
		address := strings.Trim(ip, "[]")
		if !ok || host == "" || address != "host-gateway" && net.ParseIP(address) == nil {
			return errdefs.Invalid("bad format for add-host: %q (expected host:ip)", mapping)
		}
		q.Add("extrahosts", host+":"+address)
	}
	return nil
}

// addEncoded sets the parameters that are JSON. A build argument without a value has the environment's, or
// null, with which the engine leaves it unset.
func (f *buildFlags) addEncoded(q url.Values) error {
	values := map[string]any{}
	if len(f.args) > 0 {
		args := map[string]*string{}
		for _, word := range f.args {
			name, value, ok := strings.Cut(word, "=")
			if !ok {
				value, ok = os.LookupEnv(name)
			}
			if args[name] = nil; ok {
				args[name] = &value
			}
		}
		values["buildargs"] = args
	}
	if len(f.labels) > 0 {
		values["labels"] = pairs(f.labels)
	}
	if len(f.cacheFrom) > 0 {
		values["cachefrom"] = f.cacheFrom
	}
	if len(f.security) > 0 {
		values["securityopt"] = f.security
	}
	var limits []*units.Ulimit
	for _, word := range f.ulimits {
		limit, err := units.ParseUlimit(word)
		if err != nil {
			return errdefs.Invalid("invalid ulimit %q: %w", word, err)
		}
		limits = append(limits, limit)
	}
	if limits != nil {
		values["ulimits"] = limits
	}
	for name, value := range values {
		encoded, err := json.Marshal(value)
		if err != nil {
			return err
		}
		q.Set(name, string(encoded))
	}
	return nil
}
