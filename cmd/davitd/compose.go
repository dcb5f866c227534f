package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"davit/api/server"
	"davit/build/cache"
	"davit/engine"
	"davit/engine/container"
	"davit/image"
	"davit/kernel/probe"
	"davit/network"
	"davit/oci"
	"davit/store/content"
	"davit/store/layer"
	"davit/store/metadata"
	"davit/store/snapshot"
	"davit/store/volume"
	"davit/task"
)

// stores are the parts that own directories.
type stores struct {
	db        *metadata.DB
	content   *content.Store
	layers    *layer.Store
	snapshots *snapshot.Store
	volumes   *volume.Store
}

// serve puts the engine together, answers until ctx ends, and takes it apart.
func serve(ctx context.Context, c config, log *slog.Logger) error {
	if err := checkHosts(c.hosts); err != nil {
		return err
	}
	for _, dir := range []string{c.dataRoot, c.execRoot} {
		if err := os.MkdirAll(dir, 0o711); err != nil {
			return err
		}
	}
	if c.pidfile != "" {
		if err := os.WriteFile(c.pidfile, []byte(strconv.Itoa(os.Getpid())), 0o644); err != nil {
			return err
		}
		defer os.Remove(c.pidfile)
	}
	s, err := openStores(c, log)
	if err != nil {
		return err
	}
	defer s.close(log)
	e, err := newEngine(ctx, c, s, log)
	if err != nil {
		return err
	}
	defer e.Close()
	return answer(ctx, c, server.New(server.Options{Engine: e, Log: log}), log)
}

func openStores(c config, log *slog.Logger) (s *stores, err error) {
	s = &stores{}
	if s.db, err = metadata.Open(filepath.Join(c.dataRoot, "davit.db")); err != nil {
		return nil, err
	}
	if s.content, err = content.Open(filepath.Join(c.dataRoot, "content")); err != nil {
		return nil, err
	}
	if s.layers, err = layer.Open(filepath.Join(c.dataRoot, "layers"), layer.Options{Log: log}); err != nil {
		return nil, err
	}
	if s.snapshots, err = snapshot.Open(filepath.Join(c.dataRoot, "snapshots"), s.layers, log); err != nil {
		return nil, err
	}
	s.volumes, err = volume.Open(filepath.Join(c.dataRoot, "volumes"), log)
	return s, err
}

// closeTimeout is how long deletions under way may take at the end.
const closeTimeout = 5 * time.Second

func (s *stores) close(log *slog.Logger) {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	err := errors.Join(s.snapshots.Close(ctx), s.volumes.Close(ctx), s.layers.Close(ctx), s.db.Close())
	if err != nil {
		log.Error("close stores", "error", err)
	}
}

// late is what the image store asks of the engine, which is made after it.
type late struct{ engine *engine.Engine }

func (l *late) ImageUsers() map[oci.Digest][]image.User {
	if l.engine == nil {
		return nil
	}
	return l.engine.ImageUsers()
}

func (l *late) collect(ctx context.Context) (int64, error) {
	if l.engine == nil {
		return 0, nil
	}
	return l.engine.Collect(ctx)
}

func newEngine(ctx context.Context, c config, s *stores, log *slog.Logger) (*engine.Engine, error) {
	hostFacts, kernel, err := facts(c)
	if err != nil {
		return nil, err
	}
	mode, err := userMode(c, kernel, log)
	if err != nil {
		return nil, err
	}
	users := &late{}
	images, err := image.New(image.Options{DB: s.db, Content: s.content, Layers: s.layers, Users: users, Collect: users.collect, Log: log, TempDir: c.dataRoot})
	if err != nil {
		return nil, err
	}
	steps, err := cache.Open(s.db, time.Now)
	if err != nil {
		return nil, err
	}
	networks, dns, err := openNetworks(ctx, c, s, log)
	if err != nil {
		return nil, err
	}
	registries, err := newRegistries(c, log)
	if err != nil {
		return nil, err
	}
	binary, err := runtimeBinary(c)
	if err != nil {
		return nil, err
	}
	e, err := engine.New(ctx, engine.Options{
		Root: c.dataRoot, Run: c.execRoot, DB: s.db, Content: s.content, Layers: s.layers, Snapshots: s.snapshots, Volumes: s.volumes,
		Images: images, Cache: steps, Networks: networks, Registries: registries, Host: &host{},
		Monitor: task.LaunchOptions{Binary: binary, Socket: filepath.Join(c.execRoot, "monitor.sock"), Dir: filepath.Join(c.execRoot, "monitor"), Args: c.monitorArgs()},
		Facts:   hostFacts, Defaults: defaults(c, hostFacts), UserMode: mode,
		DNS:    engine.DNS{Servers: dns, Search: c.dnsSearch, Options: c.dnsOptions},
		Labels: c.labels, Insecure: c.insecure, Mirrors: mirrors(c.mirrors), Log: log, Now: time.Now,
	})
	users.engine = e
	return e, err
}

// userMode decides whether containers get user namespaces of their own.
func userMode(c config, kernel probe.HostFacts, log *slog.Logger) (container.UserMode, error) {
	if c.userns == "host" {
		return container.UserHost, nil
	}
	for _, feature := range []probe.Feature{probe.UserNamespaces, probe.IDMappedMounts} {
		if kernel.Has(feature) {
			continue
		}
		err := kernel.Features[feature].Err
		if c.userns == "require" {
			return "", fmt.Errorf("--userns-remap=require: this host has no %s: %w", feature, err)
		}
		log.Warn("containers share the host's user namespace", "missing", feature, "error", err)
		return container.UserHost, nil
	}
	return container.UserPrivate, nil
}

// defaults are what containers have unless they say otherwise. Logs are capped.
func defaults(c config, f container.HostFacts) container.Defaults {
	d := container.Defaults{LogDriver: c.logDriver, LogOptions: map[string]string{}, CgroupV2: f.CgroupV2, Systemd: f.Systemd}
	if name, err := os.Hostname(); err == nil {
		d.Hostname = name
	}
	if c.logDriver != "none" {
		d.LogOptions["max-size"], d.LogOptions["max-file"] = "10m", "3"
	}
	for _, o := range c.logOptions {
		name, value, _ := strings.Cut(o, "=")
		d.LogOptions[name] = value
	}
	return d
}

func openNetworks(ctx context.Context, c config, s *stores, log *slog.Logger) (*network.Controller, []netip.Addr, error) {
	o := network.Options{
		DB: s.db, RunDir: filepath.Join(c.execRoot, "network"), Log: log, Bridge: c.bridge, MTU: c.mtu, Pools: c.pools, DisableICC: !c.icc,
	}
	var err error
	if c.bip != "" {
		if o.BIP, err = netip.ParsePrefix(c.bip); err != nil {
			return nil, nil, fmt.Errorf("--bip: %w", err)
		}
	}
	if c.ip != "" {
		if o.HostIP, err = netip.ParseAddr(c.ip); err != nil {
			return nil, nil, fmt.Errorf("--ip: %w", err)
		}
	}
	for _, server := range c.dns {
		address, err := netip.ParseAddr(server)
		if err != nil {
			return nil, nil, fmt.Errorf("--dns: %w", err)
		}
		o.DNS = append(o.DNS, address)
	}
	n, err := network.Open(ctx, o)
	return n, o.DNS, err
}

// runtimeBinary finds davit-oci.
func runtimeBinary(c config) (string, error) {
	if c.runtimeBinary != "" {
		return filepath.Abs(c.runtimeBinary)
	}
	own, err := os.Executable()
	if err != nil {
		return "", err
	}
	beside := filepath.Join(filepath.Dir(own), "davit-oci")
	if _, err := os.Stat(beside); err == nil {
		return beside, nil
	}
	return exec.LookPath("davit-oci")
}

// headerTimeout is how long a client may take to send a request's header.
const headerTimeout = 30 * time.Second

// answer serves the API on all sockets until ctx ends.
func answer(ctx context.Context, c config, h http.Handler, log *slog.Logger) error {
	listeners, err := listen(c)
	if err != nil {
		return err
	}
	srv := &http.Server{Handler: resting(h), ReadHeaderTimeout: headerTimeout, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug)}
	failed := make(chan error, len(listeners))
	for _, l := range listeners {
		go func() { failed <- srv.Serve(l) }()
		log.Info("API listen", "address", l.Addr().String())
	}
	if err := ready(); err != nil {
		log.Warn("ready", "error", err)
	}
	select {
	case <-ctx.Done():
	case err := <-failed:
		srv.Close()
		return err
	}
	return srv.Close()
}
