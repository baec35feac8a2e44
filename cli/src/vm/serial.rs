//! `--serial COMn=PATH`: the host side of COM2 to COM4.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IsTerminal};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context, Result, bail};
use isolab_command::terminal;
use isolab_vmm::backend::serial_port::SerialPort;

/// A serial port as the command line has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SerialOption {
    /// 1 for COM2, to 3 for COM4.
    index: usize,
    path: PathBuf,
}

impl FromStr for SerialOption {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (port, path) = text.split_once('=').unwrap_or((text, ""));
        let names = ["com2", "com3", "com4"];
        let index = names.iter().position(|name| port.eq_ignore_ascii_case(name));
        match (index, path) {
            (Some(index), path) if !path.is_empty() => {
                Ok(Self { index: index + 1, path: path.into() })
            }
            _ => Err("expected com2, com3 or com4, `=`, and a file or terminal".into()),
        }
    }
}

/// Puts COM2 to COM4 beside COM1.
///
/// # Errors
/// A port is given twice, or cannot be opened.
pub fn connect(ports: &mut [Option<SerialPort>; 4], options: &[SerialOption]) -> Result<()> {
    for option in options {
        let port = &mut ports[option.index];
        if port.is_some() {
            bail!("--serial: com{} is given twice", option.index + 1);
        }
        let path = option.path.display();
        *port = Some(option.open().with_context(|| format!("--serial: cannot open {path}"))?);
    }
    Ok(())
}

impl SerialOption {
    /// A terminal works both ways; a pipe or file takes what the guest sends.
    fn open(&self) -> io::Result<SerialPort> {
        let kind = fs::metadata(&self.path).map(|metadata| metadata.file_type());
        if kind.is_ok_and(|kind| kind.is_char_device() || kind.is_fifo()) {
            let mut options = OpenOptions::new();
            // Both, so that a pipe which nobody reads yet does not hold us up.
            let file = options.read(true).write(true).custom_flags(libc::O_NOCTTY);
            let file = file.open(&self.path)?;
            let mut port = SerialPort::output_only(file.try_clone()?);
            if file.is_terminal() {
                // Otherwise it echoes to the guest what the guest sends.
                terminal::make_raw(&file)?;
                port.input = Some(file.into());
            }
            return Ok(port);
        }
        Ok(SerialPort::output_only(File::create(&self.path)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_named_as_on_a_pc() {
        let option: SerialOption = "COM3=/dev/pts/7".parse().unwrap();
        assert_eq!(option, SerialOption { index: 2, path: "/dev/pts/7".into() });
        for wrong in ["com1=/dev/null", "com5=/dev/null", "com2=", "com2", "/dev/null", ""] {
            let error = wrong.parse::<SerialOption>().unwrap_err();
            assert!(error.contains("com2, com3 or com4"), "{wrong}");
        }
    }
}
