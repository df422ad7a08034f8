//! Server-side tables: what `kubectl get` prints.

use jiff::Timestamp;
use serde_json::Value;

use super::types::{Column, Resource};
use crate::domain::Object;

/// Columns of the built-in kinds besides Name and Age: name, and how to find the cell. A path begins with a dot,
/// `#` stands for a computed cell; `~` before the name means that only the wide form shows it.
const BUILT_IN: &[(&str, &[(&str, &str)])] = &[
    (
        "Pod",
        &[
            ("Ready", "#pod-ready"),
            ("Status", "#pod-status"),
            ("Restarts", "#restarts"),
            ("Age", "#age"),
            ("~IP", ".status.podIP"),
            ("~Node", ".spec.nodeName"),
            ("~Nominated Node", ".status.nominatedNodeName"),
            ("~Readiness Gates", ".spec.readinessGates"),
        ],
    ),
    (
        "Service",
        &[
            ("Type", ".spec.type"),
            ("Cluster-IP", ".spec.clusterIP"),
            ("External-IP", "#external"),
            ("Port(s)", "#ports"),
            ("Age", "#age"),
            ("~Selector", "#selector"),
        ],
    ),
    (
        "Deployment",
        &[
            ("Ready", "#ready"),
            ("Up-to-date", "#.status.updatedReplicas"),
            ("Available", "#.status.availableReplicas"),
            ("Age", "#age"),
            ("~Containers", "#containers"),
            ("~Images", "#images"),
            ("~Selector", "#match"),
        ],
    ),
    ("StatefulSet", &[("Ready", "#ready"), ("Age", "#age"), ("~Containers", "#containers"), ("~Images", "#images")]),
    (
        "ReplicaSet",
        &[
            ("Desired", "#.spec.replicas"),
            ("Current", "#.status.replicas"),
            ("Ready", "#.status.readyReplicas"),
            ("Age", "#age"),
            ("~Containers", "#containers"),
            ("~Images", "#images"),
            ("~Selector", "#match"),
        ],
    ),
    (
        "DaemonSet",
        &[
            ("Desired", "#.status.desiredNumberScheduled"),
            ("Current", "#.status.currentNumberScheduled"),
            ("Ready", "#.status.numberReady"),
            ("Up-to-date", "#.status.updatedNumberScheduled"),
            ("Available", "#.status.numberAvailable"),
            ("Node Selector", "#nodes"),
            ("Age", "#age"),
            ("~Containers", "#containers"),
            ("~Images", "#images"),
            ("~Selector", "#match"),
        ],
    ),
    ("ConfigMap", &[("Data", "#data"), ("Age", "#age")]),
    ("Secret", &[("Type", ".type"), ("Data", "#data"), ("Age", "#age")]),
    ("Namespace", &[("Status", ".status.phase"), ("Age", "#age")]),
    (
        "HorizontalPodAutoscaler",
        &[
            ("Reference", "#reference"),
            ("Targets", "#targets"),
            ("MinPods", "#least"),
            ("MaxPods", "#.spec.maxReplicas"),
            ("Replicas", "#.status.currentReplicas"),
            ("Age", "#age"),
        ],
    ),
    (
        "Ingress",
        &[
            ("Class", ".spec.ingressClassName"),
            ("Hosts", "#hosts"),
            ("Address", "#address"),
            ("Ports", "#ingress-ports"),
            ("Age", "#age"),
        ],
    ),
    ("Lease", &[("Holder", ".spec.holderIdentity"), ("Age", "#age")]),
    ("CustomResourceDefinition", &[("Created At", "#created")]),
    ("Role", &[("Created At", "#created")]),
    ("ClusterRole", &[("Created At", "#created")]),
    ("Job", &[("Status", "#job-status"), ("Completions", "#completions"), ("Age", "#age")]),
    (
        "PodDisruptionBudget",
        &[
            ("Min Available", "#minimum"),
            ("Max Unavailable", "#maximum"),
            ("Allowed Disruptions", "#disruptions"),
            ("Age", "#age"),
        ],
    ),
];

fn column(name: &str, type_: &str, path: &str) -> Column {
    let (name, priority) = name.strip_prefix('~').map_or((name, 0), |wide| (wide, 1));
    let format = if name == "Name" { "name" } else { "" };
    Column {
        name: name.to_owned(),
        type_: type_.to_owned(),
        format: format.to_owned(),
        description: String::new(),
        priority,
        path: path.to_owned(),
    }
}

/// The columns of a type.
pub(crate) fn columns(res: &Resource, version: &str) -> Vec<Column> {
    let name = column("Name", "string", "#name");
    let age = column("Age", "string", "#age");
    if let Some(custom) = res.custom.as_ref().and_then(|versions| versions.get(version)) {
        let mut columns = vec![name];
        columns.extend(custom.columns.iter().cloned());
        if custom.columns.is_empty() {
            columns.push(column("Age", "date", ".metadata.creationTimestamp"));
        }
        return columns;
    }
    if res.kind == "Event" {
        let cells = [
            ("Last Seen", "#seen"),
            ("Type", ".type"),
            ("Reason", ".reason"),
            ("Object", "#object"),
            ("Message", ".message"),
        ];
        return cells.iter().map(|(name, path)| column(name, "string", path)).collect();
    }
    let mut columns = vec![name];
    match BUILT_IN.iter().find(|(kind, _)| *kind == res.kind) {
        Some((_, cells)) => columns.extend(cells.iter().map(|(name, path)| {
            let counts = matches!(res.kind.as_str(), "ReplicaSet" | "DaemonSet") && path.starts_with("#.");
            let type_ = match *path {
                "#disruptions" => "integer",
                "#created" => "date",
                _ if counts => "integer",
                _ => "string",
            };
            column(name, type_, path)
        })),
        None => columns.push(age),
    }
    columns
}

/// The cells of one object.
pub(crate) fn cells(res: &Resource, columns: &[Column], object: &Object, now: Timestamp) -> Vec<Value> {
    columns
        .iter()
        .map(|column| match column.path.strip_prefix('#') {
            Some(path) if path.starts_with('.') => {
                find(&object.0, path).first().map_or_else(|| Value::from(0), |found| (*found).clone())
            }
            Some(computed) => self::computed(computed, object, now),
            None => {
                let found = find(&object.0, &column.path);
                match column.type_.as_str() {
                    "date" => found.first().map_or(Value::Null, |v| age(v.as_str().unwrap_or_default(), now).into()),
                    _ if res.custom.is_none() => found.first().map_or_else(|| "<none>".into(), |v| (*v).clone()),
                    "string" => match found.as_slice() {
                        [] => Value::Null,
                        [Value::String(one)] => one.as_str().into(),
                        several => several.iter().map(|v| plain(v)).collect::<Vec<_>>().join(",").into(),
                    },
                    _ => found.first().map_or(Value::Null, |v| (*v).clone()),
                }
            }
        })
        .collect()
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// A printer column's JSON path: names, indices, `[*]`, quoted names and filters by equality.
fn find<'a>(value: &'a Value, path: &str) -> Vec<&'a Value> {
    let mut found = vec![value];
    let mut rest = path.trim_start_matches('{').trim_end_matches('}').trim_start_matches('$');
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('[') {
            let Some(end) = after.find(']') else { return vec![] };
            let inside = &after[..end];
            rest = &after[end + 1..];
            found = found.into_iter().flat_map(|v| step(v, inside)).collect();
        } else {
            let after = rest.strip_prefix('.').unwrap_or(rest);
            // A backslash keeps a dot in a name.
            let mut name = String::new();
            let mut chars = after.char_indices().peekable();
            let mut end = after.len();
            while let Some((i, c)) = chars.next() {
                match c {
                    '\\' => name.extend(chars.next().map(|(_, c)| c)),
                    '.' | '[' => {
                        end = i;
                        break;
                    }
                    c => name.push(c),
                }
            }
            rest = &after[end..];
            found = found.into_iter().filter_map(|v| v.get(&name)).collect();
        }
    }
    found.retain(|v| !v.is_null());
    found
}

fn step<'a>(value: &'a Value, inside: &str) -> Vec<&'a Value> {
    if inside == "*" {
        return value.as_array().into_iter().flatten().collect();
    }
    if let Some(filter) = inside.strip_prefix("?(").and_then(|f| f.strip_suffix(')')) {
        let Some((field, wanted)) = filter.split_once("==") else { return vec![] };
        let field = field.trim().trim_start_matches("@.");
        let wanted = wanted.trim().trim_matches(|c| c == '"' || c == '\'');
        let fits = |item: &&Value| item.get(field).is_some_and(|v| plain(v) == wanted);
        return value.as_array().into_iter().flatten().filter(fits).collect();
    }
    if let Ok(index) = inside.parse::<usize>() {
        return value.get(index).into_iter().collect();
    }
    value.get(inside.trim_matches(|c| c == '"' || c == '\'')).into_iter().collect()
}

fn age(time: &str, now: Timestamp) -> String {
    match time.parse::<Timestamp>() {
        Ok(then) => human(now.as_second() - then.as_second()),
        Err(_) => "<unknown>".to_owned(),
    }
}

/// An age as kubectl writes it: two units while that is short.
fn human(seconds: i64) -> String {
    let s = seconds.max(0);
    let (m, h, d) = (s / 60, s / 3_600, s / 86_400);
    let pair = |big: i64, unit: &str, small: i64, other: &str| {
        if small == 0 { format!("{big}{unit}") } else { format!("{big}{unit}{small}{other}") }
    };
    match s {
        0..120 => format!("{s}s"),
        120..600 => pair(m, "m", s % 60, "s"),
        600..10_800 => format!("{m}m"),
        10_800..28_800 => pair(h, "h", m % 60, "m"),
        28_800..172_800 => format!("{h}h"),
        172_800..691_200 => pair(d, "d", h % 24, "h"),
        691_200..63_072_000 => format!("{d}d"),
        63_072_000..252_288_000 => pair(d / 365, "y", d % 365, "d"),
        _ => format!("{}y", d / 365),
    }
}

fn array<'a>(object: &'a Object, pointer: &str) -> &'a [Value] {
    object.at(pointer).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn joined(items: &[Value], field: &str) -> Value {
    items.iter().filter_map(|i| i.get(field)?.as_str()).collect::<Vec<_>>().join(",").into()
}

fn pairs(value: Option<&Value>) -> Value {
    match value.and_then(Value::as_object).filter(|m| !m.is_empty()) {
        Some(map) => map.iter().map(|(k, v)| format!("{k}={}", plain(v))).collect::<Vec<_>>().join(",").into(),
        None => "<none>".into(),
    }
}

fn computed(what: &str, object: &Object, now: Timestamp) -> Value {
    let number = |pointer: &str| object.int(pointer).unwrap_or(0);
    match what {
        "name" => object.name().into(),
        "age" => age(object.str("/metadata/creationTimestamp"), now).into(),
        "ready" => format!("{}/{}", number("/status/readyReplicas"), number("/spec/replicas")).into(),
        "pod-ready" => {
            let ready = array(object, "/status/containerStatuses").iter().filter(|s| s["ready"] == true).count();
            format!("{ready}/{}", array(object, "/spec/containers").len()).into()
        }
        "pod-status" => pod_status(object).into(),
        "restarts" => {
            let counts = array(object, "/status/containerStatuses").iter().filter_map(|s| s["restartCount"].as_i64());
            counts.sum::<i64>().to_string().into()
        }
        "external" => match object.str("/spec/type") {
            "LoadBalancer" => array(object, "/status/loadBalancer/ingress")
                .first()
                .and_then(|i| i.get("ip").or_else(|| i.get("hostname")))
                .cloned()
                .unwrap_or_else(|| "<pending>".into()),
            "ExternalName" => object.str("/spec/externalName").into(),
            _ => "<none>".into(),
        },
        "ports" => {
            let port = |p: &Value| match p.get("nodePort") {
                Some(node) => format!("{}:{node}/{}", p["port"], plain(&p["protocol"])),
                None => format!("{}/{}", p["port"], plain(&p["protocol"])),
            };
            let shown: Vec<String> = array(object, "/spec/ports").iter().map(port).collect();
            if shown.is_empty() { "<none>".into() } else { shown.join(",").into() }
        }
        "selector" => pairs(object.at("/spec/selector")),
        "match" => pairs(object.at("/spec/selector/matchLabels")),
        "nodes" => pairs(object.at("/spec/template/spec/nodeSelector")),
        "containers" => joined(array(object, "/spec/template/spec/containers"), "name"),
        "images" => joined(array(object, "/spec/template/spec/containers"), "image"),
        "data" => {
            let count = |pointer: &str| object.at(pointer).and_then(Value::as_object).map_or(0, serde_json::Map::len);
            (count("/data") + count("/binaryData")).into()
        }
        "created" => object.str("/metadata/creationTimestamp").into(),
        "minimum" => object.at("/spec/minAvailable").map_or_else(|| "N/A".to_owned(), plain).into(),
        "maximum" => object.at("/spec/maxUnavailable").map_or_else(|| "N/A".to_owned(), plain).into(),
        "disruptions" => number("/status/disruptionsAllowed").into(),
        "reference" => {
            format!("{}/{}", object.str("/spec/scaleTargetRef/kind"), object.str("/spec/scaleTargetRef/name")).into()
        }
        "least" => number("/spec/minReplicas").to_string().into(),
        "targets" => hpa_targets(object).into(),
        "hosts" => {
            let hosts = joined(array(object, "/spec/rules"), "host");
            if hosts == "" { "*".into() } else { hosts }
        }
        "address" => joined(array(object, "/status/loadBalancer/ingress"), "ip"),
        "ingress-ports" => if array(object, "/spec/tls").is_empty() { "80" } else { "80, 443" }.into(),
        "job-status" => {
            let done = |type_: &str| {
                array(object, "/status/conditions").iter().any(|c| c["type"] == type_ && c["status"] == "True")
            };
            let status = if done("Complete") {
                "Complete"
            } else if done("Failed") {
                "Failed"
            } else {
                "Running"
            };
            status.into()
        }
        "completions" => {
            format!("{}/{}", number("/status/succeeded"), object.int("/spec/completions").unwrap_or(1)).into()
        }
        "seen" => {
            let time = ["/lastTimestamp", "/eventTime", "/metadata/creationTimestamp"];
            let time = time.iter().map(|p| object.str(p)).find(|t| !t.is_empty()).unwrap_or_default();
            age(time, now).into()
        }
        "object" => {
            format!("{}/{}", object.str("/involvedObject/kind").to_lowercase(), object.str("/involvedObject/name"))
                .into()
        }
        _ => Value::Null,
    }
}

fn pod_status(object: &Object) -> String {
    if object.is_terminating() {
        return "Terminating".to_owned();
    }
    let waiting = array(object, "/status/containerStatuses")
        .iter()
        .find_map(|s| s.pointer("/state/waiting/reason").or_else(|| s.pointer("/state/terminated/reason"))?.as_str());
    waiting.unwrap_or_else(|| object.str("/status/phase")).to_owned()
}

fn hpa_targets(object: &Object) -> String {
    let shown = array(object, "/spec/metrics").iter().map(|metric| {
        let name = metric.pointer("/resource/name").and_then(Value::as_str).unwrap_or("metric");
        let goal =
            metric.pointer("/resource/target/averageUtilization").map_or("<unknown>".to_owned(), |v| format!("{v}%"));
        let now = array(object, "/status/currentMetrics")
            .iter()
            .find(|m| m.pointer("/resource/name").and_then(Value::as_str) == Some(name))
            .and_then(|m| m.pointer("/resource/current/averageUtilization"))
            .map_or("<unknown>".to_owned(), |v| format!("{v}%"));
        format!("{name}: {now}/{goal}")
    });
    shown.collect::<Vec<_>>().join(", ")
}
