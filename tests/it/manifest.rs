//! Files to objects: `serin::manifest`.

mod page;
mod properties;

use proptest::prelude::*;
use serde_json::{Value, json};
use serin::domain::Snapshot;
use serin::manifest::{Facts, Input, ManifestSet, decode, encode, render};

const VALUES: &str = "values.yaml";

/// Renders a tree; the values are the file `values.yaml`, where there is one.
fn rendered(files: &[(&str, &str)]) -> ManifestSet {
    let snapshot = Snapshot::from_texts(files.iter().copied());
    let values = snapshot.files.contains_key(VALUES).then_some(VALUES);
    let facts = Facts { cluster: "prod".into(), source: "apps".into(), branch: "main".into(), commit: "c0ffee".into() };
    render(&Input { values, facts, ..Input::new(&snapshot, "") })
}

fn problems(set: &ManifestSet) -> Vec<String> {
    set.problems.iter().map(ToString::to_string).collect()
}

/// The `data` of the one ConfigMap that a template renders to, or the problems.
fn data(template: &str, values: &str) -> Result<Value, Vec<String>> {
    let template =
        format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: c, namespace: shop}}\ndata:\n{template}");
    let set = rendered(&[("c.yaml.hbs", &template), (VALUES, values)]);
    match set.manifests.as_slice() {
        [one] if set.problems.is_empty() => Ok(one.object.0["data"].clone()),
        _ => Err(problems(&set)),
    }
}

#[test]
fn yaml_is_read_as_kubectl_reads_it() {
    for (text, want) in [
        ("a: 0644", json!({"a": 420})),
        ("a: 0o17", json!({"a": 15})),
        ("a: yes", json!({"a": true})),
        ("a: on", json!({"a": true})),
        ("a: y", json!({"a": true})),
        ("a: OFF", json!({"a": false})),
        ("a: 'yes'", json!({"a": "yes"})),
        ("a: &x {b: 1}\nc: {<<: *x, d: 2}", json!({"a": {"b": 1}, "c": {"b": 1, "d": 2}})),
        ("a: 1_000", json!({"a": 1000})),
        ("a: 0x1F", json!({"a": 31})),
        ("a: 1e3", json!({"a": 1000})),
        ("a: 1.0", json!({"a": 1})),
        ("a: 0.5", json!({"a": 0.5})),
        ("a: ~", json!({"a": null})),
        ("a: 2001-01-01", json!({"a": "2001-01-01"})),
        ("a: 12:30:45", json!({"a": "12:30:45"})),
        ("a: !!str 1", json!({"a": "1"})),
        ("80: x", json!({"80": "x"})),
        (
            "a:\n  b: 'one\n  two\n  three'\n  c: \"four\n five\"",
            json!({"a": {"b": "one two three", "c": "four five"}}),
        ),
    ] {
        let (documents, problems) = decode(text, "a.yaml");
        assert_eq!(problems, [], "{text}");
        assert_eq!(documents, [(want, 1)], "{text}");
    }
}

#[test]
fn what_cannot_be_read_is_refused_with_its_place() {
    for (file, text, want) in [
        (
            "a.yaml",
            "a: 1\nb: 2\na: 3",
            "a.yaml:3:1: error: reading the YAML: the key `a` stands here a second time (keep one of them)",
        ),
        (
            "a.yaml",
            "a: .inf",
            "a.yaml:1:4: error: reading the YAML: non-finite float `.inf` rejected by the configured policy",
        ),
        ("a.yaml", "a: {b: [1,", "a.yaml:1:8: error: reading the YAML: unclosed bracket '['"),
        ("a.yaml", "a: b: c", "a.yaml:1:5: error: reading the YAML: mapping values are not allowed in this context"),
        ("a.json", "{\"a\":1,\n\"a\":2}", "a.json:2:6: error: reading the JSON: duplicate key `a`"),
    ] {
        let (documents, problems) = decode(text, file);
        assert_eq!(documents, [], "{text}");
        assert_eq!(problems.iter().map(ToString::to_string).collect::<Vec<_>>(), [want]);
    }
}

#[test]
fn documents_know_their_lines() {
    let (documents, _) = decode("# c\na: |\n  ---\n---\n---\n# only a comment\n---\nb: 1\n...\n", "a.yaml");
    assert_eq!(documents, [(json!({"a": "---\n"}), 2), (json!({"b": 1}), 8)]);
    let (documents, _) = decode("{\"a\":1}\n\n{\"b\":\t2}\n", "a.json");
    assert_eq!(documents, [(json!({"a": 1}), 1), (json!({"b": 2}), 3)]);
}

#[test]
fn bombs_are_refused() {
    let aliases = (1..9).fold("a0: &a0 [x,x,x,x,x,x,x,x,x]\n".to_owned(), |text, i| {
        let items = vec![format!("*a{}", i - 1); 9].join(",");
        text + &format!("a{i}: &a{i} [{items}]\n")
    });
    let deep = (0..200).map(|i| format!("{}a:\n", " ".repeat(i))).collect::<String>();
    for (file, text) in [
        ("a.yaml", aliases),
        ("a.yaml", deep),
        ("a.yaml", "[".repeat(100_000)),
        ("a.json", "[".repeat(100_000)),
        ("a.yaml", "---\na: 1\n".repeat(10_000)),
        ("a.yaml", format!("a: 'b\n{}'", "c\n".repeat(10_000))),
        ("a.yaml", "a".repeat(5 << 20)),
    ] {
        let (documents, problems) = decode(&text, file);
        assert!(documents.is_empty() && problems.len() == 1, "{problems:?}");
    }
}

#[test]
fn a_value_keeps_its_type_where_it_stands_alone_and_is_text_elsewhere() {
    let values = "n: 8080\nb: true\nyes: 'yes'\nnum: '0644'\nempty: ''\nnone: null\nhash: 'a #b'\ncolon: 'a: b'\n\
                  lines: \"one\\n---\\nkind: ClusterRoleBinding\\n\"\nquote: \"a\\\"b'c\\\\n\"\nstar: '*x'\n\
                  m: {k: v, 'on': [1, '2']}\nl: [a, 'no']\n";
    for (template, want) in [
        ("  k: {{n}}", json!({"k": 8080})),
        ("  k: {{b}}", json!({"k": true})),
        ("  k: {{yes}}", json!({"k": "yes"})),
        ("  k: {{num}}", json!({"k": "0644"})),
        ("  k: {{empty}}", json!({"k": ""})),
        ("  k: {{none}}", json!({"k": null})),
        ("  k: {{hash}}", json!({"k": "a #b"})),
        ("  k: {{colon}}", json!({"k": "a: b"})),
        ("  k: {{star}}", json!({"k": "*x"})),
        ("  k: {{lines}}", json!({"k": "one\n---\nkind: ClusterRoleBinding\n"})),
        ("  k: \"{{n}}\"", json!({"k": "8080"})),
        ("  k: '{{yes}}'", json!({"k": "yes"})),
        ("  k: \"{{quote}}\"", json!({"k": "a\"b'c\\n"})),
        ("  k: '{{quote}}'", json!({"k": "a\"b'c\\n"})),
        ("  k: \"{{lines}}\"", json!({"k": "one\n---\nkind: ClusterRoleBinding\n"})),
        ("  k: x:{{n}}", json!({"k": "x:8080"})),
        ("  k: {{n}}{{n}}", json!({"k": "80808080"})),
        ("  k: x {{lines}}", json!({"k": "x one\n---\nkind: ClusterRoleBinding\n"})),
        ("  k: |\n    port={{n}}\n    {{lines}}", json!({"k": "port=8080\none\n---\nkind: ClusterRoleBinding\n\n"})),
        ("  k: |-\n    {{n}}", json!({"k": "8080"})),
        ("  k: {{n}} # {{lines}}\n", json!({"k": 8080})),
        ("  {{colon}}: x", json!({"a: b": "x"})),
        ("  k: [{{colon}}, {{n}}]", json!({"k": ["a: b", 8080]})),
        ("  k: {{toJson m}}", json!({"k": {"k": "v", "on": [1, "2"]}})),
        ("  k:\n{{indent 4 (toYaml m)}}", json!({"k": {"k": "v", "on": [1, "2"]}})),
        ("  k:\n{{indent 2 (toYaml l)}}", json!({"k": ["a", "no"]})),
        ("  k: {{toYaml n}}", json!({"k": 8080})),
        ("  k: {{quote n}}", json!({"k": "8080"})),
        ("  k: |\n    x = {{quote lines}}", json!({"k": "x = \"one\\n---\\nkind: ClusterRoleBinding\\n\"\n"})),
        ("  k: {{lookup m \"k\"}}", json!({"k": "v"})),
        ("  k: {{len l}}", json!({"k": 2})),
        ("  k: {{default missing 3}}", json!({"k": 3})),
        ("  k: {{default m.missing \"x\"}}", json!({"k": "x"})),
        ("  k: {{default (lookup m \"x\") 3}}", json!({"k": 3})),
        ("  k: {{or (eq n 1) b}}", json!({"k": true})),
        ("  k: {{require n \"why\"}}", json!({"k": 8080})),
        ("  k: {{serin.commit}}", json!({"k": "c0ffee"})),
        ("  {{#each l}}\n  k{{@index}}: {{this}}\n  {{/each}}", json!({"k0": "a", "k1": "no"})),
        ("  {{#if b}}\n  k: 1\n  {{else}}\n  k: 2\n  {{/if}}", json!({"k": 1})),
        ("  {{#if (eq n 8080)}}\n  k: 1\n  {{/if}}", json!({"k": 1})),
        ("  {{#with m}}\n  k: {{k}}\n  {{/with}}", json!({"k": "v"})),
    ] {
        assert_eq!(data(template, values), Ok(want), "{template}");
    }
}

#[test]
fn templates_fail_with_their_line_and_what_to_do() {
    let values = "m: {k: v}\na: x\nb: x\n";
    for (template, want) in [
        (
            "  k: {{missing}}",
            "c.yaml.hbs:5:6: error: `missing` has no value (set it in the values file, or write (default missing …))",
        ),
        (
            "  x: 1\n  {{#if missing}}\n  k: 1\n  {{/if}}",
            "c.yaml.hbs:6:3: error: `missing` has no value (set it in the values file, or write (default missing …))",
        ),
        (
            "  {{#each missing}}\n  k: 1\n  {{/each}}",
            "c.yaml.hbs:5:3: error: `missing` has no value (set it in the values file, or write (default missing …))",
        ),
        (
            "  {{#with missing}}\n  k: 1\n  {{/with}}",
            "c.yaml.hbs:5:3: error: `missing` has no value (set it in the values file, or write (default missing …))",
        ),
        (
            "  {{#if (and missing a)}}\n  k: 1\n  {{/if}}",
            "c.yaml.hbs:5:3: error: `missing` has no value (set it in the values file, or write (default missing …))",
        ),
        (
            "  k: {{or missing a}}",
            "c.yaml.hbs:5:6: error: `missing` has no value (set it in the values file, or write (default missing …))",
        ),
        (
            "  k: {{not missing}}",
            "c.yaml.hbs:5:6: error: `missing` has no value (set it in the values file, or write (default missing …))",
        ),
        (
            "  k: {{eq a missing}}",
            "c.yaml.hbs:5:6: error: `missing` has no value (set it in the values file, or write (default missing …))",
        ),
        (
            "  k: {{len missing}}",
            "c.yaml.hbs:5:6: error: `missing` has no value (set it in the values file, or write (default missing …))",
        ),
        (
            "  k: {{lookup missing a}}",
            "c.yaml.hbs:5:6: error: `missing` has no value (set it in the values file, or write (default missing …))",
        ),
        (
            "  k: {{default m.x missing}}",
            "c.yaml.hbs:5:6: error: `missing` has no value (set it in the values file, or write (default missing …))",
        ),
        (
            "  k: {{lookup m a}}",
            "c.yaml.hbs:5:6: error: what is looked up has no value (set it in the values file, or write (default (lookup …) …))",
        ),
        ("  k: {{m}}", "c.yaml.hbs:5:6: error: `m` is a map or a list: write it with toYaml or toJson"),
        (
            "  k: {{{m.k}}}",
            "c.yaml.hbs:5:6: error: `{{{ }}}`, `{{& }}` and raw blocks are not supported: a value could become YAML by itself (write {{x}}, or {{toYaml x}} for maps and lists)",
        ),
        ("  k: {{require missing \"name the image\"}}", "c.yaml.hbs:5:6: error: `missing` is required: name the image"),
        ("  k: {{toYml m}}", "c.yaml.hbs:5:6: error: there is no helper `toYml` (did you mean `toYaml`?)"),
        (
            "  {{#iff m}}{{/iff}}",
            "c.yaml.hbs:5:3: error: there is no block helper `iff` (blocks are: if, unless, each, with)",
        ),
        (
            "  {{> labels}}",
            "c.yaml.hbs:5:3: error: there is no partial `labels` (partials are the files partials/NAME.hbs under the source's path: add partials/labels.hbs)",
        ),
        (
            "  {{> (lookup m \"k\")}}",
            "c.yaml.hbs:5:3: error: the name of a partial must be written out, not computed (choose with {{#if}} between partials that are named)",
        ),
        ("  {{#each m}}", "c.yaml.hbs:5:3: error: the block has no end (close it with {{/…}})"),
        (
            "  {{a}}: 1\n  {{b}}: 2",
            "c.yaml.hbs:1:1: error: the key `x` comes out twice in one map (give the keys different values)",
        ),
        (
            "  k: {{indent 4 a}}",
            "c.yaml.hbs:5:6: error: `indent` takes the text of toYaml; in a block scalar write {{x}} alone, it may have many lines",
        ),
        ("  {{a}}: 1\n  k: [", "c.yaml.hbs:6:6: error: reading the YAML: unclosed bracket '['"),
    ] {
        assert_eq!(data(template, values), Err(vec![want.to_owned()]), "{template}");
    }
}

#[test]
fn the_deepest_template_fits_a_small_stack() {
    let nested = |inner: &str| format!("{}{inner}{}", "{{#if l}}".repeat(31), "{{/if}}".repeat(31));
    let run = move || {
        let document = nested("{apiVersion: v1, kind: Namespace, metadata: {name: ok}}");
        let set = rendered(&[("t.yaml.hbs", &nested("{{> p}}")), ("partials/p.hbs", &document), (VALUES, "l: 1")]);
        assert_eq!(problems(&set), Vec::<String>::new());
        assert_eq!(set.manifests.len(), 1);
    };
    std::thread::Builder::new().stack_size(1 << 20).spawn(run).unwrap().join().unwrap();
}

#[test]
fn hostile_templates_are_refused_in_bounded_time() {
    let each = |depth: usize| format!("{}x{}", "{{#each l}}".repeat(depth), "{{/each}}".repeat(depth));
    let values = "l: [0,1,2,3,4,5,6,7,8,9]\n";
    for template in [
        "{{#if l}}".repeat(100_000),
        format!("{}{}", "{{#if l}}".repeat(1200), "{{/if}}".repeat(1200)),
        format!("{{{{#if l}}}}{}{{{{/if}}}}", "{{else if l}}".repeat(5_000)),
        each(8),
        each(8).replace('x', ""),
        each(5).replace('x', &"{{toJson l}}".repeat(20)),
        format!("{{{{len {}l{}}}}}", "(toJson ".repeat(1000), ")".repeat(1000)),
        "{{".repeat(50_000),
        "x".repeat(300_000),
        "{{> a}}".to_owned(),
        "{{> c}}".to_owned(),
        "{{> p0}}".to_owned(),
        "{{> q0}}".to_owned(),
    ] {
        let mut files = vec![
            ("t.yaml.hbs".to_owned(), template.clone()),
            (VALUES.to_owned(), values.to_owned()),
            ("partials/a.hbs".to_owned(), "{{> b}}".to_owned()),
            ("partials/b.hbs".to_owned(), "{{> a}}".to_owned()),
            ("partials/c.hbs".to_owned(), "{{> c}}".to_owned()),
            ("ok.yaml".to_owned(), "{apiVersion: v1, kind: Namespace, metadata: {name: ok}}".to_owned()),
        ];
        for i in 0..200 {
            files.push((format!("partials/p{i}.hbs"), format!("{{{{> p{}}}}}", i + 1)));
        }
        files.push(("partials/p200.hbs".to_owned(), String::new()));
        for i in 0..28 {
            files.push((format!("partials/q{i}.hbs"), format!("{{{{> q{}}}}}{{{{> q{}}}}}", i + 1, i + 1)));
        }
        files.push(("partials/q28.hbs".to_owned(), String::new()));
        let files: Vec<_> = files.iter().map(|(file, text)| (file.as_str(), text.as_str())).collect();
        let set = rendered(&files);
        assert_eq!(set.manifests.len(), 1, "the other file goes on: {template:.40}");
        assert!(set.has_errors(), "{template:.40}");
        assert!(set.problems.iter().all(|p| p.file == "t.yaml.hbs" && p.message.len() < 300), "{:?}", set.problems);
    }
}

/// Objects and problems of a tree, one a line.
fn listing(set: &ManifestSet) -> Vec<String> {
    let objects = set.manifests.iter().map(|m| format!("{}:{} {}", m.file, m.line, m.object.key()));
    objects.chain(problems(set)).collect()
}

fn object(kind: &str, name: &str, namespace: &str) -> String {
    let api_version = match kind {
        "Deployment" => "apps/v1",
        _ => "v1",
    };
    let namespace = if namespace.is_empty() { String::new() } else { format!(", namespace: {namespace}") };
    format!("{{apiVersion: {api_version}, kind: {kind}, metadata: {{name: {name}{namespace}}}}}\n")
}

#[test]
fn partials_take_parameters_and_indentation() {
    let template = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: c\n  namespace: shop\n  labels:\n    {{> labels app=name}}\n  annotations:\n    {{> sub/notes}}\n";
    let set = rendered(&[
        ("c.yaml.hbs", template),
        ("partials/labels.hbs", "app: {{app}}\ntier: {{tier}}\n"),
        ("partials/sub/notes.yaml.hbs", "note: {{name}}\n"),
        (VALUES, "name: web\ntier: 'on'\n"),
    ]);
    assert_eq!(problems(&set), Vec::<String>::new());
    let one = &set.manifests[0];
    assert_eq!(one.object.0["metadata"]["labels"], json!({"app": "web", "tier": "on"}));
    assert_eq!(one.object.0["metadata"]["annotations"], json!({"note": "web"}));
    let inputs: Vec<_> = one.inputs.iter().map(String::as_str).collect();
    assert_eq!(inputs, ["c.yaml.hbs", "partials/labels.hbs", "partials/sub/notes.yaml.hbs", VALUES]);
    assert!(!one.uses_commit);
}

#[test]
fn a_problem_in_a_partial_names_the_partial_and_the_template() {
    let set = rendered(&[("c.yaml.hbs", "a: 1\n{{> p}}\n"), ("partials/p.hbs", "x: 1\ny: {{missing}}\n")]);
    let want = "partials/p.hbs:2:4: error: `missing` has no value (for c.yaml.hbs) (set it in the values file, or write (default missing …))";
    assert_eq!(problems(&set), [want]);
    let broken = rendered(&[("c.yaml.hbs", "a: 1\n{{> p}}\n"), ("partials/p.hbs", "{{#if}")]);
    let want = [
        "c.yaml.hbs:2:1: error: the partial `p` is broken (see partials/p.hbs)",
        "partials/p.hbs:1:1: error: the tag has no end",
    ];
    assert_eq!(problems(&broken), want);
}

#[test]
fn lines_of_templates_survive_loops_and_conditions() {
    let template = "{{#each names}}\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: {{this}}, namespace: shop}\n{{/each}}\n\n---\n# text\napiVersion: v1\nkind: Secret\nmetadata: {namespace: shop}\n";
    let set = rendered(&[("c.yaml.hbs", template), (VALUES, "names: [a, b]\n")]);
    assert_eq!(
        listing(&set),
        [
            "c.yaml.hbs:3 ConfigMap shop/a",
            "c.yaml.hbs:3 ConfigMap shop/b",
            "c.yaml.hbs:10:1: error: the Secret has no name (write metadata.name)",
        ]
    );
}

#[test]
fn the_commit_is_refused_in_what_is_released() {
    let deployment = |annotation: &str, template: &str| {
        format!(
            "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: web\n  namespace: shop\n  annotations: {{a: {annotation}}}\nspec:\n  template:\n    metadata:\n      annotations: {{a: {template}}}\n    spec: {{containers: [{{name: web, envFrom: [{{configMapRef: {{name: conf}}}}]}}]}}\n"
        )
    };
    let config =
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: conf, namespace: shop}\ndata:\n  commit: {{serin.commit}}\n";
    let canary = "{apiVersion: flagger.app/v1beta1, kind: Canary, metadata: {name: web, namespace: shop}, spec: {targetRef: {kind: Deployment, name: web}}}";
    let allowed = rendered(&[("d.yaml.hbs", &deployment("'{{serin.commit}}'", "x")), ("c.yaml.hbs", config)]);
    assert_eq!(problems(&allowed), Vec::<String>::new());
    assert!(allowed.manifests.iter().all(|m| m.uses_commit));
    assert_eq!(allowed.manifests[1].object.0["metadata"]["annotations"]["a"], "c0ffee");
    let refused = rendered(&[
        ("d.yaml.hbs", &deployment("x", "v-{{#with serin}}{{commit}}{{/with}}")),
        ("c.yaml.hbs", config),
        ("canary.yaml", canary),
    ]);
    assert_eq!(
        listing(&refused),
        [
            "canary.yaml:1 Canary shop/web",
            "c.yaml.hbs:1:1: error: `serin.commit` stands in the data of ConfigMap shop/conf: every commit would be a release (put it outside, such as in the object's annotations, or use an image tag)",
            "d.yaml.hbs:1:1: error: `serin.commit` stands in the pod template of Deployment shop/web: every commit would be a release (put it outside, such as in the object's annotations, or use an image tag)",
        ]
    );
}

#[test]
fn other_files_are_left_alone_or_named() {
    let pod = object("ConfigMap", "c", "shop");
    let set = rendered(&[
        (".github/workflows/ci.yaml", "on: push"),
        (".hidden.yaml", "a: ["),
        ("README.md", "a: ["),
        ("values.yaml", "a: 1"),
        ("partials/x.yaml", "a: ["),
        ("app/c.yaml", &pod),
        ("app/kustomization.yaml", "resources: []"),
        ("chart/Chart.yaml", "name: x"),
        ("chart/templates/a.yaml", "{{ .Values.x }}"),
        ("notes.yaml", "just: notes\n---\n- a list\n"),
        ("secret.yaml", "apiVersion: v1\nkind: Secret\nmetadata: {name: s, namespace: shop}\nsops: {mac: x}\n"),
        (".serinignore", "# charts\nchart/templates/\n*.bak.yaml\n/docs\n!docs/keep.yaml\n"),
        ("a.bak.yaml", "a: ["),
        ("docs/a.yaml", "a: ["),
        ("docs/keep.yaml", &object("ConfigMap", "keep", "shop")),
        ("empty.yaml", "# nothing\n---\n"),
    ]);
    assert_eq!(
        listing(&set),
        [
            "app/c.yaml:1 ConfigMap shop/c",
            "docs/keep.yaml:1 ConfigMap shop/keep",
            "app/kustomization.yaml:1:1: warning: a kustomization is not applied (every manifest of the folder is read; for variants use .hbs templates with values, or commit the output of `kustomize build`)",
            "chart/Chart.yaml:1:1: warning: a Helm chart is not rendered (commit the output of `helm template`, and list the chart's folder in .serinignore)",
            "notes.yaml:1:1: warning: the document has no apiVersion and no kind and is not applied (list the file in .serinignore when it is no manifest)",
            "notes.yaml:3:1: warning: the document is not a Kubernetes object (objects have apiVersion and kind; list other files in .serinignore)",
            "secret.yaml:1:1: warning: the document is encrypted with sops and is not applied (create the Secret in the cluster by another way, such as External Secrets, and refer to it)",
        ]
    );
    assert!(!set.has_errors());
}

#[test]
fn only_the_path_of_the_source_is_read() {
    let (inside, outside) = (object("ConfigMap", "a", "shop"), object("ConfigMap", "b", "shop"));
    let mut snapshot = Snapshot::from_texts([
        ("clusters/prod/a.yaml", inside.as_str()),
        ("clusters/prod-2/b.yaml", outside.as_str()),
        ("clusters/prod/partials/.keep", ""),
    ]);
    for (file, reason) in
        [("clusters/prod/link.yaml", "symlink"), ("clusters/prod/x.png", "too large"), ("b.yaml", "x")]
    {
        snapshot.refused.insert(file.into(), reason.into());
    }
    let want = [
        "clusters/prod/a.yaml:1 ConfigMap shop/a",
        "clusters/prod/link.yaml:1:1: error: not read: symlink (replace it by a regular file, or list it in .serinignore)",
        "clusters/prod/x.png:1:1: warning: not read: too large (it is no manifest by its name)",
    ];
    for path in ["clusters/prod", "/clusters/prod/", "./clusters/prod"] {
        assert_eq!(listing(&render(&Input::new(&snapshot, path))), want);
    }
    let nothing = render(&Input::new(&snapshot, "clusters/dev"));
    assert_eq!(
        problems(&nothing),
        ["clusters/dev:1:1: error: the source's path holds no file (check `path` of the source in serin.yaml)"]
    );
}

#[test]
fn one_bad_file_never_stops_the_others() {
    let mut snapshot = Snapshot::from_texts([
        ("a.yaml", "a: ["),
        ("b.yaml.hbs", "{{#if}}"),
        ("c.yaml.hbs", "{{x}}"),
        ("good.yaml", "{apiVersion: v1, kind: Namespace, metadata: {name: ok}}"),
    ]);
    snapshot.files.insert("latin.yaml".into(), (&b"a: \xff"[..]).into());
    let set = render(&Input { values: Some("missing.yaml"), ..Input::new(&snapshot, "") });
    assert_eq!(
        listing(&set),
        [
            "good.yaml:1 Namespace ok",
            "a.yaml:1:4: error: reading the YAML: unclosed bracket '['",
            "latin.yaml:1:1: error: the file is not UTF-8 text (save it as UTF-8)",
            "missing.yaml:1:1: error: the values file is missing or is not UTF-8 text (`values` in serin.yaml is relative to the repository's root)",
        ]
    );
}

#[test]
fn objects_are_checked() {
    for (text, want) in [
        (
            "{apiVersion: v1, kind: Pod, metadata: null}",
            "a.yaml:1:1: error: the Pod has no metadata (write metadata with a name)",
        ),
        ("{apiVersion: v1, kind: Pod}", "a.yaml:1:1: error: the Pod has no metadata (write metadata with a name)"),
        (
            "{apiVersion: v1, kind: Pod, metadata: {generateName: x-}}",
            "a.yaml:1:1: error: the Pod has generateName and no name (objects in Git need a fixed name)",
        ),
        (
            "{apiVersion: v1, kind: Pod, metadata: {name: 12}}",
            "a.yaml:1:1: error: `metadata.name` is not a text (put it in quotes)",
        ),
        (
            "{apiVersion: v1, kind: Pod, metadata: {name: a/b}}",
            "a.yaml:1:1: error: `a/b` is no name for an object (use letters, digits, `-` and `.`)",
        ),
        ("{apiVersion: v1, metadata: {name: a}}", "a.yaml:1:1: error: `kind` must be a text (write kind: KIND)"),
        (
            "{apiVersion: 1, kind: Pod}",
            "a.yaml:1:1: error: `apiVersion` must be a text (write apiVersion: GROUP/VERSION)",
        ),
        (
            "{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: n}}",
            "a.yaml:1:1: error: `metadata.namespace` is not a text (put it in quotes)",
        ),
        (
            "{apiVersion: v1, kind: Pod, metadata: {name: a, labels: {v: 1.5}}}",
            "a.yaml:1:1: error: `metadata.labels.v` is 1.5, not a text (put the value in quotes)",
        ),
        (
            "{apiVersion: v1, kind: Pod, metadata: {name: a}}",
            "a.yaml:1:1: error: Pod a has no namespace (write metadata.namespace)",
        ),
        (
            "{apiVersion: v1, kind: Node, metadata: {name: a, namespace: shop}}",
            "a.yaml:1 Node a\na.yaml:1:1: warning: Node a is cluster-scoped: its namespace is left out (remove metadata.namespace)",
        ),
        (
            "{apiVersion: v1, kind: Node, metadata: {name: a, uid: x, creationTimestamp: null}, status: {a: 1}}",
            "a.yaml:1 Node a\na.yaml:1:1: warning: left out, because only the cluster sets it: uid, status (remove it from the file)",
        ),
        ("{apiVersion: example.com/v1, kind: Foo, metadata: {name: a, namespace: shop}}", "a.yaml:1 Foo shop/a"),
        ("{apiVersion: example.com/v1, kind: Foo, metadata: {name: a}}", "a.yaml:1 Foo a"),
        (
            "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Node, metadata: {name: a}}\n- {apiVersion: v1, kind: Node, metadata: {name: b}}",
            "a.yaml:1 Node a\na.yaml:1 Node b",
        ),
        ("apiVersion: v1\nkind: NodeList\nitems:\n- {metadata: {name: a}}", "a.yaml:1 Node a"),
        ("{apiVersion: v1, kind: List, items: [1]}", "a.yaml:1:1: error: item 0 of the list is not an object"),
    ] {
        assert_eq!(listing(&rendered(&[("a.yaml", text)])), want.lines().collect::<Vec<_>>(), "{text}");
    }
    let crd = "{apiVersion: apiextensions.k8s.io/v1, kind: CustomResourceDefinition, metadata: {name: foos.example.com}, spec: {group: example.com, scope: Namespaced, names: {kind: Foo}}}\n---\n{apiVersion: example.com/v1, kind: Foo, metadata: {name: a}}";
    assert_eq!(
        problems(&rendered(&[("a.yaml", crd)])),
        ["a.yaml:3:1: error: Foo a has no namespace (write metadata.namespace)"]
    );
}

#[test]
fn an_object_belongs_to_one_file() {
    let set = rendered(&[
        ("a.yaml", &object("Deployment", "web", "shop")),
        ("b.yaml", &object("Deployment", "web", "shop").replace("apps/v1", "apps/v1beta1")),
    ]);
    assert_eq!(
        listing(&set),
        [
            "a.yaml:1 Deployment shop/web",
            "b.yaml:1:1: error: Deployment shop/web is defined a second time; the first is a.yaml:1 (an object belongs to one file: remove one of them)",
        ]
    );
}

#[test]
fn a_source_with_namespaces_writes_nowhere_else() {
    let text = [object("ConfigMap", "a", "shop"), object("ConfigMap", "b", "web"), object("Namespace", "shop", "")]
        .join("---\n");
    let snapshot = Snapshot::from_texts([("a.yaml", text.as_str())]);
    let namespaces = ["shop".to_owned()];
    let set = render(&Input { namespaces: Some(&namespaces), ..Input::new(&snapshot, "") });
    assert_eq!(
        listing(&set),
        [
            "a.yaml:1 ConfigMap shop/a",
            "a.yaml:3:1: error: the source may not write to namespace web (it may write to: shop; see `namespaces` in serin.yaml)",
            "a.yaml:5:1: error: Namespace shop is cluster-scoped, and the source may write to namespaces only (move it to a source without `namespaces`)",
        ]
    );
}

#[test]
fn encoded_yaml_is_readable() {
    let value = json!({
        "image": "registry/app:1.2", "yes": "no", "n": 1, "float": 0.5, "octal": "0644", "empty": {}, "list": [],
        "text": "one\ntwo\n", "items": [{"name": "a", "args": ["-v", "--x=1"]}, "b"], "when": "2001-01-01", "colon": "a: b",
        "null": null,
    });
    assert_eq!(
        encode(&value),
        "colon: \"a: b\"\nempty: {}\nfloat: 0.5\nimage: registry/app:1.2\nitems:\n- args:\n  - \"-v\"\n  - \"--x=1\"\n  name: a\n- b\nlist: []\n\"n\": 1\n\"null\": null\noctal: \"0644\"\ntext: |\n  one\n  two\nwhen: \"2001-01-01\"\n\"yes\": \"no\"\n"
    );
}
