//! The example repository, built into the binary so that the demo runs anywhere.

/// Files of `examples-repo/`: path and text.
pub const FILES: &[(&str, &str)] = &[
    ("README.md", include_str!("../../examples-repo/README.md")),
    (
        "clusters/demo/catalog/deployment.yaml.hbs",
        include_str!("../../examples-repo/clusters/demo/catalog/deployment.yaml.hbs"),
    ),
    ("clusters/demo/catalog/service.yaml", include_str!("../../examples-repo/clusters/demo/catalog/service.yaml")),
    ("clusters/demo/partials/labels.hbs", include_str!("../../examples-repo/clusters/demo/partials/labels.hbs")),
    ("clusters/demo/shop/canary.yaml", include_str!("../../examples-repo/clusters/demo/shop/canary.yaml")),
    ("clusters/demo/shop/configmap.yaml", include_str!("../../examples-repo/clusters/demo/shop/configmap.yaml")),
    (
        "clusters/demo/shop/deployment.yaml.hbs",
        include_str!("../../examples-repo/clusters/demo/shop/deployment.yaml.hbs"),
    ),
    ("clusters/demo/shop/namespace.yaml", include_str!("../../examples-repo/clusters/demo/shop/namespace.yaml")),
    ("values/demo.yaml", include_str!("../../examples-repo/values/demo.yaml")),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::{Path, PathBuf};

    fn walk(folder: &Path, found: &mut BTreeSet<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else {
                found.insert(path);
            }
        }
    }

    #[test]
    fn every_file_of_the_folder_is_built_in() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples-repo");
        let mut found = BTreeSet::new();
        walk(&root, &mut found);
        let built_in: BTreeSet<PathBuf> = super::FILES.iter().map(|(path, _)| root.join(path)).collect();
        assert_eq!(found, built_in);
    }
}
