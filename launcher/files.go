package main

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

const accessExecute = 1 // X_OK

// install puts this program at path. It appears there as a whole or not at all.
func install(path string) error {
	return copyFile("/proc/self/exe", path, 0o755)
}

// copyAll copies each of from into the folder to: a file by its name, a folder's content as it is.
// Links stay links; owners are those of this process, as nothing else is allowed to it.
func copyAll(from []string, to string) error {
	for _, source := range from {
		info, err := os.Stat(source)
		if err != nil {
			return fmt.Errorf("%s cannot be copied: %w; the artifact's image must hold it", source, err)
		}
		if !info.IsDir() {
			if err := copyFile(source, filepath.Join(to, filepath.Base(source)), info.Mode().Perm()); err != nil {
				return err
			}
			continue
		}
		if err := copyTree(source, to); err != nil {
			return err
		}
	}
	return nil
}

func copyTree(from, to string) error {
	return filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, relative)
		info, err := entry.Info()
		if err != nil {
			return err
		}
		switch {
		case entry.IsDir():
			// writable for us, whatever it was: there is more to put into it
			return os.MkdirAll(target, info.Mode().Perm()|0o700)
		case info.Mode()&fs.ModeSymlink != 0:
			link, err := os.Readlink(path)
			if err != nil {
				return err
			}
			return os.Symlink(link, target)
		case info.Mode().IsRegular():
			return copyFile(path, target, info.Mode().Perm())
		}
		return nil
	})
}

// executable returns a path at which a native bundle can be executed: its own, with the bit set if it was lost, or
// that of a copy, if the file is somebody else's or the volume read-only.
func executable(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	if syscall.Access(path, accessExecute) == nil {
		return path, nil
	}
	mode := info.Mode().Perm()
	if os.Chmod(path, mode|(mode&0o444)>>2) == nil && syscall.Access(path, accessExecute) == nil {
		return path, nil
	}
	folder, err := os.MkdirTemp("", "polypod-")
	if err != nil {
		return "", fmt.Errorf("%s is not executable, and there is no folder for a copy: %w", path, err)
	}
	copied := filepath.Join(folder, filepath.Base(path))
	return copied, copyFile(path, copied, 0o700)
}

func copyFile(from, to string, mode fs.FileMode) error {
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer source.Close()
	temporary := fmt.Sprintf("%s.%d", to, os.Getpid())
	target, err := os.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	if _, err = io.Copy(target, source); err == nil {
		// the mode given to open is cut by the umask
		err = target.Chmod(mode)
	}
	if closed := target.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = os.Rename(temporary, to)
	}
	if err != nil {
		os.Remove(temporary)
		return fmt.Errorf("cannot copy %s to %s: %w", from, to, err)
	}
	return nil
}
