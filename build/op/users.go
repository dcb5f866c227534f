package op

import (
	"errors"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"davit/build/tree"
	"davit/oci/errdefs"
)

// maxUserFile bounds what is read of /etc/passwd and /etc/group.
const maxUserFile = 8 << 20

// account is one line of passwd(5) or group(5), as far as it matters.
type account struct {
	name    string
	id      int
	gid     int      // passwd: the primary group
	home    string   // passwd
	members []string // group
}

// accounts reads etc/passwd or etc/group of an image. A missing file has no lines.
func accounts(t tree.Tree, file string) ([]account, error) {
	content, err := tree.ReadFile(t, file, maxUserFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var list []account
	for line := range strings.Lines(string(content)) {
		fields := strings.Split(strings.TrimSpace(line), ":")
		if len(fields) < 3 || strings.HasPrefix(fields[0], "#") {
			continue
		}
		id, err := strconv.Atoi(fields[2])
		if err != nil {
			continue
		}
		a := account{name: fields[0], id: id}
		if strings.HasSuffix(file, "group") && len(fields) > 3 {
			a.members = strings.Split(fields[3], ",")
		} else if len(fields) > 5 {
			a.gid, _ = strconv.Atoi(fields[3])
			a.home = fields[5]
		}
		list = append(list, a)
	}
	return list, nil
}

// find returns the account with the name, or failing that with the number.
func find(list []account, nameOrID string) (account, bool) {
	for _, a := range list {
		if a.name == nameOrID {
			return a, true
		}
	}
	id, err := strconv.Atoi(nameOrID)
	if err != nil {
		return account{}, false
	}
	for _, a := range list {
		if a.id == id {
			return a, true
		}
	}
	return account{}, false
}

// number reads a user or group id.
func number(s string) (int, bool) {
	id, err := strconv.ParseUint(s, 10, 32)
	return int(id), err == nil && id < 1<<32-1
}

// chownOwner reads the value of --chown, user[:group], with the names that the image t knows. Without
// a group a numeric user's is the same number, and a named user's is its own.
func chownOwner(t tree.Tree, chown string) (owner, error) {
	user, group, hasGroup := strings.Cut(chown, ":")
	var o owner
	if id, ok := number(user); ok {
		o = owner{id, id}
	} else {
		users, err := accounts(t, "etc/passwd")
		if err != nil {
			return owner{}, err
		}
		a, ok := find(users, user)
		if !ok {
			return owner{}, errdefs.Invalid("unable to convert uid/gid chown string to host mapping: can't find uid for user %s: no such user: %s", user, user)
		}
		o = owner{a.id, a.gid}
	}
	if !hasGroup || group == "" {
		return o, nil
	}
	gid, err := groupID(t, group)
	if err != nil {
		return owner{}, errdefs.Invalid("unable to convert uid/gid chown string to host mapping: can't find gid for group %s: %w", group, err)
	}
	o.gid = gid
	return o, nil
}

func groupID(t tree.Tree, group string) (int, error) {
	if id, ok := number(group); ok {
		return id, nil
	}
	groups, err := accounts(t, "etc/group")
	if err != nil {
		return 0, err
	}
	g, ok := find(groups, group)
	if !ok {
		return 0, errdefs.Invalid("no such group: %s", group)
	}
	return g.id, nil
}

// identity is what a process of a user runs as.
type identity struct {
	uid, gid uint32
	groups   []uint32
	home     string
}

// lookUp finds the identity of USER, user[:group], in the image t: as docker run -u.
func lookUp(t tree.Tree, spec string) (identity, error) {
	user, group, hasGroup := strings.Cut(spec, ":")
	if user == "" {
		user = "0"
	}
	users, err := accounts(t, "etc/passwd")
	if err != nil {
		return identity{}, err
	}
	a, known := find(users, user)
	if !known {
		id, ok := number(user)
		if !ok {
			return identity{}, errdefs.Invalid("unable to find user %s: no matching entries in passwd file", user)
		}
		a = account{id: id, home: "/"}
	}
	who := identity{uid: uint32(a.id), gid: uint32(a.gid), home: a.home}
	if a.home == "" {
		who.home = "/"
	}
	if hasGroup && group != "" {
		gid, err := groupID(t, group)
		if err != nil {
			return identity{}, errdefs.Invalid("unable to find group %s: no matching entries in group file", group)
		}
		who.gid = uint32(gid)
		return who, nil
	}
	if !known {
		return who, nil
	}
	groups, err := accounts(t, "etc/group")
	for _, g := range groups {
		if slices.Contains(g.members, a.name) {
			who.groups = append(who.groups, uint32(g.id))
		}
	}
	return who, err
}
