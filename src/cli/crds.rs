//! `serin crds`: the custom resource definitions as YAML.

use crate::api::crd;

/// All definitions in one stream of YAML documents, what `serin crds` prints.
pub fn yaml() -> String {
    files().into_iter().map(|(_, text)| format!("---\n{text}")).collect()
}

/// Each definition as a file of `crds/`: name and contents.
pub fn files() -> Vec<(String, String)> {
    let definitions = crd::all();
    definitions
        .iter()
        .map(|definition| {
            let name = definition.pointer("/metadata/name").and_then(serde_json::Value::as_str).unwrap_or_default();
            (format!("{name}.yaml"), print(definition))
        })
        .collect()
}

fn print(definition: &serde_json::Value) -> String {
    // A JSON value holds nothing that YAML could not.
    serde_saphyr::to_string(definition).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `INSTA_UPDATE=always` rewrites the files, as it does for snapshots.
    #[test]
    fn generated_files_in_crds_are_what_the_types_say() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("crds");
        for (name, text) in files() {
            let path = folder.join(name);
            if std::env::var_os("INSTA_UPDATE").is_some_and(|value| value == "always") {
                std::fs::write(&path, &text).expect("writing a CRD");
            }
            let committed = std::fs::read_to_string(&path).unwrap_or_default();
            assert!(committed == text, "{} is stale: run this test with INSTA_UPDATE=always", path.display());
        }
        let present = std::fs::read_dir(&folder).expect("a folder").count();
        assert_eq!(present, files().len(), "crds/ holds a file that no type stands for");
    }

    #[test]
    fn what_is_printed_reads_back_as_the_same_definitions() {
        let printed: Vec<serde_json::Value> = serde_saphyr::from_multiple(&yaml()).expect("YAML");
        assert_eq!(printed, crd::all());
    }
}
