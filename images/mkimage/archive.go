package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// refName is the annotation by which an archive's index names an image. The value is a tag alone: whoever imports
// the archive says which repository it belongs to.
const refName, tag = "org.opencontainers.image.ref.name", "latest"

func imageCommand(args []string) error {
	flags := newFlags("image")
	out := flags.String("out", "", "")
	config := flags.String("config", "", "")
	epoch := flags.Int64("epoch", 0, "")
	if err := parse(flags, args, 0, math.MaxInt, "out", "config"); err != nil {
		return err
	}
	made, err := newImage(*config, flags.Args(), time.Unix(*epoch, 0))
	if err != nil {
		return err
	}
	if err := writeFile(*out, made.writeArchive); err != nil {
		return err
	}
	fmt.Println(made.digest)
	return nil
}

// layerFile is a compressed layer on disk, measured.
type layerFile struct {
	path   string
	digest v1.Hash // of the file as it is
	diffID v1.Hash // of its decompressed contents
	size   int64   // of the file as it is, in bytes
}

// image is an image ready to be written: three documents and the layers that they name.
type image struct {
	layers                  []layerFile
	config, manifest, index []byte
	configDigest, digest    v1.Hash
}

// newImage reads the part of the configuration that a person writes (the "config" object of the OCI image
// specification: Entrypoint, Cmd, Env, User, WorkingDir) and measures the layers.
func newImage(configPath string, layerPaths []string, epoch time.Time) (*image, error) {
	text, err := os.ReadFile(configPath)
	if err != nil {
		return nil, err
	}
	made := &image{}
	created := v1.Time{Time: epoch.UTC()}
	config := v1.ConfigFile{Architecture: "amd64", OS: "linux", Created: created, RootFS: v1.RootFS{Type: "layers", DiffIDs: []v1.Hash{}}}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&config.Config); err != nil {
		return nil, fmt.Errorf("%s is not an image configuration: %w", configPath, err)
	}
	manifest := v1.Manifest{SchemaVersion: 2, MediaType: types.OCIManifestSchema1, Layers: []v1.Descriptor{}}
	for _, path := range layerPaths {
		layer, err := measure(path)
		if err != nil {
			return nil, fmt.Errorf("reading the layer %s: %w", path, err)
		}
		made.layers = append(made.layers, layer)
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, layer.diffID)
		config.History = append(config.History, v1.History{Created: created, CreatedBy: "mkimage"})
		manifest.Layers = append(manifest.Layers, v1.Descriptor{MediaType: types.OCILayer, Size: layer.size, Digest: layer.digest})
	}
	if made.config, made.configDigest, err = encode(config); err != nil {
		return nil, err
	}
	manifest.Config = v1.Descriptor{MediaType: types.OCIConfigJSON, Size: int64(len(made.config)), Digest: made.configDigest}
	if made.manifest, made.digest, err = encode(manifest); err != nil {
		return nil, err
	}
	index := v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: []v1.Descriptor{{
		MediaType: types.OCIManifestSchema1, Size: int64(len(made.manifest)), Digest: made.digest,
		Annotations: map[string]string{refName: tag},
		Platform:    &v1.Platform{Architecture: config.Architecture, OS: config.OS},
	}}}
	made.index, _, err = encode(index)
	return made, err
}

// encode renders a document and names it by its digest.
func encode(document any) ([]byte, v1.Hash, error) {
	text, err := json.Marshal(document)
	if err != nil {
		return nil, v1.Hash{}, err
	}
	digest, _, err := v1.SHA256(bytes.NewReader(text))
	return text, digest, err
}

// measure reads a compressed layer once for both of its digests.
func measure(path string) (layerFile, error) {
	file, err := os.Open(path)
	if err != nil {
		return layerFile{}, err
	}
	defer file.Close()
	packed, unpacked, count := sha256.New(), sha256.New(), &counter{}
	// Without the tee to the very end of the file, what follows the compressed stream would not be counted.
	source := io.TeeReader(file, io.MultiWriter(packed, count))
	reader, err := gzip.NewReader(source)
	if err != nil {
		return layerFile{}, err
	}
	if _, err := io.Copy(unpacked, reader); err != nil {
		return layerFile{}, err
	}
	if _, err := io.Copy(io.Discard, source); err != nil {
		return layerFile{}, err
	}
	hash := func(sum []byte) v1.Hash { return v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(sum)} }
	return layerFile{path: path, digest: hash(packed.Sum(nil)), diffID: hash(unpacked.Sum(nil)), size: count.bytes}, nil
}

// counter counts what is written to it.
type counter struct{ bytes int64 }

func (c *counter) Write(data []byte) (int, error) {
	c.bytes += int64(len(data))
	return len(data), nil
}

// writeArchive writes an OCI image layout as one tar file.
func (i *image) writeArchive(file *os.File) error {
	archive := tar.NewWriter(file)
	put := func(name string, size int64, contents io.Reader) error {
		header := tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: size, ModTime: time.Unix(0, 0)}
		if err := archive.WriteHeader(&header); err != nil {
			return err
		}
		_, err := io.Copy(archive, contents)
		return err
	}
	text := func(name string, contents []byte) error {
		return put(name, int64(len(contents)), bytes.NewReader(contents))
	}
	err := errors.Join(
		text("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`)),
		text("index.json", i.index),
		text(blobName(i.digest), i.manifest),
		text(blobName(i.configDigest), i.config),
	)
	written := map[v1.Hash]bool{}
	for _, layer := range i.layers {
		if err != nil || written[layer.digest] {
			continue
		}
		written[layer.digest] = true
		var blob *os.File
		if blob, err = os.Open(layer.path); err == nil {
			err = errors.Join(put(blobName(layer.digest), layer.size, blob), blob.Close())
		}
	}
	return errors.Join(err, archive.Close())
}

// blobName is where a layout keeps what has this digest.
func blobName(digest v1.Hash) string {
	return "blobs/" + digest.Algorithm + "/" + digest.Hex
}
