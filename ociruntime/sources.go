package ociruntime

import (
	"fmt"
	"os"
	"strconv"

	"davit/kernel/mount"
	"davit/kernel/seccomp"
	"davit/kernel/sys"
	"davit/oci/errdefs"
	"davit/oci/rootfs"
	"davit/ociruntime/plan"
	"davit/ociruntime/stage"
)

// mapping is how files are mapped into the container: by its user namespace, when it has one with a
// root of its own.
func (n *creation) mapping() (mount.Mapping, error) {
	if n.userNS == nil {
		return mount.Mapping{}, nil
	}
	uids, gids := n.plan.UIDs, n.plan.GIDs
	if len(uids) == 0 { // joined
		var err error
		if uids, err = readMap(n.init.Pid, "uid_map"); err != nil {
			return mount.Mapping{}, err
		}
		if gids, err = readMap(n.init.Pid, "gid_map"); err != nil {
			return mount.Mapping{}, err
		}
	}
	uid, ok := hostRoot(uids)
	gid, alsoOK := hostRoot(gids)
	if !ok || !alsoOK {
		return mount.Mapping{}, errdefs.Invalid("the user namespace maps no root")
	}
	return mount.Mapping{UserNS: n.userNS, UID: uid, GID: gid}, nil
}

func mountRootfs(r rootfs.Rootfs, m mount.Mapping) (*os.File, error) {
	tree, err := mount.Rootfs(r, m)
	if err != nil {
		return nil, fmt.Errorf("mount root file system: %w", err)
	}
	return tree, nil
}

// openSource copies one mount of the host for the container.
func (n *creation) openSource(s plan.Source) (*os.File, error) {
	o := mount.Options{
		Recursive: s.Recursive, Set: s.Set, Clear: s.Clear, SetAll: s.SetAll, ClearAll: s.ClearAll,
		Propagation: s.Propagation, MapAll: s.IDMapAll, MapIfPossible: s.IDMapIfPossible,
	}
	if s.IDMap {
		userNS, err := n.mapNamespace(s)
		if err != nil {
			return nil, err
		}
		o.UserNS = userNS
	}
	return mount.Tree(n.absolute(s.Path), o)
}

// mapNamespace is the namespace by which a mount is mapped: the container's, or one that exists for
// this mount's own mapping alone.
func (n *creation) mapNamespace(s plan.Source) (*os.File, error) {
	if len(s.UIDs)+len(s.GIDs) == 0 {
		if n.userNS == nil {
			return nil, errdefs.Invalid("mount of %s is to be idmapped, but the container has no user namespace and the mount no mappings", s.Path)
		}
		return n.userNS, nil
	}
	userNS, err := stage.UserNamespace(n.runtime.init, n.runtime.null, s.UIDs, s.GIDs)
	if err != nil {
		return nil, fmt.Errorf("make user namespace for mount of %s: %w", s.Path, err)
	}
	n.opened = append(n.opened, userNS)
	return userNS, nil
}

// applyOOMScore sets the score, or says why it cannot: lowering it takes CAP_SYS_RESOURCE.
func (n *creation) applyOOMScore() {
	if n.plan.OOMScore != nil {
		setOOMScore(n.runtime, n.init.Pid, *n.plan.OOMScore)
	}
}

func setOOMScore(r *Runtime, pid, score int) {
	path := "/proc/" + strconv.Itoa(pid) + "/oom_score_adj"
	if err := os.WriteFile(path, []byte(strconv.Itoa(score)), 0); err != nil {
		r.log.Warn("container setup: set oom_score_adj", "score", score, "error", err)
	}
}

// applyLimits sets the resource limits of a process.
func applyLimits(pid int, limits []plan.Limit) error {
	for _, l := range limits {
		if err := sys.SetRlimit(pid, l.Resource, l.Soft, l.Hard); err != nil {
			return fmt.Errorf("set resource limit %d to %d:%d: %w", l.Resource, l.Soft, l.Hard, err)
		}
	}
	return nil
}

// facts are the host's, with a seccomp filter.
func (r *Runtime) facts(f seccomp.Program) plan.Facts {
	return plan.Facts{
		Bounding: r.host.bounding, RaiseLimits: r.host.raiseLimits, HardLimits: r.host.hardLimits,
		Filter: f.Filter, FilterFlags: f.Flags, Notify: f.Notify,
	}
}
