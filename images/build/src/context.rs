//! The build context: the folder that COPY takes from, less what .dockerignore names.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use isolab_images::Merged;

use super::pattern::Pattern;

/// Where COPY takes from: a context folder, or the file system of another stage or image. All
/// names in it are resolved inside of it.
pub(super) struct Source {
    files: Merged,
    ignored: Ignored,
}

impl Source {
    /// The folder `dir` with the patterns of `ignore_file`, if there is such a file.
    pub(super) fn context(dir: &Path, ignore_file: &Path) -> io::Result<Self> {
        let ignored = match fs::read_to_string(ignore_file) {
            Ok(text) => Ignored::parse(&text).map_err(io::Error::other)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ignored::default(),
            Err(error) => return Err(error),
        };
        Ok(Self { files: Merged::new(vec![dir.to_owned()]), ignored })
    }

    /// The root file system of `layers`, topmost first.
    pub(super) fn layers(layers: Vec<PathBuf>) -> Self {
        Self { files: Merged::new(layers), ignored: Ignored::default() }
    }

    pub(super) fn files(&self) -> &Merged {
        &self.files
    }

    pub(super) fn is_ignored(&self, path: &Path) -> bool {
        self.ignored.matches(path)
    }

    /// Whether something below an ignored folder may yet be taken.
    pub(super) fn has_exceptions(&self) -> bool {
        self.ignored.has_exceptions()
    }

    /// The paths that a pattern stands for, sorted; one without wildcards stands for itself, if
    /// there is such a file.
    pub(super) fn matching(&self, pattern: &str) -> io::Result<Vec<PathBuf>> {
        let pattern = normal(Path::new(pattern));
        let text = pattern.to_string_lossy().into_owned();
        if !text.contains(['*', '?', '[', '\\']) {
            let found = self.files.resolve(&pattern, false)?;
            let is_there = found.file.is_some() && !self.is_gone(&pattern);
            return Ok(if is_there { vec![pattern] } else { Vec::new() });
        }
        let matcher = Pattern::of_path(&text).map_err(io::Error::other)?;
        let mut found = Vec::new();
        self.walk(Path::new(""), text.split('/').count(), &text, &matcher, &mut found)?;
        found.sort();
        Ok(found)
    }

    /// Ignored with everything below.
    pub(super) fn is_gone(&self, path: &Path) -> bool {
        self.is_ignored(path) && !self.has_exceptions()
    }

    fn walk(
        &self,
        folder: &Path,
        depth: usize,
        pattern: &str,
        matcher: &Pattern,
        found: &mut Vec<PathBuf>,
    ) -> io::Result<()> {
        for name in self.files.list(folder)? {
            let path = folder.join(name);
            if matcher.is_match(&path.to_string_lossy()) && !self.is_gone(&path) {
                found.push(path.clone());
            }
            let goes_deeper = depth > 1 || pattern.contains("**");
            let is_dir = self.files.stat(&path)?.is_some_and(|(_, metadata)| metadata.is_dir());
            if goes_deeper && is_dir {
                self.walk(&path, depth.saturating_sub(1), pattern, matcher, found)?;
            }
        }
        Ok(())
    }
}

/// The patterns of a .dockerignore: the last that matches a path or a folder above it decides.
#[derive(Clone, Debug, Default)]
pub(super) struct Ignored {
    /// With whether it takes back what earlier ones ignore.
    patterns: Vec<(Pattern, bool)>,
}

impl Ignored {
    fn parse(text: &str) -> Result<Self, String> {
        let lines = text.trim_start_matches('\u{feff}').lines().map(str::trim);
        Self::of_patterns(lines.filter(|line| !line.starts_with('#')))
    }

    /// One pattern each; `!` takes back.
    pub(super) fn of_patterns<'a>(
        texts: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, String> {
        let mut patterns = Vec::new();
        for text in texts {
            let (text, is_exception) = match text.strip_prefix('!') {
                Some(rest) => (rest.trim(), true),
                None => (text, false),
            };
            let pattern = normal(Path::new(text));
            if !pattern.as_os_str().is_empty() {
                patterns.push((Pattern::of_path(&pattern.to_string_lossy())?, is_exception));
            }
        }
        Ok(Self { patterns })
    }

    pub(super) fn has_exceptions(&self) -> bool {
        self.patterns.iter().any(|(_, is_exception)| *is_exception)
    }

    pub(super) fn matches(&self, path: &Path) -> bool {
        let names: Vec<_> = path.ancestors().map(Path::to_string_lossy).collect();
        let mut ignored = false;
        for (pattern, is_exception) in &self.patterns {
            let mut names = names.iter().filter(|name| !name.is_empty());
            if ignored == *is_exception && names.any(|name| pattern.is_match(name)) {
                ignored = !is_exception;
            }
        }
        ignored
    }
}

/// Relative to the root, without `.` and `..`: a name cannot leave the context.
pub(super) fn normal(path: &Path) -> PathBuf {
    let mut normal: Vec<OsString> = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(part) => normal.push(part.to_owned()),
            Component::ParentDir => drop(normal.pop()),
            _ => {}
        }
    }
    normal.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_pattern_that_matches_decides() {
        let ignored = Ignored::parse(
            "# comment\n*.log\n/secret\n**/target\ndocs\n!docs/README.md\n!keep.log\n\
             {a,b}.c\n**.pyc\n",
        )
        .unwrap();
        let is_ignored = |path: &str| ignored.matches(Path::new(path));
        for path in [
            "a.log",
            "secret",
            "secret/key",
            "target/x",
            "a/b/target/x",
            "docs/x",
            "{a,b}.c",
            "a/b.pyc",
        ] {
            assert!(is_ignored(path), "{path}");
        }
        // A pattern without `**` is for the context's own folder only.
        for path in ["sub/a.log", "sub/secret", "docs/README.md", "keep.log", "targets", "a.c"] {
            assert!(!is_ignored(path), "{path}");
        }
    }

    #[test]
    fn patterns_find_files_in_order_and_never_outside() {
        let outer = tempfile::tempdir().unwrap();
        let dir = outer.path().join("context");
        fs::create_dir_all(dir.join("sub/deep")).unwrap();
        fs::write(outer.path().join("secret"), "").unwrap();
        for name in ["b.txt", "a.txt", "c.rs", "sub/d.txt", "sub/deep/e.txt", "skip.txt"] {
            fs::write(dir.join(name), "").unwrap();
        }
        fs::write(dir.join(".dockerignore"), "skip*").unwrap();
        let source = Source::context(&dir, &dir.join(".dockerignore")).unwrap();
        let matching = |pattern: &str| source.matching(pattern).unwrap();
        let paths = |names: &[&str]| names.iter().map(PathBuf::from).collect::<Vec<_>>();
        assert_eq!(matching("*.txt"), paths(&["a.txt", "b.txt"]));
        assert_eq!(matching("?.rs"), paths(&["c.rs"]));
        assert_eq!(matching("sub/*.txt"), paths(&["sub/d.txt"]));
        assert_eq!(matching("**/e.txt"), paths(&["sub/deep/e.txt"]));
        assert_eq!(matching("[ab].txt"), paths(&["a.txt", "b.txt"]));
        assert_eq!(matching("./sub/../a.txt"), paths(&["a.txt"]));
        assert_eq!(matching("skip.txt"), paths(&[]));
        assert_eq!(matching("../secret"), paths(&[]));
        assert_eq!(matching("../*"), matching("*"));
    }
}
