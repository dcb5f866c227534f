package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/volume"
	"github.com/spf13/cobra"

	"davit/cli/format"
	"davit/oci/errdefs"
)

// kind is a sort of object that inspect looks up.
type kind struct {
	name  string
	path  func(name string) string
	typed func(json.RawMessage) any
}

// kinds are in the order in which a plain inspect tries them.
var kinds = []kind{
	{"container", func(n string) string { return "/containers/" + url.PathEscape(n) + "/json" }, typed[container.InspectResponse]},
	{"image", func(n string) string { return "/images/" + n + "/json" }, typed[image.InspectResponse]},
	{"network", func(n string) string { return "/networks/" + url.PathEscape(n) }, typed[network.Inspect]},
	{"volume", func(n string) string { return "/volumes/" + url.PathEscape(n) }, typed[volume.Volume]},
}

func (a *app) inspectCommand() *cobra.Command {
	cmd, typeName := a.inspector("", "inspect [OPTIONS] NAME|ID [NAME|ID...]", "Return low-level information on davit's objects")
	cmd.Flags().StringVar(typeName, "type", "", "Only inspect objects of the given type")
	return cmd
}

// inspector is inspect for one kind, or for all when it is empty.
func (a *app) inspector(only, use, short string) (cmd *cobra.Command, typeName *string) {
	var spec string
	var size bool
	typeName = &only
	cmd = &cobra.Command{
		Use:   use,
		Short: short,
		Args:  minArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.inspect(cmd.Context(), *typeName, args, spec, size)
		},
	}
	cmd.Flags().StringVarP(&spec, "format", "f", "", "Format output using a custom template")
	cmd.Flags().BoolVarP(&size, "size", "s", false, "Display total file sizes if the type is container")
	return cmd, typeName
}

// typed decodes to what templates see; nil when the engine's answer has another shape.
func typed[T any](raw json.RawMessage) any {
	var value T
	if err := json.Unmarshal(raw, &value); err != nil {
		return nil
	}
	return value
}

// inspect prints what was found, then fails for what was not.
func (a *app) inspect(ctx context.Context, only string, names []string, spec string, size bool) error {
	if only != "" && !slices.ContainsFunc(kinds, func(k kind) bool { return k.name == only }) {
		return fmt.Errorf("%q is not a valid value for --type", only)
	}
	var failed []error
	var objects []format.Object
	for _, name := range names {
		object, err := a.lookUp(ctx, only, name, size)
		if err != nil {
			failed = append(failed, err)
			continue
		}
		objects = append(objects, object)
	}
	if err := format.Inspect(a.out, spec, objects); err != nil {
		return err
	}
	if len(failed) == 0 {
		return nil
	}
	return &exitError{1, errors.Join(failed...).Error()}
}

func (a *app) lookUp(ctx context.Context, only, name string, size bool) (format.Object, error) {
	engine, err := a.client()
	if err != nil {
		return format.Object{}, err
	}
	query := url.Values{}
	if size {
		query.Set("size", "1")
	}
	for _, k := range kinds {
		if only != "" && k.name != only {
			continue
		}
		var raw json.RawMessage
		err := engine.Get(ctx, k.path(name), query, &raw)
		switch {
		case err == nil:
			return format.Object{Typed: k.typed(raw), Raw: raw}, nil
		case only != "", !errors.Is(err, errdefs.ErrNotFound) && !errors.Is(err, errdefs.ErrInvalid):
			return format.Object{}, fmt.Errorf("Error response from daemon: %w", err)
		}
	}
	return format.Object{}, fmt.Errorf("Error: No such object: %s", strings.TrimSpace(name))
}
