//! The order in which objects are applied; they are pruned in reverse.

use crate::domain::Gvk;
use crate::manifest::is_builtin_group;

/// Number of waves of objects.
pub(super) const WAVES: usize = 5;

/// Wave of a type: what others live in or are defined by, then what workloads refer to, workloads, custom resources
/// (their CRD must be established), and canaries last, after their targets.
pub(super) fn wave(gvk: &Gvk) -> usize {
    match gvk.group_kind() {
        ("", "Namespace") | ("apiextensions.k8s.io", "CustomResourceDefinition") => 0,
        ("", "Pod" | "ReplicationController") => 2,
        ("" | "rbac.authorization.k8s.io" | "scheduling.k8s.io" | "storage.k8s.io" | "node.k8s.io", _) => 1,
        ("networking.k8s.io", "IngressClass" | "NetworkPolicy") => 1,
        ("flagger.app", "Canary") => 4,
        (group, _) if is_builtin_group(group) => 2,
        _ => 3,
    }
}
