//! The guest's whole user space: an init of a few instructions, so that the VMM and the kernel
//! are what is measured.

use std::arch::global_asm;
use std::io::{self, Write};

use cpio::NewcBuilder;
use cpio::newc::{ModeFileType, trailer};

/// What init writes, as a line of its own.
pub const INIT_LINE: &str = "isolab: init runs";

/// What init does after its line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Afterwards {
    /// Reboots, which ends every VMM here.
    End,
    /// Stays, asleep, until the machine is ended.
    Stay,
}

impl Afterwards {
    pub fn file_name(self) -> &'static str {
        match self {
            Afterwards::End => "ending.cpio",
            Afterwards::Stay => "staying.cpio",
        }
    }
}

// Data to us: it only ever runs in the guest. Numbers of system calls: asm/unistd_64.h.
global_asm!(
    ".pushsection .rodata.isolab_bench_init, \"a\", @progbits",
    ".global isolab_bench_init",
    ".global isolab_bench_init_stay",
    ".global isolab_bench_init_end",
    "isolab_bench_init:",
    "    mov ebx, 1",
    "    jmp 1f",
    "isolab_bench_init_stay:",
    "    xor ebx, ebx",
    "1:",
    "    mov eax, 1", // write(1, line, length)
    "    mov edi, 1",
    "    lea rsi, [rip + 4f]",
    "    mov edx, {length}",
    "    syscall",
    // A UART that sends by interrupts has the line in its driver's buffer still.
    "    mov eax, 16", // ioctl(1, TCSBRK, 1), as tcdrain(3) does
    "    mov edi, 1",
    "    mov esi, 0x5409",
    "    mov edx, 1",
    "    syscall",
    "    test ebx, ebx",
    "    jz 3f",
    "    mov eax, 169", // reboot(LINUX_REBOOT_MAGIC1, MAGIC2, CMD_RESTART)
    "    mov edi, 0xfee1dead",
    "    mov esi, 0x28121969",
    "    mov edx, 0x01234567",
    "    syscall",
    "3:",
    "    mov eax, 34", // pause()
    "    syscall",
    "    jmp 3b",
    "4:",
    "    .ascii \"isolab: init runs\\n\"",
    "isolab_bench_init_end:",
    ".popsection",
    length = const INIT_LINE.len() + 1,
);

unsafe extern "C" {
    static isolab_bench_init: u8;
    static isolab_bench_init_stay: u8;
    static isolab_bench_init_end: u8;
}

/// The instructions, and the offset of the entry that stays.
fn code() -> (&'static [u8], usize) {
    let start = &raw const isolab_bench_init;
    let stay = (&raw const isolab_bench_init_stay).addr() - start.addr();
    let length = (&raw const isolab_bench_init_end).addr() - start.addr();
    // SAFETY: both labels are in one piece of read-only data, the second behind the first.
    (unsafe { std::slice::from_raw_parts(start, length) }, stay)
}

/// An initramfs with that init.
///
/// # Errors
/// None is expected: it is made in memory.
pub fn initramfs(afterwards: Afterwards) -> io::Result<Vec<u8>> {
    let program = program(afterwards);
    let mut archive = Vec::new();
    let builder = NewcBuilder::new("init").mode(0o755).set_mode_file_type(ModeFileType::Regular);
    let mut writer = builder.write(&mut archive, program.len() as u32);
    writer.write_all(&program)?;
    writer.finish()?;
    trailer(&mut archive)?;
    Ok(archive)
}

/// A static ELF executable (System V ABI, chapters 4 and 5) of one segment.
fn program(afterwards: Afterwards) -> Vec<u8> {
    const BASE: u64 = 0x40_0000;
    const HEADERS: u64 = 64 + 56;
    let (code, stay) = code();
    let entry = match afterwards {
        Afterwards::End => BASE + HEADERS,
        Afterwards::Stay => BASE + HEADERS + stay as u64,
    };
    let length = HEADERS + code.len() as u64;
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    let half = |value: u16, file: &mut Vec<u8>| file.extend(value.to_le_bytes());
    let word = |value: u32, file: &mut Vec<u8>| file.extend(value.to_le_bytes());
    let long = |value: u64, file: &mut Vec<u8>| file.extend(value.to_le_bytes());
    half(2, &mut file); // ET_EXEC
    half(62, &mut file); // EM_X86_64
    word(1, &mut file);
    long(entry, &mut file);
    long(64, &mut file); // e_phoff
    long(0, &mut file);
    word(0, &mut file);
    for value in [64, 56, 1, 64, 0, 0] {
        half(value, &mut file);
    }
    word(1, &mut file); // PT_LOAD
    word(5, &mut file); // readable, executable
    for value in [0, BASE, BASE, length, length, 0x1000] {
        long(value, &mut file);
    }
    file.extend(code);
    file
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn the_program_runs_and_writes_its_line() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("init");
        std::fs::write(&path, program(Afterwards::Stay)).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        // The one that stays, as the other would reboot the host.
        let mut child = Command::new(&path).stdout(std::process::Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        let mut stdout = std::io::BufReader::new(child.stdout.take().unwrap());
        std::io::BufRead::read_line(&mut stdout, &mut line).unwrap();
        assert_eq!(line.trim_end(), INIT_LINE);
        assert!(child.try_wait().unwrap().is_none(), "it stays");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn the_two_programs_differ_in_their_entry_only() {
        let (ending, staying) = (program(Afterwards::End), program(Afterwards::Stay));
        let differ = ending.iter().zip(&staying).enumerate().filter(|(_, (a, b))| a != b);
        assert!(differ.map(|(at, _)| at).all(|at| (24..32).contains(&at)));
        assert_ne!(ending, staying);
        assert!(initramfs(Afterwards::End).unwrap().len() < 1024);
    }
}
