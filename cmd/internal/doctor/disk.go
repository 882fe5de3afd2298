package doctor

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Limits of the disk below the data directory. A store that meets a full disk stops the node.
const (
	minFree       = 100 << 20 // bytes: below, a snapshot may not fit
	lowFree       = 1 << 30   // bytes
	lowPart       = 10        // one part in so many, of bytes and of inodes
	minInodes     = 1000
	slowSync      = 10 * time.Millisecond // each commit waits for one on a majority of nodes
	syncSamples   = 9
	syncBlock     = 4096
	permGroupRest = 0o077
	mountReadOnly = 1 // ST_RDONLY of statfs(2)
)

// volatile and distant are file systems by their magic number (statfs(2)).
var (
	volatile = map[int64]string{unix.TMPFS_MAGIC: "tmpfs", unix.RAMFS_MAGIC: "ramfs"}
	distant  = map[int64]string{
		unix.NFS_SUPER_MAGIC: "NFS", unix.CIFS_SUPER_MAGIC: "CIFS", unix.SMB2_SUPER_MAGIC: "SMB", unix.SMB_SUPER_MAGIC: "SMB", unix.FUSE_SUPER_MAGIC: "FUSE",
	}
)

func (c *checkup) disk() []Result {
	dir := existing(c.cfg.DataDir)
	var s unix.Statfs_t
	if err := c.statfs(dir, &s); err != nil {
		return []Result{fail("disk space", fmt.Sprintf("%s: %v", dir, err), "give data_dir a path on a mounted file system")}
	}
	return []Result{diskSpace(dir, s), inodes(dir, s), fileSystem(dir, s), c.syncing(dir)}
}

func diskSpace(dir string, s unix.Statfs_t) Result {
	const name = "disk space"
	free, all := s.Bavail*uint64(s.Bsize), s.Blocks*uint64(s.Bsize)
	found := fmt.Sprintf("%s free of %s at %s", size(free), size(all), dir)
	const advice = "free space or enlarge the disk: a full disk stops the node"
	switch {
	case free < minFree:
		return fail(name, found, advice)
	case free < lowFree || free < all/lowPart:
		return warn(name, found, advice)
	}
	return good(name, "%s", found)
}

func inodes(dir string, s unix.Statfs_t) Result {
	const name = "inodes"
	if s.Files == 0 {
		return absent(name, "the file system at %s makes them as needed", dir)
	}
	found := fmt.Sprintf("%d free of %d at %s", s.Ffree, s.Files, dir)
	const advice = "remove small files: without inodes no file can be made, however much space there is"
	switch {
	case s.Ffree < minInodes:
		return fail(name, found, advice)
	case s.Ffree < s.Files/lowPart:
		return warn(name, found, advice)
	}
	return good(name, "%s", found)
}

func fileSystem(dir string, s unix.Statfs_t) Result {
	const name = "file system"
	kind := int64(s.Type)
	switch {
	case s.Flags&mountReadOnly != 0:
		return fail(name, dir+" is mounted read-only", "mount it writable, or give data_dir another path; dmesg says if an error made it so")
	case volatile[kind] != "":
		return warn(name, fmt.Sprintf("%s is on %s: the node is gone with the power", dir, volatile[kind]), "give data_dir a path on a disk")
	case distant[kind] != "":
		return warn(name, fmt.Sprintf("%s is on %s: locks and fsync may not hold what they promise", dir, distant[kind]),
			"give data_dir a path on a local disk")
	}
	return good(name, "%s is on a local file system (type %#x)", dir, uint64(kind))
}

func (c *checkup) syncing(dir string) Result {
	const name = "fsync"
	took, err := c.latency(dir)
	switch {
	case errors.Is(err, os.ErrPermission):
		return absent(name, "%s cannot be written by this user: run this as the user who runs the server", dir)
	case err != nil:
		return fail(name, fmt.Sprintf("writing 4 KiB to %s: %v", dir, err),
			"repair or replace the disk: a store that cannot keep what it wrote stops the node")
	case took > slowSync:
		return warn(name, fmt.Sprintf("writing 4 KiB and its fsync take %v (median of %d), and each change waits for it on a majority of nodes",
			took.Round(time.Microsecond), syncSamples),
			"use a disk with a power-protected write cache; keep other writers off it")
	}
	return good(name, "4 KiB are kept after %v (median of %d)", took.Round(time.Microsecond), syncSamples)
}

// syncLatency measures in a file that loses its name at once, so that nothing is left whatever happens.
func syncLatency(dir string) (time.Duration, error) {
	f, err := os.CreateTemp(dir, ".conclave-doctor-*")
	if err != nil {
		return 0, err
	}
	defer f.Close()
	if err := os.Remove(f.Name()); err != nil {
		return 0, err
	}
	took := make([]time.Duration, syncSamples)
	block := make([]byte, syncBlock)
	for i := range took {
		start := time.Now()
		if _, err := f.Write(block); err != nil {
			return 0, err
		}
		if err := f.Sync(); err != nil {
			return 0, err
		}
		took[i] = time.Since(start)
	}
	slices.Sort(took)
	return took[len(took)/2], nil
}

// size in the unit in which it has at most four digits.
func size(bytes uint64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}
	unit := 0
	for bytes >= 10<<10 && unit < len(units)-1 {
		bytes, unit = bytes>>10, unit+1
	}
	return fmt.Sprintf("%d %s", bytes, units[unit])
}

// dataDir checks the folder itself.
func (c *checkup) dataDir() Result {
	const name = "data directory"
	dir := c.cfg.DataDir
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return c.dataDirToBe(name, dir)
	case err != nil:
		return fail(name, err.Error(), "let the user who runs the server reach it")
	case !info.IsDir():
		return fail(name, dir+" is no directory", "give data_dir the path of a directory, or of nothing: init and join make it")
	}
	mode := info.Mode().Perm()
	owner, _ := ownerOf(dir) // it was just there
	switch user := os.Geteuid(); {
	case mode&permGroupRest != 0:
		return fail(name, fmt.Sprintf("%s has mode %04o: others may look into it", dir, mode), "chmod 700 "+dir)
	case owner != user:
		return warn(name, fmt.Sprintf("%s belongs to user %d and this is user %d", dir, owner, user),
			"run this as the user who runs the server, or: chown -R that user "+dir)
	case !writable(dir):
		return fail(name, fmt.Sprintf("%s has mode %04o and cannot be written", dir, mode),
			"chmod 700 "+dir+", and see that it is not mounted read-only")
	}
	return good(name, "%s, mode %04o", dir, mode)
}

// writable: with the effective user's rights, which are those that writing meets.
func writable(dir string) bool {
	return unix.Faccessat(unix.AT_FDCWD, dir, unix.W_OK|unix.X_OK, unix.AT_EACCESS) == nil
}

func (c *checkup) dataDirToBe(name, dir string) Result {
	above := existing(dir)
	if !writable(above) {
		return fail(name, fmt.Sprintf("%s is not there yet, and this user may not make it in %s", dir, above),
			fmt.Sprintf("install -d -m 700 -o THE_SERVER'S_USER %s", dir))
	}
	return good(name, "%s is not there yet; init or join makes it", dir)
}
