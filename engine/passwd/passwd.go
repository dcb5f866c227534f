// Package passwd finds out who a container's user is: it reads /etc/passwd and /etc/group as they are
// inside a container, without mounting it.
package passwd

import (
	"bufio"
	"bytes"
	"slices"
	"strconv"
	"strings"

	"davit/engine/container"
	"davit/oci/errdefs"
	"davit/oci/rootfs"
)

// account is a line of /etc/passwd.
type account struct {
	name     string
	uid, gid uint32
	home     string
}

// group is a line of /etc/group.
type group struct {
	name    string
	gid     uint32
	members []string
}

// Lookup resolves "user", "uid", "user:group" and so on, as docker run -u takes it, in the files of a
// root; empty means root. Supplementary groups are the main one, those that list the user unless a group is
// given, and those of extra (--group-add). A name that the files do not have is errdefs.ErrInvalid, in
// Docker's words; a number need not be in them.
func Lookup(root rootfs.Rootfs, spec string, extra []string) (container.User, error) {
	passwd, err := Read(root, "/etc/passwd")
	if err != nil {
		return container.User{}, err
	}
	groups, err := Read(root, "/etc/group")
	if err != nil {
		return container.User{}, err
	}
	return resolve(parsePasswd(passwd), parseGroups(groups), spec, extra)
}

func resolve(accounts []account, groups []group, spec string, extra []string) (container.User, error) {
	userSpec, groupSpec, _ := strings.Cut(spec, ":")
	u := container.User{Home: "/"}
	name, err := resolveUser(accounts, userSpec, &u)
	if err != nil {
		return container.User{}, err
	}
	if groupSpec != "" {
		gid, ok := findGroup(groups, groupSpec)
		if !ok {
			return container.User{}, errdefs.Invalid("unable to find group %s: no matching entries in group file", groupSpec)
		}
		u.GID = gid
	} else if name != "" {
		for _, g := range groups {
			if slices.Contains(g.members, name) {
				u.Groups = append(u.Groups, g.gid)
			}
		}
	}
	if !slices.Contains(u.Groups, u.GID) { // a program that drops its group must not gain by it
		u.Groups = append([]uint32{u.GID}, u.Groups...)
	}
	for _, spec := range extra {
		gid, ok := findGroup(groups, spec)
		if !ok {
			return container.User{}, errdefs.Invalid("Unable to find group %s: no matching entries in group file", spec)
		}
		if !slices.Contains(u.Groups, gid) {
			u.Groups = append(u.Groups, gid)
		}
	}
	return u, nil
}

// resolveUser fills in ids and home, and returns the account's name if there is one.
func resolveUser(accounts []account, spec string, u *container.User) (string, error) {
	uid, numeric := parseID(spec)
	if spec == "" {
		uid, numeric = 0, true
	}
	for _, a := range accounts {
		// A name wins over the same digits as a number.
		if a.name == spec || (numeric && a.uid == uid) {
			u.UID, u.GID = a.uid, a.gid
			if a.home != "" {
				u.Home = a.home
			}
			return a.name, nil
		}
	}
	if !numeric {
		return "", errdefs.Invalid("unable to find user %s: no matching entries in passwd file", spec)
	}
	u.UID = uid
	if uid == 0 {
		u.Home = "/root"
	}
	return "", nil
}

func findGroup(groups []group, spec string) (uint32, bool) {
	for _, g := range groups {
		if g.name == spec {
			return g.gid, true
		}
	}
	return parseID(spec)
}

func parseID(s string) (uint32, bool) {
	n, err := strconv.ParseUint(s, 10, 31)
	return uint32(n), err == nil
}

func parsePasswd(b []byte) []account {
	var all []account
	for fields := range lines(b) {
		if len(fields) < 4 {
			continue
		}
		uid, okUser := parseID(fields[2])
		gid, okGroup := parseID(fields[3])
		if !okUser || !okGroup {
			continue
		}
		a := account{name: fields[0], uid: uid, gid: gid}
		if len(fields) > 5 {
			a.home = fields[5]
		}
		all = append(all, a)
	}
	return all
}

func parseGroups(b []byte) []group {
	var all []group
	for fields := range lines(b) {
		if len(fields) < 3 {
			continue
		}
		gid, ok := parseID(fields[2])
		if !ok {
			continue
		}
		g := group{name: fields[0], gid: gid}
		if len(fields) > 3 && fields[3] != "" {
			g.members = strings.Split(fields[3], ",")
		}
		all = append(all, g)
	}
	return all
}

// lines yields the colon-separated fields of each line that has any.
func lines(b []byte) func(func([]string) bool) {
	return func(yield func([]string) bool) {
		scanner := bufio.NewScanner(bytes.NewReader(b))
		for scanner.Scan() {
			line := strings.TrimSpace(scanner.Text())
			if line == "" || line[0] == '#' {
				continue
			}
			if !yield(strings.Split(line, ":")) {
				return
			}
		}
	}
}
