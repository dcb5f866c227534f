package server

import (
	"context"
	"fmt"
	"io"

	"davit/registry/people"
)

// ForgetPerson is "davit registry forget": it revokes all tokens of somebody who signed in at a provider, and
// frees the name. Registries over the root notice within seconds.
func ForgetPerson(ctx context.Context, root, name string, out io.Writer) error {
	store, err := openStore(ctx, root)
	if err != nil {
		return err
	}
	if err := people.New(store).Forget(ctx, name); err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "Forgot %s: the tokens are revoked, and the name is free.\n", name)
	return err
}
