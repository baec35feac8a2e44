//! Man pages: one for each command, `isolab vm run` in isolab-vm-run(1).

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use clap::Command;

/// Writes the pages of a command and of all below it to `folder`.
///
/// # Errors
/// One cannot be written.
pub fn write(mut command: Command, folder: &Path) -> Result<()> {
    command.build();
    let mut left = vec![command];
    while let Some(command) = left.pop() {
        let is_told = |it: &&Command| !it.is_hide_set() && it.get_name() != "help";
        left.extend(command.get_subcommands().filter(is_told).cloned());
        let name = command.get_bin_name().unwrap_or(command.get_name()).replace(' ', "-");
        let path = folder.join(format!("{name}.1"));
        let mut page = Vec::new();
        let failed = || format!("cannot write {}", path.display());
        clap_mangen::Man::new(command.name(name).disable_help_subcommand(true))
            .render(&mut page)
            .and_then(|()| fs::write(&path, page))
            .with_context(failed)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Arg;

    use super::*;

    #[test]
    fn each_command_has_its_page() {
        let folder = tempfile::tempdir().unwrap();
        let pull =
            Command::new("pull").about("Fetch images.").arg(Arg::new("policy").long("policy"));
        let hidden = Command::new("x").hide(true);
        let image = Command::new("image").bin_name("isolab image").subcommands([pull, hidden]);
        write(image, folder.path()).unwrap();
        let mut pages: Vec<_> =
            fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        pages.sort();
        assert_eq!(pages, ["isolab-image-pull.1", "isolab-image.1"]);
        let page = fs::read_to_string(folder.path().join("isolab-image-pull.1")).unwrap();
        assert!(page.contains("Fetch images") && page.contains("policy"), "{page}");
    }
}
