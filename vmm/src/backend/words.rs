//! The words of an option's value: `PATH,name=value,name`.

/// Splits at single commas; a double one stands for a comma.
pub fn split_commas(text: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        if character == ',' && characters.next_if_eq(&',').is_none() {
            words.push(String::new());
        } else if let Some(word) = words.last_mut() {
            word.push(character);
        }
    }
    words
}

/// A word's name, and its value if there is a `=`.
pub fn name_and_value(word: &str) -> (&str, Option<&str>) {
    match word.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (word, None),
    }
}

/// Applies each of the words to what is being read, by `apply`, which gives the option's name.
///
/// # Errors
/// As `apply`, and `twice` of an option that is given twice.
pub fn apply_each<E>(
    words: impl Iterator<Item = String>,
    mut apply: impl FnMut(&str) -> Result<&'static str, E>,
    twice: impl FnOnce(&'static str) -> E,
) -> Result<(), E> {
    let mut seen = Vec::new();
    for word in words {
        let name = apply(&word)?;
        if seen.contains(&name) {
            return Err(twice(name));
        }
        seen.push(name);
    }
    Ok(())
}
