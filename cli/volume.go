package cli

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"

	units "github.com/docker/go-units"
	"github.com/moby/moby/api/types/volume"
	"github.com/spf13/cobra"

	"davit/cli/format"
	"davit/cli/opts"
	"davit/oci/errdefs"
)

func (a *app) volumeCommand() *cobra.Command {
	inspect, _ := a.inspector("volume", "inspect [OPTIONS] VOLUME [VOLUME...]", "Display detailed information on one or more volumes")
	return groupCommand("volume", "Manage volumes",
		a.volumeCreateCommand(), inspect, a.volumeListCommand(), a.volumePruneCommand(), a.volumeRemoveCommand())
}

func (a *app) volumeCreateCommand() *cobra.Command {
	var driver string
	var labels, options []string
	cmd := &cobra.Command{
		Use:   "create [OPTIONS] [VOLUME]",
		Short: "Create a volume",
		Args:  rangeArgs(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			request := volume.CreateRequest{Driver: driver, Labels: pairs(labels), DriverOpts: pairs(options)}
			if len(args) == 1 {
				request.Name = args[0]
			}
			var created volume.Volume
			if err := a.post(cmd.Context(), "/volumes/create", nil, request, &created); err != nil {
				return err
			}
			fmt.Fprintln(a.out, created.Name)
			return nil
		},
	}
	flags := cmd.Flags()
	flags.StringVarP(&driver, "driver", "d", "local", "Specify volume driver name")
	flags.Var(opts.ListOf(&labels), "label", "Set metadata for a volume")
	flags.VarP(opts.ListOf(&options), "opt", "o", "Set driver specific options")
	return cmd
}

type volumeRow struct {
	Driver     string
	Labels     string
	Links      string
	Mountpoint string
	Name       string
	Scope      string
	Size       string

	labels map[string]string
}

// Label lets templates ask for one label.
func (r volumeRow) Label(name string) string { return r.labels[name] }

var volumeHeadings = format.Headings{
	"Driver": "DRIVER", "Labels": "LABELS", "Links": "LINKS", "Mountpoint": "MOUNTPOINT", "Name": "VOLUME NAME",
	"Scope": "SCOPE", "Size": "SIZE",
}

func (a *app) volumeListCommand() *cobra.Command {
	var quiet bool
	var spec string
	var filters []string
	cmd := &cobra.Command{
		Use:     "ls [OPTIONS]",
		Aliases: []string{"list"},
		Short:   "List volumes",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			query, err := filterQuery(filters)
			if err != nil {
				return err
			}
			var list volume.ListResponse
			if err := a.get(cmd.Context(), "/volumes", query, &list); err != nil {
				return err
			}
			for _, w := range list.Warnings {
				fmt.Fprintln(a.err, "WARNING:", w)
			}
			rows := volumeRows(list.Volumes)
			if quiet && spec == "" {
				return format.Quiet(a.out, rows, func(r volumeRow) string { return r.Name })
			}
			return format.List(a.out, spec, `{{.Driver}}\t{{.Name}}`, volumeHeadings, rows)
		},
	}
	flags := cmd.Flags()
	flags.VarP(opts.ListOf(&filters), "filter", "f", `Provide filter values (e.g. "dangling=true")`)
	addFormat(cmd, &spec)
	flags.BoolVarP(&quiet, "quiet", "q", false, "Only display volume names")
	return cmd
}

func volumeRows(list []volume.Volume) []volumeRow {
	slices.SortFunc(list, func(x, y volume.Volume) int { return strings.Compare(x.Name, y.Name) })
	rows := []volumeRow{}
	for _, v := range list {
		row := volumeRow{
			Driver: v.Driver, Labels: joinPairs(v.Labels, ","), Links: unknown, Mountpoint: v.Mountpoint, Name: v.Name,
			Scope: v.Scope, Size: unknown, labels: v.Labels,
		}
		if v.UsageData != nil {
			row.Links = strconv.FormatInt(v.UsageData.RefCount, 10)
			row.Size = units.HumanSize(float64(v.UsageData.Size))
		}
		rows = append(rows, row)
	}
	return rows
}

// joinPairs writes a=b and c=d with the separator between them.
func joinPairs(labels map[string]string, separator string) string {
	var parts []string
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		parts = append(parts, key+"="+labels[key])
	}
	return strings.Join(parts, separator)
}

func (a *app) volumePruneCommand() *cobra.Command {
	var all, force bool
	var filters []string
	cmd := &cobra.Command{
		Use:   "prune [OPTIONS]",
		Short: "Remove unused local volumes",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			warning := "WARNING! This will remove anonymous local volumes not used by at least one container."
			if all {
				filters = append(filters, "all=true")
				warning = "WARNING! This will remove all local volumes not used by at least one container."
			}
			if !force && !a.confirm(warning) {
				return nil
			}
			query, err := filterQuery(filters)
			if err != nil {
				return err
			}
			var report volume.PruneReport
			if err := a.post(cmd.Context(), "/volumes/prune", query, nil, &report); err != nil {
				return err
			}
			a.printList("Deleted Volumes:", report.VolumesDeleted)
			a.printReclaimed(report.SpaceReclaimed)
			return nil
		},
	}
	cmd.Flags().BoolVarP(&all, "all", "a", false, "Remove all unused volumes, not just anonymous ones")
	addPruneFlags(cmd, &force, &filters)
	return cmd
}

// printList prints what a prune has removed, if anything.
func (a *app) printList(title string, names []string) {
	if len(names) == 0 {
		return
	}
	fmt.Fprintln(a.out, title)
	for _, name := range names {
		fmt.Fprintln(a.out, name)
	}
	fmt.Fprintln(a.out)
}

func (a *app) volumeRemoveCommand() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:     "rm [OPTIONS] VOLUME [VOLUME...]",
		Aliases: []string{"remove"},
		Short:   "Remove one or more volumes",
		Args:    minArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.removeEach(cmd, "volumes", args, force)
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Force the removal of one or more volumes")
	return cmd
}

// removeEach deletes networks or volumes; force passes over those that do not exist.
func (a *app) removeEach(cmd *cobra.Command, kind string, names []string, force bool) error {
	query := url.Values{}
	if force {
		query.Set("force", "1")
	}
	return a.each(names, func(name string) error {
		err := a.delete(cmd.Context(), apiPath(kind, name), query, nil)
		if force && errors.Is(err, errdefs.ErrNotFound) {
			return nil
		}
		return err
	})
}

// addPruneFlags adds what every prune has.
func addPruneFlags(cmd *cobra.Command, force *bool, filters *[]string) {
	cmd.Flags().Var(opts.ListOf(filters), "filter", `Provide filter values (e.g. "until=<timestamp>")`)
	cmd.Flags().BoolVarP(force, "force", "f", false, "Do not prompt for confirmation")
}

func (a *app) printReclaimed(bytes uint64) {
	fmt.Fprintln(a.out, "Total reclaimed space:", units.HumanSize(float64(bytes)))
}
