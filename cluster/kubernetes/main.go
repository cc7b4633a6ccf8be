// Command kubernetes is every Kubernetes program that one machine needs, and etcd, linked once.
//
// It behaves as the program whose name it is called by (a symbolic link) or, called by any
// other name, as the one named by its first argument. One link saves about ten minutes of
// processor time and 600 MB against building each program by itself, and programs that run
// side by side share their text pages.
package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
)

// component runs a Kubernetes component that is a cobra command and returns its exit status.
func component(build func() *cobra.Command) func([]string) int {
	return func([]string) int { return cli.Run(build()) }
}

// programs are what this binary can be; each takes its arguments, its own name first.
var programs = map[string]func([]string) int{
	"etcd":                    func(args []string) int { etcdmain.Main(args); return 0 },
	"kube-apiserver":          component(apiserver.NewAPIServerCommand),
	"kube-controller-manager": component(controllermanager.NewControllerManagerCommand),
	"kube-scheduler":          component(func() *cobra.Command { return scheduler.NewSchedulerCommand() }),
	"kube-proxy":              component(proxy.NewProxyCommand),
	"kubelet":                 component(func() *cobra.Command { return kubelet.NewKubeletCommand(context.Background()) }),
}

func main() {
	args := os.Args
	run, known := programs[filepath.Base(args[0])]
	if !known && len(args) > 1 {
		args = args[1:]
		run, known = programs[args[0]]
	}
	if !known {
		names := slices.Sorted(maps.Keys(programs))
		fmt.Fprintf(os.Stderr, "usage: kubernetes PROGRAM [ARGUMENT...], PROGRAM one of %s\n", strings.Join(names, ", "))
		os.Exit(64)
	}
	os.Args = args
	os.Exit(run(args))
}
