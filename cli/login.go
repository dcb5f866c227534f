package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/moby/moby/api/types/registry"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"davit/registry/auth"
)

type loginFlags struct {
	user, password string
	stdin          bool
}

func (a *app) loginCommand() *cobra.Command {
	var f loginFlags
	cmd := &cobra.Command{
		Use:   "login [OPTIONS] [SERVER]",
		Short: "Authenticate to a registry",
		Long:  "Authenticate to a registry. Without a server, to Docker Hub.",
		Args:  rangeArgs(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.login(cmd.Context(), server(args), f)
		},
	}
	cmd.Flags().StringVarP(&f.user, "username", "u", "", "Username")
	cmd.Flags().StringVarP(&f.password, "password", "p", "", "Password or Personal Access Token (PAT)")
	cmd.Flags().BoolVar(&f.stdin, "password-stdin", false, "Take the Password or Personal Access Token (PAT) from stdin")
	return cmd
}

// server is the registry that login and logout mean.
func server(args []string) string {
	if len(args) == 0 {
		return auth.IndexServer
	}
	return auth.ConfigKey(args[0])
}

func (a *app) login(ctx context.Context, server string, f loginFlags) error {
	config, err := a.credentials()
	if err != nil {
		return err
	}
	known, err := config.Get(ctx, server)
	if err != nil {
		return err
	}
	if f.user == "" && f.password == "" && !f.stdin && !known.Anonymous() {
		fmt.Fprintln(a.out, "Authenticating with existing credentials...")
		_, status, err := a.try(ctx, server, known)
		if err == nil {
			fmt.Fprintln(a.out, status)
			return nil
		}
		fmt.Fprintf(a.err, "Login did not succeed, error: %v\n", err)
	}
	given, err := a.askCredentials(f, known.Username)
	if err != nil {
		return err
	}
	return a.authenticate(ctx, config, server, given)
}

// try has the engine ask the registry. It returns what is to be kept and the engine's word on it.
func (a *app) try(ctx context.Context, server string, given auth.Credentials) (auth.Credentials, string, error) {
	given.ServerAddress = server
	var answer registry.AuthResponse
	if err := a.post(ctx, "/auth", nil, given, &answer); err != nil {
		return given, "", err
	}
	if answer.IdentityToken != "" {
		given.Password, given.IdentityToken = "", answer.IdentityToken
	}
	return given, answer.Status, nil
}

// authenticate keeps the credentials if the registry takes them.
func (a *app) authenticate(ctx context.Context, config *auth.ConfigFile, server string, given auth.Credentials) error {
	given, status, err := a.try(ctx, server, given)
	if err != nil {
		return err
	}
	where, err := config.Store(ctx, auth.Host(server), given)
	if err != nil {
		return fmt.Errorf("keep the credentials: %w", err)
	}
	if !strings.HasPrefix(where, "docker-credential-") {
		fmt.Fprintf(a.err, "\nWARNING! Your credentials are stored unencrypted in '%s'.\nConfigure a credential helper to remove this warning. See\nhttps://docs.docker.com/go/credential-store/\n\n", where)
	}
	if status != "" {
		fmt.Fprintln(a.out, status)
	}
	return nil
}

// askCredentials takes what the flags give and asks for the rest.
func (a *app) askCredentials(f loginFlags, user string) (auth.Credentials, error) {
	switch {
	case f.password != "" && f.stdin:
		return auth.Credentials{}, errors.New("--password and --password-stdin are mutually exclusive")
	case f.stdin && f.user == "":
		return auth.Credentials{}, errors.New("Must provide --username with --password-stdin")
	case f.stdin:
		typed, err := io.ReadAll(a.in)
		if err != nil {
			return auth.Credentials{}, fmt.Errorf("read the password: %w", err)
		}
		return auth.Credentials{Username: f.user, Password: strings.TrimRight(string(typed), "\r\n")}, nil
	case f.password != "":
		fmt.Fprintln(a.err, "WARNING! Using --password via the CLI is insecure. Use --password-stdin.")
	}
	given := auth.Credentials{Username: f.user, Password: f.password}
	if given.Username != "" && given.Password != "" {
		return given, nil
	}
	fd, _ := descriptor(a.in)
	if !isTerminal(a.in) {
		return auth.Credentials{}, errors.New("Error: Cannot perform an interactive login from a non TTY device")
	}
	if given.Username == "" {
		var err error
		if given.Username, err = a.askUser(user); err != nil {
			return auth.Credentials{}, err
		}
	}
	if given.Password != "" {
		return given, nil
	}
	fmt.Fprint(a.out, "Password: ")
	typed, err := term.ReadPassword(fd)
	fmt.Fprintln(a.out)
	if err != nil {
		return auth.Credentials{}, fmt.Errorf("read the password: %w", err)
	}
	if len(typed) == 0 {
		return auth.Credentials{}, errors.New("password is empty")
	}
	given.Password = string(typed)
	return given, nil
}

func (a *app) askUser(known string) (string, error) {
	if known == "" {
		fmt.Fprint(a.out, "Username: ")
	} else {
		fmt.Fprintf(a.out, "Username (%s): ", known)
	}
	line, err := bufio.NewReader(a.in).ReadString('\n')
	if err != nil && line == "" {
		return "", fmt.Errorf("read the username: %w", err)
	}
	if line = strings.TrimSpace(line); line == "" {
		line = known
	}
	if line == "" {
		return "", errors.New("username is empty")
	}
	return line, nil
}
