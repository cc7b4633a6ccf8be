// Command mkimage makes container images without a container engine: it packs directories into layers, puts
// layers together into an image archive, and uploads an archive to a registry.
//
// The same inputs give the same bytes: entries are sorted, every time is the given epoch, owners are numbers.
// So an image's digest is known before any registry has seen it, and is the same in the archive, in a node's
// store and in the registry. It never runs anything and never reads a host's own container configuration.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
)

const usage = `usage:
  mkimage layer --out FILE [--epoch SECONDS] DIRECTORY
      Packs a directory, or the upper directory of an overlay mount, into a compressed layer.
  mkimage image --out FILE --config FILE [--epoch SECONDS] [LAYER...]
      Puts layers, lowest first, and a configuration into an OCI archive, and prints the image's digest.
  mkimage push --to REFERENCE [--user NAME --password-file FILE] [--ca FILE] [--resolve NAME=ADDRESS] ARCHIVE
      Uploads an archive to a registry, skipping what is there, and prints the image's digest.
`

// exitUsage is the status for a wrong command line, as in sysexits.h.
const exitUsage = 64

// errUsage is a command line that cannot be meant; the text says what is missing.
var errUsage = errors.New("wrong usage")

func main() {
	commands := map[string]func([]string) error{"layer": layerCommand, "image": imageCommand, "push": pushCommand}
	if len(os.Args) < 2 || commands[os.Args[1]] == nil {
		fmt.Fprint(os.Stderr, usage)
		os.Exit(exitUsage)
	}
	err := commands[os.Args[1]](os.Args[2:])
	switch {
	case err == nil:
	case errors.Is(err, flag.ErrHelp):
		fmt.Print(usage)
	case errors.Is(err, errUsage):
		fmt.Fprintf(os.Stderr, "mkimage %s: %v\n%s", os.Args[1], err, usage)
		os.Exit(exitUsage)
	default:
		fmt.Fprintf(os.Stderr, "mkimage %s: %v\n", os.Args[1], err)
		os.Exit(1)
	}
}

// newFlags returns a flag set whose complaints main prints, once.
func newFlags(name string) *flag.FlagSet {
	flags := flag.NewFlagSet(name, flag.ContinueOnError)
	flags.SetOutput(new(strings.Builder))
	return flags
}

// parse reads the flags and holds the caller to them: every named flag given, and between least and most arguments.
func parse(flags *flag.FlagSet, args []string, least, most int, required ...string) error {
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return err
		}
		return fmt.Errorf("%w: %v", errUsage, err)
	}
	for _, name := range required {
		if flags.Lookup(name).Value.String() == "" {
			return fmt.Errorf("%w: --%s is needed", errUsage, name)
		}
	}
	if flags.NArg() < least || flags.NArg() > most {
		return fmt.Errorf("%w: %d arguments where %d to %d belong", errUsage, flags.NArg(), least, most)
	}
	return nil
}

// writeFile has write fill a new file beside path and renames it when all went well, so that whoever finds path
// finds all of it.
func writeFile(path string, write func(*os.File) error) error {
	file, err := os.Create(path + ".new")
	if err != nil {
		return err
	}
	err = errors.Join(write(file), file.Close())
	if err == nil {
		err = os.Rename(file.Name(), path)
	}
	if err != nil {
		os.Remove(file.Name())
	}
	return err
}
