//! What holds for the source as a whole, and no compiler checks.

use std::fs;
use std::path::{Path, PathBuf};

use isolab_tests::checkout;
use syn::{Attribute, Fields, Item, LitStr};

/// The crates whose errors others print.
const LIBRARIES: [&str; 13] = [
    "bench",
    "container",
    "guest",
    "guest/protocol",
    "images",
    "images/build",
    "images/registry",
    "instances",
    "isolation",
    "network",
    "transfer",
    "vmm",
    "volumes",
];

/// One `#[error(…)]` of thiserror, and what stands below it.
struct Message<'a> {
    place: String,
    attribute: &'a Attribute,
    fields: &'a Fields,
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a crate has a src folder") {
        let path = entry.expect("it can be listed").path();
        match path.is_dir() {
            true => files(&path, found),
            false if path.extension().is_some_and(|extension| extension == "rs") => {
                found.push(path)
            }
            false => {}
        }
    }
}

/// Every message of `items`, those of modules within the file as well.
fn messages<'a>(place: &str, items: &'a [Item], found: &mut Vec<Message<'a>>) {
    let mut add = |name: String, attributes: &'a [Attribute], fields: &'a Fields| {
        let attribute = attributes.iter().find(|attribute| attribute.path().is_ident("error"));
        let place = format!("{place}: {name}");
        found.extend(attribute.map(|attribute| Message { place, attribute, fields }));
    };
    for item in items {
        match item {
            Item::Struct(it) => add(it.ident.to_string(), &it.attrs, &it.fields),
            Item::Enum(it) => {
                for variant in &it.variants {
                    add(
                        format!("{}::{}", it.ident, variant.ident),
                        &variant.attrs,
                        &variant.fields,
                    );
                }
            }
            _ => {}
        }
    }
    for item in items {
        if let Item::Mod(syn::ItemMod { content: Some((_, items)), .. }) = item {
            messages(place, items, found);
        }
    }
}

/// The name, or the number, of the field that thiserror gives as `source()`.
fn source_of(fields: &Fields) -> Option<String> {
    fields.iter().enumerate().find_map(|(number, field)| {
        let name = field.ident.as_ref().map(ToString::to_string);
        let is_marked = field.attrs.iter().any(|attribute| {
            attribute.path().is_ident("source") || attribute.path().is_ident("from")
        });
        let is_source = is_marked || name.as_deref() == Some("source");
        is_source.then(|| name.unwrap_or_else(|| number.to_string()))
    })
}

/// The format string, and the words of the arguments behind it; None of a transparent message.
/// No expressions: `.0` is none outside of thiserror.
fn parts(attribute: &Attribute) -> Option<(String, String)> {
    let mut tokens = attribute.meta.require_list().ok()?.tokens.clone().into_iter();
    let text: LitStr = syn::parse2(tokens.next()?.into()).ok()?;
    let arguments =
        tokens.map(|token| format!(" {token} ").replace(['(', ')', ','], " ")).collect();
    Some((text.value(), arguments))
}

/// What stands in the braces of a format string, up to its colon.
fn placeholders(text: &str) -> impl Iterator<Item = String> {
    let text = text.replace("{{", "").replace("}}", "");
    let inside: Vec<String> = text.split('{').skip(1).map(str::to_owned).collect();
    inside.into_iter().map(|rest| rest.split([':', '}']).next().unwrap_or_default().to_owned())
}

/// What is wrong with a message, if anything.
fn fault(message: &Message<'_>) -> Option<String> {
    let (text, arguments) = parts(message.attribute)?;
    let place = &message.place;
    // An option is two dashes before a letter, not in the middle of a word.
    let is_option = |word: &str| {
        let word = word.trim_start_matches(|c: char| !c.is_alphanumeric() && c != '-');
        word.strip_prefix("--")
            .is_some_and(|name| name.starts_with(|c: char| c.is_ascii_lowercase()))
    };
    if text.split_whitespace().any(is_option) {
        return Some(format!("{place} names an option: {text}"));
    }
    // What bench measures, and so what may fail there, is a command.
    if text.contains("`isolab ") && !place.starts_with("bench/") {
        return Some(format!("{place} names a command of ours: {text}"));
    }
    let source = source_of(message.fields)?;
    let is_argument = match source.parse::<usize>() {
        Ok(number) => arguments.contains(&format!(" .  {number} ")),
        Err(_) => arguments.contains(&format!(" {source} ")),
    };
    let is_embedded = placeholders(&text).any(|name| name == source);
    (is_embedded || is_argument).then(|| format!("{place} has its source's text in it: {text}"))
}

fn faults(place: &str, source: &str) -> Vec<String> {
    let file = syn::parse_file(source).unwrap_or_else(|error| panic!("{place}: {error}"));
    let mut found = Vec::new();
    messages(place, &file.items, &mut found);
    found.iter().filter_map(fault).collect()
}

/// Who prints an error prints its sources behind it (`isolab: cannot read x: No such file`).
#[test]
fn no_library_error_says_its_source_or_names_an_option_or_a_command() {
    let mut all = Vec::new();
    for library in LIBRARIES {
        files(&checkout().join(library).join("src"), &mut all);
    }
    let found: Vec<String> = all
        .iter()
        .flat_map(|path| {
            let place = path.strip_prefix(checkout()).expect("it is in the checkout");
            let source = fs::read_to_string(path).expect("source is text");
            faults(&place.display().to_string(), &source)
        })
        .collect();
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn what_is_forbidden_is_found() {
    let enumeration = |variant: &str| format!("enum E {{ {variant} }}");
    for wrong in [
        r#"#[error("cannot read: {source}")] A { source: io::Error },"#,
        r#"#[error("cannot read: {0:?}")] A(#[from] io::Error),"#,
        r#"#[error("cannot read: {}", .0.kind())] A(#[source] io::Error),"#,
        r#"#[error("cannot read {path}: {}", text(error))] A { path: P, #[source] error: E },"#,
        r#"#[error("use --force")] A,"#,
        r#"#[error("there is none (`--kernel` names one)")] A,"#,
        r#"#[error("there is none; `isolab kernel fetch` brings one")] A,"#,
    ] {
        assert_eq!(faults("x", &enumeration(wrong)).len(), 1, "{wrong}");
        assert_eq!(faults("x", &format!("mod m {{ {} }}", enumeration(wrong))).len(), 1, "{wrong}");
    }
    for right in [
        r#"#[error("cannot read {path}")] A { path: P, source: io::Error },"#,
        r#"#[error("cannot read {0}: {why}", why = .2)] A(P, #[source] io::Error, String),"#,
        r#"#[error(transparent)] A(#[from] io::Error),"#,
        r#"#[error("it has {{source}}, a--b and -- c")] A { source: io::Error },"#,
    ] {
        assert_eq!(faults("x", &enumeration(right)), [] as [String; 0], "{right}");
    }
}
