package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"

	"davit/oci/errdefs"
)

// connect is "davitd connect ADDRESS": it carries a TLS connection to an engine on its standard input and
// output, for the davit command, which links no TLS.
func connect(ctx context.Context, args []string, output io.Writer) error {
	flags := flag.NewFlagSet("davitd connect", flag.ContinueOnError)
	flags.SetOutput(output)
	ca := flags.String("tlscacert", "", "CA file (PEM)")
	cert := flags.String("tlscert", "", "certificate file (PEM)")
	key := flags.String("tlskey", "", "key file (PEM)")
	verify := flags.Bool("tlsverify", false, "verify the engine's certificate")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() != 1 {
		return errdefs.Invalid("connect takes one address, host:port")
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: !*verify} // --tls without --tlsverify asks for it
	if *verify {
		pem, err := os.ReadFile(*ca)
		if err != nil {
			return fmt.Errorf("read the CA: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return errdefs.Invalid("%s holds no certificate", *ca)
		}
	}
	if pair, err := tls.LoadX509KeyPair(*cert, *key); err == nil {
		config.Certificates = []tls.Certificate{pair}
	} else if !errors.Is(err, os.ErrNotExist) || *verify {
		return fmt.Errorf("load the client's certificate: %w", err)
	}
	dialer := tls.Dialer{Config: config}
	conn, err := dialer.DialContext(ctx, "tcp", flags.Arg(0))
	if err != nil {
		return fmt.Errorf("connect to tcp://%s: %w", flags.Arg(0), err)
	}
	return carry(conn.(*tls.Conn))
}

// carry copies both ways; the end of input is passed on, the end of output is the end.
func carry(conn *tls.Conn) error {
	go func() {
		_, err := io.Copy(conn, os.Stdin)
		if err != nil || conn.CloseWrite() != nil {
			_ = conn.Close() // the other direction reports it
		}
	}()
	_, err := io.Copy(os.Stdout, conn)
	return errors.Join(err, conn.Close())
}
