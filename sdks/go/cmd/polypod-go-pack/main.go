// polypod-go-pack builds a Go program and appends its source and manifest: an executable bundle (spec 1.0).
//
//	go tool polypod-go-pack -o dist/sales [-source main.go] [-schema-version 2026-10-30] [-arch arm64] ./cmd/sales
//
// The program is asked for its Dags. So for another architecture it is built twice: the one that is packed never runs.
package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"go.yaml.in/yaml/v3"

	"polypod.dev/sdk/go/airflow"
)

const (
	sdkVersion = "0.1.0"
	magic      = "AFBNDL01"
)

var schemaVersions = []string{"2026-06-16", "2026-10-30"}

func main() {
	if err := pack(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "polypod-go-pack:", err)
		os.Exit(2)
	}
}

func pack(arguments []string) error {
	flags := flag.NewFlagSet("polypod-go-pack", flag.ContinueOnError)
	output := flags.String("o", "", "the bundle to write")
	source := flags.String("source", "", "the source file to embed (default: main.go of the package)")
	version := flags.String("schema-version", schemaVersions[len(schemaVersions)-1],
		"supervisor schema version to declare; 2026-06-16 for workers of Airflow 3.3, which has no arguments")
	system := flags.String("os", environment("GOOS", "linux"), "operating system of the program (default: $GOOS, or linux)")
	architecture := flags.String("arch", environment("GOARCH", runtime.GOARCH),
		"architecture of the program, such as arm64 (default: $GOARCH, or this machine's)")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	if flags.NArg() != 1 || *output == "" {
		return errors.New("usage: polypod-go-pack -o BUNDLE [-source FILE] [-schema-version DATE] PACKAGE")
	}
	known := false
	for _, candidate := range schemaVersions {
		known = known || candidate == *version
	}
	if !known {
		return fmt.Errorf("schema version %q is not known; known: %s", *version, strings.Join(schemaVersions, ", "))
	}
	if *source == "" {
		*source = filepath.Join(flags.Arg(0), "main.go")
	}
	text, err := os.ReadFile(*source)
	if err != nil {
		return err
	}
	work, err := os.MkdirTemp("", "polypod-go-pack-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	binary := filepath.Join(work, "program")
	if err := build(binary, *system, *architecture, flags.Arg(0)); err != nil {
		return err
	}
	asked := binary
	if *system != runtime.GOOS || *architecture != runtime.GOARCH {
		asked = filepath.Join(work, "asked")
		if err := build(asked, runtime.GOOS, runtime.GOARCH, flags.Arg(0)); err != nil {
			return fmt.Errorf("for this machine, to be asked for its Dags: %w", err)
		}
	}
	dags, err := ask(asked)
	if err != nil {
		return err
	}
	manifest, err := yaml.Marshal(map[string]any{
		"airflow_bundle_metadata_version": "1.0",
		"sdk":                             map[string]any{"language": "go", "version": sdkVersion, "supervisor_schema_version": *version},
		"source":                          filepath.Base(*source),
		"dags":                            dags,
	})
	if err != nil {
		return err
	}
	return write(*output, binary, text, manifest)
}

func environment(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}

func build(output, system, architecture, program string) error {
	// stripped before the digest is taken, as the specification says
	command := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", output, program)
	command.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS="+system, "GOARCH="+architecture)
	command.Stdout, command.Stderr = os.Stderr, os.Stderr
	if err := command.Run(); err != nil {
		return fmt.Errorf("go build for %s/%s: %w", system, architecture, err)
	}
	return nil
}

// ask runs the program to learn its Dags, so that its manifest cannot differ from its code.
func ask(program string) (map[string]any, error) {
	out, err := exec.Command(program, "--airflow-metadata").Output()
	if err != nil {
		return nil, fmt.Errorf("the program does not answer --airflow-metadata (does main call Serve of its bundle?): %w", err)
	}
	for _, line := range bytes.Split(out, []byte("\n")) {
		if raw, found := bytes.CutPrefix(line, []byte(airflow.MetadataSentinel)); found {
			var parsed struct {
				Dags map[string]any `json:"dags"`
			}
			if err := json.Unmarshal(raw, &parsed); err != nil {
				return nil, err
			}
			if len(parsed.Dags) == 0 {
				return nil, errors.New("the program registers no task handlers")
			}
			return parsed.Dags, nil
		}
	}
	return nil, errors.New("the program printed no metadata (does main call Serve of its bundle?)")
}

func write(output, program string, source, manifest []byte) error {
	code, err := os.ReadFile(program)
	if err != nil {
		return err
	}
	digest := sha256.Sum256(code)
	trailer := make([]byte, 0, 64)
	trailer = binary.LittleEndian.AppendUint32(trailer, uint32(len(source)))
	trailer = binary.LittleEndian.AppendUint32(trailer, uint32(len(manifest)))
	trailer = binary.LittleEndian.AppendUint32(trailer, 1)
	trailer = append(trailer, digest[:]...)
	trailer = append(trailer, make([]byte, 12)...)
	trailer = append(trailer, magic...)
	bundle := bytes.Join([][]byte{code, source, manifest, trailer}, nil)
	if err := os.MkdirAll(filepath.Dir(output), 0o755); err != nil {
		return err
	}
	temporary := output + ".tmp"
	if err := os.WriteFile(temporary, bundle, 0o755); err != nil {
		return err
	}
	return os.Rename(temporary, output)
}
