use secrecy::ExposeSecret as _;

use super::*;

/// What product documentation shows, less what is not implemented yet.
const WHOLE: &str = r#"
cluster: prod
canaries: owned
listen: 0.0.0.0:8080
provider: contour
metricsServer: http://prometheus.monitoring:9090
flagger: {selectorLabels: "app,name", includeLabelPrefix: [team, "*"], enableConfigTracking: false, noCrossNamespaceRefs: true, namespace: shop, ingressClass: contour}
leaderElection: {enabled: true, namespace: serin-system, name: serin}
sources:
- name: apps
  url: https://git.example.com/acme/apps.git
  branch: main
  path: clusters/prod
  interval: 1m30s
  values: values/prod.yaml
  namespaces: [shop, web]
  prune: true
  suspend: false
  auth: {tokenFrom: {file: /etc/serin/git-token}}
  writeAuth: {tokenFrom: {file: /etc/serin/git-write}}
  writeBack:
    status: {branch: serin/status/prod}
    revert: commit
    author: {name: serin, email: serin@example.com}
  forge: {kind: github, api: https://api.github.com, repository: acme/apps, tokenFrom: {env: GITHUB_TOKEN}}
  webhook: {secretFrom: {file: /etc/serin/hook}}
- name: infra
  url: ssh://git@git.example.com/acme/infra.git
  auth: {sshKeyFrom: {file: /k}, knownHostsFrom: {file: /h}}
  writeBack: {status: off, revert: off}
"#;

fn parse(text: &str) -> Result<Config, String> {
    Config::parse("serin.yaml", text).map_err(|errors| errors.to_string())
}

#[test]
fn the_documented_file_is_read() {
    let config = parse(WHOLE).expect("the documented file");
    assert_eq!(config.flagger.selector_labels, ["app", "name"]);
    assert_eq!(config.flagger.include_label_prefix, ["team", "*"]);
    let [apps, infra] = config.sources.as_slice() else { panic!("two sources") };
    assert_eq!(apps.interval, Duration::from_secs(90));
    assert_eq!(apps.status_branch("prod").as_deref(), Some("serin/status/prod"));
    assert_eq!(apps.forge.token_from, Some(SecretRef::Env("GITHUB_TOKEN".to_owned())));
    assert_eq!((infra.status_branch("prod"), infra.write_back.revert), (None, RevertMode::Off));
    assert_eq!((infra.branch.as_str(), infra.interval, infra.prune), ("main", Duration::from_secs(30), true));
}

#[test]
fn the_smallest_file_has_defaults() {
    let config = parse("cluster: a\nsources: [{name: s, url: 'file:///r.git'}]").expect("the smallest file");
    assert_eq!(config.listen.to_string(), "0.0.0.0:8080");
    assert_eq!((config.provider.as_str(), config.metrics_server.as_str()), ("contour", "http://prometheus:9090"));
    assert_eq!(config.flagger, FlaggerFlags::default());
    let source = config.sources.first().expect("a source");
    assert_eq!(source.status_branch("a").as_deref(), Some("serin/status/a"));
    assert_eq!((source.write_back.revert, source.forge.kind), (RevertMode::Commit, ForgeKind::None));
    assert!(parse("cluster: a\ncanaries: all").is_ok());
}

const S: &str = "cluster: a\nsources:\n- name: s\n  url: file:///r.git\n";

#[test]
fn problems_say_where_and_what_to_do() {
    let https = "cluster: a\nsources:\n- name: s\n  url: https://h/o/r\n";
    for (text, want) in [
        ("cluster: a\nsuorces: []".to_owned(), "serin.yaml:2:1: unknown key `suorces`, did you mean `sources`?"),
        (format!("{S}  brnach: x"), "serin.yaml:5:3: unknown key `brnach`, did you mean `branch`?"),
        (format!("{S}  zzz: x"), "serin.yaml:5:3: unknown key `zzz`, there is: name, url, branch, path, interval"),
        ("sources: []".to_owned(), "serin.yaml:1:1: the key `cluster` is missing"),
        ("cluster: a\ncanaries: owend".to_owned(), "serin.yaml:2:11: unknown value `owend`, did you mean `owned`?"),
        (format!("{S}  interval: 30"), "serin.yaml:5:13: `30` is not a duration such as 30s or 5m"),
        (format!("{S}  interval: 10ms"), "serin.yaml:5:13: `10ms` is too short, at least 1s"),
        (
            format!("{S}  auth: {{tokenFrom: p4ss}}"),
            "serin.yaml:5:21: a secret is given by {env: NAME} or {file: PATH}",
        ),
        (format!("{S}  auth: {{tokenFrom: {{value: p4ss}}}}"), "a secret is given by {env: NAME} or {file: PATH}"),
        (format!("{S}  auth: {{token: p4ss}}"), "unknown key `token`, did you mean `tokenFrom`?"),
        (
            "cluster: Prod\ncanaries: all".to_owned(),
            "serin.yaml:1:10: `cluster: Prod` is not a name: lower-case letters",
        ),
        ("cluster: a".to_owned(), "serin.yaml: there is nothing to do: add a source, or say `canaries: all`"),
        (format!("{S}- name: s\n  url: file:///q.git"), "serin.yaml:5:3: two sources are called `s`"),
        ("cluster: a\ncanaries: all\nmetricsServer: prometheus:9090".to_owned(), "serin.yaml:3:16: `metricsServer`:"),
        ("cluster: a\ncluster: b".to_owned(), "the key `cluster` stands here a second time: keep one of them"),
        ("cluster: a\n---\ncluster: b".to_owned(), "the file has several documents: a configuration is one"),
        (String::new(), "the file is empty or ends too early: `cluster` is the least that it needs"),
        ("cluster: a\ncanaries: [all]".to_owned(), "serin.yaml:2:11: one word is expected here"),
        ("cluster: a\nleaderElection: true".to_owned(), "serin.yaml:2:17: keys with values are expected here"),
        ("cluster: a\nlisten: 8080".to_owned(), "serin.yaml:2:9: an address with a port is expected here"),
        (format!("{S}  path: ../x"), "serin.yaml:5:9: source `s`: `path: ../x` leaves the repository"),
        (format!("{S}  branch: a..b"), "serin.yaml:5:11: source `s`: `branch: a..b` is no branch name"),
        (format!("{S}  namespaces: []"), "serin.yaml:5:15: source `s`: `namespaces` is empty"),
        (format!("{S}  writeBack: {{status: {{branch: main}}}}"), "is the source's own branch"),
        (format!("{https}  auth: {{sshKeyFrom: {{env: A}}}}"), "`sshKeyFrom` has no meaning for a remote by https"),
        (format!("{https}  forge: {{kind: github}}"), "`forge.tokenFrom` is missing"),
        ("cluster: a\nsources: [{name: s, url: 'https://u:p4ss@h/o/r'}]".to_owned(), "`url` holds credentials"),
        ("cluster: a\nsources: [{name: s, url: 'git@h:o/r'}]".to_owned(), "an ssh remote needs `sshKeyFrom`"),
        ("cluster: a\nsources: [{name: s, url: 'ftp://h/r'}]".to_owned(), "`url`: ftp is none of https, ssh, file"),
        (
            "cluster: a\nsources: [{name: s, url: 'http://h/r', auth: {tokenFrom: {env: A}}}]".to_owned(),
            "the token would be sent in clear",
        ),
    ] {
        let message = parse(&text).expect_err(&text);
        assert!(message.contains(want), "{text}\n  gives {message}\n  not   {want}");
        assert!(!message.contains("p4ss"), "{message}");
    }
}

#[test]
fn keys_without_a_feature_are_refused_by_name() {
    for (text, want) in [
        ("cluster: a\nwindows: []".to_owned(), "serin.yaml:2:10: `windows` is not implemented yet: remove it"),
        (format!("{S}  forge: {{kind: gitlab}}"), "serin.yaml:5:17: `forge.kind: gitlab` is not implemented yet"),
        (format!("{S}  forge: {{app: {{id: 1}}}}"), "`forge.app` is not implemented yet"),
        (format!("{S}  writeBack: {{revert: pullRequest}}"), "`writeBack.revert: pullRequest` is not implemented yet"),
        (
            format!("{S}  writeBack: {{signingKeyFrom: {{env: A}}}}"),
            "`writeBack.signingKeyFrom` is not implemented yet",
        ),
        (format!("{S}  writeBack: {{status: {{url: a}}}}"), "`writeBack.status.url` is not implemented yet"),
    ] {
        let message = parse(&text).expect_err(&text);
        assert!(message.contains(want), "{text}\n  gives {message}\n  not   {want}");
    }
}

#[test]
fn receivers_are_given_by_reference() {
    let text = "cluster: a\ncanaries: all\nflagger: {clusterName: bed, eventWebhookFrom: {env: HOOK}, slack: {urlFrom: \
                {file: /slack}, channel: canaries}, msteams: {urlFrom: {env: TEAMS}, proxyUrlFrom: {env: PROXY}}}";
    let flagger = parse(text).expect("a configuration").flagger;
    let env = |name: &str| SecretRef::Env(name.to_owned());
    assert_eq!((flagger.cluster_name.as_deref(), flagger.event_webhook_from), (Some("bed"), Some(env("HOOK"))));
    let slack = flagger.slack.expect("slack");
    assert_eq!((slack.user.as_str(), slack.channel.as_str()), ("flagger", "canaries"));
    assert_eq!(flagger.msteams.expect("teams").proxy_url_from, Some(env("PROXY")));
    for text in ["slack: {urlFrom: 'https://hooks/hunter2'}", "eventWebhookFrom: 'https://hooks/hunter2'", "slack: {}"]
    {
        let message = parse(&format!("cluster: a\nflagger: {{{text}}}")).expect_err(text);
        assert!(!message.contains("hunter2"), "{message}");
    }
}

#[test]
fn every_problem_is_told_at_once() {
    let message = parse("cluster: A\nsources: [{name: B, url: 'ftp://h'}]").expect_err("three problems");
    assert_eq!(message.lines().count(), 3, "{message}");
}

#[test]
fn secrets_come_from_variables_and_files_and_stay_out_of_messages() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("token");
    std::fs::write(&file, "s3cret\n").expect("writing");
    let env = |name: &str| (name == "TOKEN").then(|| "fromenv".to_owned());
    let read = |reference: SecretRef| reference.resolve(&env).map(|secret| secret.expose_secret().to_owned());
    assert_eq!(read(SecretRef::File(file.clone())).as_deref(), Ok("s3cret"));
    assert_eq!(read(SecretRef::Env("TOKEN".to_owned())).as_deref(), Ok("fromenv"));
    assert_eq!(read(SecretRef::Env("OTHER".to_owned())), Err(SecretError::Unset("OTHER".to_owned())));
    std::fs::write(&file, "\n").expect("writing");
    assert!(matches!(read(SecretRef::File(file.clone())), Err(SecretError::Empty(_))));
    assert!(matches!(read(SecretRef::File(folder.path().join("no"))), Err(SecretError::Unreadable { .. })));
    assert!(!format!("{:?}", SecretRef::File(file).resolve(&env)).contains("s3cret"));
}

#[test]
fn the_forge_repository_comes_from_the_url() {
    for (url, want) in [
        ("https://github.com/acme/apps.git", Some("acme/apps")),
        ("https://github.com/acme/apps/", Some("acme/apps")),
        ("ssh://git@github.com/acme/apps.git", Some("acme/apps")),
        ("git@github.com:acme/apps.git", Some("acme/apps")),
    ] {
        let auth = "auth: {sshKeyFrom: {env: A}, knownHostsFrom: {env: B}}";
        let auth = if url.starts_with("https") { "" } else { auth };
        let config = parse(&format!("cluster: a\nsources:\n- name: s\n  url: {url}\n  {auth}")).expect(url);
        assert_eq!(config.sources.first().and_then(Source::forge_repository).as_deref(), want, "{url}");
    }
}

#[test]
fn the_forge_api_comes_from_the_url_where_it_can() {
    let of = |url: &str, auth: &str, forge: &str| {
        let token = "tokenFrom: {env: T}";
        parse(&format!("cluster: a\nsources:\n- {{name: s, url: '{url}', {auth} forge: {{{forge}, {token}}}}}"))
            .map(|config| config.sources.first().and_then(Source::forge_api))
    };
    let ssh = "auth: {sshKeyFrom: {env: A}, knownHostsFrom: {env: B}},";
    for (url, auth, forge, want) in [
        ("https://git.example.com/acme/apps.git", "", "kind: github", "https://api.github.com"),
        ("https://git.example.com/acme/apps.git", "", "kind: gitea", "https://git.example.com"),
        ("http://127.0.0.1:3000/git/acme/apps/", "", "kind: gitea", "http://127.0.0.1:3000/git"),
        ("https://h/acme/apps", "", "kind: gitea, api: 'https://i/api/v1'", "https://i/api/v1"),
        ("git@h:acme/apps.git", ssh, "kind: gitea, api: 'https://i'", "https://i"),
    ] {
        assert_eq!(of(url, auth, forge).expect(url).as_deref(), Some(want), "{url} {forge}");
    }
    let message = of("git@h:acme/apps.git", ssh, "kind: gitea").expect_err("no address");
    assert!(message.contains("`forge.api` is missing, the url does not say where"), "{message}");
}

/// `INSTA_UPDATE=always` rewrites the file, as it does for snapshots.
#[test]
fn generated_schema_is_what_the_types_say() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/config.schema.json");
    let text = format!("{}\n", serde_json::to_string_pretty(&Config::schema()).expect("JSON"));
    if std::env::var_os("INSTA_UPDATE").is_some_and(|value| value == "always") {
        std::fs::write(&path, &text).expect("writing the schema");
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == text, "{} is stale: run this test with INSTA_UPDATE=always", path.display());
}

#[test]
fn the_written_reference_is_true_and_names_every_key() {
    let page = include_str!("../../../docs/configuration.md");
    let blocks: Vec<&str> = page.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert_eq!(blocks.len(), 2);
    for block in blocks {
        parse(block).expect(block);
    }
    let mut keys = std::collections::BTreeSet::new();
    property_names(&Config::schema(), &mut keys);
    assert!(keys.len() > 40, "{keys:?}");
    for key in keys {
        let written = [format!("`{key}`"), format!("`{key}:"), format!("{{{key}:"), format!(".{key}`")];
        assert!(written.iter().any(|form| page.contains(form)), "docs/configuration.md does not speak of {key}");
    }
}

fn property_names(schema: &serde_json::Value, keys: &mut std::collections::BTreeSet<String>) {
    if let Some(map) = schema.as_object() {
        keys.extend(map.get("properties").and_then(|p| p.as_object()).into_iter().flat_map(|p| p.keys().cloned()));
        map.values().for_each(|value| property_names(value, keys));
    } else if let Some(items) = schema.as_array() {
        items.iter().for_each(|value| property_names(value, keys));
    }
}

#[test]
fn the_deployment_starts_with_arguments_that_exist() {
    use clap::Parser as _;
    let deployment: serde_json::Value =
        serde_saphyr::from_str(include_str!("../../../deploy/deployment.yaml")).expect("YAML");
    let container = deployment.pointer("/spec/template/spec/containers/0").expect("a container");
    let args: Vec<&str> = container["args"].as_array().expect("a list").iter().filter_map(|arg| arg.as_str()).collect();
    assert_eq!(args.first(), Some(&"run"));
    crate::cli::Args::try_parse_from(std::iter::once(&"serin").chain(&args)).expect("arguments");
    for path in args.iter().filter(|arg| arg.starts_with('/')) {
        let mounts = container["volumeMounts"].as_array().expect("a list");
        let mounted = mounts.iter().filter_map(|mount| mount["mountPath"].as_str()).any(|at| path.starts_with(at));
        assert!(mounted, "{path} is not mounted");
    }
}

#[test]
fn the_files_of_the_migration_guide_are_configurations() {
    let page = include_str!("../../../docs/migration.md");
    let blocks = page.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
    let files: Vec<&str> = blocks.filter(|block| block.contains("canaries:")).collect();
    assert!(!files.is_empty(), "the guide shows no file");
    for file in files {
        parse(file).expect(file);
    }
}

#[test]
fn the_file_in_deploy_is_a_configuration() {
    #[derive(serde::Deserialize)]
    struct ConfigMap {
        data: std::collections::BTreeMap<String, String>,
    }
    let map: ConfigMap = serde_saphyr::from_str(include_str!("../../../deploy/configmap.yaml")).expect("YAML");
    let config = parse(&map.data["serin.yaml"]).expect("a configuration");
    assert!(config.leader_election.enabled);
}
