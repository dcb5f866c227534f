package cli

import (
	"context"
	"io"
	"net"

	"github.com/spf13/cobra"
)

func (a *app) systemCommand() *cobra.Command {
	return groupCommand("system", "Manage the engine",
		a.diskUsageCommand(), a.dialCommand(), a.eventsCommand(), a.infoCommand(), a.pruneAllCommand())
}

// dialCommand connects standard input and output with the engine's socket: the far end of ssh:// hosts.
func (a *app) dialCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "dial-stdio",
		Short:  "Proxy the stdio stream to the engine",
		Args:   noArgs,
		Hidden: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			dialer, err := a.global.dialer(a.err)
			if err != nil {
				return err
			}
			conn, err := dialer.Dial(cmd.Context())
			if err != nil {
				return err
			}
			return join(cmd.Context(), conn, a.in, a.out)
		},
	}
}

// join copies both ways until the engine is done. The end of the input is told to the engine, which may
// still have much to say.
func join(ctx context.Context, conn net.Conn, in io.Reader, out io.Writer) error {
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	go func() {
		_, _ = io.Copy(conn, in) // a broken connection ends the other direction, too
		if half, ok := conn.(interface{ CloseWrite() error }); ok {
			_ = half.CloseWrite()
		}
	}()
	_, err := io.Copy(out, conn)
	return err
}
