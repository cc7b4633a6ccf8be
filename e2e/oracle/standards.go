package main

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
)

// standards judges pods by the Pod Security Standards.
type standards struct{ evaluator policy.Evaluator }

// pod is a question to the standards.
type pod struct {
	// Level is baseline or restricted; Version is latest or as v1.30.
	Level   string `json:"level"`
	Version string `json:"version"`
	// Pod is the pod.
	Pod corev1.Pod `json:"pod"`
}

// judgement is their answer.
type judgement struct {
	// Undecodable says what is wrong with the question.
	Undecodable string `json:"undecodable,omitempty"`
	// Allowed is whether every check of the level passes; Reasons has the short reasons of those that do not.
	Allowed bool     `json:"allowed"`
	Reasons []string `json:"reasons,omitempty"`
}

func newStandards() (*standards, error) {
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		return nil, err
	}
	return &standards{evaluator: evaluator}, nil
}

func (s *standards) answer(q pod) judgement {
	level, err := api.ParseLevel(q.Level)
	if err != nil {
		return judgement{Undecodable: "level: " + err.Error()}
	}
	version, err := api.ParseVersion(q.Version)
	if err != nil {
		return judgement{Undecodable: "version: " + err.Error()}
	}
	// The API server's own plug-in sees pods with their defaults; a volume without a kind is an emptyDir then.
	legacyscheme.Scheme.Default(&q.Pod)
	results := s.evaluator.EvaluatePod(api.LevelVersion{Level: level, Version: version}, &q.Pod.ObjectMeta, &q.Pod.Spec)
	told := policy.AggregateCheckResults(results)
	return judgement{Allowed: told.Allowed, Reasons: told.ForbiddenReasons}
}
