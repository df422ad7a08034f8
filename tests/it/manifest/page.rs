//! `docs/manifests.md`: what it lists is what there is.

use super::{data, rendered};

const PAGE: &str = include_str!("../../../docs/manifests.md");

/// The words after `start` in the only problem of a template.
fn listed(template: &str, start: &str) -> Vec<String> {
    let problem = data(template, "").expect_err(template).join("\n");
    let (_, words) = problem.split_once(start).expect(&problem);
    words.trim_end_matches(')').split(", ").map(str::to_owned).collect()
}

#[test]
fn it_names_every_helper_and_block() {
    let helpers = listed("  a: {{zzzzzzzz 1}}\n", "helpers are: ");
    let blocks = listed("  {{#zzzzzzzz x}}{{/zzzzzzzz}}\n", "blocks are: ");
    assert!(helpers.len() > 10 && blocks.len() > 3, "{helpers:?} {blocks:?}");
    for helper in helpers {
        assert!([format!("`{helper}`"), format!("{{{{{helper} ")].iter().any(|form| PAGE.contains(form)), "{helper}");
    }
    for block in blocks {
        assert!(PAGE.contains(&format!("{{{{#{block}}}}}")), "{block}");
    }
}

#[test]
fn its_ignore_file_does_what_it_says() {
    let (_, rest) = PAGE.split_once("```\n").expect("a block");
    let (ignore, _) = rest.split_once("```").expect("its end");
    let object = |name: &str| format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, namespace: shop}}\n");
    let [hidden, local, kept] = ["hidden", "local", "kept"].map(object);
    let set = rendered(&[
        (".serinignore", ignore),
        ("docs/a.yaml", &hidden),
        ("web.local.yaml", &local),
        ("keep.local.yaml", &kept),
    ]);
    let names: Vec<_> = set.manifests.iter().map(|manifest| manifest.object.str("/metadata/name")).collect();
    assert_eq!(names, ["kept"]);
}
