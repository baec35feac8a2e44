use super::*;

fn expanded(word: &str) -> Result<String, String> {
    expand(word, '\\', &|name| match name {
        "A" => Some("value".to_owned()),
        "V" => Some("v1.2.3".to_owned()),
        "P" => Some("/usr/local/lib.tar.gz".to_owned()),
        "S" => Some("a*b*c".to_owned()),
        "EMPTY" => Some(String::new()),
        _ => None,
    })
}

#[test]
fn words_are_split_outside_quotes() {
    assert_eq!(
        split(r#"a=1  b="two words" c='x y'  d=e\ f"#, '\\'),
        ["a=1", r#"b="two words""#, "c='x y'", r"d=e\ f"]
    );
    assert_eq!(split("  ", '\\'), [""; 0]);
    assert_eq!(first("a b  c", '\\'), ("a", " b  c"));
}

#[test]
fn variables_are_replaced_as_docker_does() {
    for (word, value) in [
        ("plain", "plain"),
        ("$A/$A", "value/value"),
        ("${A}s", "values"),
        ("$Ab", ""),
        ("${NONE:-other}", "other"),
        ("${EMPTY:-other}", "other"),
        ("${EMPTY-other}", ""),
        ("${A:+set}", "set"),
        ("${NONE+set}", ""),
        ("${NONE:-${A}/x}", "value/x"),
        ("${A:?needed}", "value"),
        (r"\$A", "$A"),
        ("'$A'", "$A"),
        (r#""$A \" \n""#, r#"value " \n"#),
        ("cost: 5$", "cost: 5$"),
        (r"a\ b", "a b"),
    ] {
        assert_eq!(expanded(word).as_deref(), Ok(value), "{word}");
    }
}

#[test]
fn what_matches_is_taken_away_or_replaced() {
    for (word, value) in [
        ("${V#v}", "1.2.3"),
        ("${V#x}", "v1.2.3"),
        ("${V#*.}", "2.3"),
        ("${V##*.}", "3"),
        ("${V%.*}", "v1.2"),
        ("${V%%.*}", "v1"),
        ("${P##*/}", "lib.tar.gz"),
        ("${P%/*}", "/usr/local"),
        ("${P%%.*}", "/usr/local/lib"),
        ("${V%}", "v1.2.3"),
        ("${V##*}", ""),
        ("${V/./_}", "v1_2.3"),
        ("${V//./_}", "v1_2_3"),
        ("${V//./}", "v123"),
        ("${V//.}", "v123"),
        (r"${P/\/usr/}", "/local/lib.tar.gz"),
        ("${V/?.*/x}", "vx"),
        ("${V/none/x}", "v1.2.3"),
        (r"${S//\*/-}", "a-b-c"),
        ("${S//'*'/-}", "a-b-c"),
        ("${S#a*}", "*b*c"),
        ("${V#${NONE:-v}}", "1.2.3"),
        ("${V/1/$A}", "vvalue.2.3"),
        ("${NONE#x}", ""),
        ("${EMPTY//a/b}", ""),
    ] {
        assert_eq!(expanded(word).as_deref(), Ok(value), "{word}");
    }
}

#[test]
fn what_is_not_closed_or_not_known_is_an_error() {
    for word in [
        "'open",
        "\"open",
        "${A",
        "${A:-x",
        "${}",
        "${A^x}",
        "${A:#x}",
        "${A#x",
        "${A/x/y",
        "${NONE:?needed}",
    ] {
        assert!(expanded(word).is_err(), "{word}");
    }
    for deep in ["${NONE:-", "${A#"] {
        assert!(expanded(&deep.repeat(1000)).is_err());
    }
}
