//! Reads the few objects that `kubectl create` sends as protobuf, which it does without asking whether the server can:
//! ConfigMap, Secret, Namespace, ServiceAccount, Service, Deployment. Field numbers are those of `generated.proto` in
//! k8s.io/api and k8s.io/apimachinery. A field that is not in the table is refused, never lost.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

/// Before the envelope (`runtime.Unknown`): `k8s` and a zero byte.
const MAGIC: &[u8] = b"k8s\0";

/// What a field holds.
#[derive(Clone, Copy)]
enum Holds {
    Text,
    /// A number that is left out of JSON when it is zero.
    Number,
    /// A number that may be zero on purpose.
    OptionalNumber,
    Bool,
    Message(&'static [Field]),
    /// `intstr.IntOrString`.
    Port,
    /// What a client sends of the server's own: times, status.
    Ignored,
}

/// How often.
#[derive(Clone, Copy, PartialEq)]
enum Many {
    One,
    List,
    Texts,
    Bytes,
}

type Field = (u64, &'static str, Holds, Many);

use Holds::{Bool, Ignored, Message, Number, OptionalNumber, Port, Text};
use Many::{Bytes, List, One, Texts};

const META: &[Field] = &[
    (1, "name", Text, One),
    (2, "generateName", Text, One),
    (3, "namespace", Text, One),
    (4, "selfLink", Ignored, One),
    (5, "uid", Text, One),
    (6, "resourceVersion", Text, One),
    (7, "generation", Ignored, One),
    (8, "creationTimestamp", Ignored, One),
    (11, "labels", Text, Texts),
    (12, "annotations", Text, Texts),
    (14, "finalizers", Text, List),
    (17, "managedFields", Ignored, List),
];
const CONFIG_MAP: &[Field] = &[
    (1, "metadata", Message(META), One),
    (2, "data", Text, Texts),
    (3, "binaryData", Text, Bytes),
    (4, "immutable", Bool, One),
];
const SECRET: &[Field] = &[
    (1, "metadata", Message(META), One),
    (2, "data", Text, Bytes),
    (3, "type", Text, One),
    (4, "stringData", Text, Texts),
    (5, "immutable", Bool, One),
];
const NAMESPACE: &[Field] =
    &[(1, "metadata", Message(META), One), (2, "spec", Message(&[]), One), (3, "status", Ignored, One)];
const SERVICE_ACCOUNT: &[Field] = &[(1, "metadata", Message(META), One)];
const SERVICE: &[Field] =
    &[(1, "metadata", Message(META), One), (2, "spec", Message(SERVICE_SPEC), One), (3, "status", Ignored, One)];
const SERVICE_SPEC: &[Field] = &[
    (1, "ports", Message(SERVICE_PORT), List),
    (2, "selector", Text, Texts),
    (3, "clusterIP", Text, One),
    (4, "type", Text, One),
    (7, "sessionAffinity", Text, One),
    (10, "externalName", Text, One),
    (12, "healthCheckNodePort", Number, One),
    (13, "publishNotReadyAddresses", Bool, One),
];
const SERVICE_PORT: &[Field] = &[
    (1, "name", Text, One),
    (2, "protocol", Text, One),
    (3, "port", Number, One),
    (4, "targetPort", Port, One),
    (5, "nodePort", Number, One),
    (6, "appProtocol", Text, One),
];
const DEPLOYMENT: &[Field] =
    &[(1, "metadata", Message(META), One), (2, "spec", Message(DEPLOYMENT_SPEC), One), (3, "status", Ignored, One)];
const DEPLOYMENT_SPEC: &[Field] = &[
    (1, "replicas", OptionalNumber, One),
    (2, "selector", Message(&[(1, "matchLabels", Text, Texts)]), One),
    (3, "template", Message(TEMPLATE), One),
    (4, "strategy", Message(&[(1, "type", Text, One)]), One),
    (5, "minReadySeconds", Number, One),
    (6, "revisionHistoryLimit", OptionalNumber, One),
    (7, "paused", Bool, One),
    (9, "progressDeadlineSeconds", OptionalNumber, One),
];
const TEMPLATE: &[Field] = &[(1, "metadata", Message(META), One), (2, "spec", Message(POD_SPEC), One)];
const POD_SPEC: &[Field] = &[
    (2, "containers", Message(CONTAINER), List),
    (3, "restartPolicy", Text, One),
    (4, "terminationGracePeriodSeconds", OptionalNumber, One),
    (6, "dnsPolicy", Text, One),
    (8, "serviceAccountName", Text, One),
    (9, "serviceAccount", Text, One),
    (10, "nodeName", Text, One),
    (11, "hostNetwork", Bool, One),
    (12, "hostPID", Bool, One),
    (13, "hostIPC", Bool, One),
    (16, "hostname", Text, One),
    (17, "subdomain", Text, One),
    (19, "schedulerName", Text, One),
    (24, "priorityClassName", Text, One),
];
const CONTAINER: &[Field] = &[
    (1, "name", Text, One),
    (2, "image", Text, One),
    (3, "command", Text, List),
    (4, "args", Text, List),
    (5, "workingDir", Text, One),
    (6, "ports", Message(CONTAINER_PORT), List),
    (7, "env", Message(&[(1, "name", Text, One), (2, "value", Text, One)]), List),
    (8, "resources", Message(&[]), One),
    (13, "terminationMessagePath", Text, One),
    (14, "imagePullPolicy", Text, One),
    (16, "stdin", Bool, One),
    (17, "stdinOnce", Bool, One),
    (18, "tty", Bool, One),
    (20, "terminationMessagePolicy", Text, One),
];
const CONTAINER_PORT: &[Field] = &[
    (1, "name", Text, One),
    (2, "hostPort", Number, One),
    (3, "containerPort", Number, One),
    (4, "protocol", Text, One),
    (5, "hostIP", Text, One),
];

/// One field on the wire.
enum Wire<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// Reads an object, or says what the sandbox cannot read.
pub(super) fn read(body: &[u8]) -> Result<Value, String> {
    let envelope = body.strip_prefix(MAGIC).ok_or("the body is not a Kubernetes object in protobuf")?;
    let (mut api_version, mut kind, mut raw) = (String::new(), String::new(), &[][..]);
    for (number, wire) in fields(envelope)? {
        match (number, wire) {
            (1, Wire::Bytes(type_meta)) => {
                for (number, wire) in fields(type_meta)? {
                    match (number, wire) {
                        (1, Wire::Bytes(text)) => api_version = string(text)?,
                        (2, Wire::Bytes(text)) => kind = string(text)?,
                        _ => {}
                    }
                }
            }
            (2, Wire::Bytes(object)) => raw = object,
            _ => {}
        }
    }
    let table = match (api_version.as_str(), kind.as_str()) {
        ("v1", "ConfigMap") => CONFIG_MAP,
        ("v1", "Secret") => SECRET,
        ("v1", "Namespace") => NAMESPACE,
        ("v1", "ServiceAccount") => SERVICE_ACCOUNT,
        ("v1", "Service") => SERVICE,
        ("apps/v1", "Deployment") => DEPLOYMENT,
        _ => return Err(format!("the sandbox does not read a {kind} in protobuf: write a manifest and apply it")),
    };
    let mut object = message(raw, table, &kind)?;
    object.insert("apiVersion".to_owned(), api_version.into());
    object.insert("kind".to_owned(), kind.into());
    Ok(Value::Object(object))
}

fn message(bytes: &[u8], table: &[Field], path: &str) -> Result<Map<String, Value>, String> {
    let mut object = Map::new();
    for (number, wire) in fields(bytes)? {
        let Some((_, name, holds, many)) = table.iter().find(|(known, ..)| *known == number) else {
            match wire {
                Wire::Bytes([]) | Wire::Number(0) => continue,
                _ => {
                    return Err(format!(
                        "the sandbox does not read field {number} of {path} in protobuf: write a manifest and apply it"
                    ));
                }
            }
        };
        match many {
            Texts | Bytes => {
                let Wire::Bytes(entry) = wire else { return Err(malformed()) };
                let (mut key, mut value) = (String::new(), &[][..]);
                for field in fields(entry)? {
                    match field {
                        (1, Wire::Bytes(text)) => key = string(text)?,
                        (2, Wire::Bytes(bytes)) => value = bytes,
                        _ => return Err(malformed()),
                    }
                }
                let value = if *many == Bytes { STANDARD.encode(value) } else { string(value)? };
                let map = object.entry(*name).or_insert_with(|| Value::Object(Map::new()));
                map[key] = value.into();
            }
            One | List => {
                let Some(value) = value(&wire, *holds, *many == List, &format!("{path}.{name}"))? else { continue };
                if *many == One {
                    object.insert((*name).to_owned(), value);
                } else if let Value::Array(items) = object.entry(*name).or_insert_with(|| Value::Array(vec![])) {
                    items.push(value);
                }
            }
        }
    }
    Ok(object)
}

/// `None` for what JSON leaves out. Items of lists are never left out.
fn value(wire: &Wire<'_>, holds: Holds, item: bool, path: &str) -> Result<Option<Value>, String> {
    Ok(match (holds, wire) {
        (Ignored, _) => None,
        (Text, Wire::Bytes([])) if !item => None,
        (Text, Wire::Bytes(text)) => Some(string(text)?.into()),
        (Number, Wire::Number(0)) | (Bool, Wire::Number(0)) => None,
        (Bool, Wire::Number(_)) => Some(true.into()),
        (Number | OptionalNumber, Wire::Number(number)) => Some(number.cast_signed().into()),
        (Message(table), Wire::Bytes(bytes)) => {
            let object = message(bytes, table, path)?;
            (item || !object.is_empty()).then_some(Value::Object(object))
        }
        (Port, Wire::Bytes(bytes)) => {
            let (mut number, mut text) = (0, String::new());
            for field in fields(bytes)? {
                match field {
                    (2, Wire::Number(found)) => number = found,
                    (3, Wire::Bytes(found)) => text = string(found)?,
                    _ => {}
                }
            }
            match (number, text.is_empty()) {
                (0, true) => None,
                (number, true) => Some(number.into()),
                (_, false) => Some(text.into()),
            }
        }
        _ => return Err(malformed()),
    })
}

fn malformed() -> String {
    "the body is not valid protobuf".to_owned()
}

fn string(bytes: &[u8]) -> Result<String, String> {
    String::from_utf8(bytes.to_vec()).map_err(|_| malformed())
}

/// The fields of a message, in the order of the wire.
fn fields(mut bytes: &[u8]) -> Result<Vec<(u64, Wire<'_>)>, String> {
    let mut fields = vec![];
    while !bytes.is_empty() {
        let tag = varint(&mut bytes)?;
        let wire = match tag & 7 {
            0 => Wire::Number(varint(&mut bytes)?),
            2 => {
                let length = usize::try_from(varint(&mut bytes)?).map_err(|_| malformed())?;
                let (found, rest) = bytes.split_at_checked(length).ok_or_else(malformed)?;
                bytes = rest;
                Wire::Bytes(found)
            }
            _ => return Err(malformed()),
        };
        fields.push((tag >> 3, wire));
    }
    Ok(fields)
}

fn varint(bytes: &mut &[u8]) -> Result<u64, String> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first().ok_or_else(malformed)?;
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(malformed())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        [&[number << 3 | 2, u8::try_from(bytes.len()).unwrap()], bytes].concat()
    }

    fn envelope(api_version: &str, kind: &str, object: &[u8]) -> Vec<u8> {
        let type_meta = [field(1, api_version.as_bytes()), field(2, kind.as_bytes())].concat();
        [MAGIC.to_vec(), field(1, &type_meta), field(2, object), field(3, b""), field(4, b"")].concat()
    }

    fn meta() -> Vec<u8> {
        field(1, &[field(1, b"a"), field(2, b""), field(3, b"shop"), field(8, b"")].concat())
    }

    #[test]
    fn objects_are_read_as_their_json() {
        let secret = [meta(), field(2, &[field(1, b"k"), field(2, b"v")].concat()), field(3, b"Opaque")].concat();
        let port = [field(2, b"TCP"), vec![3 << 3, 80], field(4, &[2 << 3, 0x90, 0x3f])].concat();
        let service = [meta(), field(2, &[field(1, &port), vec![13 << 3, 0]].concat())].concat();
        let container = [field(1, b"app"), field(2, b"x:1"), field(3, b""), field(8, b"")].concat();
        let spec = [vec![1 << 3, 0], field(3, &field(2, &field(2, &container))), field(4, b"")].concat();
        let deployment = [meta(), field(2, &spec), field(3, &[1 << 3, 0])].concat();
        let metadata = json!({"name": "a", "namespace": "shop"});
        for (version, kind, wire, mut wanted) in [
            ("v1", "Namespace", meta(), json!({})),
            ("v1", "Secret", secret, json!({"data": {"k": "dg=="}, "type": "Opaque"})),
            (
                "v1",
                "Service",
                service,
                json!({"spec": {"ports": [{"protocol": "TCP", "port": 80, "targetPort": 8080}]}}),
            ),
            (
                "apps/v1",
                "Deployment",
                deployment,
                json!({"spec": {"replicas": 0, "template": {"spec": {"containers": [
                    {"name": "app", "image": "x:1", "command": [""]},
                ]}}}}),
            ),
        ] {
            wanted["apiVersion"] = version.into();
            wanted["kind"] = kind.into();
            wanted["metadata"] = metadata.clone();
            assert_eq!(read(&envelope(version, kind, &wire)), Ok(wanted), "{kind}");
        }
    }

    #[test]
    fn what_is_not_in_the_table_is_refused() {
        let secrets = [meta(), field(2, &field(1, b"token"))].concat();
        for (body, said) in [
            (envelope("v1", "ServiceAccount", &secrets), "field 2 of ServiceAccount"),
            (envelope("batch/v1", "Job", &meta()), "does not read a Job"),
            (b"{}".to_vec(), "not a Kubernetes object"),
            ([MAGIC, &[0x0a, 0x7f]].concat(), "not valid protobuf"),
            ([MAGIC, &[0xff; 11]].concat(), "not valid protobuf"),
        ] {
            let error = read(&body).unwrap_err();
            assert!(error.contains(said), "{error}");
        }
    }
}
