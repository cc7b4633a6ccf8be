// Command oracle says what the API server's own admission plug-ins make of objects, without an API server.
//
// It links the plug-ins of k8s.io/apiserver for ValidatingAdmissionPolicy and MutatingAdmissionPolicy as they are:
// their compiler, environments, cost limits, match rules and namespace selectors. Policies are read once, from a file;
// questions come on standard input, one JSON object a line, and each is answered by one line on standard output, in
// order. With -pod-security it asks the Pod Security Standards instead, by the policy package of
// k8s.io/pod-security-admission.
//
// It decides nothing by itself, holds no rule of Hearth's, and opens no connection. What it leaves out of an API
// server is authentication, RBAC, the other admission plug-ins and the validation of objects by the registries: an
// object that it is asked about is decoded and defaulted, no more.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/pflag"
	"k8s.io/apiserver/pkg/util/compatibility"
	"k8s.io/klog/v2"
	_ "k8s.io/kubernetes/pkg/features" // the API server's feature gates
)

func main() {
	policies := flag.String("policies", "", "file with the policies and their bindings, a JSON `list`")
	emulate := flag.String("emulated-version", "", "Kubernetes minor to behave as, such as `1.36`")
	standards := flag.Bool("pod-security", false, "judge pods by the Pod Security Standards")
	flag.Parse()
	// The plug-ins log each refresh of their policies.
	klog.SetOutput(io.Discard)
	klog.LogToStderr(false)
	if err := run(*policies, *emulate, *standards); err != nil {
		fmt.Fprintf(os.Stderr, "oracle: %v\n", err)
		os.Exit(1)
	}
}

func run(policies, emulate string, standards bool) error {
	if err := setVersion(emulate); err != nil {
		return err
	}
	if standards {
		judge, err := newStandards()
		if err != nil {
			return err
		}
		return serve(judge.answer)
	}
	text, err := os.ReadFile(policies)
	if err != nil {
		return fmt.Errorf("failed to read the policies: %w", err)
	}
	server, err := newServer(text)
	if err != nil {
		return err
	}
	return serve(server.answer)
}

// setVersion sets the version and feature gates as the API server's flag --emulated-version does.
func setVersion(emulate string) error {
	flags := pflag.NewFlagSet("versions", pflag.ContinueOnError)
	registry := compatibility.DefaultComponentGlobalsRegistry
	registry.AddFlags(flags)
	if emulate != "" {
		if err := flags.Parse([]string{"--emulated-version=kube=" + emulate}); err != nil {
			return fmt.Errorf("failed to emulate %s: %w", emulate, err)
		}
	}
	if err := registry.Set(); err != nil {
		return fmt.Errorf("failed to set the version: %w", err)
	}
	var faults []string
	for _, err := range registry.Validate() {
		faults = append(faults, err.Error())
	}
	if len(faults) > 0 {
		return fmt.Errorf("failed to emulate %s: %s", emulate, strings.Join(faults, "; "))
	}
	return nil
}

// serve answers each line of standard input by one of standard output.
func serve[Q, A any](answer func(Q) A) error {
	input := bufio.NewReaderSize(os.Stdin, 1<<20)
	output := bufio.NewWriter(os.Stdout)
	for number := 1; ; number++ {
		line, err := input.ReadBytes('\n')
		if err == io.EOF && len(line) == 0 {
			return nil
		}
		if err != nil && err != io.EOF {
			return fmt.Errorf("failed to read a question: %w", err)
		}
		var question Q
		if err := json.Unmarshal(line, &question); err != nil {
			return fmt.Errorf("failed to read question %d: %w", number, err)
		}
		told, err := json.Marshal(answer(question))
		if err != nil {
			return fmt.Errorf("failed to write answer %d: %w", number, err)
		}
		output.Write(told)
		output.WriteByte('\n')
		// A write that failed is told by Flush.
		if err := output.Flush(); err != nil {
			return fmt.Errorf("failed to write answer %d: %w", number, err)
		}
	}
}
