//! How the commands print facts: a table, JSON, or a line for each after a template.

use std::fmt::Write;

use anyhow::{Result, bail};
use serde_json::Value;

/// Prints each row after `template`: text with `{{.Field}}`, `{{.Field.Of.It}}` or `{{json .Field}}`
/// in it. `\t` and `\n` are what they are in Go.
///
/// # Errors
/// The template has something else in braces, or a field that no row has.
pub fn print_template(template: &str, rows: &[Value]) -> Result<()> {
    let template = template.strip_prefix("table ").unwrap_or(template);
    for row in rows {
        println!("{}", fill(template, row)?);
    }
    Ok(())
}

fn fill(template: &str, row: &Value) -> Result<String> {
    let template = template.replace("\\t", "\t").replace("\\n", "\n");
    let (mut text, mut rest) = (String::new(), template.as_str());
    while let Some((before, behind)) = rest.split_once("{{") {
        text += before;
        let Some((action, behind)) = behind.split_once("}}") else {
            bail!("`{{{{` without `}}}}` in the format");
        };
        let words: Vec<&str> = action.split_whitespace().collect();
        let (path, as_json) = match words[..] {
            [path] => (path, false),
            ["json", path] => (path, true),
            _ => bail!("`{{{{{action}}}}}` is none of {{{{.Field}}}} and {{{{json .Field}}}}"),
        };
        let value = find(row, path);
        let Some(value) = value else { bail!("there is no field `{path}`") };
        match value {
            Value::String(value) if !as_json => text += value,
            Value::Null if !as_json => text += "<no value>",
            value => write!(text, "{value}")?,
        }
        rest = behind;
    }
    Ok(text + rest)
}

fn find<'a>(row: &'a Value, path: &str) -> Option<&'a Value> {
    let names = path.strip_prefix('.')?.split('.').filter(|name| !name.is_empty());
    let mut value = row;
    for name in names {
        value = value.get(name)?;
    }
    Some(value)
}

/// Prints lines of cells, each column as wide as its widest cell.
pub fn print_table(lines: &[Vec<String>]) {
    let columns = lines.first().map_or(0, Vec::len);
    let width =
        |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for line in lines {
        let mut text = String::new();
        for (cell, width) in line.iter().zip(&widths) {
            text += &format!("{cell:<width$}  ");
        }
        println!("{}", text.trim_end());
    }
}

/// Text of a workload's, for a terminal: without control characters, and not longer than `limit`.
pub fn printable(text: &str, limit: usize) -> String {
    let clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    match clean.char_indices().nth(limit) {
        Some((end, _)) => format!("{}…", &clean[..end]),
        None => clean,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_are_found_and_others_refused() {
        let row = json!({"Names": "web", "State": {"ExitCode": 3}, "Labels": {"a": "b"}});
        for (template, text) in [
            ("{{.Names}}\\t{{ .State.ExitCode }}", "web\t3"),
            ("{{json .Names}} {{.Labels}}", "\"web\" {\"a\":\"b\"}"),
            ("plain", "plain"),
            ("{{json .State}}", "{\"ExitCode\":3}"),
        ] {
            assert_eq!(fill(template, &row).unwrap(), text);
        }
        for bad in ["{{.Nope}}", "{{.Names", "{{range .}}x{{end}}", "{{Names}}", "{{.Names.x}}"] {
            assert!(fill(bad, &row).is_err(), "{bad}");
        }
        assert_eq!(printable("a\x1b[31mb\n", 9), "a [31mb ");
        assert_eq!(printable("abcdef", 3), "abc…");
    }
}
