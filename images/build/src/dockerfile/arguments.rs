//! The forms that arguments have.

/// The exec form, `["a", "b"]`. None where the text is anything else, and so a shell's.
pub(crate) fn json(text: &str) -> Option<Vec<String>> {
    let text = text.trim();
    if !text.starts_with('[') {
        return None;
    }
    serde_json::from_str(text).ok()
}
