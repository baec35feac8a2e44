//! `--secret id=ID[,src=PATH|,env=VARIABLE]` of `isolab image build`.

use std::env;
use std::path::PathBuf;
use std::str::FromStr;

use isolab_build::Secret;

/// A secret and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Argument {
    pub id: String,
    pub from: Secret,
}

impl FromStr for Argument {
    type Err = String;

    /// Without a source it is the variable of that name, or else the file, as with Docker.
    fn from_str(text: &str) -> Result<Self, String> {
        let (mut id, mut file, mut variable, mut kind) = (None, None, None, None);
        for field in text.split(',') {
            match field.split_once('=') {
                Some(("id", value)) => id = Some(value.to_owned()),
                Some(("src" | "source", value)) => file = Some(value.to_owned()),
                Some(("env", value)) => variable = Some(value.to_owned()),
                Some(("type", value @ ("file" | "env"))) => kind = Some(value.to_owned()),
                _ => return Err(format!("`{field}` is none of id=, src=, env=, type=file|env")),
            }
        }
        let id = id.filter(|id| !id.is_empty()).ok_or("id= is missing")?;
        // `type=env,src=NAME` is the old form.
        if kind.as_deref() == Some("env") && variable.is_none() {
            variable = file.take().or(Some(id.clone()));
        }
        let from = match (file, variable) {
            (Some(file), None) => Secret::File(PathBuf::from(file)),
            (None, Some(variable)) => Secret::Variable(variable),
            (None, None) if kind.is_none() && env::var_os(&id).is_some() => {
                Secret::Variable(id.clone())
            }
            (None, None) => Secret::File(PathBuf::from(&id)),
            (Some(_), Some(_)) => return Err("src= and env= exclude each other".to_owned()),
        };
        Ok(Self { id, from })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_a_file_or_a_variable() {
        let file = |path: &str| Secret::File(PathBuf::from(path));
        let variable = |name: &str| Secret::Variable(name.to_owned());
        for (text, id, from) in [
            ("id=a,src=/x", "a", file("/x")),
            ("id=a,source=y", "a", file("y")),
            ("id=a,env=B", "a", variable("B")),
            ("id=a,type=env", "a", variable("a")),
            ("id=a,type=env,src=B", "a", variable("B")),
            ("type=file,id=a", "a", file("a")),
            ("id=PATH", "PATH", variable("PATH")),
            ("id=no-such-variable", "no-such-variable", file("no-such-variable")),
        ] {
            let expected = Argument { id: id.to_owned(), from };
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
        for bad in ["", "src=/x", "id=", "id=a,src=b,env=C", "id=a,mode=1", "id=a,type=ssh"] {
            assert!(bad.parse::<Argument>().is_err(), "{bad}");
        }
    }
}
