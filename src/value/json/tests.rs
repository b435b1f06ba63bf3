//! What `serde_json` cannot hold comes back as it was, and nothing else is touched.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn there_and_back(text: &str) -> String {
    shown(&serde_json::from_str(&readable(text)).unwrap())
}

#[test]
fn what_python_writes_comes_back_as_it_was() {
    for text in [
        r#"{"a":[0.0,Infinity],"b":-Infinity,"c":{"d":NaN}}"#,
        r#"{"a":1000000000000000019884624838656,"b":1e400,"c":-99999999999999999999,"d":-0}"#,
        r#"{"a":"\ud83d","b":"é","c":"x\\ud83d","key\udc00":1}"#,
        r#"["NaN","Infinity and NaN","\"NaN",NaN]"#,
        r#"[18446744073709551615,-9223372036854775808,1.5,true,null]"#,
        "NaN",
    ] {
        assert_eq!(there_and_back(text), text);
    }
    assert_eq!(there_and_back(r#""\ud83d\ude00 \ud83d\ude00""#), "\"😀 😀\"");
    assert!(pretty(&serde_json::from_str(&readable("[NaN]")).unwrap()).contains("\n  NaN\n"));
}

#[test]
fn text_that_has_none_of_it_is_not_copied() {
    let text = r#"{"a": [1, 2.5, "NaN"], "b": {"c": null}}"#;
    assert!(matches!(readable(text), Cow::Borrowed(same) if same == text));
}

#[test]
fn what_python_refuses_is_refused() {
    for text in [
        "{NaN: 1}",
        "{Infinity : 1}",
        "[+Infinity]",
        "[nan]",
        "[-NaN]",
        "[NaNs]",
        "[Infinity 1]",
        "[1e400:",
        "{1e400:1}",
        "[00000000000000000000001]",
        "[1-99999999999999999999]",
        "[.1e999]",
        "[1.e999]",
        "\"\\ud83d",
        "[1e]",
        "[99999999999999999999-]",
    ] {
        assert!(serde_json::from_str::<Json>(&readable(text)).is_err(), "{text}");
    }
}

/// A string of the file never becomes a number, whatever it holds.
#[test]
fn a_string_that_looks_like_a_carried_number_stays_a_string() {
    for text in ["\"\u{fdd0}NaN\"", "\"\\ufdd0NaN\"", "\"\\uFDD0\\ufdd0NaN\"", "{\"\u{fdd0}NaN\":1}"] {
        let plain: Json = serde_json::from_str(text).unwrap();
        let read: Json = serde_json::from_str(&readable(text)).unwrap();
        assert_eq!(shown(&read), plain.to_string());
    }
}

fn value() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(json!(null)),
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        any::<f64>().prop_map(Json::from),
        "\\PC*".prop_map(Json::from),
        "[\u{fdd0}a\"\\\\Nn]{0,4}".prop_map(Json::from),
    ];
    leaf.prop_recursive(4, 32, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Json::from),
            prop::collection::hash_map("[\u{fdd0}a\"\\\\]{0,3}", inner, 0..5)
                .prop_map(|all| Json::Object(all.into_iter().collect())),
        ]
    })
}

proptest! {
    /// What `serde_json` reads itself is written as it writes it.
    #[test]
    fn plain_json_is_what_it_was(json in value()) {
        for text in [json.to_string(), format!("{json:#}")] {
            let read: Json = serde_json::from_str(&readable(&text)).unwrap();
            prop_assert_eq!(shown(&read), json.to_string());
            prop_assert_eq!(pretty(&read), format!("{json:#}"));
        }
    }

    /// Numbers of any length and the words for none, in any place of a list, come back.
    #[test]
    fn odd_numbers_come_back(all in prop::collection::vec("NaN|-?Infinity|-?[1-9][0-9]{0,40}|-?[1-9]\\.[0-9]{1,3}e[1-9][0-9]{3}|\"[a-zN ]{0,5}\"|\"\\\\ud8[0-9a-f]{2}[a-z]?\"", 0..8)) {
        let text = format!("[{}]", all.join(","));
        prop_assert_eq!(there_and_back(&text), text);
    }

    /// What is no JSON is none afterwards: nothing is made up.
    #[test]
    fn any_text_is_taken(text in "[\\[\\]{}:,\"\\\\a-eN0-9.+\u{fdd0} -]{0,24}|.{0,24}") {
        if let Ok(plain) = serde_json::from_str::<Json>(&text) {
            // An integer is kept as it is, which serde_json itself would round.
            if let Ok(read) = serde_json::from_str::<Json>(&readable(&text)) {
                let again: Json = serde_json::from_str(&shown(&read)).unwrap();
                prop_assert_eq!(again, plain);
            } else {
                prop_assert!(false, "{text} was JSON");
            }
        }
    }
}
