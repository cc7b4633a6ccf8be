package main

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const (
	// whiteoutPrefix marks, in a layer, a name that the layers below have and this one removes.
	whiteoutPrefix = ".wh."
	// opaqueMarker marks, in a layer, a directory of which nothing below is to be seen.
	opaqueMarker = ".wh..wh..opq"
	// opaqueAttribute is how an overlay mount marks such a directory in its upper directory.
	opaqueAttribute = "trusted.overlay.opaque"
	// capabilityAttribute is the one extended attribute that belongs to a file's contents.
	capabilityAttribute = "security.capability"
)

func layerCommand(args []string) error {
	flags := newFlags("layer")
	out := flags.String("out", "", "")
	epoch := flags.Int64("epoch", 0, "")
	if err := parse(flags, args, 1, 1, "out"); err != nil {
		return err
	}
	return writeFile(*out, func(file *os.File) error {
		packed := gzip.NewWriter(file)
		return errors.Join(writeLayer(packed, flags.Arg(0), time.Unix(*epoch, 0)), packed.Close())
	})
}

// inode tells files apart, for finding hard links.
type inode struct{ device, number uint64 }

// layerWriter packs one directory.
type layerWriter struct {
	tar   *tar.Writer
	epoch time.Time
	links map[inode]string // the name under which a file with several names was packed
}

// writeLayer packs everything below root, sorted by name, each with the same time.
func writeLayer(out io.Writer, root string, epoch time.Time) error {
	writer := layerWriter{tar: tar.NewWriter(out), epoch: epoch.UTC(), links: map[inode]string{}}
	err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil || path == root {
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		if err := writer.add(path, name); err != nil {
			return fmt.Errorf("packing %s: %w", path, err)
		}
		return nil
	})
	return errors.Join(err, writer.tar.Close())
}

// add packs one entry; a directory's children follow by themselves.
func (w *layerWriter) add(path, name string) error {
	if strings.HasPrefix(filepath.Base(name), whiteoutPrefix) {
		return fmt.Errorf("a name that begins with %q would remove a file when the image is unpacked", whiteoutPrefix)
	}
	var stat syscall.Stat_t
	if err := syscall.Lstat(path, &stat); err != nil {
		return err
	}
	header := tar.Header{
		Name: name, ModTime: w.epoch,
		Mode: int64(stat.Mode & 0o7777), Uid: int(stat.Uid), Gid: int(stat.Gid),
	}
	switch stat.Mode & syscall.S_IFMT {
	case syscall.S_IFDIR:
		return w.addDirectory(path, &header)
	case syscall.S_IFREG:
		return w.addFile(path, &header, &stat)
	case syscall.S_IFLNK:
		target, err := os.Readlink(path)
		if err != nil {
			return err
		}
		header.Typeflag, header.Linkname, header.Mode = tar.TypeSymlink, target, 0o777
		return w.tar.WriteHeader(&header)
	case syscall.S_IFCHR:
		if stat.Rdev != 0 {
			return errors.New("a device does not belong in an image: the runtime makes those")
		}
		return w.marker(filepath.Join(filepath.Dir(name), whiteoutPrefix+filepath.Base(name)))
	default:
		return errors.New("neither a file, a directory nor a symbolic link: remove it before packing")
	}
}

func (w *layerWriter) addDirectory(path string, header *tar.Header) error {
	name := header.Name
	header.Typeflag, header.Name = tar.TypeDir, name+"/"
	if err := w.tar.WriteHeader(header); err != nil {
		return err
	}
	opaque, err := attribute(path, opaqueAttribute)
	if err != nil || opaque != "y" {
		return err
	}
	return w.marker(filepath.Join(name, opaqueMarker))
}

func (w *layerWriter) addFile(path string, header *tar.Header, stat *syscall.Stat_t) error {
	if stat.Nlink > 1 {
		id := inode{stat.Dev, stat.Ino}
		if first, known := w.links[id]; known {
			header.Typeflag, header.Linkname = tar.TypeLink, first
			return w.tar.WriteHeader(header)
		}
		w.links[id] = header.Name
	}
	capability, err := attribute(path, capabilityAttribute)
	if err != nil {
		return err
	}
	if capability != "" {
		header.PAXRecords = map[string]string{"SCHILY.xattr." + capabilityAttribute: capability}
	}
	header.Typeflag, header.Size = tar.TypeReg, stat.Size
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	if err := w.tar.WriteHeader(header); err != nil {
		return err
	}
	_, err = io.Copy(w.tar, file)
	return err
}

// marker packs an empty file whose name alone has a meaning.
func (w *layerWriter) marker(name string) error {
	return w.tar.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, ModTime: w.epoch})
}

// attribute reads a short extended attribute; one that is not there reads as empty.
func attribute(path, name string) (string, error) {
	value := make([]byte, 256)
	size, err := syscall.Getxattr(path, name, value)
	switch {
	case errors.Is(err, syscall.ENODATA), errors.Is(err, syscall.ENOTSUP):
		return "", nil
	case err != nil:
		return "", fmt.Errorf("reading the attribute %s: %w", name, err)
	}
	return string(value[:size]), nil
}
