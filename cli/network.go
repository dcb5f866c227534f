package cli

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/network"
	"github.com/spf13/cobra"

	"davit/cli/format"
	"davit/cli/opts"
	"davit/oci/errdefs"
)

func (a *app) networkCommand() *cobra.Command {
	inspect, _ := a.inspector("network", "inspect [OPTIONS] NETWORK [NETWORK...]", "Display detailed information on one or more networks")
	// What docker adds with it is of swarm's networks, which davit has none of.
	inspect.Flags().BoolP("verbose", "v", false, "Verbose output for diagnostics")
	return groupCommand("network", "Manage networks",
		a.networkConnectCommand(), a.networkCreateCommand(), a.networkDisconnectCommand(), inspect,
		a.networkListCommand(), a.networkPruneCommand(), a.networkRemoveCommand())
}

// networkFlags are the flags of network create.
type networkFlags struct {
	driver, scope, ipamDriver, from                        string
	subnets, ranges, gateways, aux, labels, opts, ipamOpts []string
	internal, attachable, ingress, configOnly, ipv4, ipv6  bool
}

func (a *app) networkCreateCommand() *cobra.Command {
	f := &networkFlags{}
	cmd := &cobra.Command{
		Use:   "create [OPTIONS] NETWORK",
		Short: "Create a network",
		Args:  exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			request, err := f.request(args[0])
			if err != nil {
				return err
			}
			if cmd.Flags().Changed("ipv4") {
				request.EnableIPv4 = &f.ipv4
			}
			if cmd.Flags().Changed("ipv6") {
				request.EnableIPv6 = &f.ipv6
			}
			var created network.CreateResponse
			if err := a.post(cmd.Context(), "/networks/create", nil, request, &created); err != nil {
				return err
			}
			if created.Warning != "" {
				fmt.Fprintln(a.err, "WARNING:", created.Warning)
			}
			fmt.Fprintln(a.out, created.ID)
			return nil
		},
	}
	f.add(cmd)
	return cmd
}

func (f *networkFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.BoolVar(&f.attachable, "attachable", false, "Enable manual container attachment")
	flags.Var(opts.ListOf(&f.aux), "aux-address", "Auxiliary IPv4 or IPv6 addresses used by Network driver")
	flags.StringVar(&f.from, "config-from", "", "The network from which to copy the configuration")
	flags.BoolVar(&f.configOnly, "config-only", false, "Create a configuration only network")
	flags.StringVarP(&f.driver, "driver", "d", "bridge", "Driver to manage the Network")
	flags.StringSliceVar(&f.gateways, "gateway", nil, "IPv4 or IPv6 Gateway for the master subnet")
	flags.BoolVar(&f.ingress, "ingress", false, "Create swarm routing-mesh network")
	flags.BoolVar(&f.internal, "internal", false, "Restrict external access to the network")
	flags.StringSliceVar(&f.ranges, "ip-range", nil, "Allocate container ip from a sub-range")
	flags.StringVar(&f.ipamDriver, "ipam-driver", "default", "IP Address Management Driver")
	flags.Var(opts.ListOf(&f.ipamOpts), "ipam-opt", "Set IPAM driver specific options")
	flags.BoolVar(&f.ipv4, "ipv4", true, "Enable or disable IPv4 address assignment")
	flags.BoolVar(&f.ipv6, "ipv6", false, "Enable or disable IPv6 address assignment")
	flags.Var(opts.ListOf(&f.labels), "label", "Set metadata on a network")
	flags.VarP(opts.ListOf(&f.opts), "opt", "o", "Set driver specific options")
	flags.StringVar(&f.scope, "scope", "", "Control the network's scope")
	flags.StringSliceVar(&f.subnets, "subnet", nil, "Subnet in CIDR format that represents a network segment")
}

func (f *networkFlags) request(name string) (network.CreateRequest, error) {
	request := network.CreateRequest{
		Name: name, Driver: f.driver, Scope: f.scope, Internal: f.internal, Attachable: f.attachable, Ingress: f.ingress,
		ConfigOnly: f.configOnly, Options: pairs(f.opts), Labels: pairs(f.labels),
		IPAM: &network.IPAM{Driver: f.ipamDriver, Options: pairs(f.ipamOpts)},
	}
	if f.from != "" {
		request.ConfigFrom = &network.ConfigReference{Network: f.from}
	}
	configs, err := f.ipam()
	request.IPAM.Config = configs
	return request, err
}

// ipam gives every subnet the range, gateway and auxiliary addresses that lie in it. What lies in none
// is an error.
func (f *networkFlags) ipam() ([]network.IPAMConfig, error) {
	var configs []network.IPAMConfig
	for _, text := range f.subnets {
		subnet, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, errdefs.Invalid("invalid subnet %s: it is address/bits", text)
		}
		for _, c := range configs {
			if c.Subnet.Overlaps(subnet) {
				return nil, errdefs.Invalid("multiple overlapping subnet configuration is not supported")
			}
		}
		configs = append(configs, network.IPAMConfig{Subnet: subnet})
	}
	in := func(a netip.Addr) *network.IPAMConfig {
		i := slices.IndexFunc(configs, func(c network.IPAMConfig) bool { return c.Subnet.Contains(a) })
		if i < 0 {
			return nil
		}
		return &configs[i]
	}
	for _, text := range f.ranges {
		r, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, errdefs.Invalid("invalid ip-range %s: it is address/bits", text)
		}
		c := in(r.Addr())
		if c == nil {
			return nil, errdefs.Invalid("no matching subnet for range %s", text)
		}
		if c.IPRange.IsValid() {
			return nil, errdefs.Invalid("cannot configure multiple ranges (%s, %s) on the same subnet (%s)", text, c.IPRange, c.Subnet)
		}
		c.IPRange = r
	}
	for _, text := range f.gateways {
		g, err := netip.ParseAddr(text)
		if err != nil {
			return nil, errdefs.Invalid("invalid gateway %s", text)
		}
		c := in(g)
		if c == nil {
			return nil, errdefs.Invalid("no matching subnet for gateway %s", text)
		}
		if c.Gateway.IsValid() {
			return nil, errdefs.Invalid("cannot configure multiple gateways (%s, %s) for the same subnet (%s)", text, c.Gateway, c.Subnet)
		}
		c.Gateway = g
	}
	return configs, f.auxiliary(in)
}

func (f *networkFlags) auxiliary(in func(netip.Addr) *network.IPAMConfig) error {
	for key, text := range pairs(f.aux) {
		address, err := netip.ParseAddr(text)
		if err != nil {
			return errdefs.Invalid("invalid aux-address %s", text)
		}
		c := in(address)
		if c == nil {
			return errdefs.Invalid("no matching subnet for aux-address %s", text)
		}
		if c.AuxAddress == nil {
			c.AuxAddress = map[string]netip.Addr{}
		}
		c.AuxAddress[key] = address
	}
	return nil
}

type networkRow struct {
	CreatedAt string
	Driver    string
	ID        string
	IPv4      string
	IPv6      string
	Internal  string
	Labels    string
	Name      string
	Scope     string

	labels map[string]string
}

// Label lets templates ask for one label.
func (r networkRow) Label(name string) string { return r.labels[name] }

func (a *app) networkListCommand() *cobra.Command {
	var quiet, noTrunc bool
	var spec string
	var filters []string
	cmd := &cobra.Command{
		Use:     "ls [OPTIONS]",
		Aliases: []string{"list"},
		Short:   "List networks",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			query, err := filterQuery(filters)
			if err != nil {
				return err
			}
			var list []network.Summary
			if err := a.get(cmd.Context(), "/networks", query, &list); err != nil {
				return err
			}
			rows := networkRows(list, noTrunc)
			if quiet && spec == "" {
				return format.Quiet(a.out, rows, func(r networkRow) string { return r.ID })
			}
			return format.List(a.out, spec, `{{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.Scope}}`, format.Headings{
				"CreatedAt": "CREATED AT", "Driver": "DRIVER", "ID": "NETWORK ID", "IPv4": "IPV4", "IPv6": "IPV6",
				"Internal": "INTERNAL", "Labels": "LABELS", "Name": "NAME", "Scope": "SCOPE",
			}, rows)
		},
	}
	flags := cmd.Flags()
	flags.VarP(opts.ListOf(&filters), "filter", "f", `Provide filter values (e.g. "driver=bridge")`)
	addFormat(cmd, &spec)
	flags.BoolVar(&noTrunc, "no-trunc", false, "Do not truncate the output")
	flags.BoolVarP(&quiet, "quiet", "q", false, "Only display network IDs")
	return cmd
}

func networkRows(list []network.Summary, noTrunc bool) []networkRow {
	slices.SortFunc(list, func(x, y network.Summary) int { return strings.Compare(x.Name, y.Name) })
	rows := []networkRow{}
	for _, n := range list {
		row := networkRow{
			CreatedAt: n.Created.String(), Driver: n.Driver, ID: n.ID, IPv4: strconv.FormatBool(n.EnableIPv4),
			IPv6: strconv.FormatBool(n.EnableIPv6), Internal: strconv.FormatBool(n.Internal), Labels: joinPairs(n.Labels, ","),
			Name: n.Name, Scope: n.Scope, labels: n.Labels,
		}
		if !noTrunc {
			row.ID = shortID(n.ID)
		}
		rows = append(rows, row)
	}
	return rows
}

func (a *app) networkPruneCommand() *cobra.Command {
	var force bool
	var filters []string
	cmd := &cobra.Command{
		Use:   "prune [OPTIONS]",
		Short: "Remove all unused networks",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !force && !a.confirm("WARNING! This will remove all custom networks not used by at least one container.") {
				return nil
			}
			query, err := filterQuery(filters)
			if err != nil {
				return err
			}
			var report network.PruneReport
			if err := a.post(cmd.Context(), "/networks/prune", query, nil, &report); err != nil {
				return err
			}
			a.printList("Deleted Networks:", report.NetworksDeleted)
			return nil
		},
	}
	addPruneFlags(cmd, &force, &filters)
	return cmd
}

func (a *app) networkRemoveCommand() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:     "rm NETWORK [NETWORK...]",
		Aliases: []string{"remove"},
		Short:   "Remove one or more networks",
		Args:    minArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.removeEach(cmd, "networks", args, force)
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Do not error if the network does not exist")
	return cmd
}
