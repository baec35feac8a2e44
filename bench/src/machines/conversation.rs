//! Commands for a guest over its serial console, which every VMM has.
//!
//! The guest's init is a shell script. The host sends it a command; it says when it is ready to
//! run it and when it is over, and waits for a word each time, so that the host can look at KVM's
//! counters while the guest does nothing. Output comes back compressed and in base64, a line each,
//! since a byte on the console costs an exit and more.

use std::fs;
use std::io::{self, Read};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use flate2::read::GzDecoder;
use isolab_guest::archive::Archive;
use isolab_guest::programs;

use super::MachinesError;
use super::observe::{Before, Exits, KvmStatistics};
use super::run::Run;
use crate::meter::{Counted, Meter, Whose};
use crate::subjects::MachineSubject;
use crate::subjects::machine::Boot;

/// The guest's init. Everything it says to the host begins with `isolab:`.
const INIT: &str = r#"#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /tmp
stty -echo
echo 'isolab: listens'
while read -r command; do
    [ "$command" != end ] || reboot -f
    grep '^ *[0-9]' /proc/interrupts >/tmp/before
    echo 'isolab: ready'
    read -r go
    eval "$command" </dev/null >/tmp/output 2>/tmp/errors
    code=$?
    echo 'isolab: over'
    read -r go
    grep '^ *[0-9]' /proc/interrupts >/tmp/after
    for part in before after output errors; do
        echo "isolab: $part $(gzip -c "/tmp/$part" | base64 -w 0)"
    done
    echo "isolab: code $code"
done
"#;

/// For a word that the guest has to answer at once. Generous: the host may be emulated, and busy.
const ANSWER_LIMIT: Duration = Duration::from_secs(300);
/// No program of a benchmark says as much.
const MAX_OUTPUT: u64 = 4 << 20;

/// An initramfs with busybox, `programs` and what they need, for [`Conversation`].
///
/// # Errors
/// A program is not installed or cannot be read.
pub fn initramfs(programs: &[PathBuf]) -> Result<Vec<u8>, MachinesError> {
    let busybox = programs::find("busybox", "busybox-static")?;
    let failed = |source| MachinesError::Host {
        action: "make an initramfs of",
        subject: "the host's programs",
        source,
    };
    let mut archive = Archive::new();
    let folders = ["bin", "dev", "proc", "sys", "tmp"];
    folders.iter().try_for_each(|name| archive.folder(name, 0o755)).map_err(failed)?;
    archive.file("bin/busybox", 0o755, &fs::read(&busybox).map_err(failed)?).map_err(failed)?;
    archive.file("init", 0o755, INIT.as_bytes()).map_err(failed)?;
    programs::add(&mut archive, programs)?;
    archive.finish().map_err(failed)
}

/// A guest that runs [`initramfs`] and listens. Its VMM is killed when this is dropped.
pub struct Conversation {
    run: Run,
    subject: &'static str,
    kvm: Option<KvmStatistics>,
}

/// What a command did.
pub struct Answer {
    /// What the command printed.
    pub output: String,
    /// Exits while it ran, if KVM tells.
    pub exits: Option<Exits>,
    /// Interrupts of disks and network cards while it ran.
    pub interrupts: u64,
    /// What else the VMM cost meanwhile, if the host's kernel counts it: see [`Counted::Time`].
    pub counted: Vec<(&'static str, f64)>,
}

impl Conversation {
    /// Boots, and waits until the guest listens.
    ///
    /// # Errors
    /// The guest does not come up: its console and messages are in the error.
    pub fn start(subject: &MachineSubject, boot: &Boot) -> Result<Self, MachinesError> {
        let before = Before::now();
        let mut run = Run::start(subject, boot, Stdio::piped())?;
        run.wait_for("isolab: listens")?;
        Ok(Self { run, subject: subject.name, kvm: before.machine() })
    }

    /// Runs a command of the guest's shell, which must succeed within `limit`.
    ///
    /// # Errors
    /// It fails, takes longer, or its output does not arrive.
    pub fn command(&mut self, command: &str, limit: Duration) -> Result<Answer, MachinesError> {
        self.run.send(command, ANSWER_LIMIT)?;
        self.run.wait_for("isolab: ready")?;
        let monitor = Whose { roots: vec![self.run.pid()], ..Whose::default() };
        let meter = Meter::start(Counted::Time, &monitor);
        let before = self.exits();
        self.run.send("", limit)?;
        self.run.wait_for("isolab: over")?;
        let after = self.exits();
        // Where they are not to be had, there are less figures.
        let counted = meter.and_then(Meter::stop).unwrap_or_default();
        self.run.send("", ANSWER_LIMIT)?;
        let [before_interrupts, after_interrupts, output, errors] =
            ["before", "after", "output", "errors"].map(|name| self.part(name));
        let (output, errors) = (output?, errors?);
        let code = self.said("code")?;
        if code != "0" {
            return Err(MachinesError::Job {
                subject: self.subject,
                command: command.to_owned(),
                fault: format!("it ended with {code}; it said: {output}{errors}"),
            });
        }
        let interrupts =
            of_devices(&after_interrupts?).saturating_sub(of_devices(&before_interrupts?));
        let exits = before.zip(after).map(|(before, after)| after.since(before));
        Ok(Answer { output, exits, interrupts, counted })
    }

    /// Ends the guest and waits for its VMM.
    ///
    /// # Errors
    /// The VMM fails, or does not end.
    pub fn end(mut self) -> Result<(), MachinesError> {
        self.run.send("end", ANSWER_LIMIT)?;
        self.run.wait_for_end()
    }

    fn exits(&self) -> Option<Exits> {
        self.kvm.as_ref().and_then(KvmStatistics::exits)
    }

    /// The rest of the line `isolab: NAME …`.
    fn said(&mut self, name: &str) -> Result<String, MachinesError> {
        let prefix = format!("isolab: {name} ");
        let (_, line) = self.run.wait_for_line(|line| line.starts_with(&prefix))?;
        Ok(line[prefix.len()..].trim_end().to_owned())
    }

    fn part(&mut self, name: &str) -> Result<String, MachinesError> {
        let line = self.said(name)?;
        unpack(&line).map_err(|fault| MachinesError::Garbled { subject: self.subject, line, fault })
    }
}

/// The text in a line of base64 of gzip, which has a checksum.
fn unpack(line: &str) -> Result<String, String> {
    let packed = BASE64_STANDARD.decode(line).map_err(|error| error.to_string())?;
    let mut bytes = Vec::new();
    let unpacked = GzDecoder::new(&packed[..]).take(MAX_OUTPUT).read_to_end(&mut bytes);
    unpacked.map_err(|error: io::Error| error.to_string())?;
    String::from_utf8(bytes).map_err(|error| error.to_string())
}

/// The interrupts of disks and network cards in lines of /proc/interrupts:
/// ` 24:  12  0  PCI-MSI 49153-edge  virtio0-req.0`.
fn of_devices(interrupts: &str) -> u64 {
    let devices = ["virtio", "ata_piix", "eth0"];
    let lines = interrupts.lines().filter(|line| devices.iter().any(|name| line.contains(name)));
    let counts = |line: &str| -> u64 {
        line.split_whitespace().skip(1).map_while(|word| word.parse::<u64>().ok()).sum()
    };
    lines.map(counts).sum()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    #[test]
    fn only_whole_lines_are_taken() {
        let mut packer = GzEncoder::new(Vec::new(), Compression::default());
        packer.write_all("{\"fio\": 1}\n".as_bytes()).unwrap();
        let line = BASE64_STANDARD.encode(packer.finish().unwrap());
        assert_eq!(unpack(&line).unwrap(), "{\"fio\": 1}\n");
        assert!(unpack(&line[4..]).is_err());
        assert!(unpack(&line[..line.len() - 8]).is_err());
        // A message of the kernel's in the middle.
        let broken = format!("{}[    1.0] oops{}", &line[..8], &line[8..]);
        assert!(unpack(&broken).is_err());
    }

    #[test]
    fn interrupts_of_devices_are_counted_on_every_processor() {
        let text = "   4:        190          1   IO-APIC   4-edge      ttyS0\n\
                    \x20 14:          7          5   IO-APIC  14-edge      ata_piix\n\
                    \x20 24:          0          0   PCI-MSI 16384-edge      virtio0-config\n\
                    \x20 25:       3000          4   PCI-MSI 16385-edge      virtio0-req.0\n";
        assert_eq!(of_devices(text), 3016);
        assert_eq!(of_devices(""), 0);
    }

    #[test]
    fn the_initramfs_holds_the_shell_and_the_programs() {
        let archive = initramfs(&[programs::find("ls", "coreutils").unwrap()]).unwrap();
        let contains = |name: &[u8]| archive.windows(name.len()).any(|window| window == name);
        assert!(contains(b"bin/busybox") && contains(b"isolab: listens") && contains(b"bin/ls"));
    }
}
