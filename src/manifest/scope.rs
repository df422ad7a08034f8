//! Whether objects of a type live in namespaces.

use std::collections::BTreeMap;

use crate::domain::{Gvk, Object};

use super::ScopeLookup;

/// Types of the built-in groups that live outside namespaces; all others of these groups live in one.
const CLUSTER: &[(&str, &[&str])] = &[
    ("", &["Namespace", "Node", "PersistentVolume", "ComponentStatus"]),
    (
        "admissionregistration.k8s.io",
        &[
            "MutatingAdmissionPolicy",
            "MutatingAdmissionPolicyBinding",
            "MutatingWebhookConfiguration",
            "ValidatingAdmissionPolicy",
            "ValidatingAdmissionPolicyBinding",
            "ValidatingWebhookConfiguration",
        ],
    ),
    ("apiextensions.k8s.io", &["CustomResourceDefinition"]),
    ("apiregistration.k8s.io", &["APIService"]),
    ("apps", &[]),
    ("autoscaling", &[]),
    ("batch", &[]),
    ("certificates.k8s.io", &["CertificateSigningRequest", "ClusterTrustBundle"]),
    ("coordination.k8s.io", &[]),
    ("discovery.k8s.io", &[]),
    ("events.k8s.io", &[]),
    ("flagger.app", &[]),
    ("flowcontrol.apiserver.k8s.io", &["FlowSchema", "PriorityLevelConfiguration"]),
    ("networking.k8s.io", &["IPAddress", "IngressClass", "ServiceCIDR"]),
    ("node.k8s.io", &["RuntimeClass"]),
    ("policy", &["PodSecurityPolicy"]),
    ("rbac.authorization.k8s.io", &["ClusterRole", "ClusterRoleBinding"]),
    ("scheduling.k8s.io", &["PriorityClass"]),
    ("storage.k8s.io", &["CSIDriver", "CSINode", "StorageClass", "VolumeAttachment", "VolumeAttributesClass"]),
];

/// Scopes by type: the built-in table, then the CRDs of the set, then the caller.
pub(super) struct Scopes<'a> {
    crds: BTreeMap<(String, String), bool>,
    lookup: Option<ScopeLookup<'a>>,
}

impl<'a> Scopes<'a> {
    pub(super) fn new<'o>(objects: impl Iterator<Item = &'o Object>, lookup: Option<ScopeLookup<'a>>) -> Self {
        let crds = objects
            .filter(|object| object.gvk().group_kind() == ("apiextensions.k8s.io", "CustomResourceDefinition"))
            .map(|crd| {
                let key = (crd.str("/spec/group").to_owned(), crd.str("/spec/names/kind").to_owned());
                (key, crd.str("/spec/scope") == "Namespaced")
            })
            .collect();
        Self { crds, lookup }
    }

    /// Whether the type is namespaced; `None` when nobody knows.
    pub(super) fn is_namespaced(&self, gvk: &Gvk) -> Option<bool> {
        if let Some((_, cluster)) = CLUSTER.iter().find(|(group, _)| *group == gvk.group) {
            return Some(!cluster.contains(&gvk.kind.as_str()));
        }
        let key = (gvk.group.clone(), gvk.kind.clone());
        self.crds.get(&key).copied().or_else(|| self.lookup.and_then(|lookup| lookup(gvk)))
    }
}

/// Whether a group is one of Kubernetes itself.
pub fn is_builtin_group(group: &str) -> bool {
    group != "flagger.app" && CLUSTER.iter().any(|(name, _)| *name == group)
}
