package main

import (
	"archive/tar"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// pushTimeout bounds one upload, retries included.
const pushTimeout = 5 * time.Minute

// pushOptions are how a registry is reached.
type pushOptions struct {
	user, passwordFile, caFile string
	resolve                    map[string]string // host name → address to dial instead, with or without a port
}

func pushCommand(args []string) error {
	options := pushOptions{resolve: map[string]string{}}
	flags := newFlags("push")
	to := flags.String("to", "", "")
	flags.StringVar(&options.user, "user", "", "")
	flags.StringVar(&options.passwordFile, "password-file", "", "")
	flags.StringVar(&options.caFile, "ca", "", "")
	flags.Func("resolve", "", func(text string) error {
		host, address, found := strings.Cut(text, "=")
		if !found || host == "" || address == "" {
			return fmt.Errorf("%q is not NAME=ADDRESS", text)
		}
		options.resolve[host] = address
		return nil
	})
	if err := parse(flags, args, 1, 1, "to"); err != nil {
		return err
	}
	reference, err := name.ParseReference(*to)
	if err != nil {
		return fmt.Errorf("--to: %w", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), pushTimeout)
	defer cancel()
	digest, err := push(ctx, flags.Arg(0), reference, options)
	if err != nil {
		return fmt.Errorf("%s to %s: %w", flags.Arg(0), reference, err)
	}
	fmt.Println(digest)
	return nil
}

// push uploads what the registry lacks: nothing, if it already has the manifest under that name.
func push(ctx context.Context, archive string, to name.Reference, options pushOptions) (v1.Hash, error) {
	file, err := os.Open(archive)
	if err != nil {
		return v1.Hash{}, err
	}
	defer file.Close()
	image, err := readArchive(file)
	if err != nil {
		return v1.Hash{}, err
	}
	digest, err := image.Digest()
	if err != nil {
		return v1.Hash{}, err
	}
	remoteOptions, err := options.remote(ctx)
	if err != nil {
		return v1.Hash{}, err
	}
	// A refusal here says nothing: the upload meets it again, and reports it.
	if there, err := remote.Head(to, remoteOptions...); err == nil && there.Digest == digest {
		return digest, nil
	}
	return digest, remote.Write(to, image, remoteOptions...)
}

// remote turns the options into those of the registry client.
func (o pushOptions) remote(ctx context.Context) ([]remote.Option, error) {
	base, ok := remote.DefaultTransport.(*http.Transport)
	if !ok {
		return nil, errors.New("the registry client's transport is of an unknown kind")
	}
	transport := base.Clone()
	dialer := net.Dialer{Timeout: 10 * time.Second}
	transport.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		return dialer.DialContext(ctx, network, override(o.resolve, address))
	}
	if o.caFile != "" {
		text, err := os.ReadFile(o.caFile)
		if err != nil {
			return nil, err
		}
		roots := x509.NewCertPool()
		if !roots.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("%s holds no certificate in PEM form", o.caFile)
		}
		transport.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	}
	auth := authn.Anonymous
	if o.user != "" {
		password, err := os.ReadFile(o.passwordFile)
		if err != nil {
			return nil, fmt.Errorf("reading the password of %s: %w", o.user, err)
		}
		auth = &authn.Basic{Username: o.user, Password: strings.TrimRight(string(password), "\n")}
	}
	return []remote.Option{remote.WithContext(ctx), remote.WithTransport(transport), remote.WithAuth(auth)}, nil
}

// override says where to dial for an address of the form host:port.
func override(resolve map[string]string, address string) string {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	to, known := resolve[host]
	if !known {
		return address
	}
	if _, _, err := net.SplitHostPort(to); err == nil {
		return to
	}
	return net.JoinHostPort(to, port)
}

// archived is an image in an archive, read in place. It implements partial.CompressedImageCore.
type archived struct {
	blobs    map[string]*io.SectionReader // by the name in the archive
	manifest []byte
	parsed   v1.Manifest
}

// readArchive finds the blobs of an archive that mkimage wrote, and its one image.
func readArchive(file *os.File) (v1.Image, error) {
	found := &archived{blobs: map[string]*io.SectionReader{}}
	reader := tar.NewReader(file)
	for {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("not an image archive: %w", err)
		}
		offset, err := file.Seek(0, io.SeekCurrent)
		if err != nil {
			return nil, err
		}
		found.blobs[header.Name] = io.NewSectionReader(file, offset, header.Size)
	}
	var index v1.IndexManifest
	text, err := found.read("index.json")
	if err == nil {
		err = json.Unmarshal(text, &index)
	}
	if err != nil {
		return nil, err
	}
	if len(index.Manifests) != 1 {
		return nil, fmt.Errorf("the archive holds %d images, not one", len(index.Manifests))
	}
	if found.manifest, err = found.read(blobName(index.Manifests[0].Digest)); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(found.manifest, &found.parsed); err != nil {
		return nil, fmt.Errorf("the archive's manifest: %w", err)
	}
	return partial.CompressedToImage(found)
}

// read returns a small member of the archive.
func (a *archived) read(name string) ([]byte, error) {
	blob, known := a.blobs[name]
	if !known {
		return nil, fmt.Errorf("the archive lacks %s", name)
	}
	return io.ReadAll(io.NewSectionReader(blob, 0, blob.Size()))
}

// RawConfigFile returns the configuration as it was written.
func (a *archived) RawConfigFile() ([]byte, error) { return a.read(blobName(a.parsed.Config.Digest)) }

// MediaType returns the manifest's type.
func (a *archived) MediaType() (types.MediaType, error) { return a.parsed.MediaType, nil }

// RawManifest returns the manifest as it was written.
func (a *archived) RawManifest() ([]byte, error) { return a.manifest, nil }

// LayerByDigest returns a layer, or the configuration, which registries keep as one more blob.
func (a *archived) LayerByDigest(digest v1.Hash) (partial.CompressedLayer, error) {
	if digest == a.parsed.Config.Digest {
		return partial.ConfigLayer(a)
	}
	blob, known := a.blobs[blobName(digest)]
	if !known {
		return nil, fmt.Errorf("the archive lacks the layer %s", digest)
	}
	return archivedLayer{digest, blob}, nil
}

// archivedLayer is a layer in an archive. It implements partial.CompressedLayer.
type archivedLayer struct {
	digest v1.Hash
	blob   *io.SectionReader
}

// Digest returns the name of the compressed layer.
func (l archivedLayer) Digest() (v1.Hash, error) { return l.digest, nil }

// Size returns the size of the compressed layer, in bytes.
func (l archivedLayer) Size() (int64, error) { return l.blob.Size(), nil }

// MediaType returns the type that mkimage gives to every layer.
func (l archivedLayer) MediaType() (types.MediaType, error) { return types.OCILayer, nil }

// Compressed opens the layer; several readers may be open at once.
func (l archivedLayer) Compressed() (io.ReadCloser, error) {
	return io.NopCloser(io.NewSectionReader(l.blob, 0, l.blob.Size())), nil
}
