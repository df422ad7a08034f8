//! Any value, any template: what must hold whatever is written.

use super::*;

fn any_value() -> impl Strategy<Value = Value> {
    let text = prop_oneof![
        "[ -~]{0,8}",
        "(\n|a| |#|:|-|\t|é|\u{85}|\u{2028}|\u{1f600}|\r|'|\"|\\\\){0,8}",
        Just("yes".to_owned()),
        Just("0o17".to_owned()),
        Just("1e3".to_owned()),
        Just("---".to_owned()),
        Just(".inf".to_owned()),
        Just("a\n---\nb".to_owned()),
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        (-1e6f64..1e6).prop_filter("whole numbers are read as integers", |f| f.fract() != 0.0).prop_map(Value::from),
        text.clone().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(text.clone(), inner, 0..4)
                .prop_map(|map| map.into_iter().collect::<serde_json::Map<_, _>>().into()),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_encoded_is_read_back(value in any_value()) {
        let wanted = json!({ "v": value });
        let text = encode(&wanted);
        let (documents, problems) = decode(&text, "a.yaml");
        prop_assert_eq!(&problems, &[], "{}", text);
        prop_assert_eq!(&documents, &[(wanted, 1)], "{}", text);
    }

    /// No value can become anything but a value, wherever it stands.
    #[test]
    fn values_cannot_break_out(value in any_value()) {
        let scalar = !value.is_object() && !value.is_array();
        let text = match &value {
            Value::String(text) => text.clone(),
            Value::Null => String::new(),
            other => other.to_string(),
        };
        let values = json!({ "x": value }).to_string();
        if scalar {
            prop_assert_eq!(data("  k: {{x}}", &values), Ok(json!({ "k": value })));
            prop_assert_eq!(data("  k: '{{x}}'", &values), Ok(json!({ "k": text })));
            prop_assert_eq!(data("  k: |-\n    a {{x}} b", &values), Ok(json!({ "k": format!("a {text} b") })));
            prop_assert_eq!(data("  k: {{quote x}}", &values), Ok(json!({ "k": text })));
        }
        prop_assert_eq!(data("  k: {{toJson x}}", &values), Ok(json!({ "k": value })));
        if !scalar && !value.as_array().is_some_and(Vec::is_empty) && !value.as_object().is_some_and(|m| m.is_empty()) {
            prop_assert_eq!(data("  k:\n{{indent 4 (toYaml x)}}", &values), Ok(json!({ "k": value })));
        }
    }

    /// Whatever the text, rendering returns.
    #[test]
    fn nothing_panics(
        yaml in "([{}#/>!~&*|: \n\"'()-]|a|\\PC){0,40}",
        template in prop::collection::vec(prop::sample::select(PIECES), 0..12),
    ) {
        let template = template.concat();
        drop(rendered(&[
            ("a.yaml", &yaml),
            ("b.yaml.hbs", &template),
            ("partials/a.hbs", &template),
            ("c.json", &yaml),
            ("d.json.hbs", &format!("{template}{yaml}")),
            (VALUES, "a: 1\nm: {a: 2}\nl: [1]\n"),
        ]));
    }
}

/// Pieces of templates, whole tags and halves.
const PIECES: &[&str] = &[
    "a",
    " ",
    "\n",
    ": ",
    "- ",
    "{{a}}",
    "{{m.a}}",
    "{{m}}",
    "{{#if a}}",
    "{{else}}",
    "{{else if a}}",
    "{{^}}",
    "{{/if}}",
    "{{#each l}}",
    "{{#each m as |v k|}}",
    "{{/each}}",
    "{{#with m}}",
    "{{/with}}",
    "{{this}}",
    "{{../a}}",
    "{{@index}}",
    "{{@root.a}}",
    "{{> a}}",
    "{{> a m x=1}}",
    "{{!-- c --}}",
    "{{! c }}",
    "{{~a~}}",
    "{{~#if a~}}",
    "{{toYaml m}}",
    "{{indent 2 (toYaml m)}}",
    "{{eq a 1}}",
    "{{(eq a 1)}}",
    "{{lookup m \"a\"}}",
    "{{ (lookup m) }}",
    "{{\"a\"}}",
    "{{1}}",
    "{{null}}",
    "{{[a b]}}",
    "{{a.[0]}}",
    "{{",
    "}}",
    "{{{a}}}",
    "{{&a}}",
    "{{*x}}",
    "{{#*inline \"x\"}}",
    "{{/inline}}",
    "{{#> a}}",
    "{{/a}}",
    "\\{{a}}",
    "\\\\{{a}}",
    "{{{{raw}}}}",
    "{{{{/raw}}}}",
    "{{if a}}",
    "{{each}}",
    "{{serin-value a}}",
    "{{serin-step}}",
    "{{#serin-step}}",
    "{{this.}}",
    "{{.}}",
    "{{..}}",
    "{{a b=c d}}",
    "\u{fdd0}0\u{fdd1}",
    "---\n",
    "\r\n",
    "\t",
];
