package main

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	_ "k8s.io/kubernetes/pkg/apis/apps/install"
	_ "k8s.io/kubernetes/pkg/apis/batch/install"
	_ "k8s.io/kubernetes/pkg/apis/core/install"
	_ "k8s.io/kubernetes/pkg/apis/discovery/install"
	_ "k8s.io/kubernetes/pkg/apis/networking/install"
)

// question is one request for admission.
type question struct {
	// Operation is CREATE or UPDATE.
	Operation string `json:"operation"`
	// Group, Version, Resource and Subresource say what is written.
	Group       string `json:"group"`
	Version     string `json:"version"`
	Resource    string `json:"resource"`
	Subresource string `json:"subresource"`
	// User is the name of who asks.
	User string `json:"user"`
	// Namespace is the namespace that the object lies in.
	Namespace corev1.Namespace `json:"namespace"`
	// Object is the object as it was sent, OldObject as it is stored.
	Object    json.RawMessage `json:"object"`
	OldObject json.RawMessage `json:"oldObject"`
	// Raw keeps fields that the API server does not know, and asks only the policies that judge.
	Raw bool `json:"raw"`
}

// answer is what the API server would say.
type answer struct {
	// Undecodable says why the object is none that reaches admission. Nothing else is set then.
	Undecodable string `json:"undecodable,omitempty"`
	// Allowed is the verdict of all policies together.
	Allowed bool `json:"allowed"`
	// Message is the refusal, with the name of the policy.
	Message string `json:"message,omitempty"`
	// Object is the object after decoding, defaulting and, unless this refused, mutation; OldObject as it was decoded.
	Object    json.RawMessage `json:"object,omitempty"`
	OldObject json.RawMessage `json:"oldObject,omitempty"`
}

func (s *server) answer(q question) answer {
	gvk, object, err := decode(q.Object, q.Raw)
	if err != nil {
		return answer{Undecodable: err.Error()}
	}
	var old runtime.Object
	if len(q.OldObject) > 0 && string(q.OldObject) != "null" {
		oldGVK, decoded, err := decode(q.OldObject, q.Raw)
		if err != nil {
			return answer{Undecodable: "old object: " + err.Error()}
		}
		if oldGVK != gvk {
			return answer{Undecodable: fmt.Sprintf("the object was a %v and is a %v", oldGVK, gvk)}
		}
		old = decoded
	}
	namespace := q.Namespace
	if err := s.namespaces.Replace([]any{&namespace}, ""); err != nil {
		return answer{Undecodable: err.Error()}
	}
	resource := schema.GroupVersionResource{Group: q.Group, Version: q.Version, Resource: q.Resource}
	if s.mapper.KindFor(resource, q.Subresource).Empty() {
		s.mapper.RegisterKindFor(resource, q.Subresource, gvk)
	}
	var name string
	if accessor, err := meta.Accessor(object); err == nil {
		accessor.SetNamespace(namespace.Name)
		name = accessor.GetName()
	}
	attributes := admission.NewAttributesRecord(
		object, old, gvk, namespace.Name, name, resource, q.Subresource, admission.Operation(q.Operation), nil, false,
		&user.DefaultInfo{Name: q.User, Groups: []string{user.AllAuthenticated}},
	)
	refusal := s.mutate(attributes, q.Raw)
	result := answer{}
	if result.Object, err = s.encode(object, gvk); err != nil {
		return answer{Undecodable: err.Error()}
	}
	if old != nil {
		if result.OldObject, err = s.encode(old, gvk); err != nil {
			return answer{Undecodable: err.Error()}
		}
	}
	if refusal == nil && s.validating.Handles(attributes.GetOperation()) {
		refusal = s.validating.Validate(context.Background(), attributes, s.interfaces)
	}
	if refusal != nil {
		result.Message = refusal.Error()
	}
	result.Allowed = refusal == nil
	return result
}

// mutate lets the mutating policies change the object, and waits where they have not read the API's schemas yet.
func (s *server) mutate(attributes admission.Attributes, raw bool) error {
	if raw || !s.mutating.Handles(attributes.GetOperation()) {
		return nil
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		err := s.mutating.Admit(context.Background(), attributes, s.interfaces)
		if !apierrors.IsServiceUnavailable(err) || time.Now().After(deadline) {
			return err
		}
	}
}

// decode reads an object as the API server does: into its internal form, with defaults, without unknown fields. Raw
// objects are kept as they are.
func decode(text []byte, raw bool) (schema.GroupVersionKind, runtime.Object, error) {
	if raw {
		object := &unstructured.Unstructured{}
		if err := object.UnmarshalJSON(text); err != nil {
			return schema.GroupVersionKind{}, nil, err
		}
		return object.GroupVersionKind(), object, nil
	}
	deserializer := legacyscheme.Codecs.UniversalDeserializer()
	decoder := legacyscheme.Codecs.DecoderToVersion(deserializer, runtime.InternalGroupVersioner)
	object, gvk, err := decoder.Decode(text, nil, nil)
	if err != nil {
		return schema.GroupVersionKind{}, nil, err
	}
	return *gvk, object, nil
}

// encode writes an object as webhooks get it.
func (s *server) encode(object runtime.Object, gvk schema.GroupVersionKind) ([]byte, error) {
	versioned, err := admission.ConvertToGVK(object, gvk, s.interfaces)
	if err != nil {
		return nil, err
	}
	return json.Marshal(versioned)
}
