package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

var epoch = time.Unix(1767225600, 0)

// tree makes a directory with a bit of everything that a layer may hold.
func tree(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	steps := []error{
		os.MkdirAll(filepath.Join(root, "usr/bin"), 0o755),
		os.Mkdir(filepath.Join(root, "tmp"), 0o755),
		os.Chmod(filepath.Join(root, "tmp"), 0o1777|os.ModeSticky),
		os.WriteFile(filepath.Join(root, "usr/bin/b"), []byte("program"), 0o755),
		os.Link(filepath.Join(root, "usr/bin/b"), filepath.Join(root, "usr/bin/a")),
		os.Symlink("usr/bin", filepath.Join(root, "bin")),
	}
	if err := errors.Join(steps...); err != nil {
		t.Fatal(err)
	}
	return root
}

// listing packs a directory and lists the layer: type, mode, name and link of each entry.
func listing(t *testing.T, root string) []string {
	t.Helper()
	var layer bytes.Buffer
	if err := writeLayer(&layer, root, epoch); err != nil {
		t.Fatal(err)
	}
	var found []string
	for reader := tar.NewReader(&layer); ; {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return found
		}
		if err != nil {
			t.Fatal(err)
		}
		if !header.ModTime.Equal(epoch) {
			t.Errorf("%s has the time %s", header.Name, header.ModTime)
		}
		found = append(found, strings.TrimSpace(string(header.Typeflag)+" "+header.Name+" "+header.Linkname))
	}
}

func TestLayerIsSortedAndKeepsLinks(t *testing.T) {
	want := []string{"2 bin usr/bin", "5 tmp/", "5 usr/", "5 usr/bin/", "0 usr/bin/a", "1 usr/bin/b usr/bin/a"}
	if got := listing(t, tree(t)); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestLayerTurnsOverlayMarksIntoWhiteouts(t *testing.T) {
	root := tree(t)
	if err := syscall.Mknod(filepath.Join(root, "usr/gone"), syscall.S_IFCHR, 0); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Setxattr(filepath.Join(root, "tmp"), opaqueAttribute, []byte("y"), 0); err != nil {
		t.Fatal(err)
	}
	got := listing(t, root)
	for _, want := range []string{"0 usr/.wh.gone", "0 tmp/.wh..wh..opq"} {
		if !slices.Contains(got, want) {
			t.Errorf("%q is missing from %q", want, got)
		}
	}
}

func TestLayerRefusesWhatWouldUnpackAsSomethingElse(t *testing.T) {
	for _, prepare := range []func(string) error{
		func(root string) error { return os.WriteFile(filepath.Join(root, ".wh.passwd"), nil, 0o644) },
		func(root string) error { return syscall.Mkfifo(filepath.Join(root, "pipe"), 0o644) },
		func(root string) error { return syscall.Mknod(filepath.Join(root, "null"), syscall.S_IFCHR, 0x103) },
	} {
		root := t.TempDir()
		if err := prepare(root); err != nil {
			t.Fatal(err)
		}
		if err := writeLayer(io.Discard, root, epoch); err == nil {
			t.Error("packed without complaint")
		}
	}
}

// archive makes an image archive of one layer and returns its path and digest.
func archive(t *testing.T, config string) (string, string) {
	t.Helper()
	folder := t.TempDir()
	layer, configFile, out := filepath.Join(folder, "layer"), filepath.Join(folder, "image.json"), filepath.Join(folder, "image.tar")
	var packed bytes.Buffer
	writer := gzip.NewWriter(&packed)
	err := errors.Join(
		writeLayer(writer, tree(t), epoch), writer.Close(),
		os.WriteFile(layer, packed.Bytes(), 0o644), os.WriteFile(configFile, []byte(config), 0o644),
	)
	if err != nil {
		t.Fatal(err)
	}
	made, err := newImage(configFile, []string{layer, layer}, epoch)
	if err != nil {
		t.Fatal(err)
	}
	if err := writeFile(out, made.writeArchive); err != nil {
		t.Fatal(err)
	}
	return out, made.digest.String()
}

func TestSameInputsGiveTheSameArchive(t *testing.T) {
	const config = `{"Entrypoint": ["/usr/bin/a"], "User": "65532"}`
	first, firstDigest := archive(t, config)
	second, secondDigest := archive(t, config)
	if firstDigest != secondDigest {
		t.Errorf("digests differ: %s and %s", firstDigest, secondDigest)
	}
	one, err := os.ReadFile(first)
	if err != nil {
		t.Fatal(err)
	}
	other, err := os.ReadFile(second)
	if err != nil || !bytes.Equal(one, other) {
		t.Errorf("archives differ (%v)", err)
	}
	if _, changed := archive(t, `{"Entrypoint": ["/usr/bin/b"], "User": "65532"}`); changed == firstDigest {
		t.Error("another configuration has the same digest")
	}
}

func TestMisspeltConfigurationIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "image.json")
	if err := os.WriteFile(path, []byte(`{"EntryPoints": ["/x"]}`), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := newImage(path, nil, epoch); err == nil || !strings.Contains(err.Error(), "EntryPoints") {
		t.Errorf("got %v", err)
	}
}

func TestPushKeepsTheDigestAndSkipsWhatIsThere(t *testing.T) {
	var uploads atomic.Int32
	inner := registry.New()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPut || r.Method == http.MethodPost || r.Method == http.MethodPatch {
			uploads.Add(1)
		}
		inner.ServeHTTP(w, r)
	}))
	defer server.Close()
	// The name resolves nowhere: only the override leads to the server.
	reference, err := name.ParseReference("registry.invalid:5000/hearth/thing:1", name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	options := pushOptions{resolve: map[string]string{"registry.invalid": strings.TrimPrefix(server.URL, "http://")}}
	path, want := archive(t, `{"Entrypoint": ["/usr/bin/a"]}`)
	digest, err := push(context.Background(), path, reference, options)
	if err != nil || digest.String() != want {
		t.Fatalf("pushed %s, want %s (%v)", digest, want, err)
	}
	clientOptions, err := options.remote(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	pulled, err := remote.Image(reference, clientOptions...)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Image(pulled); err != nil {
		t.Error(err)
	}
	before := uploads.Load()
	if _, err := push(context.Background(), path, reference, options); err != nil {
		t.Fatal(err)
	}
	if uploads.Load() != before {
		t.Errorf("the second push made %d further uploads", uploads.Load()-before)
	}
}

func TestOverride(t *testing.T) {
	resolve := map[string]string{"a": "10.0.0.1", "b": "10.0.0.2:5000"}
	for address, want := range map[string]string{"a:443": "10.0.0.1:443", "b:443": "10.0.0.2:5000", "c:443": "c:443"} {
		if got := override(resolve, address); got != want {
			t.Errorf("%s is dialled as %s, want %s", address, got, want)
		}
	}
}
