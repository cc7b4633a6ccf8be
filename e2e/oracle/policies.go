package main

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/admission/plugin/policy/generic"
	"k8s.io/apiserver/pkg/admission/plugin/policy/matching"
	"k8s.io/apiserver/pkg/admission/plugin/policy/mutating"
	"k8s.io/apiserver/pkg/admission/plugin/policy/validating"
	"k8s.io/apiserver/pkg/authorization/authorizerfactory"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/client-go/discovery"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/openapi"
	"k8s.io/client-go/openapi/openapitest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	"k8s.io/kubernetes/pkg/apis/admissionregistration"
	_ "k8s.io/kubernetes/pkg/apis/admissionregistration/install"
	"k8s.io/kubernetes/pkg/apis/admissionregistration/validation"
)

// patience is how long the plug-ins may take to compile the policies.
const patience = 60 * time.Second

// server is the part of an API server that asks policies.
type server struct {
	validating *validating.Plugin
	mutating   *mutating.Plugin
	// namespaces holds the namespace of each question, where the plug-ins look for it.
	namespaces cache.Indexer
	interfaces admission.ObjectInterfaces
	mapper     runtime.EquivalentResourceRegistry
}

// newServer compiles the policies after the API server's own validation of them, which limits their estimated cost.
func newServer(text []byte) (*server, error) {
	objects, err := readPolicies(text)
	if err != nil {
		return nil, err
	}
	s := &server{
		namespaces: cache.NewIndexer(cache.MetaNamespaceKeyFunc, cache.Indexers{}),
		mapper:     runtime.NewEquivalentResourceRegistry(),
	}
	scheme := legacyscheme.Scheme
	s.interfaces = &admission.RuntimeObjectInterfaces{
		ObjectCreater: scheme, ObjectTyper: scheme, ObjectDefaulter: scheme, ObjectConvertor: scheme,
		EquivalentResourceMapper: s.mapper,
	}
	if s.validating, err = validating.NewPlugin(nil); err != nil {
		return nil, err
	}
	if s.mutating, err = mutating.NewPlugin(nil); err != nil {
		return nil, err
	}
	s.mutating.InspectFeatureGates(utilfeature.DefaultFeatureGate)
	client := described{Clientset: fake.NewClientset(objects...)}
	factory := informers.NewSharedInformerFactory(client, 0)
	// The plug-ins wait for it, though they look for namespaces elsewhere here.
	factory.Core().V1().Namespaces().Informer()
	if err := start(s.validating.Plugin, s, client, factory); err != nil {
		return nil, err
	}
	if err := start(s.mutating.Plugin, s, client, factory); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	factory.Start(context.Background().Done())
	for kind, synced := range factory.WaitForCacheSync(ctx.Done()) {
		if !synced {
			return nil, fmt.Errorf("the list of %v was not read within %v", kind, patience)
		}
	}
	if !s.validating.WaitForReady() || !s.mutating.WaitForReady() {
		return nil, fmt.Errorf("the policies were not compiled in time")
	}
	return s, nil
}

// start gives a plug-in what an API server gives it.
func start[H any](plugin *generic.Plugin[H], s *server, client kubernetes.Interface, factory informers.SharedInformerFactory) error {
	plugin.SetExternalKubeClientSet(client)
	plugin.SetExternalKubeInformerFactory(factory)
	plugin.SetRESTMapper(meta.NewDefaultRESTMapper(nil))
	plugin.SetDynamicClient(dynamicfake.NewSimpleDynamicClient(runtime.NewScheme()))
	plugin.SetDrainedNotification(make(chan struct{}))
	plugin.SetUnconditionalAuthorizer(authorizerfactory.NewAlwaysDenyAuthorizer())
	plugin.SetMatcher(matching.NewMatcher(corelisters.NewNamespaceLister(s.namespaces), client))
	return plugin.ValidateInitialization()
}

// readPolicies decodes, defaults and validates policies and bindings as when they are created.
func readPolicies(text []byte) ([]runtime.Object, error) {
	var list []json.RawMessage
	if err := json.Unmarshal(text, &list); err != nil {
		return nil, fmt.Errorf("failed to read the policies: %w", err)
	}
	var objects []runtime.Object
	for number, item := range list {
		object, kind, err := legacyscheme.Codecs.UniversalDeserializer().Decode(item, nil, nil)
		if err != nil {
			return nil, fmt.Errorf("failed to decode policy %d: %w", number, err)
		}
		legacyscheme.Scheme.Default(object)
		internal, err := legacyscheme.Scheme.ConvertToVersion(object, admissionregistration.SchemeGroupVersion)
		if err != nil {
			return nil, fmt.Errorf("failed to convert policy %d, a %v: %w", number, kind, err)
		}
		if err := validatePolicy(internal); err != nil {
			return nil, fmt.Errorf("policy %d, a %v, is not valid: %w", number, kind, err)
		}
		objects = append(objects, object)
	}
	return objects, nil
}

func validatePolicy(object runtime.Object) error {
	switch policy := object.(type) {
	case *admissionregistration.ValidatingAdmissionPolicy:
		return validation.ValidateValidatingAdmissionPolicy(policy).ToAggregate()
	case *admissionregistration.ValidatingAdmissionPolicyBinding:
		return validation.ValidateValidatingAdmissionPolicyBinding(policy).ToAggregate()
	case *admissionregistration.MutatingAdmissionPolicy:
		return validation.ValidateMutatingAdmissionPolicy(policy).ToAggregate()
	case *admissionregistration.MutatingAdmissionPolicyBinding:
		return validation.ValidateMutatingAdmissionPolicyBinding(policy).ToAggregate()
	default:
		return fmt.Errorf("it is a %T", object)
	}
}

// described is a client that also has the schemas of the API, which patches ask for.
type described struct{ *fake.Clientset }

func (d described) Discovery() discovery.DiscoveryInterfaces {
	return schemas{DiscoveryInterfaces: d.Clientset.Discovery()}
}

type schemas struct{ discovery.DiscoveryInterfaces }

func (schemas) OpenAPIV3() openapi.Client { return openapitest.NewEmbeddedFileClient() }
