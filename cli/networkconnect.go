package cli

import (
	"net/netip"

	"github.com/moby/moby/api/types/network"
	"github.com/spf13/cobra"

	"davit/cli/opts"
	"davit/oci/errdefs"
)

// connectFlags are the flags of network connect.
type connectFlags struct {
	aliases, driverOpts, links, linkLocal []string
	ip, ip6                               string
	priority                              int
}

func (a *app) networkConnectCommand() *cobra.Command {
	f := &connectFlags{}
	cmd := &cobra.Command{
		Use:   "connect [OPTIONS] NETWORK CONTAINER",
		Short: "Connect a container to a network",
		Args:  exactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			settings, err := f.settings()
			if err != nil {
				return err
			}
			request := network.ConnectRequest{Container: args[1], EndpointConfig: settings}
			return a.post(cmd.Context(), apiPath("networks", args[0], "connect"), nil, request, nil)
		},
	}
	flags := cmd.Flags()
	flags.StringSliceVar(&f.aliases, "alias", nil, "Add network-scoped alias for the container")
	flags.StringSliceVar(&f.driverOpts, "driver-opt", nil, "driver options for the network")
	flags.IntVar(&f.priority, "gw-priority", 0, "Highest gw-priority provides the default gateway. Accepts positive and negative values.")
	flags.StringVar(&f.ip, "ip", "", `IPv4 address (e.g., "172.30.100.104")`)
	flags.StringVar(&f.ip6, "ip6", "", `IPv6 address (e.g., "2001:db8::33")`)
	flags.Var(opts.ListOf(&f.links), "link", "Add link to another container")
	flags.StringSliceVar(&f.linkLocal, "link-local-ip", nil, "Add a link-local address for the container")
	return cmd
}

func (f *connectFlags) settings() (*network.EndpointSettings, error) {
	s := &network.EndpointSettings{
		Aliases: f.aliases, Links: f.links, GwPriority: f.priority, IPAMConfig: &network.EndpointIPAMConfig{},
	}
	if len(f.driverOpts) > 0 {
		s.DriverOpts = pairs(f.driverOpts)
	}
	for _, a := range []struct {
		text string
		into *netip.Addr
	}{{f.ip, &s.IPAMConfig.IPv4Address}, {f.ip6, &s.IPAMConfig.IPv6Address}} {
		if a.text == "" {
			continue
		}
		address, err := netip.ParseAddr(a.text)
		if err != nil {
			return nil, errdefs.Invalid("invalid IP address: %s", a.text)
		}
		*a.into = address
	}
	for _, text := range f.linkLocal {
		address, err := netip.ParseAddr(text)
		if err != nil {
			return nil, errdefs.Invalid("invalid IP address: %s", text)
		}
		s.IPAMConfig.LinkLocalIPs = append(s.IPAMConfig.LinkLocalIPs, address)
	}
	return s, nil
}

func (a *app) networkDisconnectCommand() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "disconnect [OPTIONS] NETWORK CONTAINER",
		Short: "Disconnect a container from a network",
		Args:  exactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			request := network.DisconnectRequest{Container: args[1], Force: force}
			return a.post(cmd.Context(), apiPath("networks", args[0], "disconnect"), nil, request, nil)
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Force the container to disconnect from a network")
	return cmd
}
