//! The walkthroughs of `docs/providers/`: what people copy from a page is read as serin reads it, passes `serin check`, and
//! plays on the sandbox.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use serin::domain::Snapshot;
use serin::manifest::{Input, render};

use super::{BEHAVIOUR, Reader, follow};

/// Kinds that a page uses and the sandbox does not have.
const ELSEWHERE: [&str; 2] = ["gateway.solo.io/v1 VirtualService", "appmesh.k8s.aws/v1beta2 Mesh"];

/// What a page offers for copying.
struct Page {
    name: &'static str,
    /// The objects of each block of code.
    blocks: Vec<Vec<Value>>,
    /// Parts of a Canary's spec.
    fragments: Vec<Value>,
    /// The Deployment of the page.
    deployment: Vec<Value>,
}

impl Page {
    fn read(name: &'static str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("docs/providers/{name}.md"));
        let text = std::fs::read_to_string(path).unwrap();
        let mut page = Self { name, blocks: Vec::new(), fragments: Vec::new(), deployment: Vec::new() };
        for block in text.split("\n```").skip(1).step_by(2) {
            let (language, code) = block.split_once('\n').unwrap();
            match language {
                "yaml" if code.contains("apiVersion:") => page.blocks.push(objects(name, code)),
                "yaml" => page.fragments.extend(serde_saphyr::from_str::<Value>(code)),
                "sh" => page.shell(code),
                _ => {}
            }
        }
        let all = page.blocks.iter().flatten();
        page.deployment
            .extend(all.filter(|object| object["kind"] == "Deployment").take(1).cloned().collect::<Vec<_>>());
        page
    }

    /// `kubectl create deployment` and `kubectl apply -f -`.
    fn shell(&mut self, code: &str) {
        let mut lines = code.lines();
        while let Some(line) = lines.next() {
            if let Some((_, arguments)) = line.split_once("create deployment ") {
                let mut words = arguments.split(' ');
                let name = words.next().unwrap();
                let image = words.find_map(|word| word.strip_prefix("--image=")).unwrap();
                let container = image.rsplit('/').next().and_then(|last| last.split(':').next()).unwrap();
                let labels = json!({"app": name});
                self.deployment.push(json!({"apiVersion": "apps/v1", "kind": "Deployment",
                    "metadata": {"name": name, "namespace": "test", "labels": labels},
                    "spec": {"replicas": 1, "selector": {"matchLabels": labels}, "template": {
                        "metadata": {"labels": labels}, "spec": {"containers": [{"name": container, "image": image}]}}}}));
            }
            if let Some((_, word)) = line.split_once("<<'") {
                let end = word.trim_end_matches('\'');
                let text: Vec<&str> = lines.by_ref().take_while(|line| *line != end).collect();
                self.blocks.push(objects(self.name, &text.join("\n")));
            }
        }
    }

    /// What there is to play: a Canary of the page with what stands beside it, and with each fragment.
    fn programs(&self) -> Vec<Vec<Value>> {
        let is_canary = |object: &Value| object["kind"] == "Canary";
        let whole = |block: &Vec<Value>| {
            let missing = block.iter().all(|object| object["kind"] != "Deployment");
            let deployment = self.deployment.iter().filter(|_| missing);
            deployment.chain(block).cloned().collect::<Vec<Value>>()
        };
        let mut programs: Vec<_> = self.blocks.iter().filter(|block| block.iter().any(is_canary)).map(whole).collect();
        for fragment in &self.fragments {
            let mut program = programs.first().unwrap().clone();
            let canary = program.iter_mut().find(|object| is_canary(object)).unwrap();
            let analysis = canary["spec"]["analysis"].as_object_mut().unwrap();
            let more = fragment["analysis"].as_object().unwrap();
            if more.contains_key("iterations") {
                analysis.retain(|field, _| !["maxWeight", "stepWeight"].contains(&field.as_str()));
            }
            analysis.extend(more.clone());
            programs.push(program);
        }
        programs
    }
}

/// The objects of a block, as they come out of a repository.
fn objects(page: &str, code: &str) -> Vec<Value> {
    let snapshot = Snapshot::from_texts([("page.yaml", code)]);
    let set = render(&Input::new(&snapshot, ""));
    assert_eq!(set.problems, [], "{page}");
    set.manifests.into_iter().map(|manifest| manifest.object.0.clone()).collect()
}

/// `serin check` finds nothing at all.
fn checked(page: &str, program: &[Value]) {
    let folder = tempfile::tempdir().unwrap();
    for (number, object) in program.iter().enumerate() {
        std::fs::write(folder.path().join(format!("{number}.yaml")), object.to_string()).unwrap();
    }
    let run = Command::new(env!("CARGO_BIN_EXE_serin")).arg("check").current_dir(folder.path()).output().unwrap();
    let said = [run.stdout, run.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    let quiet = !said.contains("error:") && !said.contains("warning:");
    assert!(run.status.success() && quiet, "{page}: {said}\n{program:?}");
}

/// Checks and plays all of a page; the first program through a good and a bad release, the others through a good one.
fn plays(name: &'static str) {
    let page = Page::read(name);
    let programs = page.programs();
    assert!(!programs.is_empty(), "{name} has nothing to copy");
    for (number, mut program) in programs.into_iter().enumerate() {
        checked(name, &program);
        // The sandbox plays no other Knative Services.
        for service in program.iter_mut().filter(|object| object["apiVersion"] == "serving.knative.dev/v1") {
            service["spec"]["template"]["metadata"]["annotations"][BEHAVIOUR] = json!("");
        }
        let canary = program.iter().find(|object| object["kind"] == "Canary").unwrap();
        let testing = canary["spec"]["analysis"].get("match").is_some();
        let provider = canary["spec"]["provider"].as_str().unwrap().to_owned();
        let there = |object: &&Value| {
            let kind = [&object["apiVersion"], &object["kind"]].map(|text| text.as_str().unwrap_or_default()).join(" ");
            !ELSEWHERE.contains(&kind.as_str())
        };
        let texts: Vec<String> = program.iter().filter(there).map(Value::to_string).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        follow(&provider, &texts, if testing { 0.2 } else { 0.0 }, async |reader| {
            if number == 0 {
                reader.good_then_bad().await;
            } else {
                released(&reader).await;
            }
        });
    }
}

async fn released(reader: &Reader) {
    reader.set_image("stefanprodan/podinfo:3.1.3", "");
    reader.reaches("Progressing").await;
    reader.reaches("Succeeded").await;
    reader.serves("stefanprodan/podinfo:3.1.3");
}

macro_rules! pages {
    ($($name:ident),*) => {
        $(#[test] fn $name() { plays(stringify!($name)); })*

        #[test]
        fn every_page_is_played() {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/providers");
            let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
            let mut pages: Vec<_> = files.filter(|file| file != "README.md").collect();
            pages.sort();
            assert_eq!(pages, [$(concat!(stringify!($name), ".md")),*]);
        }
    };
}

pages!(apisix, appmesh, contour, gatewayapi, gloo, istio, knative, kuma, nginx, skipper, smi, traefik);
